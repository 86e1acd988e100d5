"""LoRA: low-rank updates on all linear maps, by PEFT."""

import warnings
from contextlib import nullcontext
from typing import cast

import torch
from transformers import PreTrainedModel

from lpr_lab.method.baselines.base import on_same_weights, require_dense
from lpr_lab.model.bases.quantized import quantization_of, without_bitsandbytes
from lpr_lab.model.peft import LoraConfig, PeftModel, TaskType, get_peft_model

LORA_SCALING = 2  # alpha / rank; the paper does not state alpha, and LLaMA-Factory, which it trains with, takes 2 r


def lora(model: PreTrainedModel, rank: int = 8, seed: int = 0) -> PeftModel:
    """Return the model with low-rank updates on all its linear maps, which alone learn: the row "LoRA".

    The paper's rank is 8; with 64, it says, new languages are better and old ones forgotten more. The output head has
    none, and there is no dropout.
    """
    require_dense(model)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=rank, lora_alpha=LORA_SCALING * rank, target_modules="all-linear"
    )
    # PEFT would import bitsandbytes to ask whether a map is one of its own.
    lookup = nullcontext() if quantization_of(model) else without_bitsandbytes()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), lookup:
        # PEFT 0.21 asks transformers for a property under its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        torch.manual_seed(seed)
        return cast("PeftModel", get_peft_model(on_same_weights(model), config))
