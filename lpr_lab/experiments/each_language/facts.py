"""What the base is to a language before it is taught: tokens per byte, and similarity to the languages it has."""

from itertools import accumulate
from typing import Any

from lpr_lab.experiments.config import Experiment
from lpr_lab.method.similarity import measure_similarity
from lpr_lab.model.bases.load import load_base
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.fertility import measure_fertility

_CHARACTERS = 50_000
_TOKENS = 2_048
"""Of each language, for its similarity: ten times as many change it by less than .01 (docs/log.md)."""


def language_facts(experiment: Experiment, corpus: Corpus) -> dict[str, Any]:
    """Measure the base of an experiment on the one language that it expands by.

    Args:
        experiment: of one expanded language.
        corpus: with training text of it, and replay of the original ones.

    Returns:
        `tokens_per_byte` and `tokens_per_character` of the first 50,000 characters of training text (or the documents
        until then); `similarity`, layer by layer, the mean cosine of its tokens and those of each original language
        (LayerMoE, as `measure_similarity`), and its mean over the layers.
    """
    (code,) = experiment.expanded
    model, tokenizer = load_base(experiment.base)
    texts = [document.text for document in corpus.documents("train", code)]
    ends = accumulate(map(len, texts))
    enough = next((number for number, end in enumerate(ends, 1) if end >= _CHARACTERS), len(texts))
    fertility = measure_fertility(tokenizer, texts[:enough])
    table = measure_similarity(
        model,
        tokenizer,
        corpus,
        original=experiment.original,
        expanded=[code],
        tokens_per_language=_TOKENS,
        state=experiment.similarity.state,
        precision=experiment.precision,
    )
    layers = [round(float(value), 6) for value in table.similarity]
    return {
        "tokens_per_byte": fertility.tokens_per_byte,
        "tokens_per_character": fertility.tokens_per_character,
        "similarity": sum(layers) / len(layers),
        "similarity_by_layer": layers,
    }
