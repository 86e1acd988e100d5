"""What several processes find when they read together: similarity, fitted routers, scores, load, classifiers.

    torchrun --nproc-per-node 2 tests/helpers/reads_together.py FOLDER OUT FAMILY…

FOLDER holds `<family>` for every family (a tiny model with its tokenizer) and `sentences.json`. Every rank writes what
it found, as `OUT-<family>-<rank>.json` in the folder.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.tiny_corpus import TinyCorpus
from lpr_lab.measure.bits import evaluate
from lpr_lab.measure.classifiers import classifier_accuracy
from lpr_lab.measure.expert_counts import ExpertCounter
from lpr_lab.method.closed_form import fit_routers, local_review
from lpr_lab.method.settings import FitSettings
from lpr_lab.method.similarity import measure_similarity
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.parallel.processes import join_processes
from lpr_lab.model.parallel.sharing import together
from lpr_lab.model.stages import stage_names

LANGUAGES = ("en", "es", "el", "tr")
BOTH: dict[str, Any] = {"original": ["en", "es"], "expanded": ["el", "tr"]}


def read(folder: Path, family: str) -> dict[str, Any]:
    """Return what is found by all verbs that only read, as plain values."""
    base = AutoModelForCausalLM.from_pretrained(folder / family)
    tokenizer = AutoTokenizer.from_pretrained(folder / family)
    corpus: Any = TinyCorpus(json.loads((folder / "sentences.json").read_text()), LANGUAGES)
    small: dict[str, Any] = {"block_tokens": 32, "precision": "fp32"}
    found: dict[str, Any] = {}
    with together():
        table = measure_similarity(base, tokenizer, corpus, tokens_per_language=150, **small, **BOTH)
        found["similarity"] = table.pairs.tolist()
        found["similarity tokens"] = list(table.num_tokens)
        model = upcycle(base, (2, 1), router_bias=True, router_input="token_and_mean", seed=1)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "moe_lpr_experts" in name:
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        settings = FitSettings(tokens_per_language=160, solver="logistic", batch_blocks=1, **small)
        found["fits"] = fit_routers(model, tokenizer, corpus, settings=settings, **BOTH).to_frame().to_dict("list")
        local_review(model, tokenizer, corpus, settings=settings, classifier_layers=[0], **BOTH)
        found["routers"] = {n: p.flatten().tolist() for n, p in model.named_parameters() if "moe_lpr_router" in n}
        stages = stage_names(model)
        counter = ExpertCounter(stages)
        scored: dict[str, Any] = {"languages": LANGUAGES, "tokens_per_language": 300, "splits": ("dev",), **small}
        report = evaluate(model, tokenizer, corpus, stages=stages[:1], experts=counter, batch_blocks=2, **scored)
        found["documents"] = report.documents()["bits_per_byte"].tolist()
        found["precision"] = report.settings["precision"]
        found["load"] = report.load.select_dtypes("number").to_dict("list")
        for name, frame in counter.tables(tokenizer).items():
            found[name] = frame.select_dtypes("number").to_dict("list")
        accuracy = classifier_accuracy(
            model, tokenizer, corpus, languages=LANGUAGES, original=["en", "es"], tokens_per_language=100, **small
        )
        found["classifiers"] = accuracy.select_dtypes("number").to_dict("list")
    return found


if __name__ == "__main__":
    for each in sys.argv[3:]:
        numbers = json.dumps(read(Path(sys.argv[1]), each))
        (Path(sys.argv[1]) / f"{sys.argv[2]}-{each}-{join_processes().process_index}.json").write_text(numbers)
