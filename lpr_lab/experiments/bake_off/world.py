"""What every point of the bake-off shares, loaded once: base, texts, and the test sets in blocks."""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.experiments.bake_off.arms import DEV, TEST, BakeOff
from lpr_lab.measure.bits import document_nats
from lpr_lab.measure.documents import choose_tests
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.scores.measure import measure_layer_scores
from lpr_lab.method.scores.table import KINDS
from lpr_lab.method.similarity import measure_similarity
from lpr_lab.method.similarity_table import STATES
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.embedded import learning_rates
from lpr_lab.model.bases.load import load_base
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.load import load_corpus
from lpr_lab.text.packing import PackedBlocks, pack


@dataclass(frozen=True)
class World:
    """Base, texts and tests; `tests` are by split and language, as in `heldout el`."""

    settings: BakeOff
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    corpus: Corpus
    tests: Mapping[str, PackedBlocks]
    documents: Mapping[str, Mapping[str, Any]]
    """Per test, the ids and the sizes in bytes of its documents."""

    @staticmethod
    def load(settings: BakeOff) -> "World":
        """Load what the settings name; of dev text the new languages alone, for the oracle's gains."""
        model, tokenizer = load_base(settings.base)
        corpus = load_corpus(settings.corpus, languages=[*settings.original, *settings.expanded])
        chosen = [
            *choose_tests(corpus, [TEST], corpus.languages, settings.eval_tokens, 256, tokenizer),
            *choose_tests(corpus, [DEV], settings.expanded, settings.eval_tokens, 256, tokenizer),
        ]
        tests, documents = {}, {}
        for split, language, texts in chosen:
            tests[f"{split} {language}"] = pack(texts, tokenizer, 256, languages=[language])
            sizes = [len(document.text.encode()) for document in texts]
            documents[f"{split} {language}"] = {"ids": [document.id for document in texts], "bytes": sizes}
        return World(settings, model, tokenizer, corpus, tests, documents)

    def scored(self, model: Any) -> dict[str, list[float]]:
        """Return the nats of every document of every test under a model, which is the base where it is None."""
        model = self.model if model is None else model
        found = {name: document_nats(model, blocks) for name, blocks in self.tests.items()}
        return {name: np.round(nats, 4).tolist() for name, nats in found.items()}

    def trained(self, allocation: Sequence[int], seed: int) -> dict[str, list[float]]:
        """Train MoE-LPR's two stages on a copy of the base with these new experts; return what `scored` does."""
        settings, text = self.settings, (self.tokenizer, self.corpus)
        rates = dict(zip(("learning_rate", "router_learning_rate"), learning_rates(settings.base), strict=True))
        model = upcycle(copy.deepcopy(self.model), tuple(allocation), seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            budget = TrainSettings(tokens=settings.stage1_tokens, seed=seed, **rates)
            expand(model, *text, languages=settings.expanded, out=f"{folder}/expand", settings=budget)
            budget = TrainSettings(tokens=settings.stage2_tokens, seed=seed, **rates)
            both: dict[str, Any] = {"original": settings.original, "expanded": settings.expanded}
            review(model, *text, **both, out=f"{folder}/review", settings=budget)
        return self.scored(model)


def measured_curves(
    settings: BakeOff, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: Corpus
) -> dict[str, list[float]]:
    """Measure what the rules divide by: similarity in both states, and every score of layers."""
    both: dict[str, Any] = {"original": settings.original, "expanded": settings.expanded}
    both |= {"tokens_per_language": settings.score_tokens}
    curves = {}
    for state in STATES:
        table = measure_similarity(model, tokenizer, corpus, state=state, batch_blocks=8, **both)
        curves[state] = table.similarity.tolist()
    for kind in KINDS:
        curves[kind] = list(measure_layer_scores(model, tokenizer, corpus, kind, **both).values)
    return curves
