"""What `results.json` of a run says: the headline, the claims, and the numbers that they rest on."""

from typing import Any

import pandas as pd

from lpr_lab.experiments.config import Experiment
from lpr_lab.experiments.expert_tables import original_weight_by_stage
from lpr_lab.experiments.tasks import task_results
from lpr_lab.model.bases.rounding import logit_tolerance
from lpr_lab.runs.claims import as_records, check
from lpr_lab.runs.formats import json_records
from lpr_lab.runs.run import Run


def results_of(run: Run, experiment: Experiment) -> dict[str, Any]:
    """Check the claims and return the results of a run that was measured."""
    changes, phases = _table(run, "change"), run.phases
    weights = None if experiment.is_baseline else _table(run, "original_weight")
    began = phases["baseline" if experiment.is_baseline else "upcycle"]
    exactness = {key: value for key, value in phases["measure"].items() if key.endswith("_difference")}
    if "largest_logit" in began:  # not in runs of earlier versions
        exactness["largest_logit"] = began["largest_logit"]
    starts_as_base = not experiment.parent and experiment.upcycle.expert_init == "copy"
    if starts_as_base and "start_difference" in began:
        exactness["start_difference"] = began["start_difference"]
        if began.get("base_dtype", "float32") != "float32":
            exactness["start_tolerance"] = logit_tolerance(exactness["largest_logit"], began["base_dtype"])
    claims = check(
        changes,
        weights,
        exactness,
        run.tables.read("change_from_parent"),
        experiment.earlier,
        by_stage=original_weight_by_stage(run) if experiment.from_run else None,
        only_stage=experiment.recipe if experiment.from_run else "",
        stages={step: phases[step] for step in experiment.steps},
    )
    of_experts = {} if weights is None else {"routing": {"original_weight": weights.to_dict("records")}}
    how = {"baseline": experiment.finetune.kind} if experiment.is_baseline else {"plan": phases["plan"]}
    return {
        "schema_version": 1,
        "recipe": experiment.recipe,
        "base": experiment.base,
        "original": list(experiment.original),
        "earlier": list(experiment.earlier),
        "expanded": list(experiment.expanded),
        "summary": summarise(changes, weights),
        "claims": as_records(claims),
        "retention": json_records(_table(run, "retention")),
        "change": json_records(changes),
        **of_experts,
        "exactness": exactness,
        "parameters": began["parameters"],
        "cost": _cost(run, began["parameters"]),
        **how,
        "stages": {step: _without_times(phases[step]) for step in experiment.steps},
        **controls_of(run),
        **lost_text(run),
        **task_results(run),
    }


def controls_of(run: Run) -> dict[str, Any]:
    """Return what controls of forgetting found, where a run asked for them, else nothing."""
    found = {}
    for name in ("self_divergence", "learning_rates"):
        table = run.tables.read(name)
        if table is not None:
            found[name] = json_records(table)
    return found


def _cost(run: Run, parameters: dict[str, int]) -> dict[str, int]:
    """Return what a model costs to keep and to use; times and memory differ from run to run, and are in its phases."""
    trained = parameters.get("trained", parameters.get("new_experts", 0) + parameters.get("routers", 0))
    return {
        "trained_parameters": trained,
        "active_parameters": parameters["active_per_token"],
        "file_bytes": sum(file.stat().st_size for file in run.paths.checkpoint.glob("*.safetensors")),
    }


def lost_text(run: Run) -> dict[str, Any]:
    """Return what stands in results where the tokenizer loses some of the evaluated text, else nothing."""
    table = run.tables.read("lost_text")
    return {} if table is None else {"lost_text": json_records(table)}


def summarise(changes: pd.DataFrame, weights: pd.DataFrame | None) -> dict[str, Any]:
    """Return the headline per data set: mean and worst change of bits per byte by role, mean weight of expert 0.

    Args:
        changes: table `change`.
        weights: table `original_weight`; None for a model that has no expert 0.
    """
    summary: dict[str, Any] = {}
    for dataset, rows in changes.groupby("dataset", sort=False):
        by_role = {role: part["change_percent"] for role, part in rows.groupby("role", sort=False)}
        kept = {} if weights is None else _mean_weights(weights[weights["dataset"] == dataset])
        summary[str(dataset)] = {
            str(role): {
                "mean_change_percent": float(part.mean()),
                "worst_change_percent": float(part.max()),
                **kept.get(str(role), {}),
            }
            for role, part in by_role.items()
        }
    return summary


def _mean_weights(weights: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {
        str(role): {"original_weight": float(part["original_weight"].mean())}
        for role, part in weights.groupby("role", sort=False)
    }


def _without_times(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what a step found, without how long it took: that differs from run to run."""
    return {
        key: _without_times(value) if isinstance(value, dict) else value
        for key, value in facts.items()
        if key not in ("seconds", "tokens_per_second", "peak_memory_bytes")
    }


def _table(run: Run, name: str) -> pd.DataFrame:
    table = run.tables.read(name)
    assert table is not None, f"table {name} was written by an earlier phase"
    return table
