"""A logit lens with made-up numbers."""

import numpy as np

from lpr_lab.measure.guesses.lens import Guesses, LogitLens
from lpr_lab.measure.guesses.token_languages import TokenLanguages

WORDS = (None, b" the", "και".encode(), b"\xce", b"<b>x", "天".encode())
"""The vocabulary, by id; English or Spanish, Greek, part of a character, markup, and Chinese."""


def make_lens(tokens: int = 4, piece: bytes = b"<b>x") -> LogitLens:
    """Return the guesses on a text that is one token (4) over and over; layer 1 of three has no router."""
    random = np.random.default_rng(0)

    def made() -> Guesses:
        probs = -np.sort(-random.dirichlet(np.ones(len(WORDS)), size=(3, tokens)))[:, :, :2]
        ids = np.argsort(random.random((3, tokens, len(WORDS))))[:, :, :2]
        shape = (3, tokens)
        following = np.broadcast_to(np.arange(tokens) < tokens - 1, shape)
        return Guesses(
            token_ids=ids,
            probs=probs,
            next_prob=np.where(following, random.random(shape), np.nan),
            next_rank=np.where(following, random.integers(1, 7, shape), 0),
            final_prob=random.random(shape),
            final_rank=random.integers(1, 7, shape),
        )

    weights = random.random((3, tokens))
    weights[1] = np.nan
    return LogitLens(
        text=piece.decode() * (tokens - 1),
        language="en",
        stage="G1 review",
        token_ids=[0, *[4] * (tokens - 1)],
        token_bytes=[None, *[piece] * (tokens - 1)],
        layers=np.arange(3),
        guesses={"base": made(), "expanded": made()},
        new_weight=weights,
        vocabulary=dict(enumerate((*WORDS[:4], piece, *WORDS[5:]))),
        token_languages=TokenLanguages(("en", "es", "el"), (100, 100, 100), {1: (50, 1, 0)}),
    )
