"""Finds the held-out tokens by which experts are known (`expert_contexts`).

One forward pass over the text gives the weights of every expert, and one more for each expert that is left out. With
30 layers of two experts all of them would cost 61 passes, so which are left out has to be said.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import ComparisonRefusedError, UsageError, one_of
from lpr_lab.measure.contexts.expert_contexts import (
    CONTEXT_COLUMNS,
    EFFECT_COLUMNS,
    NEIGHBOUR_COLUMNS,
    ExpertContexts,
    Tokens,
)
from lpr_lab.measure.contexts.reading import Place, Reader, Text, pieces_of
from lpr_lab.measure.contexts.rows import context_rows, effect_rows, neighbours
from lpr_lab.measure.documents import choose_tests
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import selected_stage, stage_names, use_stage
from lpr_lab.progress import run_through
from lpr_lab.text.corpus import Corpus, main_split
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.vocabulary import require_embeddings


class ContextStep(NamedTuple):
    """How far it is: parts of the text that were read, of how many, and the result after the last."""

    done: int
    total: int
    result: ExpertContexts | None


def expert_contexts(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    languages: Sequence[str],
    split: str = "",
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
        split: what is read; where none is named, held-out text, or dev text where that is not there in every language.
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
    return run_through(steps, "Reading contexts", "part")


def context_steps(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    languages: Sequence[str],
    split: str = "",
    effects_of: Collection[tuple[int, int]] = (),
    k: int = 5,
    stage: str | None = None,
    tokens_per_language: int = 4096,
    max_document_tokens: int = 256,
    batch_documents: int = 4,
    precision: str = "auto",
) -> Iterator[ContextStep]:
    """Find the same part by part, for whoever shows progress or lets a reader stop it.

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
    split = split or main_split(corpus, languages)
    texts = _texts(model, tokenizer, corpus, languages, split, tokens_per_language, max_document_tokens)
    reader = Reader(model, stage, places, batch_documents, precision)
    return _steps(reader, tokenizer, texts, left_out, split, k)


def context_tokens(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    contexts: pd.DataFrame,
    *,
    languages: Sequence[str],
    split: str = "",
    tokens_per_language: int = 4096,
    max_document_tokens: int = 256,
) -> Tokens:
    """Return the tokens of the documents that `expert_contexts` read with these arguments, without a forward pass.

    For whoever kept its tables, which hold no text, and wants the sentences again.

    Args:
        model: see `expert_contexts`, as of all arguments but one.
        tokenizer: see there.
        corpus: see there.
        contexts: the table of that name that was kept.
        languages: see there.
        split: see there.
        tokens_per_language: see there.
        max_document_tokens: see there.

    Raises:
        ComparisonRefusedError: a token of the table isn't at its place: the corpus has other text now.
        UsageError: see `expert_contexts`.
    """
    split = split or main_split(corpus, languages)
    texts = _texts(model, tokenizer, corpus, languages, split, tokens_per_language, max_document_tokens)
    found = {
        (text.language, document.id): ids[kept].tolist()
        for text in texts
        for document, ids, kept in zip(text.documents, text.blocks.input_ids, text.blocks.is_text, strict=True)
    }
    for row in contexts[["language", "document", "position", "token_id"]].drop_duplicates().itertuples(index=False):
        language, document, position, token_id = row
        ids = found.get((language, document), [])
        if position > len(ids) or ids[position - 1] != token_id:
            raise ComparisonRefusedError(
                f"Token {position} of document {document!r} ({language}) is not the one that was read: the corpus "
                f"{corpus.name} has other text now. Find the contexts anew."
            )
    return pieces_of(tokenizer, texts)


def _texts(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    languages: Sequence[str],
    split: str,
    tokens_per_language: int,
    max_document_tokens: int,
) -> list[Text]:
    longest = min(max_document_tokens, model.config.get_text_config().max_position_embeddings - 1)
    tests = choose_tests(corpus, [split], languages, tokens_per_language, longest, tokenizer)
    return [Text.of(code, documents, tokenizer) for _, code, documents in tests]


def _checked(effects_of: Collection[tuple[int, int]], places: Sequence[Place]) -> list[Place]:
    asked = list(dict.fromkeys(Place(*pair) for pair in effects_of))
    if unknown := [pair for pair in asked if pair not in places]:
        layers = ", ".join(map(str, dict.fromkeys(place.layer for place in places)))
        raise UsageError(
            f"Layer {unknown[0].layer} has no expert {unknown[0].expert} at this stage; layers with a router: {layers}."
        )
    return asked


@dataclass
class _Found:
    """What was read of one language so far: weights [t, C], bits [t], and the change [t] without each expert."""

    weights: np.ndarray
    bits: np.ndarray
    change: dict[Place, np.ndarray]


def _steps(
    reader: Reader,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    left_out: Sequence[Place],
    split: str,
    k: int,
) -> Iterator[ContextStep]:
    total, done = sum(len(reader.parts(text)) for text in texts) * (1 + len(left_out)), 0
    found: list[_Found] = []
    for text in texts:
        for place in (None, *left_out):
            weights, bits = [], []
            for given, cost in reader.read(text, place):
                weights.append(given)
                bits.append(cost)
                done += 1
                if done < total:
                    yield ContextStep(done, total, None)
            if place is None:
                found.append(_Found(np.concatenate(weights), np.concatenate(bits), {}))
            else:
                found[-1].change[place] = np.concatenate(bits) - found[-1].bits
    yield ContextStep(total, total, _result(reader, tokenizer, texts, found, split, k))


def _result(
    reader: Reader,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    found: Sequence[_Found],
    split: str,
    k: int,
) -> ExpertContexts:
    pairs = list(zip(texts, found, strict=True))
    contexts = pd.concat(
        [context_rows(text, reader.places, one.weights, one.bits, one.change, k) for text, one in pairs],
        ignore_index=True,
    )
    known = sorted(set(contexts["token_id"]))
    spelled = dict(zip(known, token_bytes(tokenizer, known), strict=True))
    contexts["bytes"] = [(spelled[token] or b"").hex() for token in contexts["token_id"]]
    weights = np.concatenate([one.weights for one in found])
    near = pd.DataFrame(neighbours(weights, reader.places), columns=NEIGHBOUR_COLUMNS[2:])
    effects = pd.concat([effect_rows(text, one.change) for text, one in pairs], ignore_index=True)
    facts = {"stage": reader.stage, "dataset": split}
    return ExpertContexts(
        contexts.assign(**facts)[CONTEXT_COLUMNS],
        near.assign(**facts)[NEIGHBOUR_COLUMNS],
        effects.assign(**facts)[EFFECT_COLUMNS],
        pieces_of(tokenizer, texts),
    )
