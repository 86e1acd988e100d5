"""LoRAMoE: a mixture of low-rank experts on every map of the MLPs, all at work on every token."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lpr_lab.errors import UnsupportedModelError
from lpr_lab.method.baselines.base import on_same_weights, require_dense
from lpr_lab.method.baselines.lora import LORA_SCALING
from lpr_lab.model.bases.families import find_decoder_mlps


def lora_moe(model: PreTrainedModel, num_experts: int = 8, rank: int = 180, seed: int = 0) -> PreTrainedModel:
    """Return the model with a mixture of LoRA experts on each linear map of its MLPs: the row "LoRAMoE".

    8 experts of rank 180, all selected for every token, in the paper; its 2.6B parameters are reached with exactly the
    three maps of each MLP. After Dou et al., arXiv 2312.09979, without their balancing constraint, which needs a type
    of task for every text.

    Raises:
        UnsupportedModelError: an MLP whose maps are not `nn.Linear` (GPT-2).
    """
    require_dense(model)
    twin = on_same_weights(model).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for mlp in find_decoder_mlps(twin):
        maps = {name: child for name, child in mlp.module.named_children() if isinstance(child, nn.Linear)}
        if not maps:
            raise UnsupportedModelError(
                f"The maps of {mlp.path} in {model.config.model_type} are no nn.Linear, so they take no LoRA experts "
                "here; choose a model such as Llama, Qwen or GPT-NeoX."
            )
        for name, linear in maps.items():
            setattr(mlp.module, name, LoraMixture(linear, num_experts, rank, generator))
    return twin


class LoraMixture(nn.Module):
    """A frozen linear map and E low-rank updates of it, all at work on every token, weighted by a softmax gate.

    The updates start at zero, so the map starts as it was.
    """

    def __init__(self, linear: nn.Linear, num_experts: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear
        self.num_experts = num_experts
        device = linear.weight.device
        bound = 1 / math.sqrt(linear.in_features)

        def drawn(rows: int) -> nn.Parameter:
            values = torch.empty(rows, linear.in_features).uniform_(-bound, bound, generator=generator)
            return nn.Parameter(values.to(device))

        self.gate = drawn(num_experts)
        # All experts are one matrix each way: E · rank hidden channels, which the gate weights expert by expert.
        self.down = drawn(num_experts * rank)
        self.up = nn.Parameter(torch.zeros(linear.out_features, num_experts * rank, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map of `x` [..., D] plus the weighted updates."""
        gate, down, up = (weight.to(x.dtype) for weight in (self.gate, self.down, self.up))
        weights = F.linear(x, gate).float().softmax(-1) * LORA_SCALING
        hidden = F.linear(x, down).unflatten(-1, (self.num_experts, -1)) * weights.to(x.dtype).unsqueeze(-1)
        return self.linear(x) + F.linear(hidden.flatten(-2), up)
