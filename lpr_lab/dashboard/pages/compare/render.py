"""HTML of page `/compare` around a pair: estimated time, kept pairs, votes."""

from typing import Any

from markupsafe import Markup

from lpr_lab.dashboard.pages.compare.sides import Speed, same_texts
from lpr_lab.dashboard.query import Query
from lpr_lab.measure.preference import Tally, tally
from lpr_lab.runs.people.continuations import Pair, pairs
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.views.html.continuations import describe_settings, title_of
from lpr_lab.views.html.judgements import decided, verdict
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import duration
from lpr_lab.wording import counted

SLOW_SECONDS = 60
KEPT_SHOWN = 60


def estimate(speed: Speed | None, tokens: int, is_loaded: bool, characters: int = 0) -> str:
    """Return how long a generation will take, before it starts, and what to do when that is long."""
    if speed is None:
        return "Not measured yet how long it takes; the first generation measures it."
    if speed.is_far(characters):
        return (
            f"How long it takes was last measured with a prompt of {speed.characters:,} characters; for one of "
            f"{characters:,} it is not known. The next generation measures it."
        )
    seconds = speed.seconds(tokens, characters)
    loading = "" if is_loaded else ", after loading the model"
    rate = f"{1 / speed.per_token:.1f} tokens/s"
    said = f"About {duration(max(seconds, 1))} for {counted(tokens, 'token')} each{loading}: {rate} when last measured."
    if seconds > SLOW_SECONDS:
        fewer = max(8, int(SLOW_SECONDS / 2 / speed.per_token) // 8 * 8)
        if fewer < tokens:
            said += f" {fewer} tokens would take about {duration(speed.seconds(fewer, characters))}."
    return said


def kept_pairs(kept: dict[str, dict[str, Any]], query: Query) -> Markup:
    """Return the pairs that the run keeps, newest first, as links."""
    if not kept:
        return Markup("")
    items = []
    for name, record in list(reversed(kept.items()))[:KEPT_SHOWN]:
        pair = Pair.from_record(record)
        who = " and ".join(title_of(side) for side in pair.names)
        said = " · ".join(filter(None, (language_name(pair.language), who, describe_settings(record))))
        params = query.urlencode(lang=pair.language, text=name, seed=None)
        items.append((params, query.text == name, _short(pair.prompt), said))
    return render("dashboard/pages/compare/kept.html.j2", number=len(kept), items=items)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def preferences(run: Run, records: list[dict[str, Any]]) -> Markup:
    """Return how often which side was preferred, and whether that could be chance."""
    counts = tally(records, same_texts(pairs(run)))
    rows = [_tally(count) for count in counts]
    return render("dashboard/pages/compare/preferences.html.j2", rows=rows) if rows else Markup("")


def _tally(count: Tally) -> tuple[str, str]:
    """Return the verdict on two sides, and what it rests on."""
    total = count.decided + count.ties + count.both_bad
    rest = f"ties {count.ties}, both bad {count.both_bad}; {count.blind} of {total} blind."
    return verdict(count), f"{decided(count)}; {rest}"
