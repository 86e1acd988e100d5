"""Checks what a reader changes on page `/plan`, before the plan changes."""

from typing import Any

from lpr_lab.dashboard.pages.plan.costs import ROUNDING, RULES, Plan
from lpr_lab.dashboard.parameters import STAGE_TOKENS, TOP_K, Choice, Number, budget_of

RULE, ROUND = Choice("The rule", tuple(RULES)), Choice("Rounding", tuple(ROUNDING))


def changed(name: str, value: Any, plan: Plan | None) -> dict[str, str] | None:
    """Return what a control changes of the address; None where it changes nothing.

    Args:
        name: key of the address: `run`, `rule`, `round`, `budget`, `topk` or `tokens`.
        value: as it came from the page, or from a program.
        plan: the one on the page; None while the base is unknown.

    Raises:
        UsageError: a value that cannot be had, with what is expected.
    """
    if name == "run":
        return {"run": value if isinstance(value, str) else "", "experts": ""}
    if name == "rule":
        rule = RULE.read(value)
        kept = ",".join(map(str, plan.experts)) if plan and rule == "own" else ""
        return {"rule": rule, "experts": kept}
    if name == "round":
        # By hand there is nothing to round: the plan stays.
        return {"round": ROUND.read(value)} | ({} if plan and plan.rule == "own" else {"experts": ""})
    number = _range_of(name, plan).read(value)
    if plan is not None and number == {"budget": plan.budget, "topk": plan.top_k, "tokens": plan.tokens}[name]:
        return None  # a box that was only left again changes nothing, least of all a plan by hand
    if name != "budget":
        return {name: str(number)}
    return {"budget": str(number), "experts": ""} | ({"rule": ""} if plan and plan.rule == "own" else {})


def _range_of(name: str, plan: Plan | None) -> Number:
    layers = len(plan.experts) if plan else 1
    return {"budget": budget_of(layers), "topk": TOP_K, "tokens": STAGE_TOKENS}[name]
