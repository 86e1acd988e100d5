"""How long until a text of 100 tokens is traced and drawn over all layers, beside the model's own forward pass?

    .venv/bin/python tests/benchmarks/trace_speed.py RUN_DIRECTORY [repeats]

The run needs weights. Prints medians; the aim is 1.5 times the forward pass plus 0.3 s. As on the page, the text is
drawn once its own pass is done; the base and earlier stages follow.
"""

import statistics
import sys
import time
from pathlib import Path

import torch

from lpr_lab.measure.routing import trace, trace_stages
from lpr_lab.model.formats.save_load import load_expansion, load_tokenizer
from lpr_lab.runs.run import Run
from lpr_lab.views.html.tokens import render_token_strip

TEXT = (
    "Το πρωί άνοιξα το παράθυρο και είδα τη θάλασσα. Two boats came in before noon, and the harbour filled with gulls. "
    "A kertben három almafa áll, alattuk pad, a padon egy macska alszik. Nobody had told the children that the bus"
)


def main(folder: Path, repeats: int) -> None:
    """Measure forward pass, trace and drawing in turns, and say whether the aim is met."""
    model, tokenizer = load_expansion(Run(folder).path), load_tokenizer(Run(folder).path)
    ids = [0, *tokenizer(TEXT, add_special_tokens=False)["input_ids"]][:101]
    text = str(tokenizer.decode(ids[1:]))
    tensor = torch.tensor([ids])
    seconds: dict[str, list[float]] = {"forward": [], "trace": [], "draw": [], "rest": []}
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
        took = (forward - started, done - forward, drawn - done, time.perf_counter() - drawn)
        for name, value in zip(seconds, took, strict=True):
            seconds[name].append(value)
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    aim = 1.5 * median["forward"] + 0.3
    until_drawn = median["trace"] + median["draw"]
    print(f"{traced.num_tokens} tokens, {torch.get_num_threads()} threads, {repeats} repeats in turns")
    print(", ".join(f"{name} {value:.3f} s" for name, value in median.items()))
    print(f"traced and drawn in {until_drawn:.3f} s, aim {aim:.3f} s: {'met' if until_drawn <= aim else 'MISSED'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 7)
