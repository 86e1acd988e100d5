"""Counts expert load during forward passes and turns the counts into the tables that a run keeps.

    expert_load           stage language role dataset layer expert chosen first mass n_tokens
    original_probability  stage language role dataset layer num_experts probability n_tokens
    expert_pairs          stage dataset layer expert_a expert_b n_tokens          chosen together; a = b: tokens of a
    expert_agreement      before after dataset language layer same_choices same_first
    expert_information    stage dataset layer bits ceiling_bits null_bits null_high_bits n_languages n_documents
    expert_tokens         dataset language layer expert token_id bytes count total            of the newest stage

`chosen`, `first` and `mass` are those of `measure.experts.NUMBERS`. `probability` is the mean router probability of
expert 0, softmax over all experts before any is chosen: on original languages fig. 3 of MoE-LPR, logged by its code as
`old_lang_expert0_score` (there over all tokens, here without separators). `bytes` is the token in UTF-8, as hex digits;
`null_bits` and `null_high_bits` are mean and 95th percentile over shuffled documents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from lpr_lab.measure import experts
from lpr_lab.model.capture import RoutingRecord, decoder_of, record_routing
from lpr_lab.model.forward import inference, read_blocks
from lpr_lab.model.parallel.sharing import gathered, reading
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.router import ORIGINAL_EXPERT
from lpr_lab.model.stages import use_stage
from lpr_lab.text.blocks import Batch
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.packing import PackedBlocks

TABLES = (
    "expert_load",
    "original_probability",
    "expert_pairs",
    "expert_agreement",
    "expert_information",
    "expert_tokens",
)
LOAD_COLUMNS = ["language", "role", "dataset", "layer", "expert", "share", "mass", "n_tokens", "first"]
SHUFFLES = 200


class TextSource(NamedTuple):
    """What text is counted as: its language, `original` or `expanded`, and the split it is from."""

    language: str
    role: str
    dataset: str


class _Totals:
    """What the experts of one layer got of one language's text at one stage, in all."""

    def __init__(self, num_experts: int) -> None:
        self.chosen = np.zeros(num_experts, np.int64)
        self.first = np.zeros(num_experts, np.int64)
        self.mass = np.zeros(num_experts)
        self.num_tokens = 0

    def add(self, ids: np.ndarray, weights: np.ndarray) -> None:
        """Count the chosen experts [T, K] of some tokens, and their weights [T, K]."""
        num_experts = len(self.mass)
        self.chosen += np.bincount(ids.ravel(), minlength=num_experts)
        self.first += np.bincount(ids[:, 0], minlength=num_experts)
        self.mass += np.bincount(ids.ravel(), weights.ravel().astype(np.float64), minlength=num_experts)
        self.num_tokens += len(ids)


@dataclass
class _Layer:
    """What one layer did with one language's text at one stage, token by token and document by document."""

    chosen: list[np.ndarray] = field(default_factory=list)
    """Per forward pass, bool [T, E]."""
    first: list[np.ndarray] = field(default_factory=list)
    """int [T]."""
    documents: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    """Documents of a pass, int [d], and the weight of each expert summed over their tokens, float [d, E]."""
    probability: float = 0.0
    """The router's probability of expert 0, summed over all tokens."""


@dataclass
class _Reading:
    """What all layers did, and what was read."""

    layers: dict[int, _Layer] = field(default_factory=dict)
    token_ids: list[np.ndarray] = field(default_factory=list)
    document: list[np.ndarray] = field(default_factory=list)


class ExpertCounter:
    """Counts in forward passes of any number of stages and languages; `load` and `tables` have the results.

    What has to be kept token by token is let go when the next language begins, so stages are to be read language by
    language, on the same text.

    Args:
        stages: what they are called, oldest first; the vocabulary is that of the last.
        load_only: keep what `load` needs and nothing token by token; `tables` are then empty.
    """

    def __init__(self, stages: Sequence[str], *, load_only: bool = False):
        self._stages = tuple(stages)
        self._load_only = load_only
        self._totals: dict[tuple[str, TextSource, int], _Totals] = {}
        self._open: TextSource | None = None
        self._readings: dict[str, _Reading] = {}
        self._load: list[list[Any]] = []
        self._probability: list[list[Any]] = []
        self._agreement: list[list[Any]] = []
        self._tokens: list[list[Any]] = []
        self._pairs: dict[tuple[str, str, int], np.ndarray] = {}
        self._documents: dict[tuple[str, str, int], list[tuple[str, np.ndarray, np.ndarray]]] = {}

    def watch(self, record: RoutingRecord, stage: str, source: TextSource) -> Callable[[Batch], None]:
        """Return what to call after each forward pass with its batch (of `read_blocks`)."""
        if self._open not in (None, source):
            self._close()
        self._open = source
        reading = self._readings.setdefault(stage, _Reading())

        def count(batch: Batch) -> None:
            is_text = batch["is_text"].flatten().numpy()
            if not is_text.any():
                return
            document = batch["document_index"].flatten().numpy()[is_text]
            if not self._load_only:
                reading.token_ids.append(batch["input_ids"].flatten().numpy()[is_text])
                reading.document.append(document)
            for layer, routing in record.routing.items():
                ids = routing.expert_ids.cpu().numpy()[is_text]
                weights = routing.expert_weights.float().cpu().numpy()[is_text]
                num_experts = routing.router_logits.shape[-1]
                self._totals.setdefault((stage, source, layer), _Totals(num_experts)).add(ids, weights)
                if not self._load_only:
                    probability = routing.router_logits.float().softmax(-1)[:, ORIGINAL_EXPERT].cpu().numpy()[is_text]
                    part = reading.layers.setdefault(layer, _Layer())
                    part.probability += float(probability.sum(dtype=np.float64))
                    _add(part, ids, weights, num_experts, document)

        return count

    def gather(self, stage: str, source: TextSource) -> None:
        """Put together what processes that read together counted of a stage on one text; each has to come here once."""
        key = (stage, source)
        mine = {layer: of for (*at, layer), of in self._totals.items() if tuple(at) == key}
        parts = gathered((mine, self._readings.get(stage)))
        if len(parts) == 1:
            return
        for layer in sorted({layer for totals, _ in parts for layer in totals}):
            self._totals[*key, layer] = _sum([totals[layer] for totals, _ in parts if layer in totals])
        if not self._load_only:
            self._readings[stage] = _joined([reading for _, reading in parts if reading is not None])

    def load(self, stage: str) -> pd.DataFrame:
        """Return the load of a stage, one row per language, layer and expert.

        `share` is the expert's part of all (token, choice) slots, `mass` its mean combine weight, `first` the share of
        tokens of which it is the first choice; each sums to 1 over a layer's experts. Expert 0 is the original one.
        """
        rows = [
            [
                *(*source, layer, expert),
                float(of.chosen[expert] / of.chosen.sum()),
                float(of.mass[expert] / of.num_tokens),
                of.num_tokens,
                float(of.first[expert] / of.num_tokens),
            ]
            for (at, source, layer), of in self._totals.items()
            if at == stage
            for expert in range(len(of.mass))
        ]
        return pd.DataFrame(rows, columns=LOAD_COLUMNS)

    def tables(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, pd.DataFrame]:
        """Return the tables described above, by name."""
        self._close()
        spelled = sorted({row[4] for row in self._tokens})
        pieces = dict(zip(spelled, token_bytes(tokenizer, spelled), strict=True))
        tokens = [[*row[:5], (pieces[row[4]] or b"").hex(), *row[5:]] for row in self._tokens if pieces[row[4]]]
        pairs = [
            [*key, a, b, int(counts[a, b])]
            for key, counts in self._pairs.items()
            for a in range(len(counts))
            for b in range(a, len(counts))
        ]
        return {
            "expert_load": pd.DataFrame(
                self._load, columns="stage language role dataset layer expert chosen first mass n_tokens".split()
            ),
            "original_probability": pd.DataFrame(
                self._probability,
                columns="stage language role dataset layer num_experts probability n_tokens".split(),
            ),
            "expert_pairs": pd.DataFrame(pairs, columns="stage dataset layer expert_a expert_b n_tokens".split()),
            "expert_agreement": pd.DataFrame(
                self._agreement, columns="before after dataset language layer same_choices same_first".split()
            ),
            "expert_information": self._information(),
            "expert_tokens": pd.DataFrame(
                tokens, columns="dataset language layer expert token_id bytes count total".split()
            ),
        }

    def _close(self) -> None:
        """Reduce what was read of one language to counts."""
        if self._open is None:
            return
        language, role, dataset = self._open
        readings = {stage: self._readings[stage] for stage in self._stages if stage in self._readings}
        seen = {stage: _whole(reading) for stage, reading in readings.items() if reading.token_ids}
        for stage, layers in seen.items():
            reading = self._readings[stage]
            token_ids, document = np.concatenate(reading.token_ids), np.concatenate(reading.document)
            sizes = np.bincount(document)
            for layer, (chosen, first, mass) in layers.items():
                count, num_experts = chosen.shape
                shares = [chosen.mean(0), np.bincount(first, minlength=num_experts) / count, mass.sum(0) / count]
                for expert in range(num_experts):
                    numbers = [float(f"{share[expert]:.6g}") for share in shares]
                    self._load.append([stage, language, role, dataset, layer, expert, *numbers, count])
                mean = float(f"{reading.layers[layer].probability / count:.6g}")
                self._probability.append([stage, language, role, dataset, layer, num_experts, mean, count])
                key = (stage, dataset, layer)
                if (chosen.sum(1) < num_experts).any():  # where all are always chosen there is nothing to learn
                    self._pairs[key] = self._pairs.get(key, 0) + experts.co_activation(chosen)
                kept = sizes > 0
                self._documents.setdefault(key, []).append((language, mass[kept], sizes[kept]))
                if stage == self._stages[-1]:
                    for expert, *rest in experts.typical_tokens(token_ids, first, num_experts).tolist():
                        self._tokens.append([dataset, language, layer, expert, *rest])
        for before, after in combinations(seen, 2):
            for layer in sorted(seen[before].keys() & seen[after].keys()):
                (chosen, first, _), (chosen2, first2, _) = seen[before][layer], seen[after][layer]
                same = [experts.same_choices(chosen, chosen2), float((first == first2).mean())]
                row = [before, after, dataset, language, layer]
                self._agreement.append(row + [float(f"{share:.6g}") for share in same])
        self._open, self._readings = None, {}

    def _information(self) -> pd.DataFrame:
        columns = "stage dataset layer bits ceiling_bits null_bits null_high_bits n_languages n_documents".split()
        rows = []
        for (stage, dataset, layer), parts in self._documents.items():
            mass = np.concatenate([part[1] for part in parts])
            tokens = np.concatenate([part[2] for part in parts])
            number = np.repeat(np.arange(len(parts)), [len(part[2]) for part in parts])
            if len(parts) < 2 or mass.shape[1] < 2:
                continue
            profiles = np.stack([part[1].sum(0) / part[2].sum() for part in parts])
            null = experts.shuffled_information(mass, tokens, number, SHUFFLES)
            bits = [experts.information(profiles), experts.information_ceiling(*profiles.shape)]
            bits += [float(null.mean()), float(np.quantile(null, 0.95))]
            numbers = [float(f"{value:.6g}") for value in bits]
            rows.append([stage, dataset, layer, *numbers, len(parts), len(tokens)])
        return pd.DataFrame(rows, columns=columns)


def read_stage(
    counter: ExpertCounter,
    model: PeftModel,
    blocks: PackedBlocks,
    stage: str,
    source: TextSource,
    *,
    batch_blocks: int = 4,
    precision: str = "auto",
) -> None:
    """Let the counter watch one stage read one language's packed text; the model's head is not computed."""
    with (
        reading(model) as model,
        inference(model, precision),
        use_stage(model, stage),
        record_routing(model) as record,
    ):
        count = counter.watch(record, stage, source)
        for batch, _ in read_blocks(decoder_of(model), blocks, batch_blocks=batch_blocks):
            count(batch)
    counter.gather(stage, source)


def _sum(parts: Sequence[_Totals]) -> _Totals:
    whole = _Totals(len(parts[0].mass))
    for part in parts:
        whole.chosen += part.chosen
        whole.first += part.first
        whole.mass += part.mass
        whole.num_tokens += part.num_tokens
    return whole


def _joined(parts: Sequence[_Reading]) -> _Reading:
    whole = _Reading()
    for part in parts:
        whole.token_ids += part.token_ids
        whole.document += part.document
        for layer, found in part.layers.items():
            known = whole.layers.setdefault(layer, _Layer())
            known.chosen += found.chosen
            known.first += found.first
            known.documents += found.documents
            known.probability += found.probability
    return whole


def _add(layer: _Layer, ids: np.ndarray, weights: np.ndarray, num_experts: int, document: np.ndarray) -> None:
    dense = np.zeros((len(ids), num_experts), dtype=np.float32)
    rows = np.arange(len(ids))
    for choice in range(ids.shape[1]):
        dense[rows, ids[:, choice]] += weights[:, choice]
    starts = np.flatnonzero(np.diff(document, prepend=document[0] - 1))
    layer.chosen.append(dense > 0)
    layer.first.append(ids[:, 0].astype(np.int32))
    layer.documents.append((document[starts], np.add.reduceat(dense, starts, axis=0)))


def _whole(reading: _Reading) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return layer -> chosen [T, E], first [T], and the weights of each document [D, E]."""
    last = max(int(part.max()) for part in reading.document)
    found = {}
    for layer, parts in sorted(reading.layers.items()):
        mass = np.zeros((last + 1, parts.chosen[0].shape[1]))
        for documents, sums in parts.documents:
            np.add.at(mass, documents, sums)
        found[layer] = np.concatenate(parts.chosen), np.concatenate(parts.first), mass
    return found
