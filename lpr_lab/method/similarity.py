"""Measures LayerMoE's similarity of languages in each layer, in one pass per language.

The papers average the cosine over *all* pairs of tokens of two languages: a matrix of 100,000 × 100,000 in the released
script. But a mean of dot products of two sets is the dot product of the two means:

    mean over u, v of  <u/|u|, v/|v|>   =   < mean of u/|u| , mean of v/|v| >

so one running sum of unit vectors per language and layer is enough, and every pair of languages comes free
(`model.cosines`).

Letters: B batch, S sequence, T = B·S tokens, D model width, L layers, n languages.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import UsageError, one_of
from lpr_lab.method.similarity_table import STATES, SimilarityTable
from lpr_lab.model.adapter import all_layers, expansion_config
from lpr_lab.model.bases.families import find_decoder_mlps
from lpr_lab.model.bases.quantized import num_values
from lpr_lab.model.capture import causal_lm_of, decoder_of, watch_attention_outputs, watch_mlp_inputs
from lpr_lab.model.cosines import mean_cosines, sum_of_unit_vectors
from lpr_lab.model.forward import inference, read_batches
from lpr_lab.model.parallel.sharing import gathered, reading
from lpr_lab.model.peft import BaseTunerLayer, PeftModel
from lpr_lab.progress import progress
from lpr_lab.text.blocks import Batch
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.draw import shuffled_documents
from lpr_lab.text.packing import PackedBlocks, pack, refuse_if_documents_mix
from lpr_lab.text.vocabulary import require_embeddings


def measure_similarity(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    tokens_per_language: int = 20_000,
    state: str = "mlp_input",
    original_split: str = "replay",
    expanded_split: str = "train",
    block_tokens: int = 256,
    batch_blocks: int = 1,
    precision: str = "auto",
    seed: int = 0,
) -> SimilarityTable:
    """Measure how alike original and expanded languages look in each layer of the model as it is now.

    For a second expansion call it on the expanded model, with the languages of earlier expansions among `original`
    (LayerMoE, lifelong). Separators, padding and the first token of a block, which has lost its document's beginning,
    do not count. Each setting is a keyword, so that a notebook changes one alone (see `SimilaritySettings`).

    Args:
        model: dense or expanded; an expanded model is measured with its adapter as it stands.
        tokenizer: the base model's.
        corpus: with the splits named below.
        original: languages the model is good at.
        expanded: languages it is to learn.
        tokens_per_language: tokens counted per language (the papers: 100,000); fewer where there is less text.
        state: `mlp_input`, what the MLP and the router read, as in the released code; `attention_output`, the
            attention block's output before norms and residual, as the paper writes.
        original_split: which text stands for original languages.
        expanded_split: which text stands for expanded languages, those of the model's earlier expansions included.
        block_tokens: S of the packed blocks.
        batch_blocks: B, blocks per forward pass; 1 takes the least memory, more is quicker on a GPU.
        precision: of the pass: auto, fp32 or bf16; unit vectors and sums are at least float32 always.
        seed: which documents are drawn.

    Returns:
        A `SimilarityTable` over all decoder layers.

    Raises:
        UsageError: no language on one side, one on both, a language without text, or an unknown state.
        UnsupportedModelError: no MLPs or attention blocks of a known form, or a model that mixes packed documents.

    Examples:
        >>> table = measure_similarity(model, tokenizer, corpus, original=["en"], expanded=["el"])  # doctest: +SKIP
        >>> table.similarity.argmax()  # the layer where they are most alike  # doctest: +SKIP
    """
    one_of("state", state, STATES)
    if tokens_per_language < 2 or batch_blocks < 1:
        raise UsageError(
            f"tokens_per_language = {tokens_per_language} and batch_blocks = {batch_blocks}; expected at least 2 and 1."
        )
    require_embeddings(causal_lm_of(model), tokenizer)
    languages = _checked_languages(original, expanded)
    taught = {code for group in expansion_config(model).groups for code in group} if all_layers(model) else set()
    splits = {code: expanded_split if code in {*taught, *expanded} else original_split for code in languages}
    documents = {code: shuffled_documents(corpus, splits[code], code, seed) for code in languages}
    watch = {"mlp_input": watch_mlp_inputs, "attention_output": watch_attention_outputs}[state]
    expert_parameters = tuple(_num_parameters(mlp.module) for mlp in find_decoder_mlps(causal_lm_of(model)))
    refuse_if_documents_mix(decoder_of(model))
    means, num_tokens = [], []
    sums = _UnitSums(len(expert_parameters))
    total = tokens_per_language * len(languages)
    # Rounded weights are not cached: that would hold a second copy of the model.
    with (
        reading(model) as reader,
        inference(reader, precision, cache_rounded=False),
        watch(reader, sums.add),
        progress(total, "Similarity", "token") as bar,
    ):
        for code in languages:
            sums.begin(tokens_per_language)
            parts = _packed(documents[code], tokenizer, block_tokens, code)
            batches = _counted(parts, batch_blocks, sums, bar)
            deque(read_batches(decoder_of(reader), batches, before=sums.expect), maxlen=0)
            means.append(sums.means())
            num_tokens.append(sums.num_tokens)
    return SimilarityTable(
        original=tuple(original),
        expanded=tuple(expanded),
        pairs=mean_cosines(np.stack(means), num_tokens),
        num_tokens=tuple(num_tokens),
        expert_parameters=expert_parameters,
        state=state,
    )


class _UnitSums:
    """The running sum of unit vectors of one language, per layer: L·D numbers, and nothing per token."""

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self.begin(0)

    def begin(self, max_tokens: int) -> None:
        """Start another language, of which `max_tokens` count."""
        self._sums: dict[int, torch.Tensor] = {}
        self._counted = torch.empty(0)
        self._left = max_tokens
        self.num_tokens = 0

    @property
    def is_full(self) -> bool:
        """Whether no further token counts."""
        return not self._left

    def count(self, batch: Batch) -> int:
        """Mark in a batch which tokens count, float [T] of 0 and 1 in `counts`, and return how many."""
        # Position 0 is a separator, or the first token of a block: without context, and with the outsized vector that
        # models give to whatever comes first.
        counts = ((batch["language_id"] >= 0) & (batch["position_ids"] > 0)).flatten()
        counts &= counts.cumsum(0) <= self._left
        batch["counts"] = counts.float()
        self._left -= int(counts.sum())
        self.num_tokens += int(counts.sum())
        return int(counts.sum())

    def expect(self, batch: Batch) -> None:
        """Say which batch is the next to pass."""
        self._counted = batch["counts"]

    def add(self, layer: int, x: torch.Tensor) -> None:
        """Add the unit vectors of [B, S, D]."""
        self._sums[layer] = self._sums.get(layer, torch.zeros(())) + sum_of_unit_vectors(x, self._counted)

    def means(self) -> np.ndarray:
        """Return the mean unit vectors of what all processes read, float64 [L, D]."""
        parts = [part for part in gathered(self._sums) if part]
        layers = range(self._num_layers)
        return np.stack([np.sum([part[layer].numpy() for part in parts], axis=0) for layer in layers]) / self.num_tokens


def _checked_languages(original: Sequence[str], expanded: Sequence[str]) -> tuple[str, ...]:
    languages = (*original, *expanded)
    if not original or not expanded:
        raise UsageError("Similarity is between languages: name at least one original and one expanded language.")
    twice = sorted({code for code in languages if languages.count(code) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)} is named twice; name each language once, as original or as expanded.")
    return languages


def _packed(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, block_tokens: int, language: str
) -> Iterator[PackedBlocks]:
    """Pack documents, a few blocks' worth at a time, so that a long text is never in memory as a whole."""
    chosen, characters = [], 0
    for number, document in enumerate(documents, start=1):
        chosen.append(document)
        characters += len(document.text)
        if characters > 32 * block_tokens or number == len(documents):
            yield pack(chosen, tokenizer, block_tokens, languages=[language])
            chosen, characters = [], 0


def _counted(parts: Iterable[PackedBlocks], batch_blocks: int, sums: _UnitSums, bar: Any) -> Iterator[Batch]:
    """Yield batches with the tokens marked that count, until there are enough; every process marks all of them."""
    for part in parts:
        for start in range(0, len(part), batch_blocks):
            batch = part.select(range(start, min(start + batch_blocks, len(part))))
            bar.update(sums.count(batch))
            yield batch
            if sums.is_full:
                return


def _num_parameters(mlp: torch.nn.Module) -> int:
    base = mlp.get_base_layer() if isinstance(mlp, BaseTunerLayer) else mlp
    return sum(num_values(parameter) for parameter in base.parameters())
