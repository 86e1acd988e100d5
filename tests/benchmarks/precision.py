"""Is bf16 autocast worth it on this processor? A stage-1 step and an evaluation pass, fp32 against bf16, in turns.

    .venv/bin/python tests/benchmarks/precision.py [repeats]

Prints median seconds and the ratio, and how far one evaluation moves. The answer decides `resolve_precision`.
"""

import statistics
import sys
import time

import torch
from torch.nn import functional as F

import lpr_lab as lab
from lpr_lab.model.stages import set_trainable


def main(repeats: int) -> None:
    """Measure on SmolLM2 with one new expert per layer and 4 blocks of 256 tokens."""
    model, _ = lab.load_base("smollm2-135m")
    model = lab.upcycle(model, lab.uniform(30), router_input="token_and_mean", router_bias=True)
    set_trainable(model, experts=True, routers=False)
    ids = torch.randint(1000, 40_000, (4, 256), generator=torch.Generator().manual_seed(0))

    def step(precision: str) -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(input_ids=ids, use_cache=False).logits
        F.cross_entropy(logits.float().flatten(0, 1), ids.flatten()).backward()
        return time.perf_counter() - started

    def score(precision: str) -> float:
        started = time.perf_counter()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            model(input_ids=ids, use_cache=False)
        return time.perf_counter() - started

    print(f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {repeats} repeats in turns")
    for name, measure in (("stage-1 step, forward and backward", step), ("evaluation, forward", score)):
        seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
        for precision in (*seconds, *list(seconds) * repeats):  # the first of each only warms up
            seconds[precision].append(measure(precision))
        medians = {precision: statistics.median(times[1:]) for precision, times in seconds.items()}
        ratio = medians["bf16"] / medians["fp32"]
        print(f"{name}: fp32 {medians['fp32']:.2f} s, bf16 {medians['bf16']:.2f} s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
