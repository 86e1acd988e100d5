"""Sixty readers leaf through the file pages while one generates: `python tests/load/readers.py --readers 60`.

Serves made-up runs and a tiny random model on this machine, and reads like browsers do: the page, then the events that
fill it. Prints what it took, and exits with 1 when a request failed or the slowest five per cent took a second or more.
Nothing leaves this machine.
"""

import argparse
import asyncio
import json
import random
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

PAGES = ("/", "/routing", "/experts", "/retention", "/plan")
P95_SECONDS = 1.0


@dataclass
class Measured:
    """What one load came to."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    """By page: from asking for it to having all it shows."""
    errors: list[str] = field(default_factory=list)
    generated: int = 0
    """Continuations finished meanwhile."""
    wall: float = 0.0
    processor: float = 0.0
    """Processor seconds that the server used, generating included."""

    @property
    def all_seconds(self) -> list[float]:
        """Every visit."""
        return sorted(value for values in self.seconds.values() for value in values)

    def quantile(self, share: float, page: str | None = None) -> float:
        """Return the time within which such a share of the visits was answered."""
        values = self.all_seconds if page is None else sorted(self.seconds[page])
        return values[min(len(values) - 1, int(share * len(values)))]

    def report(self) -> str:
        """Return everything in lines."""
        lines = [
            f"{len(self.all_seconds)} visits in {self.wall:.1f} s ({len(self.all_seconds) / self.wall:.1f}/s), "
            f"{len(self.errors)} errors, {self.generated} continuations meanwhile, "
            f"{self.processor:.1f} s of processor time in the server",
            f"all pages   p50 {self.quantile(0.5):.3f} s  p95 {self.quantile(0.95):.3f} s  "
            f"max {self.all_seconds[-1]:.3f} s",
        ]
        for page in self.seconds:
            lines.append(f"{page:<11} p50 {self.quantile(0.5, page):.3f} s  p95 {self.quantile(0.95, page):.3f} s")
        return "\n".join([*lines, *sorted(set(self.errors))[:5]])


async def events_of(client: httpx.AsyncClient, page: str) -> list[int]:
    """Return the numbers of the events that fill a page when it is opened."""
    config = (await client.get("/config")).json()
    mine = config["page"]["" if page == "/" else page.removeprefix("/")]["dependencies"]
    return [
        one["id"]
        for one in config["dependencies"]
        if one["id"] in mine and not one["queue"] and any(event == "load" for _, event in one["targets"])
    ]


async def visit(client: httpx.AsyncClient, page: str, query: str, events: list[int]) -> None:
    """Open a page as a browser does: its HTML, then what fills it."""
    answer = await client.get(f"{page}{query}")
    answer.raise_for_status()
    session = secrets.token_hex(5)
    for number in events:
        body = {"data": [], "fn_index": number, "session_hash": session, "trigger_id": None, "event_data": None}
        filled = await client.post(f"/gradio_api/run/predict{query}", json=body)
        filled.raise_for_status()
        if "error" in filled.json():
            raise RuntimeError(filled.json()["error"])


async def reader(
    client: httpx.AsyncClient,
    events: dict[str, list[int]],
    runs: list[str],
    pause: float,
    until: float,
    out: Measured,
    first: str,
) -> None:
    """Leaf through the pages until the time is up, from `first` on, with a pause to read each."""
    rng = random.Random(secrets.randbits(32))
    await asyncio.sleep(rng.random() * pause)
    page = first
    while time.monotonic() < until:
        started = time.monotonic()
        try:
            await visit(client, page, f"?run={rng.choice(runs)}", events[page])
            out.seconds.setdefault(page, []).append(time.monotonic() - started)
        except (httpx.HTTPError, RuntimeError, ValueError, KeyError) as error:
            out.errors.append(f"{page}: {type(error).__name__} {error}"[:200])
        await asyncio.sleep(rng.uniform(0.5, 1.5) * pause)
        page = rng.choice(PAGES)


async def writer(address: str, run: str, until: float, out: Measured) -> None:
    """Let the models write, one continuation after another, until the time is up."""
    from gradio_client import Client

    client = await asyncio.to_thread(Client, address, verbose=False)
    while time.monotonic() < until:
        try:
            await asyncio.to_thread(client.predict, run, "The ferry leaves", 48, api_name="/generate_pair")
            out.generated += 1
        except Exception as error:  # whatever it is, the load has failed
            out.errors.append(f"generate: {type(error).__name__} {error}"[:200])
            await asyncio.sleep(1)


async def load(
    server: subprocess.Popen[str],
    address: str,
    runs: list[str],
    model_run: str | None,
    *,
    readers: int,
    seconds: float,
    pause: float,
) -> Measured:
    """Put the load on a server and measure."""
    out = Measured()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=readers)
    async with httpx.AsyncClient(base_url=address, timeout=30, limits=limits) as client:
        events = {page: await events_of(client, page) for page in PAGES}
        for page in PAGES:  # what is imported at the first visit is no part of the load
            await visit(client, page, f"?run={runs[0]}", events[page])
        process = psutil.Process(server.pid)
        before = process.cpu_times()
        started = time.monotonic()
        until = started + seconds
        firsts = (PAGES[number % len(PAGES)] for number in range(readers))
        tasks = [reader(client, events, runs, pause, until, out, first) for first in firsts]
        if model_run is not None:
            tasks.append(writer(address, model_run, until, out))
        await asyncio.gather(*tasks)
        out.wall = time.monotonic() - started
        after = process.cpu_times()
        out.processor = after.user + after.system - before.user - before.system
    return out


def holds(measured: Measured) -> bool:
    """Say whether the claim holds: no error, and p95 below a second."""
    return not measured.errors and measured.quantile(0.95) < P95_SECONDS


def sample_server(folder: Path) -> tuple[subprocess.Popen[str], str, list[str], str]:
    """Serve made-up runs and a tiny random model in a process of its own; return it, its address and the runs."""
    from tiny_expansion import tiny_run

    from helpers.sample_runs import make_plan_run, make_run

    runs = [make_run(folder).id, make_run(folder).id, make_plan_run(folder).id]
    model = tiny_run(folder).id
    code = (
        "import threading; from lpr_lab.dashboard import serve; "
        f"print(serve({str(folder)!r}, port=None, open_browser=False, block=False), flush=True); "
        "threading.Event().wait()"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, server.stdout.readline().strip(), runs, model


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--pause", type=float, default=5.0, help="seconds that a reader looks at a page, on average")
    parser.add_argument("--no-generation", action="store_true", help="readers alone, to compare with")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server, address, runs, model = sample_server(Path(folder) / "runs")
        writes = None if given.no_generation else model
        try:
            measured = asyncio.run(
                load(server, address, runs, writes, readers=given.readers, seconds=given.seconds, pause=given.pause)
            )
        finally:
            server.terminate()
            server.wait(10)
    if given.json:
        print(
            json.dumps({"p50": measured.quantile(0.5), "p95": measured.quantile(0.95), "errors": len(measured.errors)})
        )
    else:
        print(measured.report())
    return 0 if holds(measured) else 1


if __name__ == "__main__":
    sys.exit(main())
