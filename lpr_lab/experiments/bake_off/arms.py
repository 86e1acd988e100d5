"""The arms of the bake-off: for a seed, the new experts that each rule gives each layer.

All but `uniform_more` and the probes have the same number of new experts, and layers of one size: equal parameters. A
probe, `layer_3`, has one new expert in that layer and none elsewhere: what it gains is the layer's measured gain, which
the scores claim to foretell, and the `oracle` divides the budget by it. Gains are measured on dev text, and arms judged
on held-out text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lpr_lab.experiments.config import BY_SIMILARITY
from lpr_lab.method.allocation import Allocation, allocate, uniform
from lpr_lab.method.scores.table import KINDS, LayerScores
from lpr_lab.method.similarity_table import STATES

MORE, ORACLE, ATTENTION, PROBE = "uniform_more", "oracle", "similarity_attention", "layer_"
MEASURED = "measured_gain"
TEST, DEV = "heldout", "dev"
"""The splits that arms are judged on, and the probes."""


@dataclass(frozen=True, kw_only=True)
class BakeOff:
    """What is compared, and on how much text. The defaults are those of docs/allocation.md."""

    base: str = "small-world"
    corpus: str = "small-world"
    original: tuple[str, ...] = ("en", "es")
    expanded: tuple[str, ...] = ("el", "hu", "tr")
    seeds: tuple[int, ...] = (0, 1, 2)
    per_layer: int = 2
    """New experts per layer on average: the budget of every arm but `uniform_more` and the probes."""
    more_per_layer: int = 5
    """Of `uniform_more`: 2.5 times as many, as MoE-LPR has beside LayerMoE."""
    score_tokens: int = 8192
    """Text of each language that similarity and scores are measured on."""
    stage1_tokens: int = 16_384
    stage2_tokens: int = 4096
    eval_tokens: int = 2048
    """Test text of each language."""


def above_zero(similarity: Sequence[float]) -> list[float]:
    """Return similarities with those that are not above 0, for which the rule has no share, as the least that is.

    >>> above_zero([-0.04, 0.06, 0.02])
    [0.02, 0.06, 0.02]
    """
    least = min(value for value in similarity if value > 0)
    return [max(value, least) for value in similarity]


def planned(settings: BakeOff, curves: Mapping[str, Sequence[float]], seed: int) -> dict[str, Allocation]:
    """Return the allocation of each arm by name: the rules, `uniform_more`, and a probe for each layer.

    Args:
        settings: the budget.
        curves: from `measured_curves`; with `measured_gain` in it, the oracle is among the arms.
        seed: of the random arm.
    """
    layers = len(curves[STATES[0]])
    budget = layers * settings.per_layer
    arms = {"uniform": uniform(layers, settings.per_layer)}
    inputs, outputs = (above_zero(curves[state]) for state in STATES)
    for name in BY_SIMILARITY[1:]:
        arms[name] = allocate(inputs, budget, by=name, seed=seed)
    arms[ATTENTION] = allocate(outputs, budget)
    for kind in KINDS:
        arms[kind] = allocate(LayerScores(kind=kind, values=tuple(curves[kind])), budget)
    if MEASURED in curves:
        arms[ORACLE] = allocate(LayerScores(kind=MEASURED, values=tuple(curves[MEASURED])), budget)
    arms[MORE] = uniform(layers, settings.more_per_layer)
    for layer in range(layers):
        arms[f"{PROBE}{layer}"] = Allocation(tuple(int(other == layer) for other in range(layers)))
    return arms
