"""What an experiment can set of each verb of the method; fields are the verb's keywords, explained there. Torch-free.

    lab.review(model, tokenizer, corpus, original=["en"], expanded=["el"], out="runs/mine", **vars(ReviewSettings()))

The budget of a stage is in `training.budget`. What verbs share (seed, precision, the losses' variant) is not in here.
"""

from dataclasses import dataclass

from lpr_lab.errors import UsageError, one_of

SOLVERS = ("ridge", "logistic", "means")
DIVISIONS = ("languages", "as_is")


@dataclass(frozen=True, kw_only=True)
class SimilaritySettings:
    """Of `measure_similarity`."""

    tokens_per_language: int = 20_000
    state: str = "mlp_input"


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Of `measure_layer_scores`."""

    tokens_per_language: int = 8192
    neuron_share: float = 0.05

    def __post_init__(self) -> None:
        if self.tokens_per_language < 1 or not 0 < self.neuron_share <= 1:
            raise UsageError(
                f"score_tokens = {self.tokens_per_language}, score_neuron_share = {self.neuron_share}; expected 1 or "
                "more, and above 0 up to 1."
            )


@dataclass(frozen=True, kw_only=True)
class UpcycleSettings:
    """Of `upcycle`; said outright, also what a further expansion would take from the first."""

    top_k: int = 2
    router_input: str = "token"
    router_bias: bool = False
    router_init: str = "xavier"
    router_rows: str = "append"
    expert_init: str = "copy"
    expert_init_amount: float | None = None


@dataclass(frozen=True, kw_only=True)
class ExpandSettings:
    """Of `expand`, stage 1: what is added to the language-model loss."""

    load_balancing_coef: float = 0.01
    load_balancing_scope: str = "step"
    router_z_coef: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ReviewSettings:
    """Of `review`, stage 2: how much replay, and what is added to the language-model loss."""

    replay_share: float = 1 / 3
    lpr_coef: float = 0.1
    classifier_coef: float = 0.1
    classifier_input: str = "token"
    group_coef: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """Of a baseline: which, its size, and how much replay; see `method.baselines`."""

    kind: str = ""
    """By name, such as `full`; empty where the recipe is the method's own."""
    replay_share: float | None = None
    """Share of blocks in original languages; None for what both stages of the method replay together."""
    lora_rank: int = 8
    """Of `lora` and `lora_moe`."""
    lora_experts: int = 8
    """Of `lora_moe`: low-rank experts of each map."""
    added_blocks: int | None = None
    """Of `llama_pro`: new blocks; None for as many as divide the layers, up to half of them."""
    frozen_share: float = 0.5
    """Of `ssu`: the share of each map's columns that stays frozen."""
    neuron_share: float = 0.01
    """Of `lape`: the share of all neurons that learns."""
    calibration_tokens: int = 4096
    """Of `ssu` and `lape`: how much text of each language is looked at first."""
    interpolation_weight: float = 0.5
    """Of `interpolate`: 0 is the base, 1 full fine-tuning."""

    def __post_init__(self) -> None:
        for name in ("replay_share", "interpolation_weight"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{name} = {value}; expected 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Of `fit_routers` and `local_review`: how routers are fitted."""

    solver: str = "ridge"
    """`ridge` regression; `logistic` regression, which holds all rows in memory for the while; or `means`: rows are the
    mean state of each class's languages, a start for training rather than a solution (FlexOlmo, arXiv 2507.07024), and
    the only one for routers without a constant."""
    divide: str = "languages"
    """Among several new experts of one group: `languages` gives expert j every language whose number is j modulo their
    count; `as_is` leaves it to the rows that the router has."""
    tokens_per_language: int = 4096
    """How much text each language contributes; a quarter of it is kept apart, for calibration and for the report."""
    penalty: float = 0.01
    """Of ridge regression, as a share of the mean diagonal of the second moment."""
    block_tokens: int = 256
    batch_blocks: int = 4
    """Blocks per forward pass."""
    precision: str = "auto"
    seed: int = 0
    """Which documents are drawn."""

    def __post_init__(self) -> None:
        one_of("solver", self.solver, SOLVERS)
        one_of("divide", self.divide, DIVISIONS)


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
