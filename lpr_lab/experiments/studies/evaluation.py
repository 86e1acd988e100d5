"""Evaluating finished runs: what was gained and forgotten between two of their models, on the same documents.

Both are scored anew, or the scores that their runs kept are taken (`scores="kept"`), which needs no weights. Two models
that were measured on different documents are not compared.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lpr_lab.errors import ComparisonRefusedError, UsageError
from lpr_lab.experiments.results import lost_text, summarise
from lpr_lab.experiments.studies.predecessors import begun_from, runs_folder
from lpr_lab.experiments.studies.scoring import called, score, take_kept
from lpr_lab.experiments.studies.scoring_settings import EvaluationSettings
from lpr_lab.experiments.studies.subjects import find_subject, has_default_settings, languages_in, scored
from lpr_lab.experiments.tasks import task_results
from lpr_lab.measure.significance import BETTER, change_of
from lpr_lab.runs.claims import MAX_FORGETTING_PERCENT, Claim, as_records
from lpr_lab.runs.compare import paired_scores
from lpr_lab.runs.compare.paired_scores import PairedChange
from lpr_lab.runs.compare.trade_off import trade_off
from lpr_lab.runs.find import list_runs, start_run
from lpr_lab.runs.formats import json_records
from lpr_lab.runs.model_ref import BASE, ModelRef, analysed_run, parse_model_ref, run_id_in, tuned_as
from lpr_lab.runs.run import Run
from lpr_lab.text.splits import main_test_set

KIND = "evaluation"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation at work: its run, its settings as resolved, and its two sides."""

    settings: EvaluationSettings
    run: Run
    before: ModelRef
    after: ModelRef

    @property
    def names(self) -> tuple[str, str]:
        """What the two sides are called in the run's tables."""
        return called(self.before, self.after.run), called(self.after, self.after.run)

    @property
    def uses_defaults(self) -> bool:
        """Whether all is as it comes, so that the measured claims must hold as well."""
        asked = (self.settings.before, self.after.stage, self.settings.corpus, self.settings.scores)
        return asked == (BASE, "", self.after.run.config["corpus"], "new") and has_default_settings(self.after.run)


def start(settings: EvaluationSettings, run_dir: str | Path = "", root: str | Path | None = None) -> Evaluation:
    """Find the two models, making a short expansion where there is none, and return the evaluation, its run started.

    Raises:
        MissingError, UsageError: a side that there is not.
        ComparisonRefusedError: the two come from different text, and none was named to measure both on.
    """
    folder = runs_folder(run_dir, root)
    settings = replace(settings, after=settings.after or begun_from(run_dir, "after"))
    suits = scored(run_id_in(settings.after, folder)) if settings.scores == "new" else _has_scores
    what = "a finished expansion with its weights" if settings.scores == "new" else "a finished run with its scores"
    subject = find_subject(folder, run_id_in(settings.after, folder), suits, what)
    after = parse_model_ref(settings.after, subject, folder)
    before = parse_model_ref(settings.before, subject, folder)
    if before.run.id != subject.id and settings.scores == "new":
        find_subject(folder, before.run.id, scored(before.run.id))
    if (before.run.id, before.stage) == (after.run.id, after.stage):
        raise UsageError(f"before and after are both {after.name(subject)} of run {subject.id}; name two models.")
    corpus = settings.corpus or _common_corpus(before.run, subject)
    roles = languages_in(subject)
    codes = settings.languages or tuple(roles)
    settings = replace(settings, corpus=corpus, languages=codes, before=before.name(subject), after=_full(after))
    config: dict[str, Any] = asdict(settings) | {"run": subject.id, "base": subject.config["base"]}
    config |= {role: [code for code in codes if roles.get(code, "expanded") == role] for role in set(roles.values())}
    run = start_run(
        {**config, "before": called(before, subject)},
        kind=KIND,
        slug=" ".join(codes),
        title=f"{subject.title}: {before.name(subject)} against {after.name(subject)}",
        run_dir=run_dir,
        root=folder,
        parents=list(dict.fromkeys([subject.id, before.run.id])),
    )
    return Evaluation(settings, run, before, after)


def measure(evaluation: Evaluation) -> pd.DataFrame:
    """Score both sides and write the tables; return the change from one to the other, with intervals and verdicts.

    Raises:
        ComparisonRefusedError: their test sets differ.
    """
    run = evaluation.run
    if not run.phases.is_done("measure"):
        with run.working("measure"):
            work = score if evaluation.settings.scores == "new" else take_kept
            work(evaluation.before, evaluation.after, evaluation.settings, run)
            run.phases.mark_done("measure")
    table = run.tables.read("change")
    assert table is not None
    return table


def compared(evaluation: Evaluation) -> PairedChange:
    """Return the comparison as the dashboard shows it, from the evaluation's own tables: changes and documents."""
    run = evaluation.run
    found = paired_scores.compare(ModelRef(run, evaluation.names[0]), ModelRef(run, ""))
    assert found is not None
    return found


def others(evaluation: Evaluation, dataset: str) -> pd.DataFrame | None:
    """Return gain and forgetting of this and of all other runs on the same test sets, or None without both roles."""
    found = trade_off(evaluation.run, list_runs(evaluation.run.path.parent), dataset)
    return None if found is None else found.points


def finish(evaluation: Evaluation) -> dict[str, Any]:
    """Check the claims, write `results.json`, and mark the run finished."""
    run = evaluation.run
    with run.working("finish"):
        change = run.tables.read("change")
        assert change is not None
        results: dict[str, Any] = {
            "schema_version": 1,
            **{key: run.config[key] for key in ("base", "run", "before", "after", "scores")},
            **{role: list(run.config.get(role, ())) for role in ("original", "expanded")},
            "change": json_records(change),
            "claims": as_records(check(evaluation, change)),
            **lost_text(run),
            **task_results(run),
        }
        weights = run.tables.read("original_weight")
        if (
            weights is not None or tuned_as(evaluation.after.run)
        ) and evaluation.before.stage == BASE:  # else it is not what the model learned
            results["summary"] = summarise(change, weights)
        run.finish(results)
    return results


def check(evaluation: Evaluation, change: pd.DataFrame) -> list[Claim]:
    """Check what the notebook says: of every evaluation exactly, of the demo's model as measured."""
    claims = []
    found = compared(evaluation)
    if found.documents is not None and found.rows is not None:
        distance = float((found.rows["change_percent"] - change["change_percent"]).abs().max())
        text = "Every change follows from the scores of single documents that were kept (largest difference, points)."
        claims.append(Claim("follows_from_documents", text, distance, 1e-6, distance <= 1e-6, is_exact=True))
    again = _repeated(evaluation, change)
    if again is not None:
        text = "Scores that the run kept of the same documents come out again (largest difference, %)."
        claims.append(Claim("repeatable", text, again, 0.5, again <= 0.5))
    dataset = main_test_set(change["dataset"])
    rows = change[change["dataset"] == dataset]
    taught, known = (rows[rows["role"] == role] for role in ("expanded", "original"))
    if len(taught):
        unclear = sum(change_of(row).verdict() != BETTER for row in taught.to_dict("records"))
        text = "Every expanded language got clearly better (those that did not)."
        claims.append(Claim("gain", text, float(unclear), 0.0, unclear == 0))
    if len(known):
        rise, most = float(known["change_percent"].max()), MAX_FORGETTING_PERCENT
        text = f"No original language needs {most:g} % more bits (largest rise, %)."
        claims.append(Claim("retention", text, rise, most, rise < most))
    return claims


# Small pieces


def _full(side: ModelRef) -> str:
    return f"{side.run.id}: {side.stage}" if side.stage else side.run.id


def _has_scores(run: Run) -> bool:
    made = {"base", "corpus", "original", "expanded"} <= set(run.config) and not analysed_run(run)
    return made and run.tables.read("change") is not None


def _common_corpus(before: Run, after: Run) -> str:
    ours, theirs = str(after.config["corpus"]), str(before.config["corpus"])
    if ours != theirs:
        raise ComparisonRefusedError(
            f"Run {before.id} was made from the corpus {theirs!r} and run {after.id} from {ours!r}, so what one is "
            "tested on may be what the other was trained on. Name a corpus to measure both on, with `corpus`."
        )
    return ours


def _repeated(evaluation: Evaluation, change: pd.DataFrame) -> float | None:
    """Return by how much scores differ, in per cent, from those that the run after kept of the same documents."""
    if evaluation.settings.scores == "kept" or evaluation.before.stage != BASE:
        return None
    kept = paired_scores.compare(ModelRef(evaluation.after.run, BASE), evaluation.after)
    if kept is None or kept.rows is None:
        return None
    keys = ["language", "dataset", "test_set"]
    both = change.merge(kept.rows, on=keys, suffixes=("", "_kept"))
    if both.empty:
        return None
    distances: Sequence[float] = [
        float((100 * (both[name] / both[f"{name}_kept"] - 1).abs()).max()) for name in ("before", "after")
    ]
    return max(distances)
