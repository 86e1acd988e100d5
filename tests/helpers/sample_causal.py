"""A causal map with made-up numbers, and what is expected at one of its cells."""

import numpy as np

from lpr_lab.measure.causal.causal_map import CausalMap, Cell, NextTokens


def make_causal(tokens: int = 4, piece: bytes = b"<b>x") -> CausalMap:
    """Return a map of a text that is one token over and over; layer 0 has two experts, layer 3 has three."""
    change = np.random.default_rng(0).normal(size=(2, 3, tokens))
    change[:, :, 0] = np.nan
    change[0, 2] = np.nan
    return CausalMap(
        text=piece.decode() * (tokens - 1),
        language="en",
        stage="G1 review",
        token_ids=list(range(tokens)),
        token_bytes=[None, *[piece] * (tokens - 1)],
        layers=np.array([0, 3]),
        num_experts=np.array([2, 3]),
        bits=np.array([np.nan, *np.full(tokens - 1, 2.0)]),
        change=change,
    )


def make_next(piece: bytes = b"a") -> NextTokens:
    """Return what is expected at layer 3, expert 1, token 2 of such a map: two tokens, the first of which follows."""
    return NextTokens(Cell(3, 1, 2), [2, 9], [piece, None], np.array([0.75, 0.1]), np.array([0.25, 0.5]), (0.5, 2.0))
