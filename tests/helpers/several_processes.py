"""Short trainings of many kinds of tiny models, by as many processes as start this file together.

    torchrun --nproc-per-node 2 tests/helpers/several_processes.py FOLDER JOBS

FOLDER holds `<family>` for every family (a tiny model with its tokenizer) and `sentences.json`; JOBS is a JSON list of
what `train_case` takes. Rank 0 writes what each case came to, `<out>.json` and `<out>.safetensors`.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.processes import TESTS, run_ranks
from helpers.tiny_corpus import TinyCorpus, steps_of_four_blocks
from lpr_lab.method import baselines
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import trainable_parameters
from lpr_lab.model.parallel.processes import join_processes

LANGUAGES = ("en", "es", "el", "tr")
BOTH: dict[str, Any] = {"original": ["en", "es"], "expanded": ["el", "tr"]}
STEPS = 3
DIVIDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
BASELINES: dict[str, Callable[..., Any]] = {
    "full": baselines.full,
    "lora": lambda model: baselines.lora(model, rank=2),
    "sparse_moe": lambda model: baselines.sparse_moe(model, (2, 1)),
    "lora_moe": lambda model: baselines.lora_moe(model, num_experts=2, rank=3),
    "llama_pro": lambda model: baselines.llama_pro(model, num_blocks=1),
}


def train_case(
    folder: Path, *, case: str, out: str, minutes: float | None = None, **options: Any
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Train one case; return its losses and how much of what learns is held here, and what learned.

    Args:
        folder: see above.
        case: family and stage, such as `llama expand`; ` bf16` after it for a base in bfloat16.
        out: folder for checkpoints, within the folder; a training that is there is continued.
        minutes: stop when they are over.
        options: of `TrainSettings`.
    """
    family, stage, *kind = case.split()
    dtype = torch.bfloat16 if kind else torch.float32
    base = AutoModelForCausalLM.from_pretrained(folder / family, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder / family)
    corpus: Any = TinyCorpus(json.loads((folder / "sentences.json").read_text()), LANGUAGES)
    settings: TrainSettings = replace(
        steps_of_four_blocks(STEPS), blocks_per_forward=1, max_grad_norm=0.5, max_minutes=minutes, **options
    )
    losses: list[tuple[float, float]] = []
    shares: list[float] = []
    given: dict[str, Any] = {
        "out": folder / out,
        "settings": settings,
        "log": lambda metrics: losses.append((metrics["loss"], metrics["grad_norm"])),
    }
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: shares.append(_share_held(optimizer)))
    try:
        if stage in BASELINES:
            model = BASELINES[stage](base)
            baselines.finetune(model, tokenizer, corpus, **BOTH, **given)
        else:
            model = _moved(upcycle(base, (3, 1)))
            if stage == "expand":
                expand(model, tokenizer, corpus, languages=BOTH["expanded"], load_balancing_coef=1.0, **given)
            else:
                given |= {"classifier_layers": [0], "classifier_coef": 1.0, "lpr_coef": 1.0}
                review(model, tokenizer, corpus, **BOTH, **given)
    finally:
        handle.remove()
    learned = {name: p.detach().clone() for name, p in model.named_parameters() if _learns(name, stage, model)}
    return {"losses": losses, "share_held": max(shares, default=0.0)}, learned


def _learns(name: str, stage: str, model: Any) -> bool:
    return "moe_lpr_" in name if stage in ("expand", "review") else name in dict(trainable_parameters(model))


def _moved(model: Any) -> Any:
    """Return an expanded model away from the start, where all experts are equal and routers get no gradient."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "moe_lpr_" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def _share_held(optimizer: torch.optim.Optimizer) -> float:
    """Return the largest share of a matrix that this process holds of what learns."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.ndim > 1]
    return max((p.to_local().numel() if isinstance(p, DTensor) else p.numel()) / p.numel() for p in parameters)


def run_jobs(folder: Path, jobs: list[dict[str, Any]], processes: int, *, is_divided: bool) -> None:
    """Run jobs by several processes together, each with the whole model or all with a part of it."""
    program = TESTS / "helpers" / "several_processes.py"
    variables = DIVIDED if is_divided else {}
    run_ranks(program, str(folder), json.dumps(jobs), processes=processes, timeout=800, variables=variables)


def results_of(folder: Path, job: dict[str, Any]) -> Any:
    """Return what a job of this process or of others came to."""
    return json.loads((folder / f"{job['out']}.json").read_text())


def write_results(folder: Path, job: dict[str, Any]) -> None:
    """Run a job and write what it came to, in one process."""
    result, learned = train_case(folder, **job)
    if join_processes().is_main_process:
        (folder / f"{job['out']}.json").write_text(json.dumps(result))
        save_file({name: p.contiguous() for name, p in learned.items()}, folder / f"{job['out']}.safetensors")


if __name__ == "__main__":
    for each in json.loads(sys.argv[2]):
        write_results(Path(sys.argv[1]), each)
