"""One optimiser step of any stage on a tiny model, split as asked, with the gradients it made.

`tests/method/test_scaling.py` calls `gradients` in its own process, and starts this file under torchrun:

    torchrun --nproc-per-node 2 tests/helpers/one_step.py FOLDER

FOLDER holds `base` (a tiny model with its tokenizer) and `sentences.json`.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.tiny_corpus import TinyCorpus
from lpr_lab.errors import UsageError
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.parallel.sharding import whole
from lpr_lab.text.corpus import Document

SETTINGS = TrainSettings(
    tokens=4 * 48, block_tokens=48, blocks_per_step=4, blocks_per_forward=4, max_grad_norm=1e9, precision="fp32"
)
STAGES = ("expand", "one_stage", "review", "further_review")
ORIGINAL, EXPANDED = ("en", "es"), ("el", "hu", "tr")


class RaggedCorpus(TinyCorpus):
    """Each language has so little text that its block is part padding, each another part."""

    def __init__(self, sentences: dict[str, list[str]]) -> None:
        super().__init__(sentences, (*ORIGINAL, *EXPANDED))
        words = {"en": 6, "es": 3, "el": 2, "hu": 5, "tr": 4}
        self._documents = {
            language: (Document("0", language, " ".join(sentences[language][0].split()[:count]), "tiny"),)
            for language, count in words.items()
        }


def load(folder: Path, stage: str = "expand") -> tuple[Any, Any, RaggedCorpus]:
    """Return a tiny expanded model with 4 experts in one layer and 2 in the other, its tokenizer, a ragged corpus.

    For the review of a further group, two groups have been taught before, one of them with experts in one layer only.
    """
    model = upcycle(AutoModelForCausalLM.from_pretrained(folder / "base"), (3, 1))
    if stage == "further_review":
        for language, allocation in (("el", (1, 0)), ("hu", (1, 2))):
            expansion_config(model).groups[-1] = [language]
            upcycle(model, allocation)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # away from the start, where all experts are equal and routers get no gradient
        for name, parameter in model.named_parameters():
            if "moe_lpr_" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    corpus = RaggedCorpus(json.loads((folder / "sentences.json").read_text()))
    return model, AutoTokenizer.from_pretrained(folder / "base"), corpus


def run(stage: str, model: Any, tokenizer: Any, corpus: RaggedCorpus, **options: Any) -> dict[str, Any]:
    """Run a stage with every term it can have, each with a coefficient that shows in the gradients."""
    if stage == "expand":
        options = {"load_balancing_coef": 1.0, "router_z_coef": 0.1, **options}
        return expand(model, tokenizer, corpus, languages=EXPANDED, **options)
    if stage == "one_stage":
        options = {"original": ORIGINAL, "replay_share": 0.5, "lpr_coef": 1.0, "load_balancing_coef": 1.0, **options}
        return expand(model, tokenizer, corpus, languages=EXPANDED, **options)
    if stage == "further_review":
        options = {"group_coef": 1.0, **options}
    options = {"lpr_coef": 1.0, "replay_share": 0.5, "classifier_layers": [0], "classifier_coef": 1.0, **options}
    return review(model, tokenizer, corpus, original=ORIGINAL, expanded=EXPANDED, **options)


def gradients(stage: str, folder: Path, out: Path, blocks_per_forward: int, **options: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of a stage's first step by parameter name, as the optimizer meets them."""
    found: dict[str, torch.Tensor] = {}

    def see(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                found[name] = whole(parameter.grad).clone()

    handle = register_optimizer_step_pre_hook(see)
    try:
        settings = replace(SETTINGS, blocks_per_forward=blocks_per_forward)
        run(stage, *load(folder, stage), out=out, settings=settings, **options)
    finally:
        handle.remove()
    return found


def resume(folder: Path) -> None:
    """Train three steps at once, and in two sessions; write the weights of both."""
    settings = replace(SETTINGS, tokens=3 * SETTINGS.tokens, blocks_per_forward=1)
    for name, sessions in (("whole", [settings]), ("cut", [replace(settings, max_minutes=1e-9), settings])):
        for session in sessions:
            model, tokenizer, corpus = load(folder)
            result = run("expand", model, tokenizer, corpus, out=folder / name, settings=session)
        if PartialState().is_main_process:
            weights = {key: value.detach().contiguous() for key, value in model.named_parameters() if "moe_lpr_" in key}
            save_file(weights, folder / f"{name}.safetensors")
            (folder / f"{name}.json").write_text(json.dumps(result))


def main(folder: Path) -> None:
    """Write, from the main process, the gradients of every stage and what a resumed stage ends with."""
    for stage in STAGES:
        found = gradients(stage, folder, folder / stage, blocks_per_forward=1)
        if PartialState().is_main_process:
            save_file(found, folder / f"{stage}.safetensors")
    assert PartialState().num_processes == 2
    resume(folder)
    uneven = replace(SETTINGS, blocks_per_step=3, blocks_per_forward=3)
    try:
        run("expand", *load(folder), out=folder / "uneven", settings=uneven)
    except UsageError as error:
        (folder / "refused.txt").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
