"""Accuracy of a model's routing classifiers (original or expanded language), per layer and language."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.measure.documents import choose_tests
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import RoutingRecord, decoder_of, record_routing
from lpr_lab.model.forward import inference, read_blocks
from lpr_lab.model.parallel.sharing import gathered, reading
from lpr_lab.model.peft import PeftModel
from lpr_lab.progress import progress
from lpr_lab.text.blocks import Batch
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.shards.blocks import pack_documents
from lpr_lab.text.splits import TEST_SETS
from lpr_lab.text.vocabulary import require_embeddings

COLUMNS = ["layer", "language", "role", "dataset", "accuracy", "n_tokens"]


def classifier_accuracy(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    languages: Sequence[str],
    original: Sequence[str],
    splits: Sequence[str] = TEST_SETS,
    tokens_per_language: int = 1024,
    max_document_tokens: int = 256,
    block_tokens: int = 256,
    precision: str = "auto",
) -> pd.DataFrame:
    """Return per layer and language the share of tokens that the layer's classifier puts on the right side.

    Its keywords are those of `evaluate`, and it reads the documents that `evaluate` scores with the same limits.

    Args:
        model: an expanded model whose selected stage has classifiers.
        tokenizer: the base model's.
        corpus: splits that it lacks are left out, and those without text in one of the languages while another has all.
        languages: which to read.
        original: those of them whose tokens should be called original; the others should be called expanded.
        splits: of documents that no stage was trained on.
        tokens_per_language: how much of each.
        max_document_tokens: of a longer document the beginning is read.
        block_tokens: S of the packed blocks.
        precision: auto, fp32 or bf16.

    Returns:
        Columns layer, language, role, dataset, accuracy, n_tokens.

    Raises:
        UsageError: no layer has a classifier at this stage, or none of the splits has documents in a language.
    """
    if not any(layer.classifier is not None for layer in moe_layers(model)):
        raise UsageError("No layer has a routing classifier at this stage; give review(..., classifier_layers=[...]).")
    require_embeddings(model, tokenizer)
    tests = choose_tests(corpus, splits, languages, tokens_per_language, max_document_tokens, tokenizer)
    packed = [pack_documents(found, tokenizer, block_tokens, languages=[code]) for _, code, found in tests]
    rows: list[list[Any]] = []
    with (
        reading(model) as model,
        inference(model, precision),
        progress(sum(len(blocks) for blocks in packed) * block_tokens, "Classifiers", "token") as bar,
    ):
        for (split, language, _), blocks in zip(tests, packed, strict=True):
            role = "original" if language in original else "expanded"
            with record_routing(model) as record:
                passes = read_blocks(decoder_of(model), blocks, range(len(blocks)), batch_blocks=1, bar=bar)
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
