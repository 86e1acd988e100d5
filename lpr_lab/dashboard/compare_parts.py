"""The words and panes of the page `/compare`."""

from typing import Any

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.compare_pairs import EXACT, EXPANDED, Pair, Said, split_at_fork
from lpr_lab.dashboard.retention_data import BASE
from lpr_lab.dashboard.shell import esc
from lpr_lab.dashboard.view import View
from lpr_lab.experiments.runs import Run
from lpr_lab.measure.preference import CLEAR, Tally, tally
from lpr_lab.measure.text_checks import foreign_share, repetition, script_of
from lpr_lab.views.numbers import duration, percent
from lpr_lab.views.plots import language_name

BLIND = ("A", "B")
SLOW_SECONDS = 60
KEPT_SHOWN = 60


def title_of(name: str) -> str:
    """Return what a side is called for people."""
    return {BASE: "Base model", EXPANDED: "Expanded model"}.get(name, name)


def finding(pair: Pair) -> str:
    """Return in a sentence where the two part."""
    titles = BLIND if pair.hidden else tuple(title_of(name) for name in pair.names)
    both = "Base and expanded model" if pair.names == (BASE, EXPANDED) and not pair.hidden else " and ".join(titles)
    if pair.is_running:
        return "Both are writing…"
    if pair.diverged_at is None:
        return f"{esc(both)} say the same, token for token."
    if pair.diverged_at == 0:
        return f"{esc(both)} part at the first token."
    longest = max(pair.left.tokens or 0, pair.right.tokens or 0)
    plural = "s" if (longest or pair.diverged_at) != 1 else ""
    of = f" of {longest}" if longest else ""
    share = f" ({percent(pair.diverged_at / longest)})" if longest else ""
    return f"{esc(both)} agree for {pair.diverged_at}{of} token{plural}{share}, then part."


def render_pair(pair: Pair, difference: float | None = None) -> str:
    """Return the two panes; what only one side says stands out, after a mark that says where they part.

    Args:
        pair: with `hidden` nothing in the panes tells who said what: no names, no colours, no speed.
        difference: see `compare_pairs.exactness`.
    """
    (left, mine), (right, other) = pair.shown
    return (
        '<div class="lpr-pair">'
        + _pane(left, mine, other, pair, BLIND[0], difference)
        + _pane(right, other, mine, pair, BLIND[1], difference)
        + "</div>"
    )


def _pane(name: str, said: Said, other: Said, pair: Pair, letter: str, difference: float | None) -> str:
    title = letter if pair.hidden else esc(title_of(name))
    kind = "blind" if pair.hidden else "base" if name == BASE else "expanded"
    parted = pair.diverged_at is not None
    shared, own = split_at_fork(said.text, other.text) if parted or not pair.is_running else (said.text, "")
    fork = ""
    if parted and (own or not pair.is_running):
        where = f"they part here, at token {(pair.diverged_at or 0) + 1}"
        fork = f'<span class="lpr-fork" title="{where}"><span class="lpr-hidden"> ({where}) </span></span>'
    code = f' lang="{esc(pair.language)}"' if pair.language else ""
    caret = '<span class="lpr-caret" aria-hidden="true"></span>' if pair.is_running else ""
    return (
        f'<section class="lpr-pane lpr-{kind}" aria-label="{title}" aria-busy="{str(pair.is_running).lower()}">'
        f"<header><h2>{title}{_exact(name, pair, difference)}</h2><p>{_small(name, pair)}</p></header>"
        f'<p class="lpr-said" dir="{shell.direction_of(pair.language)}"{code}>'
        f'<span class="lpr-given">{esc(pair.prompt)}</span>{esc(shared)}{fork}<b>{esc(own)}</b>{caret}</p>'
        f"<footer>{' · '.join(esc(fact) for fact in facts(said, pair))}</footer></section>"
    )


def _small(name: str, pair: Pair) -> str:
    if pair.hidden:
        return "one of the two, at random"
    if name == BASE:
        return "the same weights, with the expansion switched off"
    if name == EXPANDED:
        return "with its new experts and routers"
    return "the weights of another run" if ":" in name else "a stage of the same weights"


def _exact(name: str, pair: Pair, difference: float | None) -> str:
    """Return the badge that says how sure it is that "the expansion switched off" is the base."""
    if name != BASE or pair.hidden:
        return ""
    if difference is None:
        title, word = "This run never checked that switching the expansion off gives the base.", "not checked"
    elif difference < EXACT:
        title = f"Checked in this run against the base on its own: no logit differs by more than {difference:.0e}."
        word = "exact"
    else:
        title, word = f"With the expansion off a logit differs from the base by {difference:.1e}.", "not exact"
    return f' <span class="lpr-badge" title="{esc(title)}">{word}</span>'


def facts(said: Said, pair: Pair) -> list[str]:
    """Return what can be said of a continuation without reading it: length, speed, script, loops."""
    found = []
    if said.tokens is not None:
        found.append(f"{said.tokens} token{'s' if said.tokens != 1 else ''}")
        if said.seconds and not pair.hidden:
            found.append(f"{said.tokens / said.seconds:.1f} tokens/s")
    if pair.is_running:
        return found
    if said.text:
        found.append(f"{len(said.text)} characters")
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


def estimate(rate: float | None, tokens: int, is_loaded: bool) -> str:
    """Return how long a generation will take, before it starts, and what to do when that is long."""
    if rate is None:
        return "Not measured yet how long it takes; the first generation measures it."
    seconds = tokens / rate
    loading = "" if is_loaded else ", after loading the model"
    said = (
        f"About {duration(max(seconds, 1))} for {tokens} tokens each{loading}: {rate:.1f} tokens/s when last measured."
    )
    if seconds > SLOW_SECONDS:
        fewer = max(8, int(rate * SLOW_SECONDS / 2) // 8 * 8)
        if fewer < tokens:
            said += f" {fewer} tokens would take about {duration(fewer / rate)}."
    return said


def kept_pairs(kept: dict[str, dict[str, Any]], view: View) -> str:
    """Return the pairs that the run keeps, newest first, as links."""
    if not kept:
        return ""
    items = ""
    for name, record in list(reversed(kept.items()))[:KEPT_SHOWN]:
        pair = Pair.from_record(record)
        query = esc(view.to_query(lang=pair.language, text=name, seed=None))
        current = ' aria-current="true"' if view.text == name else ""
        who = " and ".join(title_of(side) for side in pair.names)
        said = " · ".join(filter(None, (language_name(pair.language), who, describe_settings(record))))
        link = f'<a href="/compare?{query}" data-pick="{query}"{current}><bdi>{esc(_short(pair.prompt))}</bdi></a>'
        items += f"<li>{link}<small>{esc(said)}</small></li>"
    return (
        f'<details class="lpr-fold lpr-panel"><summary>Pairs kept with this run ({len(kept)})</summary>'
        f'<ul class="lpr-apart">{items}</ul></details>'
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def preferences(run: Run, records: list[dict[str, Any]]) -> str:
    """Return how often which side was preferred, and whether that could be chance."""
    counts = tally(records)
    if not counts:
        return ""
    rows = "".join(_tally(count) for count in counts)
    return (
        '<section class="lpr-panel lpr-section"><h2>What readers of this run preferred</h2>'
        f'<ul class="lpr-votes">{rows}</ul><p class="lpr-caption">Exact two-sided sign test over the judgements that '
        "prefer one side; ties and “both bad” say nothing about which is better. A preference is called clear when p "
        f"is below {CLEAR:g}. Of several judgements of one pair the last counts. Judge blind where you can: who knows "
        "the sides is not impartial.</p></section>"
    )


def _tally(count: Tally) -> str:
    names = [esc(title_of(side)) for side in count.sides]
    verdict = f"{esc(title_of(count.preferred))} is preferred" if count.preferred else "no clear preference"
    total = count.decided + count.ties + count.both_bad
    p = f"{count.p:.2g}" if count.p < 0.1 else f"{count.p:.2f}"
    return (
        f"<li><b>{verdict}</b>: {names[0]} {count.wins[0]}, {names[1]} {count.wins[1]} (n = {count.decided}, p = {p}); "
        f"ties {count.ties}, both bad {count.both_bad}; {count.blind} of {total} blind.</li>"
    )
