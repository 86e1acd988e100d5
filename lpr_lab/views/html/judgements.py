"""What a count of judgements says, in words: who is preferred, and whether that could be chance."""

from lpr_lab.measure.preference import Tally
from lpr_lab.measure.significance import UNCLEAR
from lpr_lab.views.html.continuations import title_of
from lpr_lab.views.numbers import percent


def verdict(count: Tally) -> str:
    """Return which side is preferred, in words, where that is clear."""
    return f"{title_of(count.preferred)} is preferred" if count.preferred else UNCLEAR


def decided(count: Tally) -> str:
    """Return how often each side was preferred, the p of the sign test, and the interval of the share of wins."""
    names = [title_of(side) for side in count.sides]
    low, high = count.win_share(1)
    share = f"; {names[1]} wins {percent(count.wins[1] / count.decided)} of them" if count.decided else ""
    ends = f", 95% interval {percent(low)} to {percent(high)}" if count.decided else ""
    p = f"{count.p:.2g}" if count.p < 0.1 else f"{count.p:.2f}"
    return f"{names[0]} {count.wins[0]}, {names[1]} {count.wins[1]} (n = {count.decided}, p = {p}){share}{ends}"
