"""The measuring phase of a run: base and every stage scored on the same text, by one process or by several together."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import cast

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.experiments.controls.divergence import measure_self_divergence
from lpr_lab.experiments.expert_tables import write_expert_tables
from lpr_lab.experiments.steps import RunContext
from lpr_lab.experiments.tasks import write_tasks
from lpr_lab.experiments.training import timed, wait_for_all
from lpr_lab.measure.bits import Report, evaluate
from lpr_lab.measure.classifiers import classifier_accuracy
from lpr_lab.measure.expert_counts import ExpertCounter
from lpr_lab.measure.routing import original_weight_by_language
from lpr_lab.measure.tasks.evaluate import evaluate_tasks
from lpr_lab.measure.tasks.scores import TaskReport
from lpr_lab.model.formats.save_load import find_adapter, read_config
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import stage_names, use_stage
from lpr_lab.model.tuned.pair import Tuned
from lpr_lab.text import sample_texts

_PROBE_TOKENS = 64


def measure_run(context: RunContext) -> None:
    """Evaluate base and trained model on held-out and dev text; the process that writes makes tables of it."""
    run, experiment = context.run, context.experiment
    with run.working("measure"), timed(run, "measure") if context.writes else nullcontext():
        stages = stage_names(context.model)
        counter = None if isinstance(context.model, Tuned) else ExpertCounter(stages)
        report = evaluate(
            context.model,
            context.tokenizer,
            context.corpus,
            languages=experiment.languages,
            original=experiment.originals,
            stages=stages[:-1],
            **vars(experiment.evaluate),
            precision=experiment.precision,
            seed=experiment.seed,
            experts=counter,
        )
        accuracy = None
        if run.phases.get("plan", {}).get("classifier_layers"):
            accuracy = classifier_accuracy(
                cast("PeftModel", context.model),
                context.tokenizer,
                context.corpus,
                languages=experiment.languages,
                original=experiment.originals,
                precision=experiment.precision,
            )
        divergence = measure_self_divergence(context) if experiment.self_divergence.count else None
        answered = _ask(context) if experiment.asked.tasks else None
        if context.writes:
            _write_tables(context, report, counter)
            for name, table in (divergence or {}).items():
                run.tables.write(name, table)
            if answered is not None:
                names = {"base": "base", **{stage: stage for stage in stages[:-1]}, "expanded": stages[-1]}
                write_tasks(run, answered, experiment.asked, names)
            if accuracy is not None:
                run.tables.write("classifiers", accuracy)
            run.phases.record("measure", {**_differences(context), "settings": report.settings})
            run.phases.mark_done("measure")
        wait_for_all()


def _ask(context: RunContext) -> TaskReport:
    experiment = context.experiment
    return evaluate_tasks(
        context.model,
        context.tokenizer,
        context.corpus,
        languages=experiment.languages,
        original=experiment.originals,
        stages=stage_names(context.model)[:-1],
        **vars(experiment.asked),
        bootstrap=experiment.evaluate.bootstrap,
        precision=experiment.precision,
        seed=experiment.seed,
    )


def _write_tables(context: RunContext, report: Report, counter: ExpertCounter | None) -> None:
    run, stages = context.run, stage_names(context.model)
    scores = report.to_frame()
    run.tables.write("retention", scores[scores["model"].isin(["base", "expanded"])])
    run.tables.write("stages", _by_stage(scores, stages))
    run.tables.write("documents", _by_stage(report.documents(), stages))
    if len(report.slice_scores):
        run.tables.write("slices", _by_stage(report.slice_scores, stages))
    run.tables.write("change", report.changes())
    run.tables.write("change_by_stage", _changes_by_stage(report, stages))
    parent_stage = _parent_stage(context)
    if parent_stage is not None:
        run.tables.write("change_from_parent", report.changes(before=parent_stage))
    if len(report.lost):
        run.tables.write("lost_text", report.lost)
    if counter is not None:  # a baseline has no experts, or, a mixture that learned as a whole, no original one
        run.tables.write("load", report.load)
        run.tables.write("original_weight", original_weight_by_language(report.load))
        write_expert_tables(run, counter, context.tokenizer)


def _differences(context: RunContext) -> dict[str, float]:
    """Return how far base, and the model this run goes on from, are from what they were before."""
    probe, parent_stage = probe_of(context.tokenizer), _parent_stage(context)
    differences = {"base_difference": float((logits_of(context.model, probe, None) - context.base_logits).abs().max())}
    if context.parent_logits is not None and parent_stage is not None:
        as_parent = logits_of(context.model, probe, parent_stage)
        differences["parent_difference"] = float((as_parent - context.parent_logits).abs().max())
    return differences


def probe_of(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return a short fixed text in several scripts as ids [1, tokens]."""
    return torch.tensor([tokenizer(sample_texts.PROBE, add_special_tokens=False)["input_ids"][:_PROBE_TOKENS]])


def logits_of(model: PreTrainedModel | PeftModel | Tuned, probe: torch.Tensor, stage: str | None) -> torch.Tensor:
    """Return the logits of the base (None), of the model as it stands (""), or of one of its stages."""
    has_stages = isinstance(model, PeftModel | Tuned)
    with torch.no_grad(), use_stage(model, stage) if has_stages and stage != "" else nullcontext():
        return model(probe.to(model.device)).logits.cpu()


def _by_stage(scores: pd.DataFrame, stages: Sequence[str]) -> pd.DataFrame:
    """Return scores in the order in which the model changed: the base, then stage after stage."""
    named = scores.replace({"model": {"expanded": stages[-1]}}).rename(columns={"model": "stage"})
    order = {name: place for place, name in enumerate(["base", *stages])}
    return named.sort_values("stage", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)


def _changes_by_stage(report: Report, stages: Sequence[str]) -> pd.DataFrame:
    """Return the paired change from the base to every stage, with its interval, in the order of training."""
    scored = {stage: report.changes(after=stage) for stage in stages[:-1]} | {stages[-1]: report.changes()}
    return pd.concat([changes.assign(stage=stage) for stage, changes in scored.items()], ignore_index=True)


def _parent_stage(context: RunContext) -> str | None:
    """Return the stage that the parent run ended with, which can be selected for ever; None where this run trained it.

    Stage 1 trains the stage that upcycling began.
    """
    if context.parent is None:
        return None
    last = read_config(find_adapter(context.parent.path)).stages[-1]["name"]
    return last if last != stage_names(context.model)[-1] else None
