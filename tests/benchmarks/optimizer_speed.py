"""One update of AdamW over the new experts of SmolLM2: fused beside torch's loop and `foreach`.

.venv/bin/python tests/benchmarks/optimizer_speed.py [rounds]
"""

import sys

import torch
from measuring import Row, compared, in_turns, save

LAYERS, WIDTH, HIDDEN = 30, 576, 1536
FORMS = {"fused": {"fused": True}, "loop": {"foreach": False}, "foreach": {"foreach": True}}


def main(rounds: int) -> None:
    """Measure 80 million parameters in 60 tensors, one new expert in each of 30 layers."""
    optimizers = {}
    for name, form in FORMS.items():
        shapes = [(1, 2 * HIDDEN, WIDTH), (1, WIDTH, HIDDEN)] * LAYERS
        parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizers[name] = torch.optim.AdamW(parameters, **form)
    seconds = in_turns({name: optimizer.step for name, optimizer in optimizers.items()}, rounds)
    rows: list[Row] = [
        compared("Fused AdamW, 80 million parameters", against, seconds["fused"], seconds[against], at_least=1.0)
        for against in ("loop", "foreach")
    ]
    save("optimizer_speed", rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
