"""Is bf16 autocast worth it on this processor? A stage-1 step and an evaluation pass, fp32 against bf16, in turns.

    .venv/bin/python tests/benchmarks/precision.py [repeats]

Prints median seconds and the ratio. The answer decides `resolve_precision`. On a processor that is slow in bf16 its
products are made by way of float32 (`bf16_products`), and torch's own are timed beside them, on one block and once:
they take minutes.
"""

import statistics
import sys
import time
from contextlib import nullcontext

import torch
from torch.nn import functional as F

import lpr_lab as lab
from lpr_lab.model.bf16_products import quick_bf16_products
from lpr_lab.model.machine import bf16_is_slow
from lpr_lab.model.stages import set_trainable

OWN = "bf16, torch's own products"


def main(repeats: int) -> None:
    """Measure on SmolLM2 with one new expert per layer and 4 blocks of 256 tokens."""
    model, _ = lab.load_base("smollm2-135m")
    model = lab.upcycle(model, lab.uniform(30), router_input="token_and_mean", router_bias=True)
    set_trainable(model, experts=True, routers=False)
    ids = torch.randint(1000, 40_000, (4, 256), generator=torch.Generator().manual_seed(0))

    def seconds_of(precision: str, blocks: torch.Tensor, *, learns: bool) -> float:
        is_bf16 = precision != "fp32"
        products = nullcontext() if precision == OWN else quick_bf16_products(model, autocast=is_bf16)
        started = time.perf_counter()
        with products, torch.set_grad_enabled(learns):
            with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
                logits = model(input_ids=blocks, use_cache=False).logits
            if learns:
                F.cross_entropy(logits.float().flatten(0, 1), blocks.flatten()).backward()
        return time.perf_counter() - started

    print(f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {repeats} repeats in turns")
    for name, learns in (("stage-1 step, forward and backward", True), ("evaluation, forward", False)):
        seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
        for precision in (*seconds, *list(seconds) * repeats):  # the first of each only warms up
            seconds[precision].append(seconds_of(precision, ids, learns=learns))
        _print(name, {precision: statistics.median(times[1:]) for precision, times in seconds.items()}, "fp32")
    if bf16_is_slow():
        for name, learns in (("step on one block", True), ("evaluation of one block", False)):
            _print(name, {way: seconds_of(way, ids[:1], learns=learns) for way in ("bf16", OWN)}, "bf16")


def _print(name: str, seconds: dict[str, float], plain: str) -> None:
    times = ", ".join(f"{way} {took:.2f} s" for way, took in seconds.items())
    ratios = (f"{took / seconds[plain]:.2f} times {plain}" for way, took in seconds.items() if way != plain)
    print(f"{name}: {times}; {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
