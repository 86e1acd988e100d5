"""Checks that this machine has what the demo and the dashboard need; says the next step where something is missing.

`fail` stops a demo or the dashboard, `warn` only takes something away. Nothing is fetched and nothing is started.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from lpr_lab import processors
from lpr_lab.errors import LprError
from lpr_lab.experiments.notebooks import run as notebooks
from lpr_lab.model.bases.embedded import EMBEDDED
from lpr_lab.runs import environment
from lpr_lab.storage import MANIFEST, cache_dir

State = Literal["ok", "warn", "fail"]

DEMO_MEMORY_GB = 4.0  # SmolLM2 in float32 with its experts, their gradients and optimizer state, and Python around it
DEMO_DISK_GB = 2.0  # the base model, the corpus packages, one run with two checkpoints
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""What the dashboard's own tests drive, the one first that takes the least: a browser without windows of its own."""
_LETTERS = {"Greek": "α", "Arabic": "ع", "Bengali": "ক", "Devanagari": "क", "Thai": "ก", "Han": "中"}
_PLOTLY_JS = re.compile(r"(?:plotly\.js v|\.version=[`\"])(\d+\.\d+\.\d+)")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check, with the next step where it is not ok."""

    name: str
    state: State
    detail: str
    next_step: str = ""


def examine(runs_dir: Path, port: int) -> Iterator[Finding]:
    """Yield the finding of every check; one that fails does not stop the others."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _gradio_and_plotly,
        _jupyterlab,
        _notebooks,
        lambda: _writable("runs folder", runs_dir, "Name another one with --runs-dir or $LPR_LAB_RUNS."),
        lambda: _writable("cache", cache_dir(), "Name another one with $LPR_LAB_CACHE."),
        _memory,
        _processor,
        _gpu,
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
        except (OSError, LprError, ValueError, subprocess.SubprocessError) as error:
            step = "No other check depends on this one; please report it."
            detail = f"could not be checked ({error})"
            yield Finding(name=check.__name__.strip("_<>"), state="warn", detail=detail, next_step=step)


def _python() -> Finding:
    found = ".".join(str(number) for number in sys.version_info[:3])
    return Finding(name="python", state="ok", detail=f"{found} in {sys.prefix}")


def _packages() -> Finding:
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in environment.requirements()]
    needed = [requirement for requirement in needed if requirement.marker is None or requirement.marker.evaluate()]
    versions = environment.package_versions(tuple(requirement.name for requirement in needed))
    wrong = [
        f"{requirement.name} {versions[requirement.name] or 'is missing'}, needed {requirement.specifier or 'any'}"
        for requirement in needed
        if not (found := versions[requirement.name]) or not requirement.specifier.contains(found, prereleases=True)
    ]
    if wrong:
        step = "Run `make setup`, or `pip install -e .` in the checkout."
        if environment.is_installed():
            step = "Run `pip install --upgrade lpr_lab`, in an environment of its own."
        return Finding(name="packages", state="fail", detail="; ".join(wrong), next_step=step)
    shown = ", ".join(f"{name} {versions[name]}" for name in environment.PACKAGES if versions.get(name))
    return Finding(name="packages", state="ok", detail=f"all {len(needed)} as declared: {shown}")


def _gradio_and_plotly() -> Finding:
    """Check that the plotly.js of plotly, which writes figures, and that of gradio, which draws them, fit."""
    versions = environment.package_versions(("gradio", "plotly"))
    ours, theirs = _plotly_js("plotly"), _plotly_js("gradio")
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    if ours is None or theirs is None:
        fits = all((version or "").startswith("6.") for version in versions.values())
    else:
        fits = ours.partition(".")[0] == theirs.partition(".")[0]
        shown += f" (plotly.js {theirs} draws what is written for {ours})"
    step = "" if fits else "Run `pip install 'gradio>=6.31,<7' 'plotly>=6.5,<7'`: these two draw with one plotly.js."
    return Finding(name="gradio with plotly", state="ok" if fits else "fail", detail=shown, next_step=step)


def _plotly_js(package: str) -> str | None:
    """Return the version of the plotly.js that a package carries, or None where it cannot be told."""
    found = find_spec(package)
    if found is None or found.origin is None:
        return None
    where = "package_data/plotly.min.js" if package == "plotly" else "templates/frontend/assets/PlotlyPlot-*.js"
    for path in Path(found.origin).parent.glob(where):
        if match := _PLOTLY_JS.search(path.read_text(encoding="utf-8", errors="replace")):
            return match[1]
    return None


def _jupyterlab() -> Finding:
    from jupyter_core.paths import jupyter_path

    if any((Path(folder) / "jupyterlab-plotly").is_dir() for folder in jupyter_path("labextensions")):
        return Finding(name="figures in JupyterLab", state="ok", detail="plotly's renderer is installed")
    step = "Run `pip install --force-reinstall --no-deps plotly` in the environment that JupyterLab runs in."
    return Finding(name="figures in JupyterLab", state="warn", detail="plotly's renderer is missing", next_step=step)


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


def _processor() -> Finding:
    """Report the instructions that precision and kernels are chosen by; always ok."""
    flags = processors.processor_flags()
    has = [flag for flag, is_there in flags.items() if is_there]
    quicker = processors.bf16_is_quicker(flags.get("avx512_bf16", False), flags.get("amx_bf16", False))
    bf16 = "bf16 is quicker than fp32" if quicker else "fp32 is quicker than bf16"
    detail = f"{processors.processor_name()}, {os.cpu_count()} cores"
    if flags:
        detail += f"; {', '.join(has) or 'no AVX2'}: {bf16}"
    return Finding(name="processor", state="ok", detail=detail)


def _gpu() -> Finding:
    """Ask the driver, and torch only where there is a GPU: importing it takes seconds."""
    if not shutil.which("nvidia-smi"):
        return Finding(name="gpu", state="ok", detail="none; everything runs on the processor")
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, errors="replace", timeout=30)
    if listed.returncode != 0 or not listed.stdout.strip():
        step = "Run `nvidia-smi` by itself: it says what is wrong with the driver."
        return Finding(name="gpu", state="warn", detail="nvidia-smi finds no GPU", next_step=step)
    cards = "; ".join(line.strip() for line in listed.stdout.strip().splitlines())
    ask = "import torch; print(torch.cuda.is_available())"
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, errors="replace", timeout=120)
    if asked.stdout.strip() == "True":
        return Finding(name="gpu", state="ok", detail=cards)
    step = "Install the CUDA build of the same torch version, then look again."
    return Finding(name="gpu", state="warn", detail=f"{cards}, but this torch cannot use it", next_step=step)


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
    for script, letter in _LETTERS.items():
        query = ["fc-list", f":charset={ord(letter):x}", "family"]
        if not subprocess.run(query, capture_output=True, text=True, errors="replace", timeout=30).stdout.strip():
            missing.append(script)
    if missing:
        step = "For a browser on this machine: apt-get install fonts-noto-core fonts-noto-cjk"
        return Finding(name="fonts", state="warn", detail=f"none for {', '.join(missing)}", next_step=step)
    return Finding(name="fonts", state="ok", detail=f"letters of {', '.join(_LETTERS)} can be drawn")


def find_browser() -> str | None:
    """Return the browser that `$CHROMIUM` names, else the first of `BROWSERS` that is here; None for none."""
    named = os.environ.get("CHROMIUM")
    return next(filter(None, map(shutil.which, (named,) if named else BROWSERS)), None)


def _browser() -> Finding:
    named, found = os.environ.get("CHROMIUM"), find_browser()
    if found:
        return Finding(name="chromium", state="ok", detail=found)
    detail = f"$CHROMIUM names {named}, which is no program" if named else "not found"
    step = f"Only the dashboard's own tests need it: apt-get install {BROWSERS[0]} libatomic1"
    return Finding(name="chromium", state="warn", detail=detail, next_step=step)
