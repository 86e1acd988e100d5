"""The competence gate: whether a small base is good enough at its original languages to have something to forget.

A base that never learned its languages cannot forget them, and what is measured on it means nothing. Four checks per
language: held-out bits per byte at least 15 % below those of an interpolated character 5-gram model of the same text;
within 5 % of a twin that read this language alone (where twins were trained); two adjacent words swapped are found less
likely in 70 % of sentences; and of what it writes few 4-grams of tokens are repeated.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.measure.bits import document_nats, evaluate
from lpr_lab.measure.controls.self_samples import MAX_REPETITION, draw_samples
from lpr_lab.measure.documents import choose_documents
from lpr_lab.text.corpus import Corpus, Document, main_split
from lpr_lab.text.packing import pack

MIN_BELOW_NGRAM_PERCENT = 15.0
MAX_ABOVE_TWIN_PERCENT = 5.0
MIN_SWAPS_FOUND = 0.7
_ORDER = 5
_SWAPS = 200
_TOKENS = 256
"""The longest document that counts whole."""
_MIN_WORDS = 6
_SAMPLES, _SAMPLE_TOKENS = 32, 64


def check(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    languages: Sequence[str],
    *,
    twins: Mapping[str, PreTrainedModel] | None = None,
    tokens_per_language: int = 8192,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what each check found by language, and whether the base passes.

    Args:
        model: the base, a plain causal LM.
        tokenizer: its own.
        corpus: `train` is what it learned from, `heldout` (else `dev`) what it is judged on.
        languages: its original ones.
        twins: language to a model of the same size and tokenizer that read this language alone.
        tokens_per_language: of test text.
        seed: of what is swapped and sampled.

    Returns:
        `passes`, `split`, and by language in `languages`: bits_per_byte, ngram_bits_per_byte, below_ngram_percent,
        twin_bits_per_byte and above_twin_percent (None without a twin), swaps_found, repetition, and `fails`, the names
        of the checks that failed.
    """
    split = main_split(corpus, languages)
    budget = {"languages": languages, "splits": [split], "tokens_per_language": tokens_per_language}
    bits = _bits(model, tokenizer, corpus, budget)
    loops = _loops(model, tokenizer, corpus, languages, seed)
    found = {}
    for code in languages:
        # The very documents that the model was scored on.
        test = choose_documents(corpus.documents(split, code), tokens_per_language, _TOKENS, tokenizer)
        ngram = CharacterModel(one.text for one in corpus.documents("train", code)).bits_per_byte(
            one.text for one in test
        )
        twin = None
        if twins and code in twins:
            twin = _bits(twins[code], tokenizer, corpus, {**budget, "languages": [code]})[code]
        row = {
            "bits_per_byte": bits[code],
            "ngram_bits_per_byte": ngram,
            "below_ngram_percent": 100 * (1 - bits[code] / ngram),
            "twin_bits_per_byte": twin,
            "above_twin_percent": None if twin is None else 100 * (bits[code] / twin - 1),
            "swaps_found": swaps_found(model, tokenizer, corpus.documents(split, code), seed=seed),
            "repetition": loops[code],
        }
        found[code] = row | {"fails": failed(row)}
    return {"passes": not any(row["fails"] for row in found.values()), "split": split, "languages": found}


def failed(row: Mapping[str, Any]) -> list[str]:
    """Return the names of the checks that a language's numbers do not pass.

    >>> failed({"below_ngram_percent": 20, "above_twin_percent": None, "swaps_found": 0.6, "repetition": 0.1})
    ['swaps_found']
    """
    passes = {
        "below_ngram_percent": row["below_ngram_percent"] >= MIN_BELOW_NGRAM_PERCENT,
        "above_twin_percent": row["above_twin_percent"] is None or row["above_twin_percent"] <= MAX_ABOVE_TWIN_PERCENT,
        "swaps_found": row["swaps_found"] >= MIN_SWAPS_FOUND,
        "repetition": row["repetition"] <= MAX_REPETITION,
    }
    return [name for name, passed in passes.items() if not passed]


class CharacterModel:
    """An interpolated character 5-gram model (Witten and Bell): the bar that a small base has to clear.

    The probability of a character after n characters is a mixture of its share there and of its probability after
    n - 1; the shorter context weighs as the number of different characters seen after the longer one. A character never
    seen has one in 65,536.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._counts: list[dict[str, Counter[str]]] = [defaultdict(Counter) for _ in range(_ORDER)]
        for text in texts:
            padded = "\n" * (_ORDER - 1) + text
            for place in range(_ORDER - 1, len(padded)):
                for length, counts in enumerate(self._counts):
                    counts[padded[place - length : place]][padded[place]] += 1
        self._totals = [{context: sum(seen.values()) for context, seen in counts.items()} for counts in self._counts]

    def probability(self, context: str, character: str) -> float:
        """Return the probability of a character after a context, of which the last four characters count."""
        found = 1 / 65_536
        for length, (counts, totals) in enumerate(zip(self._counts, self._totals, strict=True)):
            known = context[len(context) - length :] if length <= len(context) else None
            if known is None or known not in totals:
                break
            seen = counts[known]
            found = (seen[character] + len(seen) * found) / (totals[known] + len(seen))
        return found

    def bits_per_byte(self, texts: Iterable[str]) -> float:
        """Return what texts cost, in bits per UTF-8 byte."""
        bits, size = 0.0, 0
        for text in texts:
            padded = "\n" * (_ORDER - 1) + text
            size += len(text.encode())
            for place in range(_ORDER - 1, len(padded)):
                bits -= math.log2(self.probability(padded[place - _ORDER + 1 : place], padded[place]))
        return bits / max(size, 1)


def swapped_pairs(documents: Sequence[Document], limit: int = _SWAPS, seed: int = 0) -> list[tuple[Document, Document]]:
    """Return documents, and each with two adjacent words in the wrong order: the same words, the same bytes."""
    generator = np.random.default_rng(seed)
    pairs = []
    for document in documents:
        words = document.text.split(" ")
        places = [place for place in range(len(words) - 1) if words[place].lower() != words[place + 1].lower()]
        if len(words) < _MIN_WORDS or not places:
            continue
        place = places[int(generator.integers(len(places)))]
        words[place], words[place + 1] = words[place + 1], words[place]
        pairs.append((document, replace(document, text=" ".join(words))))
        if len(pairs) == limit:
            break
    return pairs


def swaps_found(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], *, seed: int = 0
) -> float:
    """Return the share of documents that the model finds likelier than the same with two words swapped, 0 to 1."""
    pairs = swapped_pairs(documents, seed=seed)
    if not pairs:
        return 0.0
    language = pairs[0][0].language
    good, bad = (
        document_nats(model, pack([pair[side] for pair in pairs], tokenizer, _TOKENS, languages=[language]))
        for side in (0, 1)
    )
    return float((good < bad).mean())


def _bits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: Corpus, budget: dict[str, Any]
) -> dict[str, float]:
    sets = evaluate(
        model, tokenizer, corpus, original=budget["languages"], bootstrap=10, max_document_tokens=_TOKENS, **budget
    ).sets
    return {test.language: test.bits_per_byte("base") for test in sets}


def _loops(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: Corpus, languages: Sequence[str], seed: int
) -> dict[str, float]:
    """Return by language the mean share of repeated 4-grams in what the model writes; samples that loop count too."""
    samples = draw_samples(
        model, tokenizer, corpus, languages=languages, count=_SAMPLES, tokens=_SAMPLE_TOKENS, seed=seed, keep_loops=True
    )
    by_language = {code: [one.repetition for one in samples if one.language == code] for code in languages}
    return {code: float(np.mean(shares)) if shares else 1.0 for code, shares in by_language.items()}
