"""The two controls that are trainings of their own: the old-only arm of a run, and a base adapted to raw text.

    old_only(run)    the same base, method and schedule on original languages alone: what it loses is no new language's
                     doing, and what a run loses beyond it is excess forgetting (`runs.compare.control_runs`)
    raw_base(...)    `B0-raw`: the base after full fine-tuning on raw text of its original languages. Runs that start
                     from it meet no kind of text that is new to it, so a fall on originals is not adaptation

`raw_base` is no longer the base it came from: an instruct model is less of one. Both tables belong in a report.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lpr_lab import storage
from lpr_lab.errors import UsageError
from lpr_lab.experiments import pipeline
from lpr_lab.experiments.config import OLD_ONLY, Experiment
from lpr_lab.method.training.budget import StageBudget
from lpr_lab.model.bases.load import canonical_name, load_base
from lpr_lab.runs.find import start_run
from lpr_lab.runs.run import Run
from lpr_lab.text.load import load_corpus

RAW_BASE = "raw_base"
"""Kind of run."""
MODEL = "base"
"""Folder of the adapted base inside such a run, which other runs take as `base`."""


def old_only(run: Run | Experiment) -> Experiment:
    """Return the old-only arm of a run or experiment: the same in everything, on original languages alone.

    Routers that are fitted in closed form, neurons and columns that are chosen by what fires for which language, are
    fitted and chosen as in the run: that learns nothing from the text of a training.

    Raises:
        UsageError: it is a control already, a run of one stage of another run, or has steps that know no such arm.
    """
    experiment = run if isinstance(run, Experiment) else Experiment.from_config(run.config)
    if experiment.control:
        raise UsageError("This is the old-only arm already; name the run that it is to be compared with.")
    if experiment.from_run:
        raise UsageError("A run of one stage alone has no old-only arm; make one of a run with all its steps.")
    if unknown := [step for step in experiment.steps if step not in _KNOWN_STEPS]:
        raise UsageError(
            f"An old-only arm is known for runs of the steps {', '.join(_KNOWN_STEPS)}, and this one has "
            f"{', '.join(unknown)}, which would go on reading the expanded languages."
        )
    return experiment.with_settings(control=OLD_ONLY)


_KNOWN_STEPS = ("fit_routers", "expand", "local_review", "review", "one_stage", "finetune", "interpolate")
"""Steps that `experiments.steps` makes on `Experiment.taught` where they train by gradient."""


def make_old_only(run: Run) -> Run:
    """Return the finished old-only arm of a finished run, beside it; made now where it is not there."""
    from lpr_lab.experiments.config import completed
    from lpr_lab.runs.find import find_same_config

    experiment = old_only(run)
    there = find_same_config(run.path.parent, experiment.to_config(), pipeline.KIND, completed)
    if there is not None and there.status.recorded_state == "finished":
        return there
    return pipeline.run(experiment, root=run.path.parent)


def raw_base(
    base: str = "smollm2-135m",
    corpus: str = "demo",
    original: Sequence[str] = ("en", "es"),
    *,
    budget: StageBudget | None = None,
    min_gain_percent: float = 0.3,
    rounds: int = 8,
    eval_tokens_per_language: int = 4096,
    precision: str = "auto",
    seed: int = 0,
    root: str | Path | None = None,
) -> Run:
    """Return the run that holds `B0-raw`: the base adapted to raw text in its original languages.

    It trains in rounds of one budget each, all weights, and stops after the first that does not make dev text in the
    original languages at least `min_gain_percent` cheaper. A run with these settings that is there already is returned.

    Args:
        base: name, hub id or folder.
        corpus: its `train` split is read, its `dev` split decides when to stop; held-out text is not touched.
        original: languages, in equal shares.
        budget: of a round; 20,480 tokens at a rate of 1e-4 by default.
        min_gain_percent: of mean bits per byte, that a round must give for another one.
        rounds: at most.
        eval_tokens_per_language: of dev text.
        precision: auto, fp32 or bf16.
        seed: of the order of texts; round r has seed + r.
        root: the folder of runs.

    Returns:
        The run; `run.path / "base"` is what other runs take as `base`. Table `rounds` has the dev bits per byte.
    """
    budget = budget or StageBudget(tokens=20_480, learning_rate=1e-4)
    config: dict[str, Any] = {
        "base": canonical_name(base), "corpus": corpus, "original": list(original), "budget": vars(budget),
        "min_gain_percent": min_gain_percent, "rounds": rounds, "precision": precision, "seed": seed,
        "eval_tokens_per_language": eval_tokens_per_language,
    }  # fmt: skip
    there = _finished(config, root)
    if there is not None:
        return there
    title = f"{base} adapted to raw {', '.join(original)}"
    run = start_run(config, kind=RAW_BASE, slug=" ".join(original), title=title, root=root)
    with run.working("adapt"):
        texts = load_corpus(corpus, languages=list(original), tokens=rounds * budget.tokens // max(len(original), 1))
        run.documents.write("data", texts.manifest)
        model, tokenizer = load_base(base)
        options = {"languages": list(original), "tokens": eval_tokens_per_language, "precision": precision}
        rows = _adapt(run, model, tokenizer, texts, budget, (min_gain_percent, rounds), options, seed)
        run.tables.write("rounds", pd.DataFrame(rows))
        target = run.path / MODEL
        if target.exists():
            storage.remove_directory(target)
        with storage.staged_directory(target) as stage:
            model.save_pretrained(stage)
            tokenizer.save_pretrained(stage)
    results = {"schema_version": 1, "base": base, "original": list(original), "rounds": rows, "model": MODEL}
    run.finish(results)
    return run


def _adapt(
    run: Run, model: Any, tokenizer: Any, texts: Any, budget: StageBudget, until: tuple[float, int],
    options: dict[str, Any], seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train a model in place round after round; returns the dev bits per byte before and after each."""
    from lpr_lab.experiments.controls.learning_rate import dev_bits, train_all
    from lpr_lab.method.training.train import train_settings

    bits = dev_bits(model, tokenizer, texts, **options)
    rows: list[dict[str, Any]] = [{"round": 0, "tokens": 0, "bits_per_byte": bits, "gain_percent": None}]
    model.requires_grad_(True)
    for number in range(1, until[1] + 1):
        settings = train_settings(budget, model, budget.tokens, precision=options["precision"], seed=seed + number)
        train_all(model, tokenizer, texts, options["languages"], settings)
        before, bits = bits, dev_bits(model, tokenizer, texts, **options)
        gain = 100 * (1 - bits / before)
        rows.append({"round": number, "tokens": number * budget.tokens, "bits_per_byte": bits, "gain_percent": gain})
        if gain < until[0]:
            break
    model.requires_grad_(False).eval()
    return rows


def _finished(config: dict[str, Any], root: str | Path | None) -> Run | None:
    from lpr_lab.runs.find import default_runs_dir, find_same_config

    there = find_same_config(default_runs_dir() if root is None else root, config, RAW_BASE)
    return there if there is not None and there.status.recorded_state == "finished" else None
