"""What the control runs of a run say: excess forgetting beyond an old-only arm, and forgetting at equal gain.

    excess forgetting = change of bits per byte of the run − change of its old-only arm,   on original languages

The old-only arm (`experiments.controls`) has the same base, method and schedule, and reads original languages alone.
What any raw text does to a base is in both changes, so it is not in their difference, which is in points of per cent of
the base's bits per byte; above zero is forgetting. Its interval is paired over documents.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lpr_lab.errors import ComparisonRefusedError, LprError
from lpr_lab.measure.controls.equal_gain import GainPoint, at_gain, before_the_turn, common_gain, difference_at_gain
from lpr_lab.measure.significance import Difference
from lpr_lab.runs.compare.paired_changes import difference, resampled_changes, resampled_of
from lpr_lab.runs.compare.paired_scores import Key, Table
from lpr_lab.runs.model_ref import BASE, ModelRef, analysed_run, baseline_of
from lpr_lab.runs.run import Run
from lpr_lab.text.splits import main_test_set

OLD_ONLY = "old_only"
"""Value of an experiment's setting `control`."""
MEAN = "mean"
"""In place of a language: over all of them."""
EXCESS_COLUMNS = ["language", "change_percent", "control_percent", "excess", "ci_low", "ci_high", "verdict", "control"]


def is_control(run: Run) -> bool:
    """Whether a run is a control of others, rather than an expansion of its own account."""
    return bool(run.config.get("control"))


def find_old_only(run: Run, runs: Iterable[Run]) -> Run | None:
    """Return the old-only arm of a run: the newest finished one that differs in nothing but that; None without one."""
    if is_control(run):
        return None
    # A run of an earlier version recorded fewer settings than its arm.
    wanted = {**run.config, "control": OLD_ONLY}
    for other in runs:
        try:
            if other.problem or not is_control(other) or other.status.recorded_state != "finished":
                continue
            if all(other.config.get(name) == value for name, value in wanted.items()):
                return other
        except LprError:
            continue
    return None


def excess_forgetting(run: Run, control: Run, dataset: str = "") -> Table:
    """Return what a run forgot beyond its old-only arm: a row per original language, and their mean.

    Args:
        run: a finished expansion.
        control: its old-only arm, scored on the same documents.
        dataset: of the test sets; held-out text where none is named, or else what there is.

    Returns:
        language, change_percent (of the run), control_percent, excess (points), ci_low, ci_high, verdict, control (its
        id). Without scores by document there is no interval, and so `no clear difference`.

    Raises:
        ComparisonRefusedError: another base, or not the same test sets.
    """
    import pandas as pd

    if run.config.get("base") != control.config.get("base"):
        raise ComparisonRefusedError(
            f"Run {run.id} is of the base {run.config.get('base')!r} and run {control.id} of "
            f"{control.config.get('base')!r}; excess forgetting is a difference between two models of one base."
        )
    dataset = forgotten_on(run, dataset)
    changes, controls = (_changes(one, dataset) for one in (run, control))
    keys: list[Key] = [(code, dataset) for code, row in changes.items() if row["role"] == "original"]
    for code, _ in keys:
        if code not in controls or controls[code]["test_set"] != changes[code]["test_set"]:
            raise ComparisonRefusedError(
                f"Run {control.id} was not scored on the documents of run {run.id} in {code!r} ({dataset}); make the "
                "control with the same corpus and evaluation: `lpr-lab control RUN`."
            )
    rows = []
    for name, part in [*((key[0], [key]) for key in keys), (MEAN, keys)]:
        means = [float(np.mean([of[code]["change_percent"] for code, _ in part])) for of in (changes, controls)]
        found = difference(run, control, part)
        known = found if found.has_interval else Difference(means[0] - means[1])
        rows.append([name, *means, means[0] - means[1], known.low, known.high, known.verdict(), control.id])
    return pd.DataFrame(rows, columns=EXCESS_COLUMNS)


def forgotten_on(run: Run, dataset: str = "") -> str:
    """Return the test set on which a run's forgetting is told: the one named, held-out text, or else what there is.

    Raises:
        ComparisonRefusedError: it was not scored on an original language there.
    """
    dataset = dataset or _main_of(run)
    if not any(row["role"] == "original" for row in _changes(run, dataset).values()):
        raise ComparisonRefusedError(f"Run {run.id} was not scored on an original language ({dataset}).")
    return dataset


def _main_of(run: Run) -> str:
    table = run.tables.read("change")
    return "" if table is None else main_test_set(table["dataset"])


def _changes(run: Run, dataset: str) -> dict[str, Mapping[Any, Any]]:
    table = run.tables.read("change")
    if table is None or baseline_of(run) != BASE:
        raise ComparisonRefusedError(f"Run {run.id} has no changes from its base; it was not evaluated.")
    return {str(row["language"]): row for row in table[table["dataset"] == dataset].to_dict("records")}


# ------------------------------------------------------------------------------------------------- at equal gain


def gain_point(model: ModelRef, dataset: str = "") -> GainPoint:
    """Return what a run's model, at any stage that was scored document by document, gained and forgot.

    Raises:
        ComparisonRefusedError: it was not scored so on languages of both kinds.
    """
    dataset = dataset or _main_of(model.run)
    run, known = model.run, _changes(model.run, dataset)
    found = resampled_of(model) if model.stage else resampled_changes(run)
    parts = {
        role: [found[code, dataset] for code, row in known.items() if row["role"] == role and (code, dataset) in found]
        for role in ("expanded", "original")
    }
    if not parts["expanded"] or not parts["original"]:
        raise ComparisonRefusedError(
            f"{model.title(run)} of run {run.id} has no scores by document on both kinds of languages ({dataset})."
        )
    means = {role: float(np.mean([one.change for one in part])) for role, part in parts.items()}
    drawn = {role: np.mean([one.resamples for one in part], axis=0) for role, part in parts.items()}
    fewest = min(len(one.ids) for part in parts.values() for one in part)
    name = run.id + (f": {model.stage}" if model.stage else "")
    resamples = -drawn["expanded"], drawn["original"]
    return GainPoint(name, -means["expanded"], means["original"], *resamples, fewest, **rate_of(model))


def rate_of(model: ModelRef) -> dict[str, Any]:
    """Return the learning rate of a run's model, and what it was made of beside that, as a `GainPoint` has them."""
    config = {name: value for name, value in model.run.config.items() if name != "seed"}
    budget = dict(config.get("stage1") or {})
    rate = budget.pop("learning_rate", None)
    otherwise = json.dumps({**config, "stage1": budget, "stage": model.stage}, sort_keys=True)
    return {"rate": math.nan if rate is None else float(rate), "otherwise": otherwise}


def forgetting_at_gain(curves: Mapping[str, Sequence[ModelRef]], gain: float | None = None, dataset: str = "") -> Table:
    """Return the forgetting of several ways of training at one gain, each against the first.

    Args:
        curves: name of a way to models of it: runs with other rates or budgets, or stages of a run. All must have been
            scored on the same documents. A run at a rate so high that one at a lower rate gained no less is left out.
        gain: in per cent; None takes the middle of what all reached.
        dataset: of the test sets; held-out text where none is named, or else what there is.

    Returns:
        name, gain, forgetting, ci_low, ci_high, between (the two models that enclose it), n_models (that count);
        against the first: difference (points), difference_low, difference_high, verdict.

    Raises:
        ComparisonRefusedError: other test sets, no gain that all reached, or a gain beyond what one of them reached.
    """
    import pandas as pd

    all_models = [model for models in curves.values() for model in models]
    dataset = dataset or _main_of(all_models[0].run)
    _refuse_other_documents(all_models, dataset)
    points = {name: [gain_point(model, dataset) for model in models] for name, models in curves.items()}
    low, high = common_gain(points)
    gain = (low + high) / 2 if gain is None else gain
    rows, first = [], next(iter(points))
    for name, own in points.items():
        found = at_gain(own, gain, name)
        apart = difference_at_gain(own, points[first], gain) if name != first else Difference(0.0)
        ends = {"ci_low": found.forgetting.low, "ci_high": found.forgetting.high}
        row = {"name": name, "gain": gain, "forgetting": found.forgetting.value, **ends}
        row |= {"between": " and ".join(dict.fromkeys(found.between)), "n_models": len(before_the_turn(own))}
        row |= {"difference": apart.value, "difference_low": apart.low, "difference_high": apart.high}
        rows.append(row | {"verdict": "" if name == first else apart.verdict()})
    return pd.DataFrame(rows)


def curves_of(run: Run, runs: Iterable[Run]) -> dict[str, list[ModelRef]]:
    """Return the runs of the same base, languages and text as `run`, by recipe, its own first."""
    shared = ("base", "corpus", "original", "earlier", "expanded")
    wanted = {name: run.config.get(name) for name in shared}
    found: dict[str, list[ModelRef]] = {str(run.config.get("recipe")): [ModelRef(run, "")]}
    for other in runs:
        try:
            if other.problem or other.id == run.id or analysed_run(other) or is_control(other):
                continue
            if {name: other.config.get(name) for name in shared} != wanted or other.tables.read("documents") is None:
                continue
        except LprError:
            continue
        found.setdefault(str(other.config.get("recipe")), []).append(ModelRef(other, ""))
    return found


def _refuse_other_documents(models: Sequence[ModelRef], dataset: str) -> None:
    sets = {}
    for model in models:
        sets[model.run.id] = {
            code: (row["role"], row["test_set"]) for code, row in _changes(model.run, dataset).items()
        }
    first = next(iter(sets.values()), None)
    for name, own in sets.items():
        if own != first:
            raise ComparisonRefusedError(
                f"Run {name} was scored on other documents or languages than run {next(iter(sets))} ({dataset}), so "
                "their gains are not about the same text."
            )
