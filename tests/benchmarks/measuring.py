"""What all benchmarks share: two things timed in turns, memory of a process of its own, results in one form.

Timings of a busy machine are noisy, so nothing is compared with a number from another day: the things to be compared
take turns, and what is reported is the median of the ratios of each turn, with their quartiles.
"""

import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
"""Committed, so that a benchmark that is run alone leaves the others' rows in the document."""


@dataclass(frozen=True)
class Row:
    """One line of the table in docs/performance.md."""

    what: str
    against: str
    reach: str
    """What was asked for, in words."""
    value: float
    low: float
    high: float
    """Quartiles of the ratio over the turns; equal to `value` where nothing was repeated."""
    holds: bool | None
    """Whether the reach was met; None where none was set."""
    unit: str = "×"
    note: str = ""


def in_turns(actions: Mapping[str, Callable[[], Any]], rounds: int, warmups: int = 1) -> dict[str, list[float]]:
    """Run every action once per round, in turns; returns seconds by name, one per round, without the warm-ups.

    Every other round goes backwards, so that none is always the one after the largest.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for round_ in range(warmups + rounds):
        for name, action in list(actions.items())[:: 1 if round_ % 2 else -1]:
            started = time.perf_counter()
            action()
            if round_ >= warmups:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(of: list[float], to: list[float]) -> tuple[float, float, float]:
    """Return the median and the quartiles of the ratios turn by turn."""
    ratios = sorted(a / b for a, b in zip(of, to, strict=True))
    if len(ratios) == 1:
        return ratios[0], ratios[0], ratios[0]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, low, high


def compared(
    what: str,
    against: str,
    of: list[float],
    to: list[float],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    bound: float = 1.0,
    note: str = "",
) -> Row:
    """Return the row of one ratio of seconds.

    Args:
        what: what was measured.
        against: what it is measured against.
        of: its seconds.
        to: the other's seconds, turn by turn.
        at_most: the ratio to stay under.
        at_least: then the row says how many times faster it is, and this is the factor to reach.
        bound: multiplies the other's seconds: what arithmetic would make of them.
        note: for the reader.
    """
    if at_least is not None:
        middle, low, high = ratio([seconds * bound for seconds in to], of)
        return Row(what, against, f"≥ {at_least:g}×", middle, low, high, middle >= at_least, note=note)
    middle, low, high = ratio(of, [seconds * bound for seconds in to])
    holds = None if at_most is None else middle <= at_most
    return Row(what, against, "–" if at_most is None else f"≤ {at_most:g}×", middle, low, high, holds, note=note)


_SIDE, _PRODUCTS = 2048, 4


def matrix_products(precision: str) -> Callable[[], None]:
    """Return a function that multiplies large matrices in `fp32` or `bf16`: the most that the device can do.

    It takes its turn beside the steps that it is the measure of, since another process may take its share of both.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(_SIDE, _SIDE, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)

    def multiply() -> None:
        for _ in range(_PRODUCTS):
            torch.mm(a, b, out=out)
        if device == "cuda":
            torch.cuda.synchronize()

    return multiply


def _per_second(seconds: list[float]) -> float:
    return _PRODUCTS * 2 * _SIDE**3 / statistics.median(seconds)


def peak_of(seconds: list[float]) -> str:
    """Return in words the operations per second that `matrix_products` made."""
    return f"peak {_per_second(seconds) / 1e12:.3g} TFLOP/s"


def peak_share(operations: float, seconds: list[float], of_products: list[float]) -> str:
    """Return which share of the peak a step reached, in per cent, as the median over the turns.

    Args:
        operations: of one step, by arithmetic.
        seconds: of the step, turn by turn.
        of_products: of `matrix_products`, turn by turn.
    """
    per_turn = [_PRODUCTS * 2 * _SIDE**3 / products for products in of_products]
    shares = [operations / step / peak for step, peak in zip(seconds, per_turn, strict=True)]
    return f"{100 * statistics.median(shares):.0f} %"


def peak_mib(function: Callable[..., Any], *arguments: Any) -> float:
    """Run a function in a new process; returns by how many MiB its resident memory grew beyond the imports, at most.

    The function is called with a callable `start` first, which it calls when what should not count is in memory.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _measure(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    before = [_peak_kib()]

    def start() -> None:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before[0] = _peak_kib()

    function(start, *arguments)
    sender.send((_peak_kib() - before[0]) / 1024)


def _peak_kib() -> int:
    try:
        status = Path("/proc/self/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def kept_for_backward(model: Any, run: Callable[[], Any]) -> tuple[float, dict[str, float]]:
    """Return how many MiB a forward pass keeps for the backward pass, weights left out: in all, and by shape and place.

    Args:
        model: whose weights do not count.
        run: makes the pass; called once.
    """
    import torch

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, Any] = {}
    mib: dict[str, float] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address not in weights and address not in seen:
            seen[address] = storage  # held, so that its address is not given to another
            frames = [frame for frame in traceback.extract_stack() if f"{os.sep}torch{os.sep}" not in frame.filename]
            place = f"{tuple(tensor.shape)} at {Path(frames[-2].filename).name}:{frames[-2].lineno}"
            mib[place] = mib.get(place, 0.0) + storage.nbytes() / 2**20
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(mib.values()), dict(sorted(mib.items(), key=lambda item: -item[1]))


def save(name: str, rows: list[Row], **facts: Any) -> None:
    """Print the rows and keep them for the table, beside what was kept of other parts on the same machine."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{name}.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    before = {(row["what"], row["against"]): row for row in kept.get("rows", ()) if kept["machine"] == machine()}
    now = {(row.what, row.against): asdict(row) for row in rows}
    content = {"machine": machine(), "facts": facts, "rows": list((before | now).values())}
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    for row in rows:
        verdict = {True: "met", False: "MISSED", None: ""}[row.holds]
        spread = f" ({row.low:.3g} to {row.high:.3g})" if row.low != row.high else ""
        value = f"{row.value:.3g}{row.unit}{spread}"
        print(f"{row.what} | {row.against} | {row.reach} | {value} {verdict} {row.note}".rstrip())
    sys.stdout.flush()


def machine() -> str:
    """Return the processor, its cores and what the timings depend on."""
    import torch

    model = platform.processor() or platform.machine()
    try:
        text = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
        model = next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("Model name"))
    except (OSError, StopIteration, subprocess.CalledProcessError):
        pass
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{model}, {torch.get_num_threads()} threads, {capability}, torch {torch.__version__}"
