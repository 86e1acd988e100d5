"""Cosines between tokens of two texts: the mean over all pairs, from one mean unit vector of each text.

A mean of dot products of two sets is the dot product of the two means:

    mean over u, v of  <u/|u|, v/|v|>   =   < mean of u/|u| , mean of v/|v| >

so a sum of unit vectors per text and layer is enough, and every pair of texts comes free.

Letters: B batch, S sequence, T = B·S tokens, D model width, L layers, n texts.
"""

from collections.abc import Sequence

import numpy as np
import torch


def sum_of_unit_vectors(x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the sum over tokens of their vectors, each divided by its length: float64 [D], on the processor.

    Args:
        x: [B, S, D], in any precision.
        counts: which tokens count, float [T] of 0 and 1.
    """
    with torch.autocast(x.device.type, enabled=False):
        rows = x.flatten(0, 1).float()
        lengths = torch.linalg.vector_norm(rows, dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
        return ((counts.to(rows.device) / lengths) @ rows).double().cpu()


def mean_cosines(means: np.ndarray, num_tokens: Sequence[int]) -> np.ndarray:
    """Return the mean cosine over all token pairs, per layer and pair of texts or languages: float64 [L, n, n].

    Args:
        means: mean unit vectors, float64 [n, L, D].
        num_tokens: how many unit vectors each mean is made of. Within one text a token is not paired with itself:
            those N of the N² cosines are 1 and are taken out. Of a single token nothing is left: NaN.
    """
    pairs = np.einsum("ald,bld->lab", means, means)
    for index, count in enumerate(num_tokens):
        inside = (count * pairs[:, index, index] - 1) / (count - 1) if count > 1 else np.nan
        pairs[:, index, index] = inside
    return pairs
