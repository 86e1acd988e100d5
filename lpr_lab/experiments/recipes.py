"""Named experiments, as functions: each is a sequence of verbs with settings, and differs in what its name says.

    moe_lpr       upcycle -> expand (experts and routers) -> review (routers)      the papers' two stages
    route_first   upcycle -> fit_routers (closed form) -> expand (experts only)    one stage, nothing to review

A variant is a recipe with fields replaced: `recipes.route_first(base="path/to/model", expanded=("el",))`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lpr_lab.errors import UsageError, did_you_mean
from lpr_lab.experiments.config import Experiment


def moe_lpr(**changes: Any) -> Experiment:
    """The papers' own recipe (MoE-LPR §2.3-2.4): both stages by gradient, routers without bias on the token alone."""
    return replace(Experiment(recipe="moe_lpr", steps=("expand", "review")), **changes)


def route_first(**changes: Any) -> Experiment:
    """Routers fitted in closed form before stage 1 and kept; then only experts learn (ours, see docs/log.md)."""
    experiment = Experiment(
        recipe="route_first", steps=("fit_routers", "expand"), router_input="token_and_mean", router_bias=True
    )
    return replace(experiment, **changes)


RECIPES: dict[str, Callable[..., Experiment]] = {"route_first": route_first, "moe_lpr": moe_lpr}


def named(recipe: str, **changes: Any) -> Experiment:
    """Return a recipe by name with fields replaced.

    Raises:
        UsageError: no such recipe, with the closest one.
    """
    if recipe not in RECIPES:
        raise UsageError(
            f"There is no recipe {recipe!r}; expected {', '.join(RECIPES)}.{did_you_mean(recipe, RECIPES)}"
        )
    return RECIPES[recipe](**changes)
