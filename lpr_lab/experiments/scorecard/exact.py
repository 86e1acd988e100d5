"""The seven exact claims, checked on a base in seconds: a few training steps, and the equations themselves.

The tests whose names begin with `test_claim_` say the same on tiny models of every family; this is for the base that a
scorecard is about. It is a run of its own, so that a row of the scorecard can name it.
"""

import math
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from lpr_lab.experiments.corpus import corpus_of
from lpr_lab.experiments.scorecard.build import EXACT_KIND
from lpr_lab.experiments.scorecard.folder import choosing
from lpr_lab.experiments.scorecard.plan import Card, experiment_of
from lpr_lab.method.allocation import allocate
from lpr_lab.method.expand import expand
from lpr_lab.method.losses import load_balancing_loss, lpr_loss
from lpr_lab.method.paper_settings import NEW_EXPERTS_G1
from lpr_lab.method.review import review
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.cosines import mean_cosines
from lpr_lab.progress import hidden
from lpr_lab.runs.find import list_runs, start_run
from lpr_lab.runs.run import Run

ROUNDING = 1e-5
_STEPS = 2
Check = dict[str, Any]


def exact_run(card: Card, root: str | Path) -> Run:
    """Return the run that checked the exact claims on a card's base; made now where it is not there."""
    with choosing(root):  # for another command that begins the same now
        return _exact_run(card, root)


def _exact_run(card: Card, root: str | Path) -> Run:
    languages = {"original": list(card.original), "expanded": list(card.expanded)}
    config = {"base": card.base, "corpus": card.corpus, **languages}
    for run in list_runs(root):
        if run.problem is None and run.kind == EXACT_KIND and run.config == config and run.results:
            return run
    run = start_run(config, kind=EXACT_KIND, slug=card.base, title=f"{card.base}: the exact claims", root=root)
    with run.working("check"), hidden():
        checks = [*of_equations(), *of_training(card)]
    run.finish({"schema_version": 1, "base": card.base, "checks": checks})
    return run


def of_equations() -> list[Check]:
    """Return the checks of claims 3 to 5, which need no model."""
    return [_balanced(), _constant(), _no_originals(), _floor(), _published(), _mean_of_pairs()]


def _check(claim: int, text: str, measured: float, limit: float = 0.0) -> Check:
    return {"claim": claim, "text": text, "measured": measured, "limit": limit, "holds": measured <= limit}


def _balanced() -> Check:
    def loss(number: int) -> float:
        # Every expert is first choice of as many tokens, with the same probabilities.
        logits = torch.stack([torch.roll(torch.linspace(1, 0, number), shift) for shift in range(number)])
        return abs(float(load_balancing_loss(logits, 2)) - 1)

    text = "Balance loss at uniform routing for 2 to 8 experts: largest distance from 1."
    return _check(3, text, max(loss(number) for number in range(2, 9)), ROUNDING)


def _constant() -> Check:
    logits = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    load_balancing_loss(logits, 2).backward()
    assert logits.grad is not None
    text = "Its largest gradient where as many experts are chosen as there are."
    return _check(3, text, float(logits.grad.abs().max()), 1e-7)


def _no_originals() -> Check:
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = lpr_loss(logits, torch.zeros(10, dtype=torch.bool))
    loss.backward()
    assert logits.grad is not None
    text = "LPR loss, and its largest gradient, without a token of an original language."
    return _check(4, text, float(loss.detach()) + float(logits.grad.abs().max()))


def _floor() -> Check:
    def distance(number: int) -> float:
        logits = torch.zeros(1, number)
        logits[0, 0] = 100
        known = torch.tensor([True])
        released = math.log(1 + (number - 1) / math.e)
        return float(lpr_loss(logits, known)) + abs(float(lpr_loss(logits, known, "released")) - released)

    text = "LPR loss where all weight is on expert 0: distance from 0, and of the released form from its floor."
    return _check(4, text, max(distance(number) for number in (2, 3, 4, 6)), ROUNDING)


def _published() -> Check:
    """The published similarities are not at hand; some that stand for them are made from the published list."""
    values = [count + 1 - Fraction(1, 2) for count in NEW_EXPERTS_G1]
    found = allocate([float(1 / value) for value in values], float(sum(values)), rule="round_up").new_experts
    wrong = sum(one != other for one, other in zip(found, NEW_EXPERTS_G1, strict=True))
    text = "Layers whose number of experts differs from the published list (similarities made to stand for it)."
    return _check(5, text, wrong)


def _mean_of_pairs() -> Check:
    draw = torch.Generator().manual_seed(0)
    tokens = [
        torch.randn(count, 16, generator=draw, dtype=torch.float64) + shift for count, shift in ((90, 0.3), (70, 0))
    ]
    units = [F.normalize(one, dim=1) for one in tokens]
    means = np.stack([one.mean(0)[None].numpy() for one in units])
    pairs = float((units[0] @ units[1].T).mean())
    text = "Similarity from mean unit vectors less the mean over all pairs of tokens."
    return _check(5, text, abs(float(mean_cosines(means, [90, 70])[0, 0, 1]) - pairs), 1e-9)


def of_training(card: Card) -> list[Check]:
    """Return the checks of claims 2, 4, 6 and 7 on the base: a few steps of every stage, two groups of languages."""
    experiment = experiment_of(card, "moe_lpr", 0)
    corpus = corpus_of(experiment.to_config(), experiment.languages)
    model, tokenizer = load_base(card.base)
    probe = torch.tensor([tokenizer("one two three, uno dos tres")["input_ids"]])
    expected = _logits(model, probe)
    layers = model.config.get_text_config().num_hidden_layers
    settings = TrainSettings(
        tokens=_STEPS * 256,
        block_tokens=128,
        blocks_per_step=2,
        blocks_per_forward=2,
        learning_rate=1e-3,
        router_learning_rate=1e-2,
        precision="fp32",
    )
    taught, kept = list(card.expanded), list(card.original)
    # With constants, by which a classifier can be made to say one thing of every token.
    expanded = upcycle(model, [1] * layers, router_bias=True)
    with tempfile.TemporaryDirectory() as folder:

        def stage1(name: str) -> None:
            expand(expanded, tokenizer, corpus, languages=taught, out=Path(folder) / name, settings=settings)

        moved = _moved_by(expanded, lambda: stage1("1"))
        others = [name for name in moved if "moe_lpr_experts" not in name and "moe_lpr_router" not in name]
        checks = [_check(2, "Tensors that stage 1 changed beside new experts and routers.", len(others))]
        options: dict[str, Any] = {"original": kept, "expanded": taught, "settings": settings}
        options["classifier_layers"] = range(layers)
        moved = _moved_by(expanded, lambda: review(expanded, tokenizer, corpus, out=Path(folder) / "2", **options))
        others = [name for name in moved if "moe_lpr_router" not in name and "moe_lpr_classifier" not in name]
        checks.append(_check(2, "Tensors that stage 2 changed beside routers and classifiers.", len(others)))
        checks.append(_all_original(expanded, probe, expected))
        before = {name: tensor.detach().clone() for name, tensor in expanded.named_parameters()}
        upcycle(expanded, [1] * layers)
        stage1("3")
        after = dict(expanded.named_parameters())
        lost = sum(not torch.equal(tensor, after[name]) for name, tensor in before.items())
        checks.append(_check(7, "Tensors of the base and the first group that a second expansion changed.", lost))
    return checks


@torch.no_grad()
def _all_original(expanded: Any, probe: torch.Tensor, expected: torch.Tensor) -> Check:
    """Let every classifier say "original" for the while."""
    classifiers = [layer.classifier for layer in moe_layers(expanded) if layer.classifier is not None]
    kept = [[parameter.clone() for parameter in one.parameters()] for one in classifiers]
    for one in classifiers:
        assert one.bias is not None
        one.weight.zero_()
        one.bias.copy_(torch.tensor([1.0, 0.0]))
    found = float((_logits(expanded, probe) - expected).abs().max())
    for one, values in zip(classifiers, kept, strict=True):
        for parameter, value in zip(one.parameters(), values, strict=True):
            parameter.copy_(value)
    return _check(6, "Every token classified as original in every layer: largest difference of a logit.", found)


def _moved_by(model: Any, train: Callable[[], Any]) -> list[str]:
    """Return the names of the tensors that a training changed; new ones count as changed."""
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    train()
    return [
        name for name, tensor in model.named_parameters() if name not in before or not torch.equal(tensor, before[name])
    ]


@torch.no_grad()
def _logits(model: Any, probe: torch.Tensor) -> torch.Tensor:
    return model(probe).logits
