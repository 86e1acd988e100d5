"""Contexts of experts with made-up numbers, for tests of views and dashboard."""

import pandas as pd

from helpers.sample_experts import HOSTILE_TOKEN, ROLES, STAGES
from lpr_lab.measure.contexts.expert_contexts import (
    BITS,
    CONTEXT_COLUMNS,
    EFFECT_COLUMNS,
    NEIGHBOUR_COLUMNS,
    WEIGHT,
    ExpertContexts,
)

SENTENCES = {
    "en": b"The sea was calm.",
    "el": "Η θάλασσα ήταν ήσυχη.".encode(),
    "hu": b"A tenger nyugodt volt.",
}
"""Of the document `d`, a token for each byte."""


def sample_contexts(
    layer: int = 2, expert: int = 1, *, stage: str = STAGES[-1], left_out: bool = True
) -> ExpertContexts:
    """Return one expert's contexts, neighbours and effects in the languages of `SENTENCES`; one token is hostile."""
    rows = []
    for by in (WEIGHT, BITS) if left_out else (WEIGHT,):
        for code, text in SENTENCES.items():
            for rank in (1, 2):
                spelled = HOSTILE_TOKEN if (code, rank) == ("en", 2) else text[rank : rank + 1]
                numbers = [0.9 / rank, 3.25, -0.5 * rank if left_out else float("nan")]
                at = ["d" if rank == 1 else f"{code}-{rank}", rank + 1, rank, spelled.hex()]
                rows.append([stage, "heldout", code, layer, expert, by, rank, *at, *numbers])
    effects = [
        [stage, "heldout", code, layer, expert, value, value - 0.1, value + 0.1, 4, 80]
        for code, value in zip(SENTENCES, (0.0, 0.42, -0.07), strict=True)
        if left_out
    ]
    near = [
        [stage, "heldout", layer, expert, 1, 3, 1, 0.87, 240],
        [stage, "heldout", layer, expert, 2, 0, 0, -0.2, 240],
    ]
    tokens = {(code, "d"): [None, *(bytes([value]) for value in text)] for code, text in SENTENCES.items()}
    return ExpertContexts(
        pd.DataFrame(rows, columns=CONTEXT_COLUMNS),
        pd.DataFrame(near, columns=NEIGHBOUR_COLUMNS),
        pd.DataFrame(effects, columns=EFFECT_COLUMNS),
        tokens,
    )


assert set(SENTENCES) <= set(ROLES)
