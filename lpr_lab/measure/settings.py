"""What an experiment can set of its evaluation: the fields are keywords of the verbs, explained there. Torch-free."""

from dataclasses import dataclass

from lpr_lab.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SelfDivergenceSettings:
    """Of `draw_samples`, for KL_self."""

    count: int = 0
    """Samples of the base; 0 leaves the measure out."""
    tokens: int = 192
    """Of each at most."""

    def __post_init__(self) -> None:
        if self.count < 0 or self.tokens < 1:
            raise UsageError(
                f"self_samples = {self.count}, self_sample_tokens = {self.tokens}; expected 0 or more, 1 or more."
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Of `evaluate`."""

    tokens_per_language: int = 4096
    bootstrap: int = 1000


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Of `evaluate_tasks`."""

    tasks: tuple[str, ...] = ()
    """Any of choice, inflection and generation; none by default, because they take longer than bits per byte."""
    items_per_language: int = 100
    prompts_per_language: int = 10
