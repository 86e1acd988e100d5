"""The steps that a recipe is made of: each calls one verb with the experiment's settings and says what it found."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab import storage
from lpr_lab.experiments.config import OLD_ONLY, Experiment, StageBudget
from lpr_lab.method import baselines
from lpr_lab.method.allocation import Allocation, allocate, delta_for, uniform
from lpr_lab.method.closed_form import RouterFits, fit_routers, local_review
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.router_statistics import RouterStatistics
from lpr_lab.method.scores.measure import measure_layer_scores
from lpr_lab.method.scores.table import KINDS, LayerScores
from lpr_lab.method.settings import num_classifiers
from lpr_lab.method.similarity import measure_similarity
from lpr_lab.method.similarity_table import SimilarityTable
from lpr_lab.method.training.train import TrainSettings, train_settings
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.tuned.pair import Tuned
from lpr_lab.progress import remark
from lpr_lab.runs import environment
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch import alerts
from lpr_lab.text.corpus import Corpus

STATISTICS = "router_statistics.safetensors"


@dataclass
class RunContext:
    """State shared by the phases of a run: the model as it stands, and what it was made from."""

    experiment: Experiment
    run: Run
    model: Any
    """A `PeftModel`, the expansion; or a `Tuned`, a baseline beside its base."""
    tokenizer: PreTrainedTokenizerBase
    corpus: Corpus
    base_logits: torch.Tensor
    """Logits of the untouched base on a short probe, float32: what `disable_adapter` must give for ever."""
    parent: Run | None = None
    """The run whose model this one goes on from."""
    parent_logits: torch.Tensor | None = None
    """What that model made of the probe: what its last stage must give for ever."""
    trackers: tuple[str, ...] = ()
    """Who gets the numbers of training beside the run directory (see `trackers`)."""
    track: Callable[[dict[str, float]], None] = lambda metrics: None
    """Hands the numbers of one step on to them, while a step of the recipe is worked on."""
    processes: int = 1
    """How many processes train together."""
    writes: bool = True
    """Whether this process writes into the run: of several that train together the first alone."""


def plan(
    experiment: Experiment,
    run: Run,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
) -> Allocation:
    """Return how many new experts each layer gets, measuring similarity, or a score, where the plan depends on it.

    What was planned is recorded in the run, and an interrupted run keeps to it.
    """
    if "plan" in run.phases:
        return Allocation(tuple(run.phases["plan"]["new_experts"]))
    num_layers = model.config.get_text_config().num_hidden_layers
    table, scores, classifiers = None, None, experiment.classifiers
    if experiment.allocation in KINDS:
        scores = _scores(experiment, run, model, tokenizer, corpus)
    by_rule = isinstance(experiment.allocation, str) and experiment.allocation != "uniform" and scores is None
    if by_rule or (classifiers and not isinstance(classifiers, tuple)):
        table = measure_similarity(
            model,
            tokenizer,
            corpus,
            original=(*experiment.original, *experiment.earlier),
            expanded=experiment.expanded,
            **vars(experiment.similarity),
            precision=experiment.precision,
            seed=experiment.seed,
        )
        run.tables.write("similarity", table.to_frame())
    facts: dict[str, Any] = {"allocation": experiment.allocation}
    allocation = _allocation(experiment, num_layers, scores or table, facts)
    facts["new_experts"] = list(allocation.new_experts)
    if table is not None:
        facts["similarity"] = [round(float(value), 6) for value in table.similarity]
        mixtures = [layer for layer, count in enumerate(allocation.new_experts) if count]
        if not isinstance(classifiers, tuple):
            count = num_classifiers(classifiers, num_layers)
            count = min(count, len(mixtures)) if classifiers < 1 else count
            facts["classifier_layers"] = list(table.most_similar_layers(count, among=mixtures))
    if isinstance(classifiers, tuple):
        facts["classifier_layers"] = list(classifiers)
    run.phases.record("plan", facts)
    return allocation


def _scores(
    experiment: Experiment,
    run: Run,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
) -> LayerScores:
    """Measure the score of layers that the experiment's plan divides by, and keep it in the run."""
    assert isinstance(experiment.allocation, str)
    scores = measure_layer_scores(
        model,  # pyright: ignore  # a dense base, or it is refused
        tokenizer,
        corpus,
        experiment.allocation,
        original=experiment.original,
        expanded=experiment.expanded,
        **vars(experiment.scores),
        precision=experiment.precision,
        seed=experiment.seed,
    )
    run.tables.write("scores", scores.to_frame())
    run.phases.record("scores", scores.to_json())
    return scores


def _allocation(
    experiment: Experiment, num_layers: int, table: SimilarityTable | LayerScores | None, facts: dict[str, Any]
) -> Allocation:
    """Divide the budget over the layers; where it is rounded up, by which delta goes into `facts`."""
    if not isinstance(experiment.allocation, str):
        return Allocation(experiment.allocation)
    if table is None or experiment.allocation == "uniform":
        return uniform(num_layers, experiment.new_experts_per_layer)
    budget: float = num_layers * experiment.new_experts_per_layer
    rule, by, seed = experiment.allocation_rule, experiment.allocation, experiment.seed
    if rule != "largest_remainder":
        # The papers' delta counts expert 0 in a first expansion, and only what is added in a further one.
        rule = "round_up_added" if experiment.parent else rule
        total, budget = int(budget), experiment.delta or 0
        budget = budget or delta_for(table, total, rule, by=by, seed=seed)
        facts["delta"] = budget
    return allocate(table, budget, rule, by=by, seed=seed)


def _fit_routers(context: RunContext, folder: Path) -> dict[str, Any]:
    return _fit(context, fit_routers)


def _local_review(context: RunContext, folder: Path) -> dict[str, Any]:
    return _fit(context, local_review, classifier_layers=context.run.phases["plan"].get("classifier_layers", ()))


def _fit(context: RunContext, fit: Callable[..., RouterFits], **further: Any) -> dict[str, Any]:
    """Fit routers in closed form, and keep how well that went and the statistics for a further group."""
    run, experiment, earlier = context.run, context.experiment, _kept_statistics(context)
    fits = fit(
        context.model,
        context.tokenizer,
        context.corpus,
        original=experiment.original,
        expanded=experiment.expanded,
        settings=replace(experiment.fit, precision=experiment.precision, seed=experiment.seed),
        earlier=earlier,
        **further,
    )
    table = fits.to_frame()
    if context.writes:
        _keep(run, fits, table)
    return {
        "auc_mean": float(table["auc"].mean()),
        "auc_min": float(table["auc"].min()),
        "accuracy_mean": float(table["accuracy"].mean()),
        "num_tokens": fits.statistics.num_tokens,
        "earlier_groups_from_statistics": earlier is not None,
    }


def _keep(run: Run, fits: RouterFits, table: pd.DataFrame) -> None:
    run.tables.write("router_fit", table)
    if run.paths.statistics.exists():
        storage.remove_directory(run.paths.statistics)
    with storage.staged_directory(run.paths.statistics, sealed={"kind": "router-statistics"}) as stage:
        fits.statistics.save(stage / STATISTICS)


def _kept_statistics(context: RunContext) -> RouterStatistics | None:
    """Return what the parent run kept of the earlier groups, which stands in for their text."""
    if context.parent is None or context.experiment.fit.solver == "logistic":
        return None
    folder = context.parent.paths.statistics
    if not folder.is_dir():
        return None
    storage.verify(folder)
    return RouterStatistics.load(folder / STATISTICS)


def _expand(context: RunContext, folder: Path) -> dict[str, Any]:
    experiment = context.experiment
    settings = _settings(experiment, experiment.resolved().stage1, context.model)
    return train_stage1(context, folder, settings, _logger(context, "expand", settings))


def train_stage1(
    context: RunContext, folder: Path, settings: TrainSettings, log: Callable[[dict[str, float]], None] | None = None
) -> dict[str, Any]:
    """Train stage 1 as the run's experiment has it, but by these settings; see `method.expand.expand`."""
    experiment = context.experiment
    return expand(
        context.model,
        context.tokenizer,
        context.corpus,
        languages=experiment.taught,
        out=folder,
        settings=settings,
        **vars(experiment.expand),
        load_balancing_variant=experiment.loss_variant,
        train_routers="fit_routers" not in experiment.steps,
        log=log,
    )


def _one_stage(context: RunContext, folder: Path) -> dict[str, Any]:
    """Stage 1 with the replay and the LPR loss of the review in it."""
    experiment = context.experiment
    settings = _settings(experiment, experiment.both_stages, context.model)
    return expand(
        context.model,
        context.tokenizer,
        context.corpus,
        languages=experiment.taught,
        out=folder,
        settings=settings,
        **vars(experiment.expand),
        load_balancing_variant=experiment.loss_variant,
        original=() if experiment.control == OLD_ONLY else experiment.original,
        replay_share=experiment.replay_share_of_both,
        lpr_coef=experiment.review.lpr_coef,
        lpr_variant=experiment.loss_variant,
        log=_logger(context, "one_stage", settings),
    )


def _finetune(context: RunContext, folder: Path) -> dict[str, Any]:
    """Train a baseline in one stage."""
    experiment = context.experiment
    share = 0.0 if experiment.control == OLD_ONLY else experiment.replay_share_of_both
    settings = _settings(experiment, experiment.both_stages, context.model.tuned)
    return baselines.finetune(
        context.model.tuned,
        context.tokenizer,
        context.corpus,
        original=experiment.original if share else (),
        expanded=experiment.taught,
        out=folder,
        settings=settings,
        replay_share=share,
        load_balancing_coef=experiment.expand.load_balancing_coef,
        log=_logger(context, "finetune", settings),
    )


def _interpolate(context: RunContext, folder: Path) -> dict[str, Any]:
    model, weight = context.model, context.experiment.finetune.interpolation_weight
    assert isinstance(model, Tuned) and not isinstance(model.tuned, PeftModel)
    baselines.interpolate(model.tuned, model.base, weight)
    return {"weight": weight}


def _review(context: RunContext, folder: Path) -> dict[str, Any]:
    experiment = context.experiment
    settings = _settings(experiment, experiment.resolved().stage2, context.model)
    is_control = experiment.control == OLD_ONLY
    own: dict[str, Any] = vars(experiment.review) | ({"replay_share": 1.0} if is_control else {})
    return review(
        context.model,
        context.tokenizer,
        context.corpus,
        original=experiment.original,
        expanded=() if is_control else (*experiment.earlier, *experiment.expanded),
        out=folder,
        settings=settings,
        **own,
        classifier_layers=context.run.phases["plan"].get("classifier_layers", ()),
        lpr_variant=experiment.loss_variant,
        group_variant=experiment.loss_variant,
        log=_logger(context, "review", settings),
    )


STEPS: dict[str, Callable[[RunContext, Path], dict[str, Any]]] = {
    "fit_routers": _fit_routers,
    "expand": _expand,
    "one_stage": _one_stage,
    "local_review": _local_review,
    "review": _review,
    "finetune": _finetune,
    "interpolate": _interpolate,
}


def _settings(experiment: Experiment, budget: StageBudget, model: Any) -> TrainSettings:
    return train_settings(
        budget,
        model,
        budget.tokens,
        precision=experiment.precision,
        seed=experiment.seed,
        **environment.train_with(),
    )


def _logger(context: RunContext, stage: str, settings: TrainSettings) -> Callable[[dict[str, float]], None]:
    """Return a function that logs every step; its first call drops what an interrupted attempt logged beyond it."""
    run: Run = context.run
    watch: alerts.Watch | None = None
    if context.writes:
        run.phases.expect(settings.num_steps, settings.max_minutes)

    def log(metrics: dict[str, float]) -> None:
        nonlocal watch
        if watch is None:
            run.metrics.truncate(stage, int(metrics["step"]) - 1)
            watch = alerts.resume(run, stage, int(metrics["step"]), context.experiment.alerts)
        run.metrics.log({"t": metrics["seconds"], **metrics}, stage=stage)
        context.track(metrics)
        for alert in watch.update(metrics):
            alerts.add(run, alert)
            if alert.rule != "divergence":  # which the training loop says itself
                remark(alerts.line(alert))

    return log
