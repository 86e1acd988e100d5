"""What each method forgets where it gained what MoE-LPR did, from the same runs as the claims.

At one learning rate two methods have learned unequal amounts, and what learns more forgets more. So each is a curve,
trained at several rates, that is read at the gain that MoE-LPR had with that seed.
"""

from collections.abc import Mapping
from typing import Any

from lpr_lab.runs.scorecard.effects import Arms, effect_of
from lpr_lab.runs.scorecard.parts import Part

REFERENCE = "moe_lpr"
CURVES: Mapping[str, tuple[str, ...]] = {
    "layer_moe": ("third of the rate", "", "three times the rate"),
    "route_first": ("third of the rate", "", "three times the rate"),
    "full_replay": ("thirtieth of the rate", "tenth of the rate", "third of the rate", ""),
    "lora": ("tenth of the rate", "third of the rate", ""),
    "lora_moe": ("thirtieth of the rate", "tenth of the rate", ""),
    "sparse_moe": ("thirtieth of the rate", "tenth of the rate", ""),
    "llama_pro": ("", "three times the rate"),
    "ssu": ("thirtieth of the rate", "tenth of the rate", ""),
    "interpolate": ("a tenth", "a quarter", ""),
}
"""By method, its points: at which rate, or with which weight; empty for what suits it."""


def arms_of(method: str) -> tuple[str, ...]:
    """Return the arms that are the points of a method's curve.

    >>> arms_of("llama_pro")
    ('llama_pro', 'llama_pro, three times the rate')
    """
    return tuple(f"{method}, {point}" if point else method for point in CURVES[method])


def compare_at_equal_gain(arms: Arms) -> list[dict[str, Any]]:
    """Return by how much each method forgets more than MoE-LPR where it gained as much, what forgets least first.

    Args:
        arms: runs by arm and seed; a method with fewer than two points is left out.

    Returns:
        One dict per method: `method`, `arms` (its points), and `more` (an `Effect`: points of bits per byte of original
        languages, paired by seed; with a problem where no seed of MoE-LPR's gain lies between two points).
    """
    rows = []
    for method in CURVES:
        points = tuple(name for name in arms_of(method) if arms.get(name))
        if len(points) > 1:
            more = effect_of(Part("", curves=(points, (REFERENCE,))), arms)
            rows.append({"method": method, "arms": list(points), "more": more})
    return sorted(rows, key=lambda row: (bool(row["more"].problem), row["more"].value))
