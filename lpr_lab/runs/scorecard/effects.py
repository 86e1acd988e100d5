"""Numbers of arms over several seeds, with an interval over seeds and documents together.

Each seed gives one paired number: all its runs were scored on the same documents, with the same order of text. The
interval of their mean is Student's t over the seeds, with a standard error that adds what other documents would change:

    error² = variance over seeds / seeds + variance over resampled documents of the mean over seeds

Both are counted in full, so the interval is rather too wide than too narrow. With one seed there is none.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lpr_lab.errors import ComparisonRefusedError, LprError
from lpr_lab.measure.controls.equal_gain import GainPoint, common_gain, difference_at_gain
from lpr_lab.measure.significance import CONFIDENCE, student_quantile
from lpr_lab.runs.compare.control_runs import rate_of
from lpr_lab.runs.compare.paired_changes import Resampled, resampled_of
from lpr_lab.runs.model_ref import ModelRef
from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.parts import Part, Term
from lpr_lab.text.splits import main_test_set

Arms = Mapping[str, Mapping[int, Run]]
"""Runs by arm and seed."""


class NotMeasuredError(LprError):
    """A run has not what a part of a claim asks for."""


@dataclass(frozen=True)
class Sample:
    """What one seed says: a number, and the same in every resample of the documents (none where there are none)."""

    value: float
    resamples: np.ndarray | None = None
    documents: int = 0


@dataclass(frozen=True)
class Effect:
    """A number over seeds with its 95 % interval.

    Attributes:
        value: mean over the seeds; NaN where nothing was measured.
        low, high: of the interval; NaN with fewer than two seeds.
        by_seed: the number of every seed.
        runs: ids of the runs it comes from.
        problem: why there is no number, in words; else empty.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    by_seed: Mapping[int, float] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    problem: str = ""

    @property
    def seeds(self) -> int:
        """How many seeds it rests on."""
        return len(self.by_seed)


def effect_of(part: Part, arms: Arms) -> Effect:
    """Return the number of a part of a claim; with a `problem` where a run it needs is missing."""
    missing = [arm for arm in part.arms if not arms.get(arm)]
    if missing:
        return Effect(problem=f"not run: {', '.join(missing)}")
    seeds = sorted(set.intersection(*({*arms[arm]} for arm in part.arms)))
    if not seeds:
        return Effect(problem=f"no seed that all of {', '.join(part.arms)} have")
    runs = tuple(dict.fromkeys(arms[arm][seed].id for seed in seeds for arm in part.arms))
    try:
        of_seed = {seed: {arm: arms[arm][seed] for arm in part.arms} for seed in seeds}
        samples = (
            _at_gain(part, of_seed) if part.curves else {seed: _sum(part.terms, own) for seed, own in of_seed.items()}
        )
    except (NotMeasuredError, ComparisonRefusedError) as error:
        return Effect(runs=runs, problem=str(error))
    return combined(samples, runs)


def combined(samples: Mapping[int, Sample], runs: Sequence[str] = ()) -> Effect:
    """Return the mean over seeds and its interval (see the module)."""
    values = np.array([sample.value for sample in samples.values()])
    by_seed = {seed: sample.value for seed, sample in samples.items()}
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Effect(mean, by_seed=by_seed, runs=tuple(runs))
    variance = float(values.var(ddof=1)) / count
    drawn = [sample.resamples for sample in samples.values() if sample.resamples is not None]
    if len(drawn) == count:
        documents = min(sample.documents for sample in samples.values())
        variance += float(np.mean(drawn, axis=0).var()) * documents / max(documents - 1, 1)
    half = student_quantile(0.5 + CONFIDENCE / 2, count - 1) * math.sqrt(variance)
    return Effect(mean, mean - half, mean + half, by_seed, tuple(runs))


def languages_of(run: Run, role: str) -> tuple[str, ...]:
    """Return the languages that a term means by a role, in a run."""
    config = run.config
    original, unreviewed = config.get("original") or (), config.get("unreviewed") or ()
    known = {
        "reviewed": original,
        "unreviewed": unreviewed,
        "original": (*original, *unreviewed),
        "earlier": config.get("earlier") or (),
        "expanded": config.get("expanded") or (),
    }
    return tuple(known[role])


def _sum(terms: Sequence[Term], runs: Mapping[str, Run]) -> Sample:
    parts = [(term.weight, sample_of(term, runs[term.arm])) for term in terms]
    value = sum(weight * one.value for weight, one in parts)
    if any(one.resamples is None for _, one in parts):
        return Sample(value)
    resamples = np.sum([weight * one.resamples for weight, one in parts if one.resamples is not None], axis=0)
    return Sample(value, resamples, min(one.documents for _, one in parts))


def sample_of(term: Term, run: Run) -> Sample:
    """Return the number of one arm that a term asks for, from one run."""
    if term.measure == "bits":
        return _bits(run, term)
    value = _MEASURES[term.measure](run, term)
    if not math.isfinite(value):
        raise NotMeasuredError(f"run {run.id} has no number for {term.measure}")
    return Sample(value)


def _bits(run: Run, term: Term) -> Sample:
    """Return the mean change of bits per byte over a role's languages, in per cent of the base's."""
    languages = languages_of(run, term.role)
    if not languages:
        raise NotMeasuredError(f"these runs have no {term.role} languages")
    found, dataset = resampled_of(ModelRef(run, term.stage)), _test_set(run)
    missing = [code for code in languages if (code, dataset) not in found]
    if missing:
        raise NotMeasuredError(f"run {run.id} was not scored document by document in {', '.join(missing)}")
    own: list[Resampled] = [found[code, dataset] for code in languages]
    resamples = np.mean([one.resamples for one in own], axis=0)
    return Sample(float(np.mean([one.change for one in own])), resamples, min(len(one.ids) for one in own))


def _test_set(run: Run) -> str:
    """Return the test set that decides: held-out text, where the run was scored on any."""
    return main_test_set(dataset for _, dataset in resampled_of(ModelRef(run, "")))


def _weight(run: Run, term: Term) -> float:
    """Return the mean weight of expert 0 over layers and a role's languages."""
    load = run.tables.read("expert_load")
    if load is None:
        raise NotMeasuredError(f"run {run.id} counted no experts")
    stage = term.stage or str(load["stage"].iloc[-1])
    rows = load[(load["expert"] == 0) & (load["stage"] == stage) & (load["dataset"] == _test_set(run))]
    rows = rows[rows["language"].isin(languages_of(run, term.role))]
    if rows.empty:
        raise NotMeasuredError(f"run {run.id} counted no experts in the stage {stage}")
    return float(rows.groupby("language")["mass"].mean().mean())


def _hump(run: Run, term: Term) -> float:
    """Return the similarity of the middle third of the layers less that of the others."""
    similarity = np.array(run.phases.get("plan", {}).get("similarity") or [])
    third = len(similarity) // 3
    if not third:
        raise NotMeasuredError(f"run {run.id} measured no similarity")
    middle = similarity[third : len(similarity) - third]
    ends = np.concatenate([similarity[:third], similarity[-third:]])
    return float(middle.mean() - ends.mean())


def _accuracy(run: Run, term: Term) -> float:
    """Return the share of tokens that routing classifiers call rightly, the mean over layers and languages."""
    table = run.tables.read("classifiers")
    if table is None:
        raise NotMeasuredError(f"run {run.id} has no routing classifier")
    dataset = _test_set(run)
    rows = table[table["dataset"] == dataset]
    if rows.empty:
        raise NotMeasuredError(f"run {run.id} did not ask its routing classifiers on {dataset} text")
    return float(rows["accuracy"].mean())


def _kl(run: Run, term: Term) -> float:
    """Return KL_self of a stage over all samples, in per cent of what they cost the base."""
    table = run.tables.read("self_divergence")
    if table is None:
        raise NotMeasuredError(f"run {run.id} drew no samples of its base")
    rows = table[table["language"] == "all"]
    rows = rows[rows["model"] == (term.stage or rows["model"].iloc[-1])] if len(rows) else rows
    if rows.empty:
        raise NotMeasuredError(f"run {run.id} has no distance from its base on the base's samples")
    return float(rows["kl_percent"].iloc[0])


def _choice(run: Run, term: Term) -> float:
    """Return how many points more continuations are chosen rightly than by the base, the mean over languages."""
    table = run.tables.read("task_changes")
    if table is None:
        raise NotMeasuredError(f"run {run.id} was asked no tasks")
    stage = term.stage or str(table["stage"].iloc[-1])
    rows = table[(table["task"] == "choice") & (table["stage"] == stage)]
    rows = rows[rows["language"].isin(languages_of(run, term.role))]
    if rows.empty:
        raise NotMeasuredError(f"run {run.id} was asked no choices in its {term.role} languages")
    return float(rows["change_points"].mean())


_MEASURES: Mapping[str, Callable[[Run, Term], float]] = {
    "weight": _weight,
    "hump": _hump,
    "classifier": _accuracy,
    "kl": _kl,
    "choice": _choice,
}
"""By name, beside `bits`, which alone has documents to resample."""


def decided_on(runs: Sequence[Run]) -> str:
    """Return the test set that decides, of runs that were scored on the same text; empty where there are none."""
    return next((_test_set(run) for run in runs), "")


def num_layers(runs: Sequence[Run]) -> int:
    """Return the number of layers of a base, from the plan of an expansion of it; 0 where none of the runs has one."""
    return next((len(run.phases["plan"]["new_experts"]) for run in runs if "plan" in run.phases), 0)


def _at_gain(part: Part, of_seed: Mapping[int, Mapping[str, Run]]) -> dict[int, Sample]:
    """Return by seed how much more the first curve forgot than the second, at the middle of what both gained with it.

    Seeds with which no gain was reached by both are left out.
    """
    found, refused = {}, ""
    for seed, runs in of_seed.items():
        one, other = ([_gain_point(runs[arm]) for arm in curve] for curve in part.curves)
        try:
            low, high = common_gain({part.curves[0][-1]: one, part.curves[1][-1]: other})
        except ComparisonRefusedError as error:
            refused = str(error)
            continue
        apart = difference_at_gain(one, other, (low + high) / 2)
        # Of the interval over documents only the width is known here; a normal sample of that width stands for it.
        width = (apart.high - apart.low) / 4 if apart.has_interval else 0.0
        drawn = np.random.default_rng(0).normal(apart.value, width, 1000)
        found[seed] = Sample(apart.value, drawn, min(point.n_documents for point in (*one, *other)))
    if not found:
        raise ComparisonRefusedError(refused)
    return found


def _gain_point(run: Run) -> GainPoint:
    gain, forgetting = (_bits(run, Term("", role)) for role in ("expanded", "original"))
    assert gain.resamples is not None and forgetting.resamples is not None
    documents = min(gain.documents, forgetting.documents)
    drawn = -gain.resamples, forgetting.resamples
    return GainPoint(run.id, -gain.value, forgetting.value, *drawn, documents, **rate_of(ModelRef(run, "")))
