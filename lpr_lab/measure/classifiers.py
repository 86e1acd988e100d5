"""Accuracy of a model's routing classifiers (original or expanded language), per layer and language."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import record_routing
from lpr_lab.model.machine import resolve_precision
from lpr_lab.model.peft import PeftModel
from lpr_lab.progress import progress
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.packing import in_mode, pack
from lpr_lab.text.vocabulary import require_embeddings

COLUMNS = ["layer", "language", "role", "dataset", "accuracy", "n_tokens"]


@torch.no_grad()
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
    device = next(model.parameters()).device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=resolve_precision(precision) == "bf16")
    rows: list[list[Any]] = []
    total = tokens_per_language * len(languages)
    still = in_mode(model, training=False)
    with still, record_routing(model) as record, autocast, progress(total, "Classifiers", "token") as bar:
        for language in languages:
            documents = corpus.documents(split, language) if split in corpus.splits else []
            if not documents:
                continue
            blocks = pack(documents, tokenizer, block_tokens, languages=[language])
            role = "original" if language in original else "expanded"
            right: dict[int, int] = {}
            seen = 0
            for start in range(min(len(blocks), max(tokens_per_language // block_tokens, 1))):
                batch = blocks.select([start])
                ids, positions = batch["input_ids"].to(device), batch["position_ids"].to(device)
                model(input_ids=ids, position_ids=positions, use_cache=False)
                counts = ((batch["language_id"] >= 0) & (batch["input_ids"] != blocks.separator_id)).flatten()
                seen += int(counts.sum())
                for layer, routing in record.routing.items():
                    if routing.classifier_logits is not None:
                        says_original = (routing.classifier_logits.argmax(-1) == 0).cpu()[counts]
                        right[layer] = right.get(layer, 0) + int((says_original == (role == "original")).sum())
                bar.update(ids.numel())
            rows += [[layer, language, role, split, right[layer] / max(seen, 1), seen] for layer in sorted(right)]
    return pd.DataFrame(rows, columns=COLUMNS)
