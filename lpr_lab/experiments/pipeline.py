"""The phases of a run in their order: load, upcycle (or make a baseline), train, save, evaluate, trace, generate.

Every phase leaves its result in the run directory and is marked done, so a run that was interrupted anywhere continues
with the same call and repeats nothing that was finished.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env

from lpr_lab import storage
from lpr_lab.experiments.config import Experiment, completed
from lpr_lab.experiments.corpus import check_text, corpus_of
from lpr_lab.experiments.load import model_to_train, starting_model
from lpr_lab.experiments.measuring import logits_of, measure_run, probe_of
from lpr_lab.experiments.processes.check import check
from lpr_lab.experiments.processes.group import follow, release, share
from lpr_lab.experiments.processes.launch import launch
from lpr_lab.experiments.processes.number import follows, leads, num_processes, started
from lpr_lab.experiments.ranks import work
from lpr_lab.experiments.results import results_of
from lpr_lab.experiments.steps import RunContext
from lpr_lab.experiments.tasks import check_tasks
from lpr_lab.experiments.tracking.trackers import selected as selected_trackers
from lpr_lab.experiments.training import timed, train_steps
from lpr_lab.measure.generation import generate_pair
from lpr_lab.measure.routing import trace
from lpr_lab.method.baselines.files import restore_trained
from lpr_lab.method.baselines.kinds import count_tuned
from lpr_lab.method.training.compute import on_device
from lpr_lab.method.upcycle import count_parameters
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.bases.fingerprint import base_fingerprint
from lpr_lab.model.parallel.sharing import together
from lpr_lab.model.stages import stage_names
from lpr_lab.model.tuned.names import FINETUNE
from lpr_lab.model.tuned.pair import Tuned
from lpr_lab.progress import remark
from lpr_lab.runs import environment
from lpr_lab.runs.find import start_run
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch import alerts
from lpr_lab.text import sample_texts
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.round_trip import check_corpus

KIND = "expansion"
"""Of a run of all phases, of the method or of a baseline; a run of one stage is of the kind `stage1` or `stage2`."""


def start(experiment: Experiment, run_dir: str | Path = "", root: str | Path | None = None) -> Run:
    """Return the run to work in: the one given, the newest unfinished one with these settings, or a new one."""
    selected_trackers()  # what is missing or cannot be is said before there is a run
    check(experiment, num_processes())
    beside = [*experiment.originals, *experiment.earlier]
    return start_run(
        experiment.to_config(),
        kind=experiment.recipe if experiment.from_run else KIND,
        slug=f"{experiment.recipe} {' '.join(experiment.expanded)}",
        title=f"{experiment.base}: {', '.join(experiment.expanded)} beside {', '.join(beside)}{_only(experiment)}",
        run_dir=run_dir,
        root=root,
        parents=[parent for parent in (experiment.from_run or experiment.parent,) if parent],
        completed=completed,
    )


def run(
    experiment: Experiment,
    out: str | Path = "",
    root: str | Path | None = None,
    trackers: Sequence[str] | None = None,
    processes: int | None = None,
) -> Run:
    """Run a whole experiment and return its run directory, finished.

    Where torchrun or `accelerate launch` started several processes, all of them call this, and train together.

    Args:
        experiment: from `recipes`.
        out: a run directory made before; by default a new one, or the newest unfinished one with these settings.
        root: the folder of runs.
        trackers: who gets the numbers of training too (see `prepare`).
        processes: how many processes train (see `prepare`).

    Examples:
        >>> finished = run(recipes.route_first(expanded=("el",)))  # doctest: +SKIP
        >>> finished.results["summary"]  # doctest: +SKIP
    """
    names = selected_trackers(trackers)
    check(experiment, num_processes(processes))
    if follows():
        return Run(follow(work))
    current = start(experiment, out, root)
    context = prepare(experiment, current, names, processes)
    train(context)
    measure(context)
    show(context)
    finish(context)
    if leads():
        release(current.path)
    return current


def prepare(
    experiment: Experiment,
    run: Run,
    trackers: Sequence[str] | None = None,
    processes: int | None = None,
    corpus: Corpus | None = None,
) -> RunContext:
    """Load base (or the parent's model) and corpus, and upcycle; checks what the model to be trained computes.

    Args:
        experiment: from `recipes`.
        run: from `start`.
        trackers: who gets the numbers of training beside the run directory: any of `tensorboard`, `trackio`, `wandb`,
            `mlflow`; those of `$LPR_LAB_TRACKERS` when not given. A run is the same run with and without.
        processes: how many processes of this machine train together; `$LPR_LAB_PROCESSES`, else one, when not given. A
            run is the same run with one and with several, and may go on with another number.
        corpus: the experiment's own, where it is in memory from a run before.

    Raises:
        UsageError: so many processes cannot share a step, or have no GPU each.
    """
    names, number = selected_trackers(trackers), num_processes(processes)
    check(experiment, number)
    environment.train_with()  # a wrong name is said now, not when the text is ready
    with run.working("prepare"), timed(run, "prepare"):
        corpus = corpus or corpus_of(experiment.to_config(), experiment.languages)
        check_text(experiment, corpus)
        check_tasks(experiment, corpus)
        run.documents.write("data", corpus.manifest)
        # What several processes are to divide among them need not fit one device.
        device = "cpu" if number > 1 and parse_flag_from_env("ACCELERATE_USE_FSDP") else None
        parent, model, tokenizer = starting_model(experiment, run, device)
        check_corpus(tokenizer, corpus)
        probe = probe_of(tokenizer)
        base_logits = logits_of(model, probe, None)
        parent_logits = None if parent is None else logits_of(model, probe, "")
        if parent is not None and experiment.from_run:
            run.phases.record("plan", parent.phases["plan"])
        made = model_to_train(experiment, run, model, tokenizer, corpus)
        facts: dict[str, Any] = {"largest_logit": float(base_logits.abs().max())}
        if isinstance(made, Tuned):
            facts |= {"parameters": count_tuned(made), "base_dtype": str(made.base.dtype).removeprefix("torch.")}
            facts["base_fingerprint"] = base_fingerprint(made.base, torch.bfloat16)
        else:
            config = expansion_config(made)
            facts |= {"parameters": count_parameters(made), "base_dtype": config.base_dtype}
            facts["base_fingerprint"] = config.base_fingerprint_bfloat16  # the same in whatever precision it was loaded
        if isinstance(made, Tuned) or not expansion_config(made).groups[-1]:  # what is new was never trained
            facts["start_difference"] = float((logits_of(made, probe, "") - base_logits).abs().max())
        run.phases.record("baseline" if isinstance(made, Tuned) else "upcycle", facts)
        run.phases.mark_done("prepare")
    logits = (base_logits, parent, parent_logits)
    return RunContext(experiment, run, made, tokenizer, corpus, *logits, names, processes=number)


def train(context: RunContext) -> None:
    """Run the recipe's steps, each from where it was left, and write the sealed adapter to `checkpoint/`.

    With several processes they do it, and this one waits and loads what they trained.

    Raises:
        LprError: one of the processes failed or was killed; the same call goes on from the last checkpoint.
    """
    run = context.run
    if run.phases.is_done("save"):
        restore_trained(context.model, run.paths.checkpoint)
    elif context.processes > 1 and started() == 1:
        with run.working(), on_device(context.model, torch.device("cpu")):  # a GPU is for the processes
            launch(run, "train", context.processes, context.trackers)
            restore_trained(context.model, run.paths.checkpoint)
    else:
        if leads():
            share("train", run.path)
        with together():
            train_steps(context)


def measure(context: RunContext) -> None:
    """Evaluate base and expanded model on held-out and dev text; writes the results as tables.

    With several processes they share the text.
    """
    if context.run.phases.is_done("measure"):
        return
    if context.processes > 1 and started() == 1:
        with context.run.working(), on_device(context.model, torch.device("cpu")):
            launch(context.run, "measure", context.processes)
        return
    if leads():
        share("measure", context.run.path)
    with together():
        measure_run(context)


def show(context: RunContext, max_new_tokens: int = 32) -> None:
    """Continue our own sample texts in every language of the run that has one, and trace an expansion's routing."""
    run, experiment = context.run, context.experiment
    if run.phases.is_done("show"):
        return
    with run.working("show"), timed(run, "show"):
        model = context.model
        for language in experiment.languages:
            if language in sample_texts.TEXTS and not isinstance(model, Tuned):  # which has no routing
                text, stages = sample_texts.TEXTS[language], stage_names(model)
                traced = trace(model, context.tokenizer, text, language, stages=stages)
                traced.model |= {"run": run.id}
                run.traces.write(language, traced)
        said = {record["prompt"] for record in run.generations.read()}
        for language in experiment.languages:
            prompt = sample_texts.PROMPTS.get(language)
            if prompt is None or prompt in said:
                continue
            *_, last = generate_pair(context.model, context.tokenizer, prompt, max_new_tokens)
            texts: dict[str, Any] = {"base": last.left.text, "expanded": last.right.text}
            if isinstance(context.model, Tuned):
                texts = {"left": "base", "right": FINETUNE, "left_text": last.left.text, "right_text": last.right.text}
            run.generations.append(
                {
                    "language": language,
                    "prompt": prompt,
                    **texts,
                    "diverged_at": last.diverged_at,
                    "max_new_tokens": max_new_tokens,
                    "temperature": 0.0,
                    "seed": 0,
                }
            )
        run.phases.mark_done("show")


def finish(context: RunContext) -> dict[str, Any]:
    """Check the claims, write `results.json`, drop what only a resume needed, and mark the run finished."""
    run, experiment = context.run, context.experiment
    if run.status.recorded_state == "finished":
        return dict(run.results)
    with run.working("finish"):
        results = results_of(run, experiment)
        run.documents.write("results", results)
        for alert in alerts.of_results(results, experiment.alerts):
            alerts.add(run, alert)
            remark(alerts.line(alert))
        for step in experiment.steps:
            storage.remove_directory(run.paths.stage(step))
        run.finish()
    return results


# Small pieces


def _only(experiment: Experiment) -> str:
    """Return what a run of one stage, a control, or a baseline adds to its title."""
    if experiment.control:
        return ", old-only arm"
    if experiment.is_baseline:
        return f", {experiment.recipe.replace('_', ' ')}"
    return f", {experiment.recipe.replace('stage', 'stage ')} alone" if experiment.from_run else ""
