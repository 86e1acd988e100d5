"""One layer as a mixture of experts, forward and backward, beside transformers' Mixtral block and a plain loop.

    .venv/bin/python tests/benchmarks/layer_speed.py [rounds]

All compute the same: top-2, every expert learns (so does ours here: expert 0 is left unfrozen, which an expansion never
does), float32. The loop has the form in which the method was released: every expert a module, its tokens picked
out, its output added at their places.
"""

import sys

import torch
from measuring import Row, compared, in_turns, save
from transformers import LlamaConfig, MixtralConfig
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from lpr_lab.model.bases.families import read_mlp
from lpr_lab.model.experts import ExpertStack, mix
from lpr_lab.model.machine import keep_freed_memory
from lpr_lab.model.router import Router, route

SHAPES = {"SmolLM2-135M": (576, 1536, (256, 1024, 8192)), "Qwen1.5-1.8B": (2048, 5504, (256, 1024))}
IMPLEMENTATIONS = ("eager", "grouped_mm", "batched_mm")


class Ours(torch.nn.Module):
    """Router, the base's MLP and a stack of new experts."""

    def __init__(self, width: int, hidden: int, num_experts: int) -> None:
        super().__init__()
        self.original = LlamaMLP(LlamaConfig(hidden_size=width, intermediate_size=hidden))
        self.stack = ExpertStack(read_mlp(self.original), num_experts - 1)
        self.stack.copy_from(read_mlp(self.original))
        self.router = Router(width, num_experts)
        torch.nn.init.xavier_uniform_(self.router.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [1, T, D] to the same shape."""
        tokens = x.flatten(0, 1)
        return mix(tokens, route(self.router(tokens, None), 2), self.original, [self.stack]).view(x.shape)


class Loop(torch.nn.Module):
    """Router and a list of MLPs, one after the other."""

    def __init__(self, width: int, hidden: int, num_experts: int) -> None:
        super().__init__()
        config = LlamaConfig(hidden_size=width, intermediate_size=hidden)
        self.experts = torch.nn.ModuleList(LlamaMLP(config) for _ in range(num_experts))
        self.router = Router(width, num_experts)
        torch.nn.init.xavier_uniform_(self.router.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [1, T, D] to the same shape."""
        tokens = x.flatten(0, 1)
        routing = route(self.router(tokens, None), 2)
        output = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            token, slot = torch.where(routing.expert_ids == number)
            weight = routing.expert_weights[token, slot].unsqueeze(-1)
            output.index_add_(0, token, expert(tokens[token]) * weight)
        return output.view(x.shape)


def mixtral(width: int, hidden: int, num_experts: int, implementation: str) -> torch.nn.Module:
    """Return transformers' block with fresh weights."""
    config = MixtralConfig(
        hidden_size=width, intermediate_size=hidden, num_local_experts=num_experts, num_experts_per_tok=2
    )
    config._experts_implementation = implementation
    block = MixtralSparseMoeBlock(config)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return block


def main(rounds: int) -> None:
    """Measure every shape, number of experts and length."""
    with keep_freed_memory():  # all of them, as `train` does
        rows: list[Row] = []
        for shape, (width, hidden, lengths) in SHAPES.items():
            for num_experts in (2, 4, 8):
                torch.manual_seed(0)
                blocks = {"ours": Ours(width, hidden, num_experts), "loop": Loop(width, hidden, num_experts)}
                blocks |= {name: mixtral(width, hidden, num_experts, name) for name in IMPLEMENTATIONS}
                for tokens in lengths:
                    x = torch.randn(1, tokens, width, requires_grad=True)
                    fits = {
                        name: block
                        for name, block in blocks.items()
                        # It copies every chosen expert's weights for every token.
                        if name != "batched_mm" or tokens * 6 * width * hidden * 4 < 4e9
                    }

                    def step(block: torch.nn.Module, x: torch.Tensor = x) -> None:
                        output = block(x)
                        (output[0] if isinstance(output, tuple) else output).square().mean().backward()
                        for parameter in block.parameters():
                            parameter.grad = None

                    seconds = in_turns({name: lambda b=block: step(b) for name, block in fits.items()}, rounds)
                    what = f"MoE layer, {shape}, {num_experts} experts, {tokens:,} tokens"
                    for name in fits:
                        if name == "loop":
                            wanted = 1.3 if num_experts >= 4 else 1.0
                            rows.append(compared(what, "plain loop", seconds["ours"], seconds[name], at_least=wanted))
                        elif name != "ours":
                            against = f"Mixtral block, {name}"
                            rows.append(compared(what, against, seconds["ours"], seconds[name], at_least=1.0))
                    save("layer_speed", rows)
                del blocks


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
