"""Which documents a model is scored on, and what a tokenizer loses of them."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.text.corpus import Corpus, Document, comparable_splits, ordered_by_id
from lpr_lab.text.languages import language_name
from lpr_lab.text.round_trip import LostText, measure_lost_text, refuse_lossy_tokenizer


def choose_tests(
    corpus: Corpus,
    splits: Sequence[str],
    languages: Sequence[str],
    tokens_per_language: int,
    max_document_tokens: int,
    tokenizer: PreTrainedTokenizerBase,
) -> list[tuple[str, str, list[Document]]]:
    """Return (split, language, documents) of every test set, or refuse a language without any."""
    tests = []
    for split in comparable_splits(corpus, splits, languages):
        for language in languages:
            known = corpus.documents(split, language)
            documents = choose_documents(known, tokens_per_language, max_document_tokens, tokenizer)
            if documents:
                tests.append((split, language, documents))
    missing = set(languages) - {language for _, language, _ in tests}
    if missing:
        raise UsageError(
            f"The corpus {corpus.name} has no documents in {', '.join(sorted(missing))} in the splits "
            f"{', '.join(splits)}; it has {', '.join(corpus.languages)}."
        )
    return tests


def choose_documents(
    documents: Sequence[Document], max_tokens: int, max_document_tokens: int, tokenizer: PreTrainedTokenizerBase
) -> list[Document]:
    """Take documents, in an order fixed by their ids, until the token budget is spent; at least one."""
    chosen: list[Document] = []
    spent = 0
    for document in ordered_by_id(documents, lambda name: hashlib.sha256(name.encode()).digest()):
        encoded = tokenizer(document.text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in encoded["offset_mapping"]]
        if len(ends) > max_document_tokens:
            document = replace(document, text=document.text[: ends[max_document_tokens - 1]])
        size = min(len(ends), max_document_tokens) + 1
        if chosen and spent + size > max_tokens:
            break
        chosen.append(document)
        spent += size
    return chosen


def lost_texts(tokenizer: PreTrainedTokenizerBase, tests: Sequence[tuple[str, str, list[Document]]]) -> list[LostText]:
    """Return what the tokenizer loses of every test set; warns of it, or refuses."""
    losses = []
    said = []
    for split, language, documents in tests:
        loss = measure_lost_text(tokenizer, [document.text for document in documents])
        refuse_lossy_tokenizer(loss, f"{language_name(language)} ({split})")
        if loss.share:
            said.append(f"{loss.share:.2%} of {language_name(language)} ({split}): {loss.examples}")
        losses.append(loss)
    if said:
        warnings.warn(
            f"The tokenizer loses text, which is not counted in bits per byte: {'; '.join(said)}.", stacklevel=4
        )
    return losses


def fingerprint_of(documents: Sequence[Document], loss: LostText | None = None) -> str:
    """Return SHA-256 over ids and texts, by which two test sets are known to be the same.

    Of texts that a tokenizer loses something of, another one: what was predicted is not the same as without the loss.
    """
    digest = hashlib.sha256()
    for document in documents:
        digest.update(f"{document.id}\0{document.text}\0".encode())
    if loss is not None and loss.share:
        digest.update(f"lost: {loss.lost_bytes}".encode())
    return digest.hexdigest()
