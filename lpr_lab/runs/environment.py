"""The environment of a run: Python, packages, commit, processor. Recorded with every run and shown by `doctor`.

Also how this machine computes training steps (`train_with`), which is no setting of an experiment.
"""

import functools
import os
import platform
import subprocess
import sys
import tomllib
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from lpr_lab.errors import UsageError, one_of
from lpr_lab.processors import processor_flags, processor_name

PACKAGES = (
    "lpr_lab",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "safetensors",
    "tokenizers",
    "gguf",
    "numpy",
    "pandas",
    "gradio",
    "plotly",
    "papermill",
)
TRAIN_WITH = "LPR_LAB_TRAIN_WITH"
WAYS_TO_TRAIN: dict[str, tuple[str, Any]] = {
    "activation_checkpointing": ("activation_checkpointing", True),
    "expert_checkpointing": ("activation_checkpointing", "experts"),
    "compile": ("compile", True),
}
"""By name, the field of `TrainSettings` and its value."""
PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent  # the folder that holds lpr_lab/, notebooks/ and runs/, unless it was installed from a wheel


def is_installed() -> bool:
    """Say whether this package was installed from a wheel, which carries what a checkout has beside the package."""
    return (PACKAGE / "notebooks").is_dir()


def folder_of(name: str) -> Path:
    """Return a folder that comes with the code: `notebooks`, `examples` or `docs`; it may be missing."""
    if is_installed():
        return PACKAGE / name
    return CHECKOUT / ("runs/examples" if name == "examples" else name)


def python_path() -> str:
    """Return `PYTHONPATH` for processes of ours, in which this very package is to be found."""
    ours = None if is_installed() else str(CHECKOUT)
    return os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str | None]:
    """Return the installed version of each package, None where it is absent."""
    return {name: _version(name) for name in names}


@functools.cache  # as for a module: what is installed over it meanwhile is another process's version
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> list[str]:
    """Return what this package declares to need, such as `peft>=0.21.2,<0.22`; of the checkout, where there is one."""
    declared = CHECKOUT / "pyproject.toml"
    if declared.is_file() and not is_installed():
        return tomllib.loads(declared.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [line for line in metadata.requires("lpr_lab") or () if "extra ==" not in line]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, errors="replace", timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@functools.cache
def installed_sha256() -> str:
    """Return one hash of the names and versions of all that is installed: equal where two environments are."""
    installed = {f"{found.name.lower()}=={found.version}" for found in metadata.distributions() if found.name}
    return sha256("\n".join(sorted(installed)).encode()).hexdigest()


def git_state() -> dict[str, Any] | None:
    """Return the commit this code was run from and whether it was changed since, or None outside a checkout."""
    if is_installed() or not (CHECKOUT / ".git").exists():
        return None
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git("diff", "HEAD")
    state: dict[str, Any] = {"commit": commit.strip(), "dirty": bool(changes)}
    if changes:
        state["diff_sha256"] = sha256(changes.encode()).hexdigest()
    return state


def train_with() -> dict[str, Any]:
    """Return how this machine is to compute training steps, as fields of `TrainSettings`: `$LPR_LAB_TRAIN_WITH`.

    It changes how long a step takes and how much memory, not what it learns, so a run is the same run with and without.

    Raises:
        UsageError: a name that is not in `WAYS_TO_TRAIN`, or two that exclude each other.
    """
    wanted = {name.strip() for name in os.environ.get(TRAIN_WITH, "").split(",") if name.strip()}
    ways: dict[str, Any] = {setting: False for setting, _ in WAYS_TO_TRAIN.values()}
    for name in sorted(wanted):
        one_of(TRAIN_WITH, name, WAYS_TO_TRAIN, "Several are separated by commas.")
        setting, value = WAYS_TO_TRAIN[name]
        if ways[setting]:
            raise UsageError(f"${TRAIN_WITH} = {','.join(sorted(wanted))}: {name} excludes another one; leave one out.")
        ways[setting] = value
    return ways


def describe() -> dict[str, Any]:
    """Return the environment as JSON-able facts. Torch is asked for device and threads only if it is already loaded."""
    torch = sys.modules.get("torch")
    return {
        "schema_version": 1,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "installed_sha256": installed_sha256(),
        "git": git_state(),
        "threads": None if torch is None else torch.get_num_threads(),
        **machine(),
    }


def machine() -> dict[str, Any]:
    """Return of the environment what it has by the machine: runs that recorded the same tell how long one takes here.

    The processor's name alone does not say: virtual machines of three generations call theirs "AMD EPYC".
    """
    torch = sys.modules.get("torch")
    device = None
    if torch is not None:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "processor": processor_name(),
        "instructions": [flag for flag, is_there in processor_flags().items() if is_there],
        "num_processors": os.cpu_count(),
        "device": device,
    }
