"""Reads held-out text for the tokens by which experts are known (`expert_contexts`).

One forward pass over the text gives the weights of every expert, and one more for each expert that is left out. With
30 layers of two experts all of them would cost 61 passes, so which are left out has to be said.

Every document is a row of its own, after the separator, as `measure.routing.trace` reads it: the page Routing shows the
same numbers for the same document.

Letters: T text tokens of all documents, C experts of all layers together, D documents.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError, one_of
from lpr_lab.measure.contexts.expert_contexts import BITS, CONTEXT_COLUMNS, NEIGHBOUR_COLUMNS, WEIGHT, ExpertContexts
from lpr_lab.measure.documents import choose_tests
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import RoutingRecord, record_routing
from lpr_lab.model.forward import inference, read_blocks
from lpr_lab.model.head import next_token_losses
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import selected_stage, stage_names, use_stage
from lpr_lab.model.steering import steer
from lpr_lab.progress import progress
from lpr_lab.text.blocks import Batch
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.packing import NO_TARGET, PackedBlocks, pack, separator_token_id
from lpr_lab.text.vocabulary import require_embeddings

NUM_NEIGHBOURS = 5


class Place(NamedTuple):
    """One expert of one layer."""

    layer: int
    expert: int


class ContextStep(NamedTuple):
    """How far it is: forward passes made over a language's text, of how many, and the result after the last."""

    done: int
    total: int
    result: ExpertContexts | None


@dataclass(frozen=True)
class _Text:
    """One language's documents, a row each, and where their text tokens are."""

    language: str
    documents: list[Document]
    blocks: PackedBlocks

    @property
    def owner(self) -> np.ndarray:
        """The document of each text token, int [t]."""
        return self.blocks.document_index[self.blocks.is_text].numpy()

    @property
    def position(self) -> np.ndarray:
        """The place of each text token in its document, the separator being 0, int [t]."""
        return self.blocks.position_ids[self.blocks.is_text].numpy()


def expert_contexts(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    languages: Sequence[str],
    split: str = "heldout",
    effects_of: Collection[tuple[int, int]] = (),
    k: int = 5,
    stage: str | None = None,
    tokens_per_language: int = 4096,
    max_document_tokens: int = 256,
    batch_documents: int = 4,
    precision: str = "auto",
) -> ExpertContexts:
    """Find the tokens of held-out text by which each expert is known, and the experts that behave alike.

    Args:
        model: an expanded model; nothing of it is changed.
        tokenizer: the base model's.
        corpus: the documents are those that `evaluate` scores with the same limits.
        languages: codes; every list is made for each of them.
        split: what is read.
        effects_of: (layer, expert) of those that are also left out, each alone, by `steer(ban=…)`: the others of its
            layer share its weight. One more forward pass over the text for each.
        k: how many tokens each list has at most.
        stage: a name from `stage_names(model)`; None: the stage in use.
        tokens_per_language: documents up to this many tokens.
        max_document_tokens: a longer document is read up to here.
        batch_documents: documents per forward pass.
        precision: auto, fp32 or bf16.

    Raises:
        UsageError: a stage, layer or expert that the model does not have, no text in one of the languages, or a limit
            below 1. Raised before anything is computed.

    Examples:
        >>> found = expert_contexts(model, tokenizer, corpus, languages=["en", "el"])  # doctest: +SKIP
        >>> found.of(layer=17, expert=1)  # doctest: +SKIP
    """
    steps = context_steps(
        model,
        tokenizer,
        corpus,
        languages=languages,
        split=split,
        effects_of=effects_of,
        k=k,
        stage=stage,
        tokens_per_language=tokens_per_language,
        max_document_tokens=max_document_tokens,
        batch_documents=batch_documents,
        precision=precision,
    )
    result = None
    with progress(None, "Reading contexts", "pass") as bar:
        for step in steps:
            bar.total, result = step.total, step.result
            bar.update(step.done - bar.n)
    assert result is not None
    return result


def context_steps(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    languages: Sequence[str],
    split: str = "heldout",
    effects_of: Collection[tuple[int, int]] = (),
    k: int = 5,
    stage: str | None = None,
    tokens_per_language: int = 4096,
    max_document_tokens: int = 256,
    batch_documents: int = 4,
    precision: str = "auto",
) -> Iterator[ContextStep]:
    """Find the same pass by pass, for whoever shows progress or lets a reader stop it.

    Arguments and errors are those of `expert_contexts`, and errors come at once. Between two steps the model stands as
    it stood before.
    """
    stage = stage or selected_stage(model)
    one_of("stage", stage, stage_names(model))
    limits = {"k": k, "tokens_per_language": tokens_per_language, "max_document_tokens": max_document_tokens}
    for name, value in {**limits, "batch_documents": batch_documents}.items():
        if value < 1:
            raise UsageError(f"{name} is {value}; expected at least 1.")
    with use_stage(model, stage):
        places = [Place(layer.layer, expert) for layer in moe_layers(model) for expert in range(layer.num_experts)]
    left_out = _checked(effects_of, places)
    require_embeddings(model, tokenizer)
    longest = min(max_document_tokens, model.config.get_text_config().max_position_embeddings - 1)
    tests = choose_tests(corpus, [split], languages, tokens_per_language, longest, tokenizer)
    texts = [_Text(code, documents, _rows(documents, tokenizer, code)) for _, code, documents in tests]
    reader = _Reader(model, stage, places, batch_documents, precision)
    return _steps(reader, tokenizer, texts, left_out, split, k)


def _checked(effects_of: Collection[tuple[int, int]], places: Sequence[Place]) -> list[Place]:
    asked = list(dict.fromkeys(Place(*pair) for pair in effects_of))
    if unknown := [pair for pair in asked if pair not in places]:
        layers = ", ".join(map(str, dict.fromkeys(place.layer for place in places)))
        raise UsageError(
            f"Layer {unknown[0].layer} has no expert {unknown[0].expert} at this stage; layers with a router: {layers}."
        )
    return asked


def _rows(documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, language: str) -> PackedBlocks:
    """Return a row per document, all as long as the longest with its separator."""
    sizes = [len(ids) for ids in tokenizer([one.text for one in documents], add_special_tokens=False)["input_ids"]]
    size = max(2, 1 + max(sizes))
    return PackedBlocks.concat([pack([one], tokenizer, size, languages=[language]) for one in documents])


# ------------------------------------------------------------------------------------------------------- the passes


@dataclass(frozen=True)
class _Reader:
    """The model, and how it reads."""

    model: PeftModel
    stage: str
    places: list[Place]
    batch_documents: int
    precision: str

    def read(self, text: _Text, without: Place | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights [t, C] of all experts on a language's text tokens, and their bits [t]."""
        banned = nullcontext() if without is None else steer(self.model, ban={without.layer: without.expert})
        weights, bits = [], []

        def targets(batch: Batch) -> torch.Tensor:
            return batch["targets"].masked_fill(batch["targets"] == text.blocks.separator_id, NO_TARGET)

        with (
            use_stage(self.model, self.stage),
            banned,
            inference(self.model, self.precision),
            next_token_losses(self.model),
            record_routing(self.model) as record,
        ):
            options = {"batch_blocks": self.batch_documents, "targets": targets}
            for batch, losses in read_blocks(self.model, text.blocks, **options):
                is_text = batch["is_text"]
                bits.append(losses.cpu()[:, :-1][is_text[:, 1:]].double().numpy() / np.log(2))
                weights.append(self._weights(record, is_text.flatten()))
        return np.concatenate(weights), np.concatenate(bits)

    def _weights(self, record: RoutingRecord, is_text: torch.Tensor) -> np.ndarray:
        columns = []
        for _, routing in sorted(record.routing.items()):
            ids, given = routing.expert_ids.cpu()[is_text], routing.expert_weights.float().cpu()[is_text]
            dense = torch.zeros(len(ids), routing.router_logits.shape[-1])
            columns.append(dense.scatter_add_(1, ids, given))  # an expert may stand in two slots, once with weight 0
        return torch.cat(columns, dim=1).numpy()


def _steps(
    reader: _Reader,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[_Text],
    left_out: Sequence[Place],
    split: str,
    k: int,
) -> Iterator[ContextStep]:
    total, done = len(texts) * (1 + len(left_out)), 0
    rows, profiles = [], []
    for text in texts:
        weights, bits = reader.read(text)
        profiles.append(weights)
        change: dict[Place, np.ndarray] = {}
        done += 1
        for place in left_out:
            yield ContextStep(done, total, None)
            change[place] = reader.read(text, place)[1] - bits
            done += 1
        rows.append(_rows_of(reader, text, weights, bits, change, k))
        if done < total:
            yield ContextStep(done, total, None)
    contexts = pd.concat(rows, ignore_index=True)
    found = sorted(set(contexts["token_id"]))
    spelled = dict(zip(found, token_bytes(tokenizer, found), strict=True))
    contexts["bytes"] = [(spelled[token] or b"").hex() for token in contexts["token_id"]]
    near = pd.DataFrame(neighbours(np.concatenate(profiles), reader.places), columns=NEIGHBOUR_COLUMNS[2:])
    facts = {"stage": reader.stage, "dataset": split}
    result = ExpertContexts(
        contexts.assign(**facts)[CONTEXT_COLUMNS], near.assign(**facts)[NEIGHBOUR_COLUMNS], _pieces(tokenizer, texts)
    )
    yield ContextStep(total, total, result)


def _pieces(tokenizer: PreTrainedTokenizerBase, texts: Sequence[_Text]) -> dict[tuple[str, str], list[bytes | None]]:
    separator = separator_token_id(tokenizer)
    found: dict[tuple[str, str], list[bytes | None]] = {}
    for text in texts:
        for document, ids, kept in zip(text.documents, text.blocks.input_ids, text.blocks.is_text, strict=True):
            words = ids[kept].tolist()
            assert int(ids[0]) == separator, "a row begins with its separator"
            found[text.language, document.id] = [None, *token_bytes(tokenizer, words, document.text)]
    return found


# -------------------------------------------------------------------------------------------------- what is kept


def _rows_of(
    reader: _Reader,
    text: _Text,
    weights: np.ndarray,
    bits: np.ndarray,
    change: Mapping[Place, np.ndarray],
    k: int,
) -> pd.DataFrame:
    owner, position = text.owner, text.position
    token_ids = text.blocks.input_ids[text.blocks.is_text].numpy()
    rows = []
    for column, place in enumerate(reader.places):
        mine = weights[:, column]
        lists = {WEIGHT: mine} | ({BITS: abs(change[place])} if place in change else {})
        for by, values in lists.items():
            for rank, token in enumerate(strongest(values, owner, k), 1):
                moved = float(change[place][token]) if place in change else np.nan
                at = [text.documents[owner[token]].id, int(position[token]), int(token_ids[token])]
                numbers = [float(f"{value:.6g}") for value in (mine[token], bits[token], moved)]
                rows.append([text.language, *place, by, rank, *at, *numbers])
    names = [name for name in CONTEXT_COLUMNS if name not in ("stage", "dataset", "bytes")]
    return pd.DataFrame(rows, columns=names)


def strongest(values: np.ndarray, owner: np.ndarray, k: int) -> list[int]:
    """Return the tokens of the greatest values, one of each document, the greatest first; what is 0 is left out.

    Args:
        values: [t], not negative.
        owner: the document of each token, [t].
        k: how many at most.

    >>> strongest(np.array([0.2, 0.9, 0.8, 0.0]), np.array([0, 0, 1, 2]), k=3)
    [1, 2]
    """
    order = np.argsort(-values, kind="stable")
    order = order[values[order] > 0]
    _, first = np.unique(owner[order], return_index=True)
    return [int(token) for token in order[np.sort(first)[:k]]]


def neighbours(weights: np.ndarray, places: Sequence[Place], k: int = NUM_NEIGHBOURS) -> list[list[object]]:
    """Return rows of layer, expert, rank, other layer, other expert, correlation and n_tokens, the closest first.

    An expert whose weight never changes has no correlation, so it has no neighbour and is none.

    Args:
        weights: of all experts on all text tokens, [T, C].
        places: which expert each column is, C.
        k: how many neighbours of each.
    """
    moves = weights.std(axis=0) > 0
    known = np.flatnonzero(moves)
    if len(known) < 2:
        return []
    alike = np.atleast_2d(np.corrcoef(weights[:, known].astype(np.float64), rowvar=False))
    np.fill_diagonal(alike, -np.inf)
    rows: list[list[object]] = []
    for row, column in enumerate(known.tolist()):
        closest = known[np.argsort(-alike[row], kind="stable")[: min(k, len(known) - 1)]].tolist()
        of_others = dict(zip(known.tolist(), alike[row].tolist(), strict=True))
        for rank, other in enumerate(closest, 1):
            near = float(f"{of_others[other]:.6g}")
            rows.append([*places[column], rank, *places[other], near, len(weights)])
    return rows
