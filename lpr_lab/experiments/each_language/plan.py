"""Which languages are taught one at a time, and the run of each. Torch-free."""

from dataclasses import replace

from lpr_lab.experiments.scorecard.plan import Card, card_for
from lpr_lab.text.demo.corpus import TRAINED_LANGUAGES

ARM = "route_first"
"""Of the scorecard: the recipe of all of them."""
PHASE = "language"
"""Under which a run records what the base is to its language."""


def card_of(base: str, code: str) -> Card:
    """Return what the runs of languages share: the scorecard's card, with one language's part of its budget.

    They are asked for bits per byte alone, which is all that the table has.
    """
    card = card_for(base)
    step = card.block_tokens * card.blocks_per_step
    tokens = max(card.stage1_tokens // len(card.expanded) // step, 1) * step
    return replace(card, expanded=(code,), further=(), stage1_tokens=tokens, self_samples=0, tasks=())


def languages_of(base: str) -> tuple[str, ...]:
    """Return every language that a base can be taught here: those of its card's corpus which the base does not have."""
    card = card_for(base)
    known = TRAINED_LANGUAGES if card.corpus == "demo" else (*card.expanded, *card.further)
    return tuple(code for code in known if code not in (*card.original, *card.unreviewed))
