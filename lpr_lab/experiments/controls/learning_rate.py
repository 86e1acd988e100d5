"""The learning rate at which a recipe learns on a base, found by a short range test on dev text.

One rate ruins what another base thrives on, so methods are compared each at the rate that this test finds for it. From
one and the same state, stage 1 is trained for a few steps at each of several rates, and `dev` text of the languages
that are taught is scored. The rule:

    Of the rates whose fall of dev bits per byte is at least 90 % of the largest fall, take the lowest.

The lowest, because a longer training takes less than a short one before it diverges, and a higher rate forgets more.
Where the largest fall is at an end of the rates, rates beyond it are tried too, up to twice. Held-out text is not read.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lpr_lab.errors import LprError, UsageError
from lpr_lab.experiments.config import Experiment
from lpr_lab.measure.bits import document_nats
from lpr_lab.measure.documents import choose_tests, lost_texts
from lpr_lab.method.expand import pack_by_language
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.method.training.terms import lm_term
from lpr_lab.method.training.train import TrainSettings, train, train_settings
from lpr_lab.runs.find import default_runs_dir, find_same_config, start_run
from lpr_lab.runs.formats import json_records
from lpr_lab.runs.run import Run
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.load import load_corpus
from lpr_lab.text.packing import pack

KIND = "learning_rate"
"""Of the run that a range test is."""
TABLE = "learning_rates"
COLUMNS = ["learning_rate", "dev_bits_per_byte", "change_percent", "diverged", "chosen"]
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
ENOUGH = 0.9
"""Share of the largest fall that a lower rate must have to be taken."""
_FACTOR, _MORE = 3.0, 2


def find_learning_rate(
    experiment: Experiment,
    *,
    rates: Sequence[float] = RATES,
    steps: int = 8,
    eval_tokens_per_language: int = 2048,
    root: str | Path | None = None,
) -> Run:
    """Return the finished range test of a recipe on its base; one that was made with the same settings is not repeated.

    Args:
        experiment: from `recipes`; its own rates are left aside, except that of routers.
        rates: of experts.
        steps: of stage 1 at each rate, with the block length and blocks per step of the experiment.
        eval_tokens_per_language: of dev text.
        root: the folder of runs.

    Returns:
        A run of kind `learning_rate`: `run.results["learning_rate"]` is the rate, `run.tables.read("learning_rates")`
        the curve.

    Raises:
        UsageError: rates that are none, a recipe without stage 1, or no dev text.
        LprError: dev text got cheaper at no rate.

    >>> run = find_learning_rate(recipes.moe_lpr(base="smollm2-135m"))  # doctest: +SKIP
    >>> run.results["learning_rate"]  # doctest: +SKIP
    """
    if len(set(rates)) < 2 or min(rates) <= 0 or steps < 1:
        raise UsageError(f"rates = {list(rates)}, steps = {steps}; expected at least two rates above 0 and one step.")
    if "expand" not in experiment.steps:
        raise UsageError(
            f"A range test trains stage 1, and recipe {experiment.recipe!r} has none (its steps: "
            f"{', '.join(experiment.steps)}). Give a recipe with `expand`, or a learning rate."
        )
    config = _tested(experiment).to_config() | {
        "rates": sorted(rates), "steps_per_rate": steps, "dev_tokens_per_language": eval_tokens_per_language
    }  # fmt: skip
    there = find_same_config(default_runs_dir() if root is None else root, config, KIND)
    if there is not None and there.status.recorded_state == "finished":
        return there
    title = f"Learning rate of {experiment.recipe} on {experiment.base}"
    run = start_run(config, kind=KIND, slug=experiment.recipe, title=title, root=root)
    with run.working("range test"):
        table = _measure(run, experiment, sorted(rates), steps, eval_tokens_per_language)
        run.tables.write(TABLE, table)
    rate = float(table[table["chosen"]]["learning_rate"].iloc[0])
    rule = f"the lowest rate with {100 * ENOUGH:.0f} % of the largest fall of dev bits per byte after {steps} steps"
    run.finish({"schema_version": 1, "learning_rate": rate, "rule": rule, TABLE: json_records(table)})
    return run


def with_found_rate(experiment: Experiment, root: str | Path | None = None, **options: Any) -> tuple[Experiment, Run]:
    """Return an experiment that learns at the rate that a range test found for it, and that test's run."""
    test = find_learning_rate(experiment, root=root, **options)
    rate = float(test.results["learning_rate"])
    return replace(
        experiment, **{name: replace(getattr(experiment, name), learning_rate=rate) for name in _STAGES}
    ), test


def keep_curve(run: Run, experiment: Experiment) -> pd.DataFrame:
    """Return the curve of the range test that found an experiment's rate, and keep it in the experiment's run too."""
    table = find_learning_rate(experiment, root=run.path.parent).tables.read(TABLE)
    assert table is not None
    run.tables.write(TABLE, table)
    return table


_STAGES = ("stage1", "stage2")


def choose(table: pd.DataFrame) -> float:
    """Return the rate that the rule above takes.

    Args:
        table: columns learning_rate, change_percent (of dev bits per byte, below 0 is better), diverged.

    Raises:
        LprError: no rate made dev text cheaper.
    """
    sound = table[~table["diverged"].astype(bool)]
    best = sound["change_percent"].min() if len(sound) else math.inf
    if not best < 0:
        raise LprError(
            f"Dev text got cheaper at none of the rates {', '.join(f'{rate:g}' for rate in table['learning_rate'])}. "
            "Try lower ones (rates=...), or more steps."
        )
    return float(sound[sound["change_percent"] <= ENOUGH * best]["learning_rate"].min())


def range_test(measure: Callable[[float], tuple[float, bool]], rates: Sequence[float], before: float) -> pd.DataFrame:
    """Return the curve of a range test, extended where the best rate is at an end of it.

    Args:
        measure: dev bits per byte after a short training at a rate, and whether it diverged.
        rates: to begin with.
        before: dev bits per byte of the untrained model.
    """
    seen = {rate: measure(rate) for rate in sorted(rates)}
    for _ in range(_MORE):
        best = min(seen, key=lambda rate: seen[rate][0] if math.isfinite(seen[rate][0]) else math.inf)
        beyond = {max(seen): max(seen) * _FACTOR, min(seen): min(seen) / _FACTOR}.get(best)
        if beyond is None:
            break
        seen[beyond] = measure(beyond)
    rows = [[rate, bits, 100 * (bits / before - 1), bad, False] for rate, (bits, bad) in sorted(seen.items())]
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["chosen"] = table["learning_rate"] == choose(table)
    return table


@contextmanager
def kept_state(model: torch.nn.Module) -> Any:
    """Put back, when the block ends, every number that learns in a model and what its adapter says of its stages."""
    from lpr_lab.model.adapter import expansion_config, moe_layers
    from lpr_lab.model.peft import PeftModel

    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    is_expansion = isinstance(model, PeftModel) and bool(moe_layers(model))
    config = expansion_config(model) if is_expansion else None
    before = deepcopy(vars(config)) if config is not None else {}
    # Of an expansion the base never learns, and need not be held twice.
    numbers = {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if not is_expansion or "moe_lpr_" in name
    }
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in numbers:
                    parameter.copy_(numbers[name])
                parameter.requires_grad_(learns[name])
                parameter.grad = None
        if config is not None:
            vars(config).update(before)


def dev_bits(
    model: Any, tokenizer: Any, corpus: Corpus, *, languages: Sequence[str], tokens: int, precision: str = "auto"
) -> float:
    """Return the mean over languages of a model's bits per byte on dev text; no other split is read."""
    tests = choose_tests(corpus, ["dev"], languages, tokens, 256, tokenizer)
    found = []
    for (_, language, documents), loss in zip(tests, lost_texts(tokenizer, tests), strict=True):
        nats = document_nats(model, pack(documents, tokenizer, 256, languages=[language]), precision=precision)
        found.append(nats.sum() / math.log(2) / max(sum(loss.num_bytes) - sum(loss.lost_bytes), 1))
    return float(sum(found) / len(found))


def train_all(
    model: Any, tokenizer: Any, corpus: Corpus, languages: Sequence[str], settings: TrainSettings
) -> dict[str, Any]:
    """Train everything that learns in a model on the `train` text of some languages, in a folder that is then gone."""
    import tempfile

    blocks = pack_by_language(corpus, tokenizer, dict.fromkeys(languages, "train"), settings)
    schedule = BlockSchedule(blocks, blocks_per_step=settings.blocks_per_step, seed=settings.seed)
    with tempfile.TemporaryDirectory(prefix="lpr-lab-") as folder:
        return train(model, schedule, [lm_term()], settings, out=Path(folder), label="Short training")


def _tested(experiment: Experiment) -> Experiment:
    """Return an experiment without what a range test finds, and without what it does not depend on."""
    plain = Experiment(recipe=experiment.recipe, steps=experiment.steps)
    budgets = {name: replace(getattr(experiment, name), learning_rate=None) for name in _STAGES}
    return replace(experiment, **budgets, evaluate=plain.evaluate, self_divergence=plain.self_divergence)


def _measure(run: Run, experiment: Experiment, rates: Sequence[float], steps: int, tokens: int) -> pd.DataFrame:
    from lpr_lab.experiments.steps import STEPS

    context = _context(run, experiment)
    languages = list(experiment.taught)
    before = dev_bits(
        context.model, context.tokenizer, context.corpus, languages=languages, tokens=tokens,
        precision=experiment.precision,
    )  # fmt: skip
    if "fit_routers" in experiment.steps:
        STEPS["fit_routers"](context, run.path)
    budget = experiment.resolved().stage1

    def measure(rate: float) -> tuple[float, bool]:
        short = replace(budget, tokens=steps * budget.block_tokens * budget.blocks_per_step, learning_rate=rate)

        with kept_state(context.model):
            diverged = _train_stage1(context, short)
            options = {"languages": languages, "tokens": tokens, "precision": experiment.precision}
            bits = dev_bits(context.model, context.tokenizer, context.corpus, **options)
        return bits, diverged or not math.isfinite(bits)

    return range_test(measure, rates, before)


def _context(run: Run, experiment: Experiment) -> Any:
    from lpr_lab.experiments.load import model_to_train, starting_model
    from lpr_lab.experiments.steps import RunContext

    texts = load_corpus(experiment.corpus, languages=list(experiment.languages), tokens=experiment.tokens_per_language)
    run.documents.write("data", texts.manifest)
    _, model, tokenizer = starting_model(experiment, run)
    expanded = model_to_train(experiment, run, model, tokenizer, texts)
    return RunContext(experiment, run, expanded, tokenizer, texts, torch.zeros(0))


def _train_stage1(context: Any, budget: Any) -> bool:
    """Train stage 1 of an expansion by a budget; returns whether it diverged."""
    import tempfile

    from lpr_lab.experiments.steps import train_stage1

    experiment = context.experiment
    settings = train_settings(
        budget, context.model, budget.tokens, precision=experiment.precision, seed=experiment.seed
    )
    with tempfile.TemporaryDirectory(prefix="lpr-lab-") as folder:
        try:
            found = train_stage1(context, Path(folder), settings)
        except LprError as error:
            if "finite" not in str(error):
                raise
            return True
    return found["diverged"] is not None and found["diverged"]["recovered"] is None
