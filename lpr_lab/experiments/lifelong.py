"""Several language groups one after the other, each a run of its own that goes on from the one before.

LayerMoE's lifelong setting: what a group learned must survive the next one. The last run's adapter holds every stage,
so all of them are scored on the same documents, and "what is left of group 1 after group 2" is a paired comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from lpr_lab.errors import UsageError
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import Experiment, completed
from lpr_lab.runs.find import start_run
from lpr_lab.runs.formats import json_records
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_codes

KIND = "lifelong"


def start(experiment: Experiment, groups: Sequence[Sequence[str]], run_dir: str = "", root: str | None = None) -> Run:
    """Return the run that holds the whole sequence together: the one given, an unfinished one, or a new one.

    Args:
        experiment: what every group is taught with; its `expanded` is replaced by each group in turn.
        groups: languages, group by group, at least two groups.
        run_dir: a run directory made before.
        root: the folder of runs.
    """
    if len(groups) < 2 or not all(groups):
        raise UsageError(f"groups = {groups}; expected at least two groups with at least one language each.")
    groups = [language_codes(group) for group in groups]
    arrow = " then ".join(", ".join(group) for group in groups)
    config = {**experiment.to_config(), "expanded": [], "groups": [list(group) for group in groups]}
    return start_run(
        config,
        kind=KIND,
        slug=f"{experiment.recipe} {' '.join(code for group in groups for code in group)}",
        title=f"{experiment.base}: {arrow}",
        run_dir=run_dir,
        root=root,
        completed=_completed,
    )


def _completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """See `config.completed`; the languages to be learned are in `groups` here."""
    groups = config["groups"]
    of_first = {name: value for name, value in config.items() if name != "groups"} | {"expanded": groups[0]}
    return {**completed(of_first), "expanded": [], "groups": groups}


def run_groups(experiment: Experiment, groups: Sequence[Sequence[str]], run: Run) -> list[Run]:
    """Teach one group after the other and return their runs; those that are finished are not made again.

    The token budget of stage 1 is per language here: a group of two gets twice that of a group of one.
    """
    done: list[Run] = []
    for number, group in enumerate(map(language_codes, groups), 1):
        key = f"group_{number}"
        if key in run.phases:
            done.append(Run.open(run.path.parent, run.phases[key]["run"]))
            continue
        stage1 = replace(experiment.stage1, tokens=experiment.stage1.tokens * len(group))
        changes: dict[str, Any] = {"expanded": tuple(group), "stage1": stage1}
        following = recipes.further(done[-1], **changes) if done else replace(experiment, **changes)
        done.append(pipeline.run(following, root=run.path.parent))
        run.phases.record(key, {"run": done[-1].id, "languages": list(group)})
    return done


def retention(children: Sequence[Run]) -> pd.DataFrame:
    """Return bits per byte of every language after every stage, and its paired change from the base.

    Args:
        children: the runs of all groups, in order.

    Returns:
        Columns language, group (G0 are the original languages), dataset, stage (`base`, then in the order of training),
        bits_per_byte, change_percent with its 95 % interval change_low and change_high, n_documents.
    """
    last = children[-1]
    scores, changes = last.tables.read("stages"), last.tables.read("change_by_stage")
    if scores is None or changes is None:
        raise UsageError(f"Run {last.id} has no tables of its stages; finish it first.")
    group_of = dict.fromkeys([*last.config["original"], *last.config.get("unreviewed", ())], "G0")
    for number, child in enumerate(children, 1):
        group_of |= dict.fromkeys(child.config["expanded"], f"G{number}")
    keys = ["language", "dataset", "stage"]
    wanted = {"change_percent": "change_percent", "ci_low": "change_low", "ci_high": "change_high"}
    moved = changes[[*keys, *wanted]].rename(columns=wanted)
    table = scores.drop(columns=["role", "ci_low", "ci_high"]).merge(moved, on=keys, how="left")
    at_base = table["stage"] == "base"
    table.loc[at_base, list(wanted.values())] = 0.0
    return table.assign(group=table["language"].map(group_of))


def finish(run: Run, children: Sequence[Run]) -> dict[str, Any]:
    """Write `results.json` of the whole sequence: retention after every stage, and what held in each run."""
    with run.working("finish"):
        table = retention(children)
        run.tables.write("retention_by_stage", table)
        results = {
            "schema_version": 1,
            "groups": [list(child.config["expanded"]) for child in children],
            "retention_by_stage": json_records(table),
            "claims": [
                {**claim, "group": f"G{number}"}
                for number, child in enumerate(children, 1)
                for claim in child.results.get("claims", [])
            ],
        }
        run.documents.write("results", results)
        run.finish()
    return results
