"""Tolerance for comparing logits of two forward passes that differ only by rounding. Torch-free.

A sum in float32 is rounded relative to its size, so a fixed limit is too strict for a model with large logits and too
lax for one with small ones: those of Gemma 3 270M reach 46, and 1.4e-4 of them is rounding.
"""

SHARE = 1e-5
"""Of the largest logit; some eighty times the spacing of float32 numbers at it."""
_BFLOAT16_SHARE = 0.06
"""The same where the base is in bfloat16, whose numbers are 2^-7 of their size apart.

Each of L layers adds to its state twice and rounds it, by up to 2^-8 of its size, which is 2^-8 / sqrt(3) in the mean
square. Such errors add up as sqrt(2 L): to 0.9 % of the state after 8 layers, 1.7 % after 30, 2.9 % after 80, and
logits are as unsure as the state. Random models of these depths differed from float32 by 0.8 to 3.5 % of the largest
logit (docs/log.md). The limit is twice what 80 layers make.
"""
BASE_DTYPES = ("auto", "float32", "bfloat16")
"""What a base can be held in; see `machine.resolve_base_dtype`."""
_UNRECORDED = 1e-4


def logit_tolerance(largest_logit: float | None, base_dtype: str = "float32") -> float:
    """Return the largest difference of two logits that is rounding.

    Args:
        largest_logit: the largest of them without its sign; None where a run of an earlier version did not record it,
            and then the limit is the one that was used at that time.
        base_dtype: what the base is held in, `float32` or `bfloat16`.

    >>> logit_tolerance(46.0), logit_tolerance(0.2), logit_tolerance(None)
    (0.00046, 1e-05, 0.0001)
    >>> logit_tolerance(20.0, "bfloat16")
    1.2
    """
    if largest_logit is None:
        return _UNRECORDED
    share = _BFLOAT16_SHARE if base_dtype == "bfloat16" else SHARE
    return round(share * max(largest_logit, 1.0), 12)
