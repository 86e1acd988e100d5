"""Tolerance for comparing logits of two forward passes that differ only by rounding. Torch-free.

A sum in float32 is rounded relative to its size, so a fixed limit is too strict for a model with large logits and too
lax for one with small ones: those of Gemma 3 270M reach 46, and 1.4e-4 of them is rounding.
"""

SHARE = 1e-5
"""Of the largest logit; some eighty times the spacing of float32 numbers at it."""
_UNRECORDED = 1e-4


def logit_tolerance(largest_logit: float | None) -> float:
    """Return the largest difference of two logits in float32 that is rounding.

    Args:
        largest_logit: the largest of them without its sign; None where a run of an earlier version did not record it,
            and then the limit is the one that was used at that time.

    >>> logit_tolerance(46.0), logit_tolerance(0.2), logit_tolerance(None)
    (0.00046, 1e-05, 0.0001)
    """
    return _UNRECORDED if largest_logit is None else round(SHARE * max(largest_logit, 1.0), 12)
