"""Has models answer tasks: base, expanded model and earlier stages, on one copy of the weights and on the same items.

Likelihoods come from the one forward pass over packed text that bits per byte come from too (`bits.document_nats`); of
a context nothing is scored but what comes after it.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.measure.bits import base_of, document_nats
from lpr_lab.measure.tasks.generated import check_texts, continue_each, learn_languages
from lpr_lab.measure.tasks.items import Item, fingerprint_of_items
from lpr_lab.measure.tasks.kinds import PEOPLE
from lpr_lab.measure.tasks.make import MadeItems, make_items
from lpr_lab.measure.tasks.scores import ScoredItems, TaskReport, left_out_rows
from lpr_lab.model.parallel.sharing import reading
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import use_stage
from lpr_lab.model.tuned.pair import Tuned, model_and_base
from lpr_lab.progress import progress
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.packing import NO_TARGET, PackedBlocks, pack, refuse_if_documents_mix
from lpr_lab.text.vocabulary import require_embeddings

BY_LENGTH = ("choice",)
"""Tasks whose choices are compared per byte, because their lengths differ."""


def evaluate_tasks(
    model: PeftModel | PreTrainedModel | Tuned,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    languages: Sequence[str],
    original: Sequence[str] = (),
    tasks: Sequence[str] = ("choice",),
    split: str = "",
    stages: Sequence[str] = (),
    items_per_language: int = 100,
    prompts_per_language: int = 10,
    max_new_tokens: int = 24,
    block_tokens: int = 256,
    batch_blocks: int = 4,
    bootstrap: int = 1000,
    precision: str = "auto",
    seed: int = 0,
    base: PreTrainedModel | None = None,
) -> TaskReport:
    """Ask base and expanded model the same questions, made from held-out text (see `kinds.TASKS`).

    Each setting is a keyword, so that a notebook changes one alone; an experiment keeps its own in `TaskSettings`.

    Args:
        model: an expanded model, one with another adapter, a baseline from `load_trained`, or a plain causal LM (then
            there is only `base`, unless it is given).
        tokenizer: the base model's.
        corpus: for `choice` and `generation`, documents with the same id are translations of one another.
        languages: which to ask in.
        original: those of them that the base model is good at; the others count as expanded.
        tasks: any of `choice` (true continuation among four; chance 25 %), `inflection` (minimal pairs; chance 50 %,
            needs the extra `lemmas`) and `generation` (own script, own language, no repetition; the dearest).
        split: of the corpus; held-out text, or else dev text, where nothing is said.
        stages: earlier stages of the same adapter to ask as well, such as `G1 expand`.
        items_per_language: at most, of each task.
        prompts_per_language: at most, of `generation`.
        max_new_tokens: of each text that is generated.
        block_tokens: tokens of a block, in which several questions stand; one is never divided.
        batch_blocks: blocks per forward pass.
        bootstrap: resamples for the intervals of margins.
        precision: auto, fp32 or bf16.
        seed: which items, and of the resampling.
        base: what to compare a plain model with that no longer has its base inside.

    Returns:
        A `TaskReport`; `.to_frame()` and `.changes()` are tidy tables.

    Raises:
        UsageError: an unknown task, too little text in common, or a `base` beside an adapter's own.
        MissingError: the extra `lemmas` isn't installed and `inflection` was asked for.

    Examples:
        >>> report = evaluate_tasks(model, tokenizer, corpus, languages=["en", "el"])  # doctest: +SKIP
        >>> report.to_frame()[["task", "language", "model", "accuracy", "chance"]]  # doctest: +SKIP
    """
    model, base = model_and_base(model, base)
    require_embeddings(model, tokenizer)
    counts = {"items_per_language": items_per_language, "prompts_per_language": prompts_per_language}
    made = make_items(corpus, tasks, languages, split=split, seed=seed, **counts)
    with base_of(model, base) as dense:
        refuse_if_documents_mix(dense)
    with reading(model) as model, nullcontext() if base is None else reading(base) as base:
        readers = _Readers(cast("PeftModel | PreTrainedModel", model), base, stages)
        options: dict[str, Any] = {"batch_blocks": batch_blocks, "precision": precision}
        sets = _likelihood_sets(readers, made, tokenizer, block_tokens, original, options)
        sets += _generated_sets(readers, made, tokenizer, corpus, max_new_tokens, original, precision)
    return TaskReport(sets, bootstrap, seed, left_out_rows(made.left_out))


class _Readers:
    """Who answers: the base, the model, and earlier stages of its adapter."""

    def __init__(self, model: PeftModel | PreTrainedModel, base: PreTrainedModel | None, stages: Sequence[str]):
        self._model, self._base, self._stages = model, base, stages
        is_compared = isinstance(model, PeftModel) or base is not None
        self.count = 2 + len(stages) if is_compared else 1

    def each(self) -> Iterator[tuple[str, torch.nn.Module]]:
        """Yield (name, model), each in its state until the next one is asked for."""
        with base_of(self._model, self._base) as dense:
            yield "base", dense
        if self.count == 1:
            return
        yield "expanded", self._model
        for stage in self._stages:
            with use_stage(cast("PeftModel", self._model), stage):
                yield stage, self._model


def _likelihood_sets(
    readers: _Readers,
    made: MadeItems,
    tokenizer: PreTrainedTokenizerBase,
    block_tokens: int,
    original: Sequence[str],
    options: dict[str, Any],
) -> list[ScoredItems]:
    asked = {key: items for key, items in made.items.items() if key[0] != "generation" and items}
    blocks = {key: pack_items(items, tokenizer, block_tokens) for key, items in asked.items()}
    scores: dict[tuple[str, str], dict[str, np.ndarray]] = {key: {} for key in asked}
    total = readers.count * sum(packed.input_ids.numel() for packed in blocks.values())
    with progress(total, "Answering", "token") as bar:
        for name, model in readers.each():
            for key, items in asked.items():
                nats = document_nats(model, blocks[key], bar=bar, **options)
                scores[key][name] = choice_scores(items, nats, by_length=key[0] in BY_LENGTH)
    return [_scored(key, made.split, items, scores[key], original) for key, items in asked.items()]


def _scored(
    key: tuple[str, str],
    split: str,
    items: Sequence[Item],
    scores: dict[str, np.ndarray],
    original: Sequence[str],
) -> ScoredItems:
    margins = {name: found[:, 0] - found[:, 1:].max(axis=1) for name, found in scores.items()}
    right = {name: margin > 0 for name, margin in margins.items()}
    role = "original" if key[1] in original else "expanded"
    names = tuple(item.id for item in items)
    return ScoredItems(key[0], key[1], role, split, fingerprint_of_items(items), names, right, margins)


def choice_scores(items: Sequence[Item], nats: np.ndarray, *, by_length: bool) -> np.ndarray:
    """Return how likely each choice is, in bits (of a byte where they differ in length), float [items, choices].

    Args:
        items: each with the same number of choices.
        nats: of every choice of every item, in order, float [items * choices].
        by_length: divide by the UTF-8 bytes of the choice.
    """
    bits = nats.reshape(len(items), -1) / np.log(2)
    if by_length:
        bits = bits / np.array([[len(choice.encode()) for choice in item.choices] for item in items])
    return -bits


def pack_items(items: Sequence[Item], tokenizer: PreTrainedTokenizerBase, block_tokens: int) -> PackedBlocks:
    """Pack every choice of every item, after its context, as a document of its own; no document is divided.

    Only what comes after the context is a target. Documents are in the order of items and choices.
    """
    documents = [
        Document(f"{item.id} {number}", item.language, item.context + choice, "task")
        for item in items
        for number, choice in enumerate(item.choices)
    ]
    encoded = tokenizer(
        [document.text for document in documents],
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )["offset_mapping"]
    sizes = [len(offsets) + 1 for offsets in encoded]
    width = max(block_tokens, *sizes)
    parts, first = [], 0
    for end in _block_ends(sizes, width):
        parts.append(pack(documents[first:end], tokenizer, width, languages=[items[0].language]))
        first = end
    packed = PackedBlocks.concat(parts)
    lengths = [len(item.context) for item in items for _ in item.choices]
    num_context = [sum(end <= length for _, end in offsets) for offsets, length in zip(encoded, lengths, strict=True)]
    return replace(packed, targets=packed.targets.masked_fill(_in_context(packed, num_context), NO_TARGET))


def _block_ends(sizes: Sequence[int], width: int) -> Iterator[int]:
    """Yield before which document each block ends, as many in each as there is room for."""
    used = 0
    for number, size in enumerate(sizes):
        if used + size > width:
            yield number
            used = 0
        used += size
    yield len(sizes)


def _in_context(packed: PackedBlocks, num_context: Sequence[int]) -> torch.Tensor:
    """Return the positions that predict a token of a context, bool [N, S]; a separator's place predicts the first."""
    limit = torch.tensor([*num_context, 0])[packed.document_index]  # padding has index -1
    return packed.position_ids < limit


def _generated_sets(
    readers: _Readers,
    made: MadeItems,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    max_new_tokens: int,
    original: Sequence[str],
    precision: str,
) -> list[ScoredItems]:
    asked = {code: items for (task, code), items in made.items.items() if task == "generation" and items}
    if not asked:
        return []
    judge = learn_languages(corpus, list(asked))
    texts = {code: {PEOPLE: [item.choices[0] for item in items]} for code, items in asked.items()}
    for name, model in readers.each():
        for code, items in asked.items():
            contexts = [item.context for item in items]
            options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "precision": precision}
            texts[code][name] = continue_each(model, tokenizer, contexts, **options)
    sets = []
    for code, items in asked.items():
        passed = {name: check_texts(written, code, judge) for name, written in texts[code].items()}
        role, names = "original" if code in original else "expanded", tuple(item.id for item in items)
        for task in next(iter(passed.values())):
            right = {name: found[task] for name, found in passed.items()}
            sets.append(ScoredItems(task, code, role, made.split, fingerprint_of_items(items), names, right))
    return sets
