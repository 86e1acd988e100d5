"""What people wait for besides training: text, runs, traces, reports, and everything's start.

.venv/bin/python tests/benchmarks/everyday_speed.py [rounds]
"""

import cProfile
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measuring import Row, save

import lpr_lab as lab

PYTHON = sys.executable


def timed(function: Callable[[], object], rounds: int) -> list[float]:
    """Return the seconds of each call, in order of size."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)


def row(what: str, seconds: list[float], at_most: float | None = None, note: str = "") -> Row:
    """Return a row in seconds."""
    middle = statistics.median(seconds)
    reach = "–" if at_most is None else f"< {at_most:g} s"
    return Row(what, "–", reach, middle, seconds[0], seconds[-1], at_most and middle < at_most, " s", note)


def shell(*command: str) -> Callable[[], object]:
    """Return a function that runs a Python command in a process of its own."""
    return lambda: subprocess.run([PYTHON, *command], check=True, capture_output=True)


def profile(function: Callable[[], object], most: int = 4) -> str:
    """Return where the time of a call goes: the functions with the largest cumulative share."""
    profiler = cProfile.Profile()
    profiler.runcall(function)
    stats = pstats.Stats(profiler)
    total = stats.total_tt  # type: ignore[attr-defined]
    own = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:most]  # type: ignore[attr-defined]
    return ", ".join(f"{name} {100 * numbers[2] / total:.0f} %" for (_, _, name), numbers in own)


def texts(rounds: int, rows: list[Row]) -> None:
    """Packing, and making a corpus from files that are there."""
    from lpr_lab.text.packing import pack

    _, tokenizer = lab.load_base("smollm2-135m")
    corpus = lab.load_corpus("demo", languages=["en", "el"])
    documents = [document for code in ("en", "el") for document in corpus.documents("train", code)][:3000]
    megabytes = sum(len(document.text.encode()) for document in documents) / 1e6
    seconds = timed(lambda: pack(documents, tokenizer, 256, languages=("en", "el")), rounds)
    note = f"{megabytes:.1f} MB, {megabytes / statistics.median(seconds):.1f} MB/s; "
    rows.append(
        row(
            "Tokenise and pack",
            seconds,
            note=note + profile(lambda: pack(documents, tokenizer, 256, languages=("en", "el"))),
        )
    )
    seconds = timed(lambda: lab.load_corpus("demo", languages=["en", "el"]), rounds)
    size = sum(len(d.text.encode()) for split in corpus.splits for d in corpus.documents(split)) / 1e6
    note = f"{size:.1f} MB, {size / statistics.median(seconds):.1f} MB/s: read, split, freed of duplicates, filtered; "
    rows.append(
        row(
            "Load the demo corpus from the cache",
            seconds,
            note=note + profile(lambda: lab.load_corpus("demo", languages=["en", "el"])),
        )
    )


def runs(rounds: int, rows: list[Row]) -> None:
    """Listing a thousand runs."""
    from lpr_lab.runs.find import list_runs
    from lpr_lab.runs.run import Run

    with tempfile.TemporaryDirectory() as folder:
        for number in range(1000):
            config = {"base": "smollm2-135m", "expanded": ["el"], "seed": number}
            Run.create(folder, kind="expansion", slug="el", title=f"Run {number}", config=config)

        def listing() -> None:
            for run in list_runs(folder):
                assert run.status.state and run.config

        rows.append(row("List 1,000 runs with state and settings", timed(listing, rounds), 1.0, profile(listing)))


def traces(rounds: int, rows: list[Row]) -> None:
    """Tracing 2,048 tokens and drawing them."""
    from lpr_lab.views.html.tokens import render_token_strip

    base, tokenizer = lab.load_base("smollm2-135m")
    model = lab.upcycle(base, lab.uniform(30))
    text = "Η θάλασσα ήταν ήσυχη, and nobody spoke. " * 200
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:2047]
    text = tokenizer.decode(ids)
    traced = lab.trace(model, tokenizer, text)
    rows.append(
        row(
            f"Trace {traced.num_tokens:,} tokens over 30 layers, base included",
            timed(lambda: lab.trace(model, tokenizer, text), rounds),
        )
    )
    rows.append(
        row(
            "Draw them",
            timed(lambda: render_token_strip(traced), rounds),
            note=profile(lambda: render_token_strip(traced)),
        )
    )


def reports(rounds: int, rows: list[Row]) -> None:
    """Exporting the example run."""
    with tempfile.TemporaryDirectory() as folder:
        examples = Path(__file__).parents[2] / "runs"
        name = next((examples / "examples").iterdir()).name
        command = ("-m", "lpr_lab", "report", name, "--runs-dir", str(examples), "-o", f"{folder}/report.html")
        rows.append(row("Export a report, start of Python included", timed(shell(*command), rounds)))


def starts(rounds: int, rows: list[Row]) -> None:
    """Everything's start."""
    rows.append(row("`lpr-lab --help`", timed(shell("-m", "lpr_lab", "--help"), rounds), 0.3))
    pages = "import lpr_lab.dashboard.app, sys; assert 'torch' not in sys.modules"
    quick = f"from lpr_lab.dashboard.server.quick_gradio import skip_type_stubs; skip_type_stubs(); {pages}"
    plain = statistics.median(timed(shell("-c", pages), rounds))
    note = f"gradio and the start of Python included; {plain:.1f} s where gradio writes its type stubs"
    rows.append(row("Import all pages of the app, without torch", timed(shell("-c", quick), rounds), 2.0, note))
    first = (
        "import sys, urllib.request, tempfile; from lpr_lab.dashboard import serve; "
        "address = serve(tempfile.mkdtemp(), port=None, open_browser=False, block=False); "
        "assert urllib.request.urlopen(address).status == 200; assert 'torch' not in sys.modules; "
        "import os; os._exit(0)"
    )
    rows.append(row("First page, from nothing", timed(shell("-c", first), rounds), 5.0))
    load = (
        "import lpr_lab as lab, time, peft; from transformers import AutoModelForCausalLM; "
        "lab.load_base; started = time.perf_counter(); "
        "lab.load_base('smollm2-135m'); print(time.perf_counter() - started)"
    )
    inside = sorted(
        float(subprocess.run([PYTHON, "-c", load], check=True, capture_output=True, text=True).stdout)
        for _ in range(rounds)
    )
    whole = statistics.median(timed(shell("-c", load), rounds))
    note = f"{whole:.1f} s with the start of Python, torch, transformers and PEFT"
    rows.append(row("Load the embedded base from the cache", inside, 3.0, note))


def main(rounds: int) -> None:
    """Measure."""
    rows: list[Row] = []
    for part in (starts, runs, texts, traces, reports):
        part(rounds, rows)
        save("everyday_speed", rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
