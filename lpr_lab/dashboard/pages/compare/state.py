"""The pair of continuations on page `/compare`: finished, stopped, judged, revealed."""

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.compare import render
from lpr_lab.dashboard.pages.compare.sides import PREFERENCES, reveal, revealed, speed_of, vote, why_not_judged
from lpr_lab.dashboard.pages.compare.steering import Written
from lpr_lab.dashboard.parameters import NEW_TOKENS
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.shell import status
from lpr_lab.errors import LprError
from lpr_lab.measure.preference import CHOICES
from lpr_lab.runs.people.continuations import Pair, exactness, pair_id, pairs
from lpr_lab.runs.run import Run
from lpr_lab.views.html.continuations import describe_settings, finding, render_pair, title_of

QUESTION = "What does the expanded model say that the base does not?"


@dataclass(frozen=True)
class Latest:
    """The pair on the page. It stays on the server: of a blind pair the page must not know who is who."""

    run: str
    pair: Pair
    settings: dict[str, Any]
    was_blind: bool = False
    is_kept: bool = False
    written: tuple[Written, Written] | None = None
    """What is needed to trace both; None for a pair that was kept earlier."""

    @property
    def record(self) -> dict[str, Any]:
        """The pair as the run keeps it."""
        return self.pair.to_record(self.settings)


def hint(run: Run, tokens: Any, prompt: Any, query: Query | None = None, latest: Latest | None = None) -> Markup:
    """Return the line under the button: how long it will take; with a query it also sets the address."""
    newest = [latest.record] if latest is not None else []
    try:
        speed = speed_of([*run.generations.read(), *newest])
        said = render.estimate(speed, NEW_TOKENS.read(tokens), MODELS.is_loaded(run), len(str(prompt or "")))
    except LprError as error:
        said = str(error)
    return hint_of(said, query)


def hint_of(said: str, query: Query | None = None) -> Markup:
    """Return such a line; see `hint`."""
    data = Markup(' data-query="{}"').format(query.urlencode()) if query is not None else ""
    return Markup('<p class="lpr-caption"{}>{}</p>').format(data, said)


def done(latest: Latest, run: Run, query: Query) -> tuple[Any, Any, Any, Any]:
    """Return what the page shows of a finished pair; it is kept, unless the reader may not know the sides yet."""
    pair = latest.pair
    kept = not pair.hidden and keep(run, latest.record)
    if pair.hidden and pair.left.text == pair.right.text:
        where = "both wrote the same text, so there is nothing to prefer; reveal who is who"
    elif pair.hidden:
        where = "say which is better, or reveal who is who"
    else:
        where = "kept with the run, so this address shows it again" if kept else "not kept"
    line = status(f"Done in {pair.seconds or 0:.1f} s; {where}.")
    return line, *show(latest, run, query if kept else None), replace(latest, is_kept=kept)


def show(latest: Latest, run: Run, query: Query | None = None) -> tuple[Markup, Markup]:
    """Return head and panes; with a query the address becomes that of this pair."""
    pair = latest.pair
    more = shell.more(f"{describe_settings(latest.settings).capitalize()}.")
    if query is not None:
        changed = {"lang": pair.language, "text": pair_id(latest.record), "seed": latest.settings["seed"]}
        query = Query.parse({**vars(query), **changed})
    return shell.head(QUESTION, finding(pair) + more, query=query), _panes(pair, run)


def show_growing(pair: Pair, run: Run) -> tuple[Markup, Markup]:
    """Return head and panes of a pair that is being written."""
    return shell.head(QUESTION, finding(pair)), _panes(pair, run)


def _panes(pair: Pair, run: Run) -> Markup:
    return render_pair(pair, exactness(run))


def halted(latest: Latest, run: Run) -> tuple[str, Any, Any, Latest | None]:
    """Return what stays of a generation that did not come to its end, as (what to say, head, panes, the pair)."""
    pair = replace(latest.pair, is_running=False)
    latest = replace(latest, pair=pair)
    if not pair.left.tokens and not pair.right.tokens:
        return "", shell.head(QUESTION, "Nothing was written."), "", None
    return "What was written stays.", *show(latest, run), latest


def keep(run: Run, record: dict[str, Any]) -> bool:
    """Keep a pair with its run; False for an example, which is read only, and where the disk refuses."""
    if run.is_example:
        return False
    try:
        run.generations.append(record)
    except (LprError, OSError):  # a full or read-only disk: the pair is on the page all the same
        return False
    return True


# ---------------------------------------------------------------------------------------------------- judging


_judging = threading.Lock()


def judge(runs_dir: Path, latest: Latest | None, choice: str, params: Any) -> dict[str, Any]:
    """Keep what a reader prefers (or only reveal, with an empty choice) and return what the page shows then.

    A pair is judged once, and not after it was revealed: what another window did in the meantime counts as well.
    """
    context = shell.page_context(runs_dir, params)
    run = context.run
    if run is None or latest is None or latest.run != run.id or latest.pair.is_running:
        return {}
    was_hidden = latest.pair.hidden
    with _judging:
        refused = why_not_judged(run, latest.pair, latest.settings)
        # Who has seen the same pair in the open knows the sides.
        seen = not latest.is_kept and pair_id(latest.record) in pairs(run)
        latest = replace(latest, pair=revealed(latest.pair))
        kept = latest.is_kept or keep(run, latest.record)
        latest = replace(latest, is_kept=kept)
        said = "Revealed." if was_hidden else ""
        if choice in CHOICES and refused:
            said = f"Not kept: {refused}"
        elif not run.is_example and not refused and (choice in CHOICES or was_hidden):
            said = _write(run, latest, choice, was_hidden and not seen) or said
    top, panes = show(latest, run, context.query if kept else None)
    tally, listed = (
        render.preferences(run, run.generations.read(PREFERENCES)),
        render.kept_pairs(pairs(run), context.query),
    )
    found = {"line": status(said, bad=said.startswith("Not kept")), "top": top, "pair": panes, "tally": tally}
    return found | {"kept": listed, "latest": latest, "votes": gr.update(visible=may_judge(latest, run))}


def _write(run: Run, latest: Latest, choice: str, blind: bool) -> str:
    """Keep a judgement, or that the sides were revealed; return what to say of it."""
    name = pair_id(latest.record)
    record = vote(latest.pair, choice, name, latest.was_blind and blind) if choice else reveal(latest.pair, name)
    try:
        run.generations.append(record, PREFERENCES)
    except (LprError, OSError) as error:
        return f"Not kept: {error}"
    preferred = {"left": record["left"], "right": record["right"]}.get(choice)
    return f"Kept: {f'you preferred “{title_of(preferred)}”' if preferred else choice}." if choice else ""


def may_judge(latest: Latest | None, run: Run | None) -> bool:
    """Say whether the buttons for judging belong on the page."""
    if latest is None or run is None or run.is_example or latest.pair.is_running:
        return False
    return not why_not_judged(run, latest.pair, latest.settings)
