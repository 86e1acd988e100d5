"""What an evaluation is asked for. Torch-free."""

from dataclasses import dataclass

from lpr_lab.errors import UsageError, one_of
from lpr_lab.measure.tasks.kinds import NAMES
from lpr_lab.runs.model_ref import BASE
from lpr_lab.text.languages import language_codes

SCORES = ("new", "kept")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Which two models are compared, on which text."""

    before: str = BASE
    """As `runs.model_ref` names a model: `base`, a stage of the run after, a run id, or `<run id>: <stage>`."""
    after: str = ""
    """The same; empty for the newest finished expansion."""
    scores: str = "new"
    """`new`: both read the text now; `kept`: what their runs kept, without a model."""
    corpus: str = ""
    """Empty for the one that the runs were made from."""
    languages: tuple[str, ...] = ()
    """Empty for all of the run after."""
    test_sets: tuple[str, ...] = ()
    """Splits; empty for held-out text, or dev text where that is not there in every language."""
    eval_tokens_per_language: int = 4096
    """Per test set."""
    bootstrap: int = 1000
    tasks: tuple[str, ...] = ()
    """Any of choice, inflection and generation (see `measure.tasks.kinds`)."""
    task_items: int = 100
    task_prompts: int = 10
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "languages", language_codes(self.languages))
        one_of("scores", self.scores, SCORES)
        for task in self.tasks:
            one_of("tasks", task, NAMES)
        if self.tasks and self.scores == "kept":
            raise UsageError(
                "scores = 'kept' reads no model, so it can answer no tasks; give scores='new', or no tasks."
            )
