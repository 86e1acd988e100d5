"""Everything an experiment is made with, in one frozen object that a run directory stores as `config.yaml`.

The verbs' own settings are composed here. Recipes, notebooks, presets and `config.yaml` name every setting flat, as in
`lpr_coef`; `flat_names.FLAT` is the one place that says which part has it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from lpr_lab.errors import UsageError, one_of
from lpr_lab.experiments.flat_names import FLAT, names_of, refuse_unknown
from lpr_lab.measure.settings import EvaluateSettings, SelfDivergenceSettings, TaskSettings
from lpr_lab.measure.tasks.kinds import NAMES as TASKS
from lpr_lab.method.allocation import RULES
from lpr_lab.method.scores.table import KINDS as SCORES
from lpr_lab.method.settings import (
    ExpandSettings,
    FinetuneSettings,
    FitSettings,
    ReviewSettings,
    ScoreSettings,
    SimilaritySettings,
    UpcycleSettings,
    num_classifiers,
)
from lpr_lab.method.training.budget import StageBudget
from lpr_lab.model.bases.embedded import learning_rates
from lpr_lab.model.bases.rounding import BASE_DTYPES
from lpr_lab.runs.watch.alerts import Bounds
from lpr_lab.text.languages import language_codes

if TYPE_CHECKING:
    from pydantic import TypeAdapter

STEPS = ("fit_routers", "expand", "one_stage", "local_review", "review", "finetune", "interpolate")
OF_BASELINES = ("finetune", "interpolate")
"""Steps that train another model than an expansion."""
_FITTING = ("fit_routers", "local_review")
"""Steps that solve for routers in closed form."""
STAGES = ("stage1", "stage2")
OLD_ONLY = "old_only"
CONTROLS = ("", OLD_ONLY)
BY_SIMILARITY = ("uniform", "similarity", "inverse", "first", "last", "random")
"""What a measured similarity is enough for."""
ALLOCATIONS = (*BY_SIMILARITY, *SCORES)


_RATE_FACTORS = {"lora": 10, "lora_moe": 10}
"""Low-rank updates learn best at about ten times the rate of whole weights, whatever their rank (LoRA Without Regret,
Thinking Machines 2025)."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment: a recipe's steps with every setting resolved.

    A record of what a run is made with, hence its many fields. `recipes` has the named ones; change settings by their
    flat names, with `with_settings` or by a recipe's keywords.
    """

    recipe: str
    """Name of the recipe it came from."""
    steps: tuple[str, ...]
    """Verbs in order, out of fit_routers, expand, one_stage, local_review, review; of a baseline finetune, and
    interpolate."""
    base: str = "smollm2-135m"
    quantization: str = ""
    """`nf4` packs the base's linear maps into four bits (see `model.bases.quantized`); empty leaves them whole."""
    base_dtype: str = "auto"
    """What the frozen base is held in: `float32`, `bfloat16`, or `auto`, the precision that is computed in (see
    `model.machine.resolve_base_dtype`). In bfloat16 it takes half the memory and a step less time, and its states are
    rounded between layers as well; experts and routers are float32 in any case."""
    corpus: str = "demo"
    parent: str = ""
    """Id of the run whose model this one goes on from (see `recipes.further`); empty to start from the base."""
    from_run: str = ""
    """Id of the run whose expansion this one trains further (see `recipes.stage1`); empty to upcycle first."""
    original: tuple[str, ...] = ("en", "es")
    unreviewed: tuple[str, ...] = ()
    """Further languages of the base that no training reads: only scored, as original ones. What a method does to these
    it does to every language that nobody thought of."""
    earlier: tuple[str, ...] = ()
    """Languages that the parent was taught."""
    expanded: tuple[str, ...] = ("el", "hu", "tr")
    new_experts_per_layer: int = 1
    """On average over the layers: the budget."""
    allocation: str | tuple[int, ...] = "uniform"
    """How the budget is divided: uniform, similarity (LayerMoE), the controls inverse, first, last, random; by a score
    of layers, neurons, gradient or predicted_gain (see `method.scores`); or new experts layer by layer, and then that
    is the budget."""
    allocation_rule: str = "largest_remainder"
    """Or the paper's `round_up` (see `method.allocation.allocate`)."""
    delta: float | None = None
    """The papers' budget, for rounding up; None for the one that comes to `new_experts_per_layer`."""
    similarity: SimilaritySettings = field(default_factory=SimilaritySettings)
    scores: ScoreSettings = field(default_factory=ScoreSettings)
    classifiers: int | float | tuple[int, ...] = 0
    """Routing classifiers: in so many of the layers where original and expanded languages are most alike, in such a
    share of all layers (below 1), or in these layers."""
    upcycle: UpcycleSettings = field(default_factory=UpcycleSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    stage1: StageBudget = field(default_factory=lambda: StageBudget(tokens=61_440))
    stage2: StageBudget = field(default_factory=lambda: StageBudget(tokens=20_480))
    expand: ExpandSettings = field(default_factory=ExpandSettings)
    review: ReviewSettings = field(default_factory=ReviewSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    loss_variant: str = "paper"
    """`paper`, or `released` for the authors' code (all losses that have the two)."""
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    self_divergence: SelfDivergenceSettings = field(default_factory=SelfDivergenceSettings)
    control: str = ""
    """`old_only`: everything that trains by gradient reads original languages alone, in place of the expanded ones
    (see `experiments.controls.arms`); empty for a run of its own account."""
    asked: TaskSettings = field(default_factory=TaskSettings)
    alerts: Bounds = field(default_factory=Bounds)
    """From where on a run raises an alert; nothing that is trained or measured depends on it."""
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("original", "unreviewed", "earlier", "expanded"):
            object.__setattr__(self, name, language_codes(getattr(self, name)))
        unknown = [step for step in self.steps if step not in STEPS]
        if unknown or not self.steps:
            raise UsageError(f"steps = {self.steps}; expected some of {', '.join(STEPS)}.")
        self._check_baseline()
        both = set(self.originals) & {*self.earlier, *self.expanded} | set(self.earlier) & set(self.expanded)
        both |= set(self.original) & set(self.unreviewed)
        if both:
            raise UsageError(
                f"{', '.join(sorted(both))} cannot be both an original and an expanded language, nor of two "
                "groups, nor both reviewed and unreviewed."
            )
        if isinstance(self.allocation, str):
            one_of("allocation", self.allocation, ALLOCATIONS, "A list gives the new experts layer by layer.")
            self._check_score()
        one_of("allocation_rule", self.allocation_rule, RULES)
        one_of("base_dtype", self.base_dtype, BASE_DTYPES)
        one_of("control", self.control, CONTROLS)
        for task in self.asked.tasks:
            one_of("tasks", task, TASKS)
        if self.delta is not None and self.allocation_rule == "largest_remainder":
            raise UsageError(
                f"delta = {self.delta} is the budget of rounding up, and allocation_rule = 'largest_remainder'; give "
                "allocation_rule='round_up', or new_experts_per_layer for the budget."
            )
        num_classifiers(self.classifiers, 1)
        for name in STAGES:
            if type(getattr(self, name)) is not StageBudget:
                raise UsageError(f"{name} = {getattr(self, name)!r}; expected a StageBudget.")
        if set(self.steps) & set(_FITTING) and self.fit.solver != "means" and not self.upcycle.router_bias:
            raise UsageError(
                f"fit_solver = {self.fit.solver!r} fits routers with a constant, and router_bias = False leaves them "
                "without one. Take router_bias=True, or fit_solver='means'."
            )
        if self.classifiers and not {"review", "local_review"} & set(self.steps):
            raise UsageError(f"classifiers = {self.classifiers}, but none of the steps {self.steps} is a review.")
        if not self.original or not self.expanded:
            raise UsageError("An experiment needs at least one original and one expanded language.")

    def _check_baseline(self) -> None:
        own = [step for step in self.steps if step in OF_BASELINES]
        if bool(self.finetune.kind) != bool(own) or (own and len(own) < len(self.steps)):
            raise UsageError(
                f"baseline = {self.finetune.kind!r} and steps = {self.steps}; a baseline has the steps "
                f"{', '.join(OF_BASELINES)} and no others. Take one of the recipes."
            )
        if own and (self.from_run or self.parent):
            raise UsageError(
                f"The baseline {self.finetune.kind} starts from a dense base, and this experiment from the run "
                f"{self.from_run or self.parent}."
            )
        if own and self.finetune.kind == "sparse_moe" and self.allocation in ALLOCATIONS[1:]:
            raise UsageError(
                f"allocation = {self.allocation!r} plans an expansion; sparse_moe takes 'uniform', or new experts "
                "layer by layer."
            )

    def _check_score(self) -> None:
        """Refuse what a score of layers cannot be measured on, before anything is loaded."""
        if self.allocation not in SCORES:
            return
        if self.parent:
            raise UsageError(
                f"allocation = {self.allocation!r} is measured on a dense base, and this experiment goes on from the "
                f"run {self.parent}; take similarity, uniform, or a list."
            )
        if self.quantization and self.allocation != "neurons":
            raise UsageError(
                f"allocation = {self.allocation!r} needs gradients of the base's weights, and quantization = "
                f"{self.quantization!r} packs them; take similarity or neurons, or leave the base whole."
            )

    @property
    def is_baseline(self) -> bool:
        """Whether it makes another model than an expansion."""
        return bool(self.finetune.kind)

    @property
    def both_stages(self) -> StageBudget:
        """Budget of what is trained in one stage on the text of both: the rates of stage 1, the tokens of the two."""
        stage1 = self.resolved().stage1
        return replace(stage1, tokens=stage1.tokens + self.stage2.tokens)

    @property
    def replay_share_of_both(self) -> float:
        """Share of original languages in the text of both stages together; of a baseline its own, where it has one."""
        own = self.finetune.replay_share
        replayed = self.stage2.tokens * self.review.replay_share
        return replayed / (self.stage1.tokens + self.stage2.tokens) if own is None else own

    @property
    def originals(self) -> tuple[str, ...]:
        """The languages of the base: those that trainings replay, and those that are only scored."""
        return (*self.original, *self.unreviewed)

    @property
    def languages(self) -> tuple[str, ...]:
        """Original languages first, then those of earlier groups, then the expanded ones."""
        return (*self.originals, *self.earlier, *self.expanded)

    @property
    def taught(self) -> tuple[str, ...]:
        """The languages that stage 1 reads: the expanded ones, or of an old-only arm the original ones."""
        return self.original if self.control == OLD_ONLY else self.expanded

    @property
    def replayed(self) -> tuple[str, ...]:
        """The languages of which a training reads `replay` text: the original ones, or of some recipes none."""
        steps, is_control = {*self.steps}, self.control == OLD_ONLY
        in_one_stage = {"one_stage", "finetune"} & steps and not is_control and self.replay_share_of_both
        # A further group's routers may be fitted from statistics alone, which the run before kept of the originals.
        is_fitted = {*_FITTING} & steps and not self.parent
        return self.original if "review" in steps or in_one_stage or is_fitted else ()

    @property
    def tokens_per_language(self) -> int:
        """Return the tokens of `train` text that a language must have for both stages to see none of it twice."""
        is_control = self.control == OLD_ONLY
        if {"one_stage", "finetune"} & set(self.steps):
            total, share = self.stage1.tokens + self.stage2.tokens, 0.0 if is_control else self.replay_share_of_both
            learned, replayed = (1 - share) * total / len(self.taught), share * total / len(self.original)
            return math.ceil(max(learned, replayed * 80 / 15))
        learned = self.stage1.tokens / len(self.taught)
        replayed = self.stage2.tokens * (1.0 if is_control else self.review.replay_share) / len(self.original)
        # Of five and a third times as much text is `train` as is `replay`.
        return math.ceil(max(learned, replayed * 80 / 15))

    def resolved(self) -> "Experiment":
        """Return the experiment with what the base decides as numbers: the learning rates."""
        experts, routers = learning_rates(self.base)
        experts *= _RATE_FACTORS.get(self.finetune.kind, 1)

        def of(budget: StageBudget) -> StageBudget:
            own, of_routers = budget.learning_rate, budget.router_learning_rate
            return replace(
                budget,
                learning_rate=experts if own is None else own,
                router_learning_rate=routers if of_routers is None else of_routers,
            )

        return replace(self, stage1=of(self.stage1), stage2=of(self.stage2))

    def flat(self) -> dict[str, Any]:
        """Return every setting by its flat name."""
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            names = FLAT.get(name)
            values |= {flat: getattr(value, own) for flat, own in names.items()} if names else {name: value}
        return values

    def with_settings(self, **settings: Any) -> "Experiment":
        """Return the experiment with settings replaced, by their flat names; a list passes as a tuple.

        A stage's budget is a `StageBudget`, or a mapping of those of its settings that change.

        Raises:
            UsageError: an unknown setting, with the closest known one, or a budget that cannot be.
        """
        refuse_unknown(settings, NAMES)
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        settings |= {
            name: _budget(name, getattr(self, name), settings[name])
            for name in STAGES
            if isinstance(settings.get(name), Mapping)
        }
        parts = {
            part: {own: settings.pop(flat) for flat, own in names.items() if flat in settings}
            for part, names in FLAT.items()
        }
        return replace(self, **settings, **{part: replace(getattr(self, part), **own) for part, own in parts.items()})

    def to_config(self) -> dict[str, Any]:
        """Return every setting by its flat name as plain JSON values, with the numbers that the base decides."""
        resolved = self.resolved()
        config = resolved.flat() | {name: asdict(getattr(resolved, name)) for name in STAGES}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> "Experiment":
        """Rebuild an experiment from `to_config`, refusing settings it does not know.

        What a run of an earlier version did not record is what it was then.

        Raises:
            UsageError: an unknown setting, with the closest known one, or a value of another type than it has.
        """
        refuse_unknown(config, NAMES)
        return changed(Experiment.begin(**{name: config[name] for name in BEGINNING if name in config}), config)

    @staticmethod
    def begin(recipe: str, steps: Sequence[str], baseline: str = "") -> "Experiment":
        """Return an experiment with the defaults of everything but what decides which settings it can have."""
        upcycle = UpcycleSettings(router_bias=bool(set(steps) & set(_FITTING)))
        return Experiment(recipe=recipe, steps=tuple(steps), finetune=FinetuneSettings(kind=baseline), upcycle=upcycle)


BEGINNING = ("recipe", "steps", "baseline")
"""What `Experiment.begin` takes, by its flat names."""
_PLACES: Mapping[str, tuple[Any, str]] = {
    flat: (part.type, own) if part.name in FLAT else (Experiment, own)
    for part in fields(Experiment)
    for flat, own in FLAT.get(part.name, {part.name: part.name}).items()
}
"""Of every setting by its flat name, the class that has it, and its name there."""
NAMES = tuple(_PLACES)
"""Every setting by its flat name."""


def changed(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """Return an experiment with settings replaced that a person gave as plain values, those of stages by their names.

    Raises:
        UsageError: an unknown setting, or a value of another type than it has.

    >>> changed(Experiment(recipe="mine", steps=("expand",)), {"stage1": {"weight_decay": 0.1}}).stage1.weight_decay
    0.1
    """
    return experiment.with_settings(**typed(settings))


def typed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that a person gave as plain values as `with_settings` takes them.

    Raises:
        UsageError: an unknown setting, or a value of another type than it has.
    """
    refuse_unknown(settings, NAMES)
    return {
        name: value if name in STAGES and isinstance(value, Mapping) else _of_its_type(*_PLACES[name], value, name)
        for name, value in settings.items()
    }


def _budget(stage: str, before: StageBudget, changes: Mapping[str, Any]) -> StageBudget:
    """Return a stage's budget with settings replaced."""
    refuse_unknown(changes, names_of(StageBudget), f"{stage}.")
    given = {name: _of_its_type(StageBudget, name, value, f"{stage}.{name}") for name, value in changes.items()}
    try:
        return replace(before, **given)
    except UsageError as error:
        raise UsageError(f"{stage}: {error}") from error


def _of_its_type(settings: type, field_name: str, value: Any, name: str) -> Any:
    """Return a value of its setting's type (a list passes as a tuple, a whole number as a number), or refuse it."""
    from pydantic import ValidationError

    kind: Any = next(field.type for field in fields(settings) if field.name == field_name)
    value = tuple(value) if isinstance(value, list) else value
    if kind is StageBudget:
        if isinstance(value, StageBudget):
            return value
    else:
        try:
            return _strict(kind).validate_python(value)
        except ValidationError:
            pass
    raise UsageError(f"Setting {name} = {value!r}; expected {getattr(kind, '__name__', kind)}.")


@cache
def _strict(kind: Any) -> "TypeAdapter[Any]":
    """Return what reads a value of a type; made once, as hundreds of runs have the same settings."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(strict=True))


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration with the settings that later versions added, as they were before."""
    try:
        return Experiment.from_config(config).to_config()
    except (UsageError, TypeError):
        return dict(config)  # not an experiment's; it is compared as it is
