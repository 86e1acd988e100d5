"""KL_self: how far a model is from its base on what the base writes itself, in bits per byte. It is never negative.

    KL_self = sum over positions of  sum_v p_base(v) · (log2 p_base(v) − log2 p_model(v))  /  bytes of the samples

The sum over v is over the whole vocabulary at every position, not an estimate from the token that was drawn, so each
term is at least 0, and 0 only where the two models say the same. Bits per byte of raw text can fall on an original
language although it was damaged, because any raw text helps an instruct model; this cannot. What it says is that the
model changed on its base's own ground; whether for the worse is for scores to say.

Letters: B samples of a pass, S positions, D model width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.measure.controls.self_samples import Sample
from lpr_lab.measure.significance import bootstrap_interval
from lpr_lab.model.capture import causal_lm_of
from lpr_lab.model.forward import inference
from lpr_lab.model.head import head_of, hidden_states, rows_at_once
from lpr_lab.model.stages import use_stage
from lpr_lab.model.tuned.pair import Tuned, model_and_base
from lpr_lab.progress import progress
from lpr_lab.text.packing import separator_token_id

COLUMNS = [
    "model", "language", "form", "n_samples", "tokens", "kl_bits_per_byte", "ci_low", "ci_high", "kl_percent",
    "same_top", "unchanged_samples",
]  # fmt: skip
ALL = "all"
"""Language and form of the row over all samples."""
_UNCHANGED = 1e-6
"""Nats: below this at every position a sample reads the same to both models, up to rounding."""


@dataclass(frozen=True)
class SelfDivergence:
    """What one model makes of the base's samples.

    Attributes:
        kl: nats of divergence, summed over the positions of each sample, float64 [samples], at least 0.
        largest: the largest of any position, per sample, in nats.
        same_top: at how many positions both find the same token likeliest, int [samples].
        base_nats: what the samples cost the base itself, float64 [samples].
    """

    kl: np.ndarray
    largest: np.ndarray
    same_top: np.ndarray
    base_nats: np.ndarray


def self_divergence(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sample],
    *,
    base: PreTrainedModel | None = None,
    stages: Sequence[str] = (),
    name: str = "expanded",
    batch: int = 8,
    precision: str = "auto",
    seed: int = 0,
    bootstrap: int = 1000,
) -> pd.DataFrame:
    """Return KL_self of a model, and of earlier stages of it, with 95 % intervals over samples.

    Args:
        model: what has its base inside (an expansion, LoRA, a baseline), or a plain causal LM beside `base`.
        tokenizer: the base model's.
        samples: from `draw_samples`.
        base: of a plain model.
        stages: earlier stages of an expansion to measure as well.
        name: what the model as it stands is called in the table.
        batch: samples per forward pass.
        precision: auto, fp32 or bf16; the same for both models.
        seed: of the resampling.
        bootstrap: resamples for the intervals.

    Returns:
        Per model, language and form, and over all (`all`): n_samples, tokens, kl_bits_per_byte with ci_low and
        ci_high, kl_percent (of what the base needs for its own samples), same_top (share of positions with the same
        likeliest token), unchanged_samples (share of samples that read the same to both).

    Raises:
        UsageError: no samples, or nothing to compare with.
    """
    if not samples:
        raise UsageError("There are no samples of the base to measure on; draw some with draw_samples.")
    if base is None and not hasattr(model, "disable_adapter"):
        raise UsageError("A plain model has no base inside; give what it is compared with as `base`.")
    rows: list[list[Any]] = []
    named: list[tuple[str, str | None]] = [*((stage, stage) for stage in stages), (name, None)]
    total = 2 * len(named) * sum(len(sample.prompt_ids) + len(sample.ids) for sample in samples)
    with progress(total, "KL to the base", "token") as bar:
        for called, stage in named:
            options: dict[str, Any] = {"base": base, "stage": stage, "batch": batch, "precision": precision}
            found = diverged(model, tokenizer, samples, **options, bar=bar)
            rows += _rows(called, samples, found, seed, bootstrap)
    return pd.DataFrame(rows, columns=COLUMNS)


def diverged(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sample],
    *,
    base: PreTrainedModel | None = None,
    stage: str | None = None,
    batch: int = 8,
    precision: str = "auto",
    whole_logits: bool = False,
    bar: Any = None,
) -> SelfDivergence:
    """Return the divergence of a model, or of one of its stages (`stage`), per sample; else as `self_divergence`.

    With `whole_logits` all logits of a pass are made at once: the plain form that tests compare with.
    """
    if isinstance(model, Tuned):
        model, base = model_and_base(model)
    order = sorted(range(len(samples)), key=lambda number: len(samples[number].prompt_ids) + len(samples[number].ids))
    parts = {name: np.zeros(len(samples)) for name in ("kl", "largest", "same_top", "base_nats")}
    dense = model if base is None else base
    padding = separator_token_id(tokenizer)
    as_base = model.disable_adapter if base is None else nullcontext
    at_stage = nullcontext() if stage is None else use_stage(model, stage)
    models = [dense] if dense is model else [dense, model]
    with at_stage, _reading(models, precision, whole_logits) as direct:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            inputs, places, owners, targets = _padded([samples[number] for number in chosen], padding, model)
            with as_base():
                before = _at(dense, inputs, places, direct)
            after = _at(model, inputs, places, direct)
            for first in range(0, len(owners), rows := _rows_of(dense, direct, before)):
                span = slice(first, first + rows)
                with as_base():
                    p = _log_probs(dense, before[span], direct)
                q = _log_probs(model, after[span], direct)
                _add(parts, np.array(chosen)[owners[span]], p, q, targets[span].to(p.device))
            if bar is not None:
                bar.update(2 * sum(len(samples[n].prompt_ids) + len(samples[n].ids) for n in chosen))
    return SelfDivergence(parts["kl"], parts["largest"], parts["same_top"].astype(int), parts["base_nats"])


def kl_rows(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Return KL(p ‖ q) in nats of each row of log-probabilities [N, V]; never below 0, which rounding alone could be.

    >>> p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    >>> round(float(kl_rows(p, q)), 4), float(kl_rows(p, p))
    (0.1438, 0.0)
    """
    # Where p is 0 the term is 0, whatever q says.
    terms = torch.where(log_p.isneginf(), torch.zeros_like(log_p), log_p.exp() * (log_p - log_q))
    return terms.sum(-1).clamp(min=0)


def _add(parts: dict[str, np.ndarray], owners: np.ndarray, p: torch.Tensor, q: torch.Tensor, targets: Any) -> None:
    kl = kl_rows(p, q).double().cpu().numpy()
    np.add.at(parts["kl"], owners, kl)
    np.maximum.at(parts["largest"], owners, kl)
    np.add.at(parts["same_top"], owners, (p.argmax(-1) == q.argmax(-1)).cpu().numpy())
    np.add.at(parts["base_nats"], owners, -p.gather(-1, targets[:, None])[:, 0].double().cpu().numpy())


def _padded(samples: Sequence[Sample], padding: int, model: Any) -> tuple[dict[str, Any], Any, Any, Any]:
    """Return inputs [B, S], where a token of a sample is predicted, whose sample it is, and which token."""
    longest = max(len(one.prompt_ids) + len(one.ids) for one in samples)
    ids = torch.full((len(samples), longest), padding)
    places, owners, targets = [], [], []
    for number, one in enumerate(samples):
        own = [*one.prompt_ids, *one.ids]
        ids[number, : len(own)] = torch.tensor(own)
        first = len(one.prompt_ids) - 1
        places += [number * longest + first + step for step in range(len(one.ids))]
        owners += [number] * len(one.ids)
        targets += one.ids
    device = next(model.parameters()).device
    # Padding stands on the right, where no token of a sample looks.
    positions = torch.arange(longest)[None].expand(len(samples), -1)
    inputs = {"input_ids": ids.to(device), "position_ids": positions.to(device), "use_cache": False}
    return inputs, torch.tensor(places, device=device), np.array(owners), torch.tensor(targets)


def _at(model: Any, inputs: dict[str, Any], places: torch.Tensor, direct: bool) -> torch.Tensor:
    """Return hidden states (or logits) [N, D or V] where a token of a sample is predicted."""
    found = model(**inputs, only_states=True) if direct else model(**inputs).logits
    return found.flatten(0, 1)[places]


def _log_probs(model: Any, rows: torch.Tensor, direct: bool) -> torch.Tensor:
    return (head_of(model)(rows) if direct else rows).float().log_softmax(-1)


def _rows_of(model: Any, direct: bool, rows: torch.Tensor) -> int:
    vocabulary = causal_lm_of(model).config.get_text_config().vocab_size
    return rows_at_once(vocabulary, rows.device) if direct else max(len(rows), 1)


@contextmanager
def _reading(models: Sequence[Any], precision: str, whole_logits: bool) -> Iterator[bool]:
    """Have one model or two ready to be read; yields whether their heads can be applied to a few rows at a time."""
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(inference(model, precision))
        separable = [stack.enter_context(hidden_states(model)) for model in models]
        yield all(separable) and not whole_logits


def _rows(name: str, samples: Sequence[Sample], found: SelfDivergence, seed: int, bootstrap: int) -> list[list[Any]]:
    kinds = list(dict.fromkeys((one.language, one.form) for one in samples))
    rows = []
    for language, form in [*kinds, (ALL, ALL)]:
        keep = np.array([(one.language, one.form) == (language, form) or language == ALL for one in samples])
        sizes = np.array([one.num_bytes for one in samples])[keep]
        tokens = np.array([len(one.ids) for one in samples])[keep]
        kl, base = found.kl[keep] / np.log(2), found.base_nats[keep] / np.log(2)
        draws = np.random.default_rng(seed).integers(0, len(sizes), (bootstrap, len(sizes)))
        low, high = bootstrap_interval(kl[draws].sum(1) / sizes[draws].sum(1), len(sizes))
        rows.append(
            [
                name, language, form, len(sizes), int(tokens.sum()), float(kl.sum() / sizes.sum()), max(low, 0.0), high,
                float(100 * kl.sum() / base.sum()), float(found.same_top[keep].sum() / tokens.sum()),
                float((found.largest[keep] < _UNCHANGED).mean()),
            ]
        )  # fmt: skip
    return rows
