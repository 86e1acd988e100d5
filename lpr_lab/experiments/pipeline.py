"""The whole story on one page: load, upcycle, train, save, evaluate, trace, generate. Only this module knows the order.

Every phase leaves its result in the run directory and is marked done, so a run that was interrupted anywhere continues
with the same call and repeats nothing that was finished.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lpr_lab import storage
from lpr_lab.experiments import sample_texts, scorecard
from lpr_lab.experiments.config import Experiment, StageBudget
from lpr_lab.experiments.runs import Run, start_run
from lpr_lab.measure.bits import evaluate
from lpr_lab.measure.generation import generate_pair
from lpr_lab.measure.routing import original_weight_by_language, trace
from lpr_lab.method.allocation import uniform
from lpr_lab.method.closed_form import fit_routers
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.training import TrainSettings
from lpr_lab.method.upcycle import count_parameters, upcycle
from lpr_lab.model.bases import load_base
from lpr_lab.model.files import find_adapter, restore_expansion, save_expansion
from lpr_lab.text.corpus import Corpus, load_corpus

KIND = "expansion"
_PROBE_TOKENS = 64


@dataclass
class Story:
    """What the phases hand to one another: the model as it stands, and what it was made from."""

    experiment: Experiment
    run: Run
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    corpus: Corpus
    base_logits: torch.Tensor
    """Logits of the untouched base on a short probe, float32: what `disable_adapter` must give for ever."""
    stages: dict[str, Any] = field(default_factory=dict)


def start(experiment: Experiment, run_dir: str | Path = "", root: str | Path | None = None) -> Run:
    """Return the run to work in: the one given, the newest unfinished one with these settings, or a new one."""
    slug = f"{experiment.recipe} {' '.join(experiment.expanded)}"
    title = f"{experiment.base}: {', '.join(experiment.expanded)} beside {', '.join(experiment.original)}"
    return start_run(experiment.to_config(), kind=KIND, slug=slug, title=title, run_dir=run_dir, root=root)


def run(experiment: Experiment, out: str | Path = "", root: str | Path | None = None) -> Run:
    """Run a whole experiment and return its run directory, finished.

    Args:
        experiment: from `recipes`.
        out: a run directory made before; by default a new one, or the newest unfinished one with these settings.
        root: the folder of runs.

    Example:
        >>> finished = run(recipes.route_first(expanded=("el",)))  # doctest: +SKIP
        >>> finished.results["summary"]  # doctest: +SKIP
    """
    current = start(experiment, out, root)
    story = prepare(experiment, current)
    train(story)
    measure(story)
    show(story)
    finish(story)
    return current


def prepare(experiment: Experiment, run: Run) -> Story:
    """Load base and corpus and upcycle; checks that the upcycled model computes what the base computes."""
    with run.working("prepare"), _timed(run, "prepare"):
        model, tokenizer = load_base(experiment.base)
        corpus = load_corpus(experiment.corpus, languages=list(experiment.languages))
        run.write_data(corpus.manifest)
        probe = _probe(tokenizer)
        with torch.no_grad():
            base_logits = model(probe).logits
        num_layers = model.config.get_text_config().num_hidden_layers
        expanded = upcycle(
            model,
            uniform(num_layers, experiment.new_experts_per_layer),
            experiment.top_k,
            router_input=experiment.router_input,
            router_bias=experiment.router_bias,
            seed=experiment.seed,
        )
        with torch.no_grad():
            difference = float((expanded(probe).logits - base_logits).abs().max())
        run.record_phase("upcycle", {"start_difference": difference, "parameters": count_parameters(expanded)})
        run.mark_done("prepare")
    return Story(experiment, run, expanded, tokenizer, corpus, base_logits)


def train(story: Story) -> None:
    """Run the recipe's steps, each from where it was left, and write the sealed adapter to `checkpoint/`."""
    run, experiment = story.run, story.experiment
    if run.is_done("save"):
        restore_expansion(story.model, find_adapter(run.path))
        return
    steps: dict[str, Callable[[Story, Path], dict[str, Any]]] = {
        "fit_routers": _fit_routers,
        "expand": _expand,
        "review": _review,
    }
    for step in experiment.steps:
        folder = run.stage_dir(step)
        with run.working(step):
            if run.is_done(step):
                continue
            with _timed(run, step):
                _load_step_before(story, step)
                run.record_phase(step, steps[step](story, folder))
                # Kept until the run is finished, so that the next step can start from it after an interruption.
                save_expansion(story.model, folder / "adapter")
                run.mark_done(step)
    with run.working("save"):
        _load_step_before(story, None)
        save_expansion(story.model, run.checkpoint_dir, {"run": run.id, "recipe": experiment.recipe})
        run.mark_done("save")


def measure(story: Story) -> None:
    """Evaluate base and expanded model on held-out and dev text; writes retention, change and load tables."""
    run, experiment = story.run, story.experiment
    if run.is_done("measure"):
        return
    with run.working("measure"), _timed(run, "measure"):
        report = evaluate(
            story.model,
            story.tokenizer,
            story.corpus,
            languages=experiment.languages,
            original=experiment.original,
            tokens_per_language=experiment.eval_tokens_per_language,
            bootstrap=experiment.bootstrap,
            precision=experiment.precision,
            seed=experiment.seed,
        )
        run.write_table("retention", report.to_frame())
        run.write_table("change", report.changes())
        run.write_table("load", report.load)
        run.write_table("original_weight", original_weight_by_language(report.load))
        with torch.no_grad(), story.model.disable_adapter():
            logits = story.model(_probe(story.tokenizer)).logits
        run.record_phase(
            "measure",
            {"base_difference": float((logits - story.base_logits).abs().max()), "settings": report.settings},
        )
        run.mark_done("measure")


def show(story: Story, max_new_tokens: int = 32) -> None:
    """Trace and continue our own sample texts in every language of the run that has one."""
    run, experiment = story.run, story.experiment
    if run.is_done("show"):
        return
    with run.working("show"), _timed(run, "show"):
        for language in experiment.languages:
            if language in sample_texts.TEXTS:
                traced = trace(story.model, story.tokenizer, sample_texts.TEXTS[language], language)
                traced.model |= {"run": run.id}
                run.write_trace(language, traced)
        said = {record["prompt"] for record in run.generations()}
        for language in experiment.languages:
            prompt = sample_texts.PROMPTS.get(language)
            if prompt is None or prompt in said:
                continue
            *_, last = generate_pair(story.model, story.tokenizer, prompt, max_new_tokens)
            run.append_generation(
                {
                    "language": language,
                    "prompt": prompt,
                    "base": last.base_text,
                    "expanded": last.expanded_text,
                    "diverged_at": last.diverged_at,
                    "max_new_tokens": max_new_tokens,
                    "temperature": 0.0,
                    "seed": 0,
                }
            )
        run.mark_done("show")


def finish(story: Story) -> dict[str, Any]:
    """Check the claims, write `results.json`, drop what only a resume needed, and mark the run finished."""
    run, experiment = story.run, story.experiment
    if run.status.recorded_state == "finished":
        return dict(run.results or {})
    with run.working("finish"):
        changes, weights = _table(run, "change"), _table(run, "original_weight")
        phases = run.phases
        exactness = {
            "start_difference": phases["upcycle"]["start_difference"],
            "base_difference": phases["measure"]["base_difference"],
        }
        claims = scorecard.check(changes, weights, exactness)
        results = {
            "schema_version": 1,
            "recipe": experiment.recipe,
            "base": experiment.base,
            "original": list(experiment.original),
            "expanded": list(experiment.expanded),
            "summary": summarise(changes, weights),
            "claims": scorecard.as_records(claims),
            "retention": _table(run, "retention").to_dict("records"),
            "change": changes.to_dict("records"),
            "routing": {"original_weight": weights.to_dict("records")},
            "exactness": exactness,
            "parameters": phases["upcycle"]["parameters"],
            "stages": {step: phases[step] for step in experiment.steps},
            "seconds": phases["seconds"],
        }
        run.write_results(results)
        for step in experiment.steps:
            storage.remove_directory(run.stage_dir(step))
        run.finish()
    return results


def summarise(changes: pd.DataFrame, weights: pd.DataFrame) -> dict[str, Any]:
    """Return the headline per data set: mean and worst change of bits per byte by role, mean weight of expert 0."""
    summary: dict[str, Any] = {}
    for dataset, rows in changes.groupby("dataset", sort=False):
        seen = weights[weights["dataset"] == dataset]
        by_role = {role: part["change_percent"] for role, part in rows.groupby("role", sort=False)}
        kept = {role: part["original_weight"].mean() for role, part in seen.groupby("role", sort=False)}
        summary[str(dataset)] = {
            str(role): {
                "mean_change_percent": float(part.mean()),
                "worst_change_percent": float(part.max()),
                "original_weight": float(kept[role]),
            }
            for role, part in by_role.items()
        }
    return summary


# One function per step of a recipe


def _fit_routers(story: Story, folder: Path) -> dict[str, Any]:
    experiment = story.experiment
    fits = fit_routers(
        story.model,
        story.tokenizer,
        story.corpus,
        original=experiment.original,
        expanded=experiment.expanded,
        tokens_per_language=experiment.fit_tokens_per_language,
        precision=experiment.precision,
        seed=experiment.seed,
    )
    table = pd.DataFrame([vars(fit) for fit in fits])
    story.run.write_table("router_fit", table)
    return {"auc_mean": float(table["auc"].mean()), "auc_min": float(table["auc"].min())}


def _expand(story: Story, folder: Path) -> dict[str, Any]:
    experiment = story.experiment
    return expand(
        story.model,
        story.tokenizer,
        story.corpus,
        languages=experiment.expanded,
        out=folder,
        settings=_settings(experiment, experiment.stage1),
        load_balancing_coef=experiment.load_balancing_coef,
        load_balancing_variant=experiment.loss_variant,
        train_routers="fit_routers" not in experiment.steps,
        log=_logger(story.run, "expand"),
    )


def _review(story: Story, folder: Path) -> dict[str, Any]:
    experiment = story.experiment
    return review(
        story.model,
        story.tokenizer,
        story.corpus,
        original=experiment.original,
        expanded=experiment.expanded,
        out=folder,
        settings=_settings(experiment, experiment.stage2),
        lpr_coef=experiment.lpr_coef,
        lpr_variant=experiment.loss_variant,
        replay_share=experiment.replay_share,
        log=_logger(story.run, "review"),
    )


# Small pieces


def _settings(experiment: Experiment, budget: StageBudget) -> TrainSettings:
    blocks = budget.blocks_per_step
    return TrainSettings(
        tokens=budget.tokens,
        max_minutes=budget.max_minutes,
        learning_rate=budget.learning_rate,
        router_learning_rate=budget.router_learning_rate,
        block_tokens=budget.block_tokens,
        blocks_per_step=blocks,
        blocks_per_forward=next(size for size in (4, 3, 2, 1) if blocks % size == 0),
        precision=experiment.precision,
        seed=experiment.seed,
    )


def _load_step_before(story: Story, step: str | None) -> None:
    """Put the weights in place that the last finished step before `step` (None: the last of all) left."""
    steps = story.experiment.steps
    before = steps[: steps.index(step)] if step is not None else steps
    if before:
        restore_expansion(story.model, story.run.stage_dir(before[-1]) / "adapter")


def _probe(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return a short fixed text in several scripts as ids [1, tokens]."""
    text = " ".join(sample_texts.TEXTS[language] for language in ("en", "es", "el", "zh"))
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][:_PROBE_TOKENS]])


def _logger(run: Run, stage: str) -> Callable[[dict[str, float]], None]:
    """Return a function that logs every step; its first call drops what an interrupted attempt logged beyond it."""
    fresh = True

    def log(metrics: dict[str, float]) -> None:
        nonlocal fresh
        if fresh:
            run.truncate_metrics(stage, int(metrics["step"]) - 1)
            fresh = False
        run.log_metrics({"t": metrics["seconds"], **metrics}, stage=stage)

    return log


@contextmanager
def _timed(run: Run, phase: str) -> Iterator[None]:
    started = time.monotonic()
    print(f"[{run.id}] {phase} ...", file=sys.stderr)
    yield
    seconds = run.phases.get("seconds", {})
    run.record_phase("seconds", {**seconds, phase: round(seconds.get(phase, 0) + time.monotonic() - started, 1)})


def _table(run: Run, name: str) -> pd.DataFrame:
    table = run.read_table(name)
    assert table is not None, f"table {name} was written by an earlier phase"
    return table
