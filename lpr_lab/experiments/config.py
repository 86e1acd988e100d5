"""Everything an experiment is made with, in one frozen object that a run directory stores as `config.yaml`.

Each verb's settings live beside the verb; here they are only composed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from lpr_lab.errors import UsageError, did_you_mean, one_of
from lpr_lab.method.allocation import RULES
from lpr_lab.method.training.budget import StageBudget
from lpr_lab.model.bases.embedded import learning_rates
from lpr_lab.text.languages import language_codes

STEPS = ("fit_routers", "expand", "local_review", "review")
STAGES = ("stage1", "stage2")
ALLOCATIONS = ("uniform", "similarity", "inverse", "first", "last", "random")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment: a recipe's steps with every setting resolved.

    `recipes` has the named ones; change a field with `dataclasses.replace` or by keyword.
    """

    recipe: str
    """Name of the recipe it came from."""
    steps: tuple[str, ...]
    """Verbs in order, out of fit_routers, expand, local_review, review."""
    base: str = "smollm2-135m"
    quantization: str = ""
    """`nf4` packs the base's linear maps into four bits (see `model.bases.quantized`); empty leaves them whole."""
    corpus: str = "demo"
    parent: str = ""
    """Id of the run whose model this one goes on from (see `recipes.further`); empty to start from the base."""
    from_run: str = ""
    """Id of the run whose expansion this one trains further (see `recipes.stage1`); empty to upcycle first."""
    original: tuple[str, ...] = ("en", "es")
    earlier: tuple[str, ...] = ()
    """Languages that the parent was taught."""
    expanded: tuple[str, ...] = ("el", "hu", "tr")
    new_experts_per_layer: int = 1
    """On average over the layers: the budget."""
    allocation: str | tuple[int, ...] = "uniform"
    """How the budget is divided: uniform, similarity (LayerMoE), the controls inverse, first, last, random; or new
    experts layer by layer, and then that is the budget."""
    allocation_rule: str = "largest_remainder"
    """Or the paper's `round_up` (see `method.allocation.allocate`)."""
    delta: float | None = None
    """The papers' budget, for rounding up; None for the one that comes to `new_experts_per_layer`."""
    similarity_tokens: int = 20_000
    """Text per language that similarity is measured on."""
    similarity_state: str = "mlp_input"
    classifiers: int | float | tuple[int, ...] = 0
    """Routing classifiers: in so many of the layers where original and expanded languages are most alike, in such a
    share of all layers (below 1), or in these layers."""
    classifier_input: str = "token"
    """`token`, or `sequence` as released."""
    top_k: int = 2
    router_input: str = "token"
    router_bias: bool = False
    router_init: str = "xavier"
    router_rows: str = "append"
    """In a further expansion: `append` to the rows that are there, or `reinit` all as released."""
    expert_init: str = "copy"
    expert_init_amount: float | None = None
    fit_solver: str = "ridge"
    fit_divide: str = "languages"
    fit_tokens_per_language: int = 4096
    """Text per language for routers fitted in closed form."""
    stage1: StageBudget = field(default_factory=lambda: StageBudget(tokens=61_440))
    stage2: StageBudget = field(default_factory=lambda: StageBudget(tokens=20_480))
    load_balancing_coef: float = 0.01
    load_balancing_scope: str = "step"
    """Which tokens the balance loss counts: those of a whole `step`, or of each `micro_batch` as the papers' code."""
    router_z_coef: float = 0.0
    """Of the router z-loss in stage 1, which the papers do not have."""
    lpr_coef: float = 0.1
    classifier_coef: float = 0.1
    group_coef: float = 0.0
    """Of the loss that keeps earlier groups with their experts in a further review (lifelong MoE-LPR)."""
    loss_variant: str = "paper"
    """`paper`, or `released` for the authors' code (all losses that have the two)."""
    replay_share: float = 1 / 3
    eval_tokens_per_language: int = 4096
    bootstrap: int = 1000
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("original", "earlier", "expanded"):
            object.__setattr__(self, name, language_codes(getattr(self, name)))
        unknown = [step for step in self.steps if step not in STEPS]
        if unknown or not self.steps:
            raise UsageError(f"steps = {self.steps}; expected some of {', '.join(STEPS)}.")
        both = set(self.original) & {*self.earlier, *self.expanded} | set(self.earlier) & set(self.expanded)
        if both:
            raise UsageError(
                f"{', '.join(sorted(both))} cannot be both an original and an expanded language, nor of two groups."
            )
        if isinstance(self.allocation, str):
            one_of("allocation", self.allocation, ALLOCATIONS, "A list gives the new experts layer by layer.")
        one_of("allocation_rule", self.allocation_rule, RULES)
        if self.delta is not None and self.allocation_rule == "largest_remainder":
            raise UsageError(
                f"delta = {self.delta} is the budget of rounding up, and allocation_rule = 'largest_remainder'; give "
                "allocation_rule='round_up', or new_experts_per_layer for the budget."
            )
        num_classifiers(self.classifiers, 1)
        for name in STAGES:
            if type(getattr(self, name)) is not StageBudget:
                raise UsageError(f"{name} = {getattr(self, name)!r}; expected a StageBudget.")
        if self.classifiers and not {"review", "local_review"} & set(self.steps):
            raise UsageError(f"classifiers = {self.classifiers}, but none of the steps {self.steps} is a review.")
        if not self.original or not self.expanded:
            raise UsageError("An experiment needs at least one original and one expanded language.")

    @property
    def languages(self) -> tuple[str, ...]:
        """Original languages first, then those of earlier groups, then the expanded ones."""
        return (*self.original, *self.earlier, *self.expanded)

    def resolved(self) -> "Experiment":
        """Return the experiment with what the base decides as numbers: the learning rates."""
        experts, routers = learning_rates(self.base)

        def of(budget: StageBudget) -> StageBudget:
            own, of_routers = budget.learning_rate, budget.router_learning_rate
            return replace(
                budget,
                learning_rate=experts if own is None else own,
                router_learning_rate=routers if of_routers is None else of_routers,
            )

        return replace(self, stage1=of(self.stage1), stage2=of(self.stage2))

    def to_config(self) -> dict[str, Any]:
        """Return every setting as plain JSON values, with the numbers that the base decides."""
        config = asdict(self.resolved())
        return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> "Experiment":
        """Rebuild an experiment from `to_config`, refusing settings it does not know.

        What a run of an earlier version did not record is what it was then.

        Raises:
            UsageError: an unknown setting, with the closest known one.
        """
        refuse_unknown(config, Experiment)
        values: dict[str, Any] = {}
        for key, value in config.items():
            if isinstance(value, Mapping):
                refuse_unknown(value, StageBudget, f"{key}.")
                value = StageBudget(**value)
            values[key] = tuple(value) if isinstance(value, list) else value
        return Experiment(**values)


def changed(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """Return an experiment with settings replaced that a person gave as plain values, those of stages by their names.

    Raises:
        UsageError: an unknown setting, or a value of another type than it has.

    >>> changed(Experiment(recipe="mine", steps=("expand",)), {"stage1": {"weight_decay": 0.1}}).stage1.weight_decay
    0.1
    """
    return replace(experiment, **_checked(experiment, settings, ""))


def _checked(of: Experiment | StageBudget, settings: Mapping[str, Any], within: str) -> dict[str, Any]:
    refuse_unknown(settings, type(of), within)
    values: dict[str, Any] = {}
    for name, value in settings.items():
        before = getattr(of, name)
        if isinstance(before, StageBudget) and isinstance(value, Mapping):
            value = replace(before, **_checked(before, value, f"{name}."))
        elif isinstance(value, list):
            value = tuple(value)
        values[name] = value if isinstance(value, StageBudget) else _of_its_type(of, name, value, within)
    return values


def _of_its_type(of: Experiment | StageBudget, name: str, value: Any, within: str) -> Any:
    """Return a value that is of its setting's type (a whole number passes as a number), or refuse it."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    kind: Any = next(field.type for field in fields(of) if field.name == name)
    if kind is not StageBudget:
        try:
            return TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError:
            pass
    raise UsageError(f"Setting {within}{name} = {value!r}; expected {getattr(kind, '__name__', kind)}.")


def refuse_unknown(names: Iterable[str], settings: type, within: str = "") -> None:
    """Refuse names that a dataclass of settings does not have, with the closest that it has."""
    known = [field.name for field in fields(settings)]
    for name in names:
        if name not in known:
            raise UsageError(f"There is no setting {within + name!r}.{did_you_mean(name, known)}")


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration with the settings that later versions added, as they were before."""
    try:
        return Experiment.from_config(config).to_config()
    except (UsageError, TypeError):
        return dict(config)  # not an experiment's; it is compared as it is


def num_classifiers(classifiers: float | tuple[int, ...], num_layers: int) -> int:
    """Return how many layers get a routing classifier: a number, a share of all layers, or those that are named.

    >>> num_classifiers(7 / 24, 24), num_classifiers(7 / 24, 30), num_classifiers(7, 30), num_classifiers((5, 6), 30)
    (7, 9, 7, 2)
    """
    if isinstance(classifiers, tuple):
        return len(classifiers)
    if classifiers < 0 or (classifiers > 1 and classifiers != int(classifiers)):
        raise UsageError(
            f"classifiers = {classifiers}; expected a number of layers, a share of them below 1, or the layers."
        )
    return round(classifiers * num_layers) if classifiers < 1 else int(classifiers)
