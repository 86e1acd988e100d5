"""Tasks answered by the two models of an evaluation, on the same items."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lpr_lab.experiments.studies.scoring_settings import EvaluationSettings
from lpr_lab.experiments.tasks import write_tasks
from lpr_lab.measure.settings import TaskSettings
from lpr_lab.measure.tasks.evaluate import evaluate_tasks
from lpr_lab.measure.tasks.kinds import PEOPLE
from lpr_lab.measure.tasks.scores import TaskReport
from lpr_lab.runs.run import Run
from lpr_lab.text.corpus import Corpus


class Answers:
    """Collects what models make of tasks while an evaluation has them in memory."""

    def __init__(self, settings: EvaluationSettings, corpus: Corpus, original: Sequence[str]):
        """Keep what is asked; nothing is where no task is."""
        self._settings, self._corpus, self._original = settings, corpus, original
        self._report: TaskReport | None = None

    def ask(self, model: Any, tokenizer: Any, names: dict[str, str], stages: Sequence[str] = ()) -> None:
        """Ask a model, its base and earlier stages.

        Args:
            model: at the stage that is compared.
            tokenizer: its own.
            names: what to call each of its models (`base`, `expanded`, the stages) that is wanted.
            stages: of the model.
        """
        settings = self._settings
        if not settings.tasks:
            return
        report = evaluate_tasks(
            model,
            tokenizer,
            self._corpus,
            languages=settings.languages,
            original=self._original,
            stages=stages,
            **vars(self._asked()),
            bootstrap=settings.bootstrap,
            precision=settings.precision,
            seed=settings.seed,
        )
        named = {**names, PEOPLE: PEOPLE}
        for number, test in enumerate(report.sets):
            right, margins = (
                {named[model]: found for model, found in values.items() if model in named}
                for values in (test.right, test.margins)
            )
            if self._report is not None:
                known = self._report.sets[number]
                right, margins = known.right | right, known.margins | margins
            report.sets[number] = replace(test, right=right, margins=margins)
        self._report = report

    def write(self, run: Run, first: str, last: str) -> None:
        """Write what was answered, and the change from one model to the other."""
        if self._report is not None:
            write_tasks(run, self._report, self._asked(), {first: first, last: last})

    def _asked(self) -> TaskSettings:
        settings = self._settings
        return TaskSettings(
            tasks=settings.tasks, items_per_language=settings.task_items, prompts_per_language=settings.task_prompts
        )
