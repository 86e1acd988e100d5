"""Accuracy of a model's routing classifiers (original or expanded language), per layer and language."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import RoutingRecord, decoder_of, record_routing
from lpr_lab.model.forward import inference, read_blocks
from lpr_lab.model.parallel.sharing import gathered, reading
from lpr_lab.model.peft import PeftModel
from lpr_lab.progress import progress
from lpr_lab.text.blocks import Batch
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.shards.blocks import pack_documents
from lpr_lab.text.vocabulary import require_embeddings

COLUMNS = ["layer", "language", "role", "dataset", "accuracy", "n_tokens"]


def classifier_accuracy(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    languages: Sequence[str],
    original: Sequence[str],
    split: str = "dev",
    tokens_per_language: int = 1024,
    block_tokens: int = 256,
    precision: str = "auto",
) -> pd.DataFrame:
    """Return per layer and language the share of tokens that the layer's classifier puts on the right side.

    Its keywords are those of `evaluate`, which runs call with the same values.

    Args:
        model: an expanded model whose selected stage has classifiers.
        tokenizer: the base model's.
        corpus: with documents of `split` that no stage was trained on.
        languages: which to read.
        original: those of them whose tokens should be called original; the others should be called expanded.
        split: which documents.
        tokens_per_language: how much of them.
        block_tokens: S of the packed blocks.
        precision: auto, fp32 or bf16.

    Returns:
        Columns layer, language, role, dataset, accuracy, n_tokens. A language without documents in `split` is left out.

    Raises:
        UsageError: no layer has a classifier at this stage.
    """
    if not any(layer.classifier is not None for layer in moe_layers(model)):
        raise UsageError("No layer has a routing classifier at this stage; give review(..., classifier_layers=[...]).")
    require_embeddings(model, tokenizer)
    rows: list[list[Any]] = []
    num_blocks = max(tokens_per_language // block_tokens, 1)
    total = tokens_per_language * len(languages)
    with (
        reading(model) as model,
        inference(model, precision),
        progress(total, "Classifiers", "token") as bar,
    ):
        for language in languages:
            documents = corpus.documents(split, language) if split in corpus.splits else []
            if not documents:
                continue
            blocks = pack_documents(documents, tokenizer, block_tokens, languages=[language])
            role = "original" if language in original else "expanded"
            with record_routing(model) as record:
                passes = read_blocks(
                    decoder_of(model), blocks, range(min(len(blocks), num_blocks)), batch_blocks=1, bar=bar
                )
                right, seen = _count_right(passes, record, is_original=role == "original")
            rows += [[layer, language, role, split, right[layer] / max(seen, 1), seen] for layer in sorted(right)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _count_right(
    passes: Iterable[tuple[Batch, Any]], record: RoutingRecord, *, is_original: bool
) -> tuple[dict[int, int], int]:
    """Return how many tokens each layer's classifier calls what they are, and how many there are, of all processes."""
    right: dict[int, int] = {}
    seen = 0
    for batch, _ in passes:
        is_text = batch["is_text"].flatten()
        seen += int(is_text.sum())
        for layer, routing in record.routing.items():
            if routing.classifier_logits is not None:
                says_original = (routing.classifier_logits.argmax(-1) == 0).cpu()[is_text]
                right[layer] = right.get(layer, 0) + int((says_original == is_original).sum())
    parts = gathered((right, seen))
    layers = {layer for counts, _ in parts for layer in counts}
    return {layer: sum(counts.get(layer, 0) for counts, _ in parts) for layer in layers}, sum(n for _, n in parts)
