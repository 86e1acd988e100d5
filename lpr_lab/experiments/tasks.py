"""Tasks in runs: asked where a run or an evaluation wants them, and kept as tables."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lpr_lab.experiments.config import Experiment
from lpr_lab.measure.settings import TaskSettings
from lpr_lab.measure.tasks.kinds import TASKS
from lpr_lab.measure.tasks.make import make_items
from lpr_lab.measure.tasks.scores import TaskReport
from lpr_lab.runs.formats import json_records
from lpr_lab.runs.run import Run
from lpr_lab.text.corpus import Corpus


def check_tasks(experiment: Experiment, corpus: Corpus) -> None:
    """Make the items that a run will be asked once, so that what cannot be asked is said before anything is trained.

    Raises:
        UsageError, MissingError: as `make_items`.
    """
    if experiment.asked.tasks:
        make_items(corpus, languages=experiment.languages, seed=experiment.seed, **vars(experiment.asked))


def write_tasks(run: Run, report: TaskReport, settings: TaskSettings, names: Mapping[str, str]) -> None:
    """Write scores, items, and the change from the first model to each of the others, by stage.

    Args:
        run: where to.
        report: what the models made of the tasks.
        settings: what was asked.
        names: what each model of the report is called in the run, in the order in which the model changed.
    """
    scores, items = report.to_frame(), report.items()
    called = {**{model: model for model in scores["model"]}, **names}
    order = {model: place for place, model in enumerate(dict.fromkeys([*names.values(), *called.values()]))}
    scores["model"], items["model"] = scores["model"].map(called), items["model"].map(called)
    scores = scores.sort_values("model", key=lambda column: column.map(order), kind="stable")
    run.tables.write("tasks", scores.rename(columns={"model": "stage"}).reset_index(drop=True))
    run.tables.write("task_items", items.rename(columns={"model": "stage"}))
    first, *others = names
    changes = [report.changes(first, model).assign(stage=names[model]) for model in others]
    if changes:
        run.tables.write("task_changes", pd.concat(changes, ignore_index=True))
    if len(report.left_out):
        run.tables.write("tasks_left_out", report.left_out)
    run.phases.record("tasks", {"tasks": list(settings.tasks), "seed": report.seed})


def task_results(run: Run) -> dict[str, Any]:
    """Return what stands in results where tasks were asked, with the meaning of each in words; else nothing."""
    scores = run.tables.read("tasks")
    if scores is None:
        return {}
    found: dict[str, Any] = {"scores": json_records(scores)}
    for name, key in (("task_changes", "changes"), ("tasks_left_out", "left_out")):
        table = run.tables.read(name)
        found[key] = [] if table is None else json_records(table)
    found["meaning"] = {name: TASKS[name].meaning for name in dict.fromkeys(scores["task"]) if name in TASKS}
    return {"tasks": found}
