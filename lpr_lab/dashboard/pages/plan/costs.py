"""How a budget of experts is divided over the layers, and what that costs: parameters, files, memory and time."""

from collections.abc import Sequence
from dataclasses import dataclass

from lpr_lab.dashboard.pages.plan.facts import BaseFacts
from lpr_lab.dashboard.parameters import MAX_PER_LAYER, PER_LAYER, budget_of
from lpr_lab.dashboard.query import Query
from lpr_lab.errors import UsageError
from lpr_lab.method.allocation import allocate
from lpr_lab.method.costs.memory import LEARNT_BYTES
from lpr_lab.method.scores.table import KINDS

RULES = {
    "similarity": "Where languages differ",
    "uniform": "Evenly",
    "inverse": "Where they are alike",
    "first": "First layers",
    "last": "Last layers",
    "neurons": "Where neurons know a language",
    "gradient": "Where gradients are long",
    "predicted_gain": "Where a step gains most",
    "own": "By hand",
}
ROUNDING = {"largest_remainder": "Spend it exactly", "round_up": "Round up, as the paper"}
TOKENS = 61_440
"""Tokens of stage 1 in the demo."""
BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Plan:
    """A plan as the address asks for it: how many new experts each layer gets, and by which rule."""

    experts: tuple[int, ...]
    rule: str
    rounding: str
    budget: int
    top_k: int
    tokens: int
    problem: str = ""
    """Why the budget could not be divided as asked; then it is divided evenly, or kept as it is."""


def make_plan(facts: BaseFacts, query: Query) -> Plan | None:
    """Divide the budget as the address asks; None while the number of layers is unknown."""
    layers = facts.num_layers
    if layers is None:
        return None
    similarity = facts.similarity if facts.similarity and len(facts.similarity.values) == layers else None
    scores = facts.scores.get(query.rule)
    scores = scores if scores and len(scores.values) == layers else None
    by_hand, problem = _by_hand(query.experts, layers) if query.rule in ("own", "") else (None, "")
    rule = "own" if by_hand else query.rule if query.rule in RULES and query.rule != "own" else "similarity"
    if rule in KINDS and scores is None:
        problem = (
            f"“{RULES[rule]}” needs a score that no run on this base was planned by; measure it with "
            f"-p allocation={rule} of the notebook 02_plan_experts."
        )
        rule = "similarity" if similarity else "uniform"
    elif similarity is None and scores is None and rule not in ("own", "uniform"):
        if query.rule and query.rule != "own":
            problem = f"“{RULES[rule]}” needs similarity, which no run on this base has measured."
        rule = "uniform"
    rounding = query.round if query.round in ROUNDING else "largest_remainder"
    top_k, tokens = query.topk or 2, query.tokens or TOKENS
    budget = 2 * layers
    if by_hand:
        budget = sum(by_hand)
    elif query.budget is not None:
        try:
            budget = budget_of(layers).read(query.budget)
        except UsageError as error:
            problem = f"{error} This is the plan for {budget}."
    if by_hand:
        return Plan(by_hand, "own", rounding, budget, top_k, tokens)
    even = rule == "uniform" or (similarity is None and scores is None)
    shares = (1.0,) * layers if even else scores or similarity.values  # pyright: ignore  # one of them is there
    by = "similarity" if even else rule
    try:
        experts = allocate(shares, budget, rounding, max_new=MAX_PER_LAYER, by=by).new_experts
    except UsageError as error:
        problem, experts = problem or str(error), allocate((1.0,) * layers, max(budget, 1)).new_experts
        rule = "uniform"
    return Plan(experts, rule, rounding, budget, top_k, tokens, problem)


def _by_hand(text: str, layers: int) -> tuple[tuple[int, ...] | None, str]:
    """Return the counts that an address asks for by hand, and why they cannot be had; (None, "") where it asks none."""
    if not text:
        return None, ""
    words = text.split(",")
    try:
        if len(words) != layers:
            raise UsageError(f"The plan by hand has {len(words)} numbers; expected one for each of {layers} layers.")
        counts = tuple(PER_LAYER.read_text(word.strip()) for word in words)
        if not any(counts):
            raise UsageError("The plan by hand has no new expert at all; expected one in one layer at least.")
    except UsageError as error:
        return None, f"{error} The budget is divided anew instead."
    return counts, ""


@dataclass(frozen=True)
class Costs:
    """The costs of so many new experts per layer; None where the base's sizes are unknown.

    Attributes:
        new_experts: in all.
        dense_layers: layers without a new expert.
        without_choice: layers where all experts work on every token, so that a router only weighs them.
        added: parameters of new experts and, where known, routers.
        added_share: of the base's parameters.
        active: parameters at work on a token.
        base: parameters of the dense model.
        adapter_bytes: by number format.
        use_bytes: weights in float32.
        train_bytes: weights, gradients and optimiser in float32, without activations.
        seconds: of stage 1 for the tokens asked for, at the measured speed.
    """

    new_experts: int
    dense_layers: int
    without_choice: int
    added: int | None = None
    added_share: float | None = None
    active: int | None = None
    base: int | None = None
    adapter_bytes: dict[str, int] | None = None
    use_bytes: int | None = None
    train_bytes: int | None = None
    seconds: float | None = None


def costs(facts: BaseFacts, experts: Sequence[int], top_k: int, tokens: int) -> Costs:
    """Reckon what new experts per layer cost."""
    counted = Costs(
        new_experts=sum(experts),
        dense_layers=sum(count == 0 for count in experts),
        without_choice=sum(0 < count < top_k for count in experts),
        seconds=tokens / facts.speed.tokens_per_second if facts.speed else None,
    )
    sizes = facts.expert_parameters
    if sizes is None or len(sizes) != len(experts):
        return counted
    routers = round(sum(count + 1 for count in experts if count) * (facts.router_row or 0))
    added = sum(count * size for count, size in zip(experts, sizes, strict=True)) + routers
    at_work = sum((min(top_k, count + 1) - 1) * size for count, size in zip(experts, sizes, strict=True)) + routers
    base = facts.base_parameters
    return Costs(
        new_experts=counted.new_experts,
        dense_layers=counted.dense_layers,
        without_choice=counted.without_choice,
        added=added,
        added_share=added / base if base else None,
        active=base + at_work if base else None,
        base=base,
        adapter_bytes={name: added * size for name, size in BYTES.items()},
        use_bytes=4 * (base + added) if base else None,
        train_bytes=4 * base + LEARNT_BYTES * added if base else None,
        seconds=counted.seconds,
    )
