"""How long until a text of 100 tokens is traced and drawn over all layers, beside the model's own forward pass?

    .venv/bin/python tests/benchmarks/trace_speed.py RUN_DIRECTORY_OR_BASE [repeats]

A run needs weights; a base gets one new expert per layer, routers as they start. Prints medians; the aim is 1.5 times
the forward pass plus 0.3 s. As on the page, the text is drawn once its own pass is done; the base and earlier stages
follow. Then the causal map of the same text, every layer switched to the original expert, and to each of its experts:
the aim is 12 forward passes.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from lpr_lab.measure.causal.compute import causal_map
from lpr_lab.measure.routing import trace, trace_stages
from lpr_lab.method.allocation import uniform
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.formats.save_load import load_expansion, load_tokenizer
from lpr_lab.runs.run import Run
from lpr_lab.views.html.tokens import render_token_strip

TEXT = (
    "Το πρωί άνοιξα το παράθυρο και είδα τη θάλασσα. Two boats came in before noon, and the harbour filled with gulls. "
    "A kertben három almafa áll, alattuk pad, a padon egy macska alszik. Nobody had told the children that the bus"
)


def load(name: str) -> tuple[Any, Any]:
    """Return the model of a run, or a base with one new expert in each layer, and the tokenizer."""
    if Path(name).is_dir():
        return load_expansion(Run(Path(name)).path), load_tokenizer(Run(Path(name)).path)
    base, tokenizer = load_base(name)
    return upcycle(base, uniform(base.config.num_hidden_layers, 1)).eval(), tokenizer


def main(name: str, repeats: int) -> None:
    """Measure forward pass, trace, drawing and causal map in turns, and say whether the aims are met."""
    model, tokenizer = load(name)
    ids = [0, *tokenizer(TEXT, add_special_tokens=False)["input_ids"]][:101]
    text = str(tokenizer.decode(ids[1:]))
    tensor = torch.tensor([ids])
    seconds: dict[str, list[float]] = {name: [] for name in ("forward", "trace", "draw", "rest", "switch", "all")}
    for _ in range(repeats + 1):  # the first only warms up
        started = time.perf_counter()
        with torch.no_grad():
            model(input_ids=tensor, use_cache=False)
        forward = time.perf_counter()
        traced = trace(model, tokenizer, text, base=False)
        done = time.perf_counter()
        render_token_strip(traced)
        drawn = time.perf_counter()
        trace_stages(model, tokenizer, traced)
        rest = time.perf_counter()
        causal_map(model, tokenizer, text, experts=[0])
        switched = time.perf_counter()
        causal_map(model, tokenizer, text)
        took = (forward - started, done - forward, drawn - done, rest - drawn, switched - rest)
        took = (*took, time.perf_counter() - switched)
        for name, value in zip(seconds, took, strict=True):
            seconds[name].append(value)
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    aim = 1.5 * median["forward"] + 0.3
    until_drawn = median["trace"] + median["draw"]
    print(f"{traced.num_tokens} tokens, {torch.get_num_threads()} threads, {repeats} repeats in turns")
    print(", ".join(f"{name} {value:.3f} s" for name, value in median.items()))
    print(f"traced and drawn in {until_drawn:.3f} s, aim {aim:.3f} s: {'met' if until_drawn <= aim else 'MISSED'}")
    for name, what in (("switch", "every layer switched to the original expert"), ("all", "to each of its experts")):
        passes, traces = median[name] / median["forward"], median[name] / median["trace"]
        print(f"{what}: {median[name]:.2f} s, {passes:.1f} forward passes, {traces:.1f} traces; aim 12 forward passes")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7)
