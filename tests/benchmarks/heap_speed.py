"""Training steps and scoring in processes that keep what they free, beside processes that give it back.

    .venv/bin/python tests/benchmarks/heap_speed.py [rounds]

The C library is asked once per process, so each measurement is a process of its own; they take turns.
"""

import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext

import step_speed
from measuring import Row, compared, save

import lpr_lab as lab
from lpr_lab.measure import bits
from lpr_lab.model.machine import keep_freed_memory
from lpr_lab.text.packing import pack

WORK = {
    "Stage-1 step, 1 new expert in each of 30 layers, 1,024 tokens": ("step", 30, 1),
    "Stage-1 step, 15 new experts in each of 6 layers, 1,024 tokens": ("step", 6, 15),
    "Scoring a dozen blocks of 256 tokens": ("score", 30, 0),
}


def measure(kind: str, layers: int, new: int, keeps: bool) -> None:
    """Print the median seconds of three repetitions after one, and the peak in MiB."""
    step_speed.keep_freed_memory = nullcontext  # it would keep what it frees on its own
    action = step_speed.small_step(layers, new) if kind == "step" else scoring()
    seconds = []
    with keep_freed_memory() if keeps else nullcontext():
        for _ in range(4):
            started = time.perf_counter()
            action()
            seconds.append(time.perf_counter() - started)
    print(statistics.median(seconds[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def scoring():
    """Return a function that scores a dozen blocks of English with the base."""
    base, tokenizer = lab.load_base("smollm2-135m")
    documents = lab.load_corpus("demo", languages=["en", "el"]).documents("heldout", "en")[:60]
    blocks = pack(documents, tokenizer, 256, languages=("en", "el"))
    return lambda: bits.document_nats(base.eval(), blocks, precision="fp32")


def main(rounds: int) -> None:
    """Measure."""
    rows: list[Row] = []
    for what, of in WORK.items():
        seconds: dict[bool, list[float]] = {True: [], False: []}
        peaks = {}
        for _ in range(rounds):
            for keeps in (True, False):
                command = [sys.executable, __file__, "measure", *map(str, of), str(int(keeps))]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                median, peaks[keeps] = map(float, done.stdout.split()[-2:])
                seconds[keeps].append(median)
        note = f"peak {peaks[True]:,.0f} MiB, {peaks[False]:,.0f} where it is given back"
        rows.append(compared(what, "giving back", seconds[True], seconds[False], at_least=1.0, note=note))
        save("heap_speed", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(sys.argv[2], *map(int, sys.argv[3:5]), keeps=sys.argv[5] == "1")
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
