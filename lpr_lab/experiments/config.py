"""Everything an experiment is made with, in one frozen object that a run directory stores as `config.yaml`.

Each verb's settings live beside the verb; here they are only composed.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from lpr_lab.errors import UsageError, did_you_mean

STEPS = ("fit_routers", "expand", "local_review", "review")
ALLOCATIONS = ("uniform", "similarity", "inverse", "first", "last", "random")


@dataclass(frozen=True, kw_only=True)
class StageBudget:
    """How much one training stage may take, and how fast it learns (see `method.training.TrainSettings`)."""

    tokens: int
    """Token budget, padding included."""
    max_minutes: float | None = None
    """Wall-clock cap; the stage ends cleanly with a checkpoint."""
    learning_rate: float = 3e-4
    router_learning_rate: float = 1e-3
    blocks_per_step: int = 4
    block_tokens: int = 256


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
    """`nf4` packs the base's linear maps into four bits (see `model.quantized`); empty leaves them whole."""
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
    similarity_tokens: int = 20_000
    """Text per language that similarity is measured on."""
    similarity_state: str = "mlp_input"
    classifiers: int = 0
    """Routing classifiers, in so many of the layers where original and expanded languages are most alike."""
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
    lpr_coef: float = 0.1
    loss_variant: str = "paper"
    """`paper`, or `released` for the authors' code (both losses)."""
    replay_share: float = 1 / 3
    eval_tokens_per_language: int = 4096
    bootstrap: int = 1000
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [step for step in self.steps if step not in STEPS]
        if unknown or not self.steps:
            raise UsageError(f"steps = {self.steps}; expected some of {', '.join(STEPS)}.")
        both = set(self.original) & {*self.earlier, *self.expanded} | set(self.earlier) & set(self.expanded)
        if both:
            raise UsageError(
                f"{', '.join(sorted(both))} cannot be both an original and an expanded language, nor of two groups."
            )
        if isinstance(self.allocation, str) and self.allocation not in ALLOCATIONS:
            raise UsageError(
                f"allocation = {self.allocation!r}; expected new experts layer by layer, or one of "
                f"{', '.join(ALLOCATIONS)}.{did_you_mean(self.allocation, ALLOCATIONS)}"
            )
        if self.classifiers and not {"review", "local_review"} & set(self.steps):
            raise UsageError(f"classifiers = {self.classifiers}, but none of the steps {self.steps} is a review.")
        if not self.original or not self.expanded:
            raise UsageError("An experiment needs at least one original and one expanded language.")

    @property
    def languages(self) -> tuple[str, ...]:
        """Original languages first, then those of earlier groups, then the expanded ones."""
        return (*self.original, *self.earlier, *self.expanded)

    def to_config(self) -> dict[str, Any]:
        """Return every setting as plain JSON values."""
        config = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}

    @staticmethod
    def from_config(config: dict[str, Any]) -> "Experiment":
        """Rebuild an experiment from `to_config`, refusing settings it does not know.

        Raises:
            UsageError: an unknown setting, with the closest known one.
        """
        known = Experiment.__dataclass_fields__
        for key in config:
            if key not in known:
                raise UsageError(f"There is no setting {key!r}.{did_you_mean(key, known)}")
        values: dict[str, Any] = {}
        for key, value in config.items():
            if isinstance(value, list):
                value = tuple(value)
            values[key] = StageBudget(**value) if isinstance(value, dict) else value
        return Experiment(**values)
