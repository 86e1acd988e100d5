"""Which layers should get the experts: every rule at equal parameters, from the same runs as the claims.

Rules are compared seed by seed with the same number of new experts in every layer. Where one expert was tried in each
layer alone, those gains are what scores of layers claim to foretell, and the oracle divides the budget by them; they
are measured on dev text, and rules judged on held-out text.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lpr_lab.measure.significance import rank_correlation_interval
from lpr_lab.runs.compare.paired_changes import resampled_of
from lpr_lab.runs.model_ref import ModelRef
from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.effects import Arms, Effect, effect_of, languages_of
from lpr_lab.runs.scorecard.parts import MIN_SEEDS, Part, Term

PER_LAYER = 2
"""New experts per layer on average: the budget of every rule but those that say so."""
UNIFORM, MORE, ORACLE = "2 experts", "5 experts", "2 experts, by measured gain"
"""The reference; 2.5 times as many, as MoE-LPR has beside LayerMoE; and a rule that has tried every layer."""
_LAYER_MOE = "layer_moe, "
_OF_SIMILARITY = {"no classifier": "mlp_input", "attention outputs": "attention_output"}
_BY_RULE = {
    _LAYER_MOE + own: called
    for own, called in {
        "no classifier": "similarity of MLP inputs",
        "attention outputs": "similarity of attention outputs",
        "inverse": "inverse of similarity",
        "random": "random, another draw per seed",
        "first": "first",
        "last": "last",
        "neurons": "neurons",
        "gradient": "gradient",
        "predicted gain": "predicted gain",
    }.items()
}
RULES: Mapping[str, str] = {UNIFORM: "uniform", MORE: "uniform, 2.5 times as many", ORACLE: "oracle", **_BY_RULE}
"""What each arm divides by, in words."""
MEASURED_GAIN = "measured_gain"
DEV = "dev"
_PROBE = "one expert, layer "


def probe_of(layer: int) -> str:
    """Return the name of the arm that has one new expert, in this layer."""
    return f"{_PROBE}{layer}"


def probes_of(arms: Arms) -> list[str]:
    """Return the arms that have one new expert each, by layer."""
    return sorted((name for name in arms if name.startswith(_PROBE)), key=lambda name: int(name.removeprefix(_PROBE)))


def measured_gains(arms: Arms, probes: Sequence[str]) -> list[float] | None:
    """Return the gain of one new expert in each layer alone, the mean over the first three seeds.

    In per cent of the bits per byte of the expanded languages' dev text, the mean over the languages; a loss is
    negative. None where a seed of a probe is missing, or dev text was not measured.
    """
    gains = []
    for name in probes:
        runs = [arms.get(name, {}).get(seed) for seed in range(MIN_SEEDS)]
        changes = [_change_on_dev(run) if run is not None else math.nan for run in runs]
        gains.append(-float(np.mean(changes)))
    return None if not gains or any(math.isnan(gain) for gain in gains) else gains


def _change_on_dev(run: Run) -> float:
    found = resampled_of(ModelRef(run, ""))
    changes = [found[code, DEV].change for code in languages_of(run, "expanded") if (code, DEV) in found]
    return float(np.mean(changes)) if changes else math.nan


def compare_allocations(arms: Arms) -> dict[str, Any]:
    """Return what each rule gained and forgot, and what was measured of the layers before any training.

    Returns:
        `rules`: one dict per way to divide that was run, the largest gain first: `arms` (those that divided so, with
        the same seeds), `rule` (in words), `experts` (new ones by layer, each way once), and the `Effect`s `expanded`,
        `original` (change from the base, in per cent of its bits per byte) and `expanded_less_uniform`,
        `original_less_uniform` (points, paired by seed).
        `scores`: one dict per curve: `score`, `values` by layer, and `correlation`, its rank correlation with what one
        expert gained there, of similarity with its sign turned; None where that was not tried.
    """
    alike: dict[tuple[tuple[int, tuple[int, ...]], ...], list[str]] = {}
    for name in (*RULES, *probes_of(arms)):
        if arms.get(name):
            alike.setdefault(_plans(arms[name]), []).append(name)
    rules = [_rule(names, plans, arms) for plans, names in alike.items()]
    gains = measured_gains(arms, probes_of(arms))
    curves = {**_similarities(arms), **_scores(arms)}
    scores = [{"score": name, "values": values, "correlation": None} for name, values in curves.items()]
    if gains is not None:
        for row in scores:
            sign = -1 if row["score"] in _OF_SIMILARITY.values() else 1
            row["correlation"] = rank_correlation_interval([sign * value for value in row["values"]], gains)
        scores.append({"score": MEASURED_GAIN, "values": gains, "correlation": None})
    return {"rules": sorted(rules, key=_by_gain), "scores": scores}


def _plans(runs: Mapping[int, Run]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Return the new experts by layer of every seed."""
    return tuple((seed, tuple(run.phases["plan"]["new_experts"])) for seed, run in runs.items())


def _rule(names: list[str], plans: Sequence[tuple[int, tuple[int, ...]]], arms: Arms) -> dict[str, Any]:
    found: dict[str, Any] = {
        "arms": names,
        "rule": "; ".join(RULES.get(name, name) for name in names),
        "experts": sorted(list(plan) for plan in {plan for _, plan in plans}),
    }
    for role in ("expanded", "original"):
        own, uniform = Term(names[0], role), Term(UNIFORM, role, -1.0)
        found[role] = _effect((own,), arms)
        found[f"{role}_less_uniform"] = _effect((own, uniform), arms) if names[0] != UNIFORM else Effect()
    return found


def _effect(terms: tuple[Term, ...], arms: Arms) -> Effect:
    return effect_of(Part("", terms), arms)


def _by_gain(row: Mapping[str, Any]) -> float:
    value = row["expanded"].value
    return math.inf if math.isnan(value) else value


def _similarities(arms: Arms) -> dict[str, list[float]]:
    """Return the similarity of each layer by what was compared, the mean over seeds of the arm that divides by it."""
    found = {}
    for own, state in _OF_SIMILARITY.items():
        runs = arms.get(_LAYER_MOE + own, {}).values()
        curves = [run.phases["plan"]["similarity"] for run in runs if "similarity" in run.phases.get("plan", {})]
        if curves:
            found[state] = np.mean(curves, axis=0).tolist()
    return found


def _scores(arms: Arms) -> dict[str, list[float]]:
    """Return every score of layers that an arm divided by, the mean over its seeds."""
    by_kind: dict[str, list[list[float]]] = {}
    for name in _BY_RULE:
        for run in arms.get(name, {}).values():
            if scores := run.phases.get("scores"):
                by_kind.setdefault(str(scores["kind"]), []).append(scores["values"])
    return {kind: np.mean(curves, axis=0).tolist() for kind, curves in by_kind.items()}
