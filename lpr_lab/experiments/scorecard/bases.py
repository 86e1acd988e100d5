"""The scorecards of all bases that there is something of, and the table of their verdicts side by side; torch-free."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lpr_lab.experiments.scorecard.build import ScorecardStep, build_steps, cards_of, settled
from lpr_lab.experiments.scorecard.plan import Card, choices
from lpr_lab.model.bases.made import is_made, world_seed
from lpr_lab.progress import run_through
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.bases import compare_bases

_PARTS = 100
"""Of each scorecard, by which progress is told."""


def compare_all(root: str | Path) -> dict[str, Any]:
    """Return the verdicts of all bases side by side (`runs.scorecard.bases`), with progress."""
    return run_through(compare_steps(list_runs(root), root), "Computing the scorecards", "part")


def compare_steps(runs: Sequence[Run], root: str | Path) -> Iterator[ScorecardStep]:
    """Make the same scorecard by scorecard; the last step has it, and where each is from in `sources`.

    Args:
        runs: newest first.
        root: the folder that they are in.
    """
    cards = own_cards(runs)
    total = _PARTS * len(cards)
    found: dict[str, dict[str, Any]] = {}
    sources: dict[str, str] = {}
    for number, card in enumerate(cards):
        for step in build_steps(card, runs):
            yield ScorecardStep(_PARTS * number + _PARTS * step.done // max(step.total, 1), total)
            if step.result is not None:
                result, source = settled(step.result, card, root)
                if result["arms"]:
                    found[card.base], sources[card.base] = result, source
    worlds = [base for base in found if is_made(base)]
    table = compare_bases(found, worlds if len(worlds) > 1 else ())
    yield ScorecardStep(total, total, table | {"sources": sources})


def own_cards(runs: Sequence[Run]) -> list[Card]:
    """Return the cards of all bases that there is something of, nothing of them chosen: small worlds first, by seed."""
    cards = [card for card in cards_of(runs) if not choices(card)]
    return sorted(cards, key=lambda card: (not is_made(card.base), world_seed(card.base) or 0))
