"""Run lm-evaluation-harness with its own arguments, and keep the results as a run.

A run of kind `harness` analyses the model of another one: `tables/harness.csv` has a row per task, metric and filter,
`harness/` what the harness writes itself (`results_*.json`, and samples where they were asked for).
"""

import argparse
import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from lm_eval import simple_evaluate
from lm_eval._cli.run import Run as HarnessArguments
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.loggers import EvaluationTracker, TrackioLogger, WandbLogger
from lm_eval.tasks import TaskManager

from lpr_lab.errors import UsageError
from lpr_lab.experiments.harness.model import MODEL, find_model
from lpr_lab.experiments.harness.tasks import find_tasks, load_tasks, without_fetching
from lpr_lab.runs.find import start_run
from lpr_lab.runs.formats import json_records
from lpr_lab.runs.model_ref import EXPANDED, ModelRef
from lpr_lab.runs.run import Run
from lpr_lab.yaml_files import as_json

KIND = "harness"
TABLE = "harness"
COLUMNS = ("task", "metric", "filter", "value", "stderr", "higher_is_better", "num_fewshot", "samples", "version")
_NOT_METRICS = ("alias", "name", "sample_len", "sample_count")
_HERE = "here"
"""Stands for the run's own folder, which does not exist while arguments are checked."""


class Asked(NamedTuple):
    """What was asked for, checked.

    Attributes:
        config: every setting of the harness.
        manager: its table of tasks.
        tasks: names and files of tasks.
        names: what the tasks are called.
        ref: whose model; None where another model of the harness was named.
    """

    config: EvaluatorConfig
    manager: TaskManager
    tasks: list[str]
    names: list[str]
    ref: ModelRef | None


def evaluate(arguments: Sequence[str], root: Path, *, fetch: bool = False) -> Run:
    """Evaluate a model on tasks of the harness; everything that can be refused is, before a model is loaded.

    Args:
        arguments: those of `lm_eval run`; without `--model` it is the model of a run, named by `--model_args run=ID`.
        root: the folder of runs.
        fetch: let the harness fetch data and models from the hub. Else its libraries keep to their caches.

    Returns:
        The finished run.

    Raises:
        UsageError: arguments that the harness or `find_model` refuses, a task that there is not, or several processes.
        MissingError: no such run, or data that would have to be fetched.
        SystemExit: an option that the harness does not have, which it says itself.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UsageError(
            "The harness runs here in one process, and this is one of several. Export the model (lpr_lab.export) and "
            "use `accelerate launch -m lm_eval --model hf --model_args pretrained=FOLDER`."
        )
    with nullcontext() if fetch else without_fetching():
        asked = check(read_arguments(arguments), root)
        config = asked.config
        whose = f"{asked.ref.run.title} ({asked.ref.stage or EXPANDED})" if asked.ref else _called(config)
        run = start_run(
            {
                "run": asked.ref.run.id if asked.ref else "",
                "stage": asked.ref.stage if asked.ref else "",
                "model": config.model,
                "model_args": as_json(config.model_args),
                "tasks": asked.tasks,
                "arguments": list(arguments),
                "fetch": fetch,
            },
            kind=KIND,
            slug=" ".join(asked.names),
            title=f"{', '.join(asked.names)} by the harness: {whose}",
            root=root,
            parents=[asked.ref.run.id] if asked.ref else [],
        )
        with run.working("harness"):
            found = _evaluate(asked, run, root)
            table = to_table(found)
            run.tables.write(TABLE, table)
            facts = {"schema_version": 1, "run": run.config["run"], "stage": run.config["stage"]}
            facts |= {"model": config.model, "lm_eval": version("lm_eval"), "scores": json_records(table)}
            run.finish(facts)
    return run


def read_arguments(arguments: Sequence[str]) -> EvaluatorConfig:
    """Read the arguments of `lm_eval run`, by the harness's own parser.

    Raises:
        UsageError: values that do not go together.
        SystemExit: an option that there is not.
    """
    parser = argparse.ArgumentParser(prog="lpr-lab harness", add_help=False)
    HarnessArguments.create(parser.add_subparsers(dest="command"))
    given = parser.parse_args(["run", *arguments])
    try:
        kept = EvaluatorConfig.load_yaml_config(given.config) if given.config else {}
        given.model = given.model or kept.get("model") or MODEL
        given.output_path = given.output_path or kept.get("output_path") or _HERE
        config = EvaluatorConfig.from_cli(given)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise UsageError(f"The harness refuses these arguments: {error}") from error
    return config


def check(config: EvaluatorConfig, root: Path) -> Asked:
    """Find the model and the tasks that arguments name, and load the tasks' data.

    Raises:
        LprError: see `evaluate`.
    """
    ref = None
    if config.model == MODEL:
        given = {name: str(config.model_args.get(name) or "") for name in ("run", "stage")}
        ref = find_model(given["run"], given["stage"], config.model_args.get("runs_dir") or root)
    tasks = config.tasks.split(",") if isinstance(config.tasks, str) else list(config.tasks or ())
    manager, found = find_tasks(tasks, config.include_path, config.metadata)
    return Asked(config, manager, found, load_tasks(manager, found), ref)


def to_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the harness found as one row per task or group, metric and filter (`COLUMNS`)."""
    rows = []
    for task, values in found["results"].items():
        better = found.get("higher_is_better", {}).get(task) or {}
        counts = found.get("n-samples", {}).get(task) or {}
        for key, value in values.items():
            metric, _, filtered = key.partition(",")
            if key in _NOT_METRICS or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            spread = values.get(f"{metric}_stderr,{filtered}")
            rows.append(
                [
                    *(task, metric, filtered, float(value)),
                    float(spread) if isinstance(spread, int | float) else None,
                    *(better.get(metric), found.get("n-shot", {}).get(task), counts.get("effective")),
                    str(found.get("versions", {}).get(task, "")),
                ]
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _evaluate(asked: Asked, run: Run, root: Path) -> dict[str, Any]:
    """Have the harness do its work as its own command does: evaluate, save, and log where that was asked for."""
    config: Any = asked.config
    score: Any = simple_evaluate  # its decorator hides its parameters from type checkers
    if config.output_path == _HERE:
        config.output_path = str(run.path / "harness" / "results.json")
    if asked.ref is not None:
        config.model_args = {"runs_dir": str(root), **config.model_args, "run": asked.ref.run.id}
    loggers = []
    if config.wandb_args:
        loggers.append(WandbLogger(config.wandb_args, config.wandb_config_args))
    if config.trackio_args:
        loggers.append(TrackioLogger(config.trackio_args))
    tracker = EvaluationTracker(**{**config.hf_hub_log_args, "output_path": config.output_path})
    known = inspect.signature(simple_evaluate).parameters
    settings = {field.name: getattr(config, field.name) for field in fields(config)}
    options = {name: value for name, value in settings.items() if name in known and name != "cache_requests"}
    seeds = zip(
        ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"),
        config.seed or [None] * 4,
        strict=True,
    )
    options |= {**dict(seeds), **config.cache_requests, "tasks": asked.tasks, "task_manager": asked.manager}
    found = score(**options, evaluation_tracker=tracker)
    samples = found.pop("samples", None) if config.log_samples else None
    for logger in loggers:
        logger.post_init(found)
        logger.log_eval_result()
        if samples is not None:
            logger.log_eval_samples(samples)
    tracker.save_results_aggregated(results=found, samples=samples)
    for name, rows in (samples or {}).items():
        tracker.save_results_samples(task_name=name, samples=rows)
    if tracker.push_results_to_hub or tracker.push_samples_to_hub:
        tracker.recreate_metadata_card()
    return found


def _called(config: EvaluatorConfig) -> str:
    names = (config.model_args.get(name) for name in ("pretrained", "model", "path"))
    return next((str(name) for name in names if name), str(config.model))
