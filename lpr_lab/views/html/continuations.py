"""Two continuations beside one another: where they part, in whose script they are, whether they go round in circles.

The same panes in app and notebooks.
"""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from lpr_lab.measure.text_checks import foreign_share, repetition, script_of
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.model.tuned.names import FINETUNE
from lpr_lab.runs.model_ref import BASE, EXPANDED
from lpr_lab.runs.people.continuations import STEERED, Continuation, Exactness, Pair, split_at_fork
from lpr_lab.text.languages import direction_of
from lpr_lab.views.html.templates import render, with_style
from lpr_lab.views.html.tokens import StripChoices, render_token_strip
from lpr_lab.views.numbers import percent
from lpr_lab.wording import counted

BLIND = ("A", "B")


def title_of(name: str) -> str:
    """Return what a side is called for people."""
    called, dot, steered = name.partition(STEERED)
    titles = {BASE: "Base model", EXPANDED: "Expanded model", FINETUNE: "Tuned model"}
    return titles.get(called, called) + dot + steered


def finding(pair: Pair) -> Markup:
    """Return in a sentence where the two part."""
    return escape(_finding(pair))


def _finding(pair: Pair) -> str:
    titles = BLIND if pair.hidden else tuple(title_of(name) for name in pair.names)
    both = "Base and expanded model" if pair.names == (BASE, EXPANDED) and not pair.hidden else " and ".join(titles)
    if pair.is_running:
        return "Both are writing…"
    if pair.diverged_at is None:
        return f"{both} say the same, token for token."
    if pair.diverged_at == 0:
        return f"{both} part at the first token."
    longest = max(pair.left.tokens or 0, pair.right.tokens or 0)
    agreed = counted(pair.diverged_at, "token")
    if longest:
        agreed = f"{pair.diverged_at} of {counted(longest, 'token')} ({percent(pair.diverged_at / longest)})"
    return f"{both} agree for {agreed}, then part."


def render_pair(pair: Pair, checked: Exactness | None = None, *, standalone: bool = False) -> Markup:
    """Return the two panes; what only one side says stands out, after a mark that says where they part.

    Args:
        pair: with `hidden` nothing in the panes tells who said what: no names, no colours, no speed.
        checked: see `runs.continuations.exactness`.
        standalone: bring colours and style along, for notebooks.
    """
    (left, mine), (right, other) = pair.shown
    panes = [_pane(left, mine, other, pair, BLIND[0], checked), _pane(right, other, mine, pair, BLIND[1], checked)]
    body = render("views/html/continuations.html.j2", pair=pair, panes=panes, direction=direction_of(pair.language))
    return with_style(body, "continuations.css") if standalone else body


def _pane(
    name: str, said: Continuation, other: Continuation, pair: Pair, letter: str, checked: Exactness | None
) -> dict[str, Any]:
    parted = pair.diverged_at is not None
    shared, own = split_at_fork(said.text, other.text) if parted or not pair.is_running else (said.text, "")
    has_fork = parted and (own or not pair.is_running)
    return {
        "kind": "blind" if pair.hidden else "base" if name == BASE else "expanded",
        "title": letter if pair.hidden else title_of(name),
        "badge": None if pair.hidden or name != BASE else _exactness_badge(checked),
        "note": _note(name, pair),
        "shared": shared,
        "own": own,
        "fork": f"they part here, at token {(pair.diverged_at or 0) + 1}" if has_fork else "",
        "facts": facts(said, pair),
    }


def _note(name: str, pair: Pair) -> str:
    if pair.hidden:
        return "one of the two, at random"
    if name == BASE:
        return (
            "what it was tuned from" if FINETUNE in pair.names else "the same weights, with the expansion switched off"
        )
    if STEERED in name:
        return "its choice of experts was changed while it wrote"
    if name == EXPANDED:
        return "with its new experts and routers"
    if name == FINETUNE:
        return "what training made of the base"
    return "the weights of another run" if ":" in name else "a stage of the same weights"


def _exactness_badge(checked: Exactness | None) -> tuple[str, str]:
    """Return how sure it is that "the expansion switched off" is the base: in a word, and in a sentence."""
    if checked is None:
        return "not checked", "This run never checked that switching the expansion off gives the base."
    if checked.is_exact:
        said = "Checked in this run against the base on its own: no logit differs by more than"
        return "exact", f"{said} {checked.difference:.0e}."
    return "not exact", f"With the expansion off a logit differs from the base by {checked.difference:.1e}."


def render_strips(traces: Sequence[tuple[str, RoutingTrace | None]]) -> Markup:
    """Return the strips of what two sides wrote, beside one another.

    Args:
        traces: for each side its title, and where its tokens went; None for a model without experts.
    """
    strips = [
        (title, "" if trace is None else render_token_strip(trace, StripChoices(colour="gain"), linked=False))
        for title, trace in traces
    ]
    return render("views/html/written_strips.html.j2", strips=strips)


def facts(said: Continuation, pair: Pair) -> list[str]:
    """Return what can be said of a continuation without reading it: length, speed, script, loops."""
    found = []
    if said.tokens is not None:
        found.append(counted(said.tokens, "token"))
        if said.seconds and not pair.hidden:
            found.append(f"{said.tokens / said.seconds:.1f} tokens/s")
    if pair.is_running:
        return found
    if said.text:
        found.append(counted(len(said.text), "character"))
    share = foreign_share(said.text, pair.language)
    if share is not None:
        script = {"Han": "Chinese"}.get(script_of(pair.language) or "", script_of(pair.language))
        found.append(f"{percent(share)} of output is not {script} script" if share else f"all in {script} script")
    loop = repetition(said.text)
    if loop is not None:
        found.append(f"⟳ repeats “{loop[0]}” {loop[1]} times")
    return found


def describe_settings(record: dict[str, Any]) -> str:
    """Return how a pair was made, in words."""
    temperature = float(record.get("temperature") or 0)
    how = (
        f"sampled at temperature {temperature:g} with seed {record.get('seed', 0)}"
        if temperature
        else "greedy decoding"
    )
    return f"{how}, at most {record.get('max_new_tokens', '?')} new tokens, the same for both"


def show_pair(pair: Pair, checked: Exactness | None = None) -> None:
    """Show a pair below a notebook cell."""
    from IPython.display import HTML, display

    display(HTML(render_pair(pair, checked, standalone=True)))
