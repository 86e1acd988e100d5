"""A segment compared in many languages, from made-up traces; no model, no torch."""

from collections.abc import Mapping

import numpy as np

from helpers.sample_runs import SENTENCES, make_trace
from lpr_lab.measure.segments.comparison import LanguageComparison
from lpr_lab.measure.segments.divergence import between_halves, divergence, token_weights

CODES = ("en", "el", "ar")


def make_comparison(texts: Mapping[str, str] | None = None, *, num_layers: int = 3) -> LanguageComparison:
    """Return a comparison with the first language; layers of the model are one more than have a router."""
    texts = texts or {code: SENTENCES[code] for code in CODES}
    reference = next(iter(texts))
    traces = {code: make_trace(text, code, num_layers=num_layers) for code, text in texts.items()}
    weights = {code: token_weights(trace) for code, trace in traces.items()}
    found = [
        divergence(own, weights[reference], shuffles=0 if code == reference else 50, seed=0)
        for code, own in weights.items()
    ]
    return LanguageComparison(
        reference=reference,
        stage="G1 review",
        traces=traces,
        layers=np.arange(num_layers),
        all_layers=np.arange(num_layers + 1),
        divergence=np.stack([one.bits for one in found]),
        chance=np.stack([one.chance for one in found]),
        chance_high=np.stack([one.chance_high for one in found]),
        halves=np.stack([between_halves(own) for own in weights.values()]),
        similarity=np.linspace(0.9, 0.1, len(texts) * (num_layers + 1)).reshape(len(texts), -1),
        shuffles=50,
        seed=0,
    )
