"""Training checkpoints: written atomically, verified, and resumed only with the same settings.

    <stage dir>/checkpoint-000120/    adapter_config.json  adapter_model.safetensors   what is trained
                                      (or trained.safetensors, of what is no expansion)
                                      optimizer.safetensors                            moments, by parameter name
                                      state.json                                       step, clock, RNG, rates, versions
                                      MANIFEST.json                                    sizes and SHA-256, written last

A checkpoint counts only with a complete manifest. Resume takes the newest complete one; a directory that does not
verify is moved to `.quarantine/` with the reason, never deleted and never used. Nothing here is a pickle, and the
optimizer's moments are matched by parameter name: experts have equal shapes, so matching by position could swap them
without anyone noticing.

Tensors are whole in these files, however many processes share the training and whether they divide the model, so any
number of them can go on. Of a divided model that costs: all processes put tensors together one by one, rank 0 holds
what learns and its moments in the memory of the processor (12 bytes per number that learns) and writes them alone, and
every process reads the files on resume and keeps its part.
"""

import os
import platform
import random
import re
import shutil
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from lpr_lab import storage
from lpr_lab.errors import DamagedError, LprError, UsageError
from lpr_lab.method.training.divergence import Divergence
from lpr_lab.method.training.optimizer import named_parameters
from lpr_lab.model.adapter import expansion_config, refuse_mismatch, trainable_parameters
from lpr_lab.model.bases.fingerprint import base_fingerprint
from lpr_lab.model.bases.tensor_files import read_tensors
from lpr_lab.model.formats.save_load import TENSORS, load_adapter_tensors, save_adapter
from lpr_lab.model.mixture import all_layers
from lpr_lab.model.parallel.processes import join_processes
from lpr_lab.model.parallel.sharding import divided_like, whole
from lpr_lab.model.peft import PeftModel

TRAINED = "trained.safetensors"
_NAME = re.compile(r"^checkpoint-(\d{6,})$")
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy")


@dataclass
class Progress:
    """How far a stage has come.

    Attributes:
        step: optimiser steps done.
        tokens: tokens trained on, padding excluded.
        seconds: training time over all sessions of this stage.
        counts: by name of a term of the loss, how many tokens it saw.
        observed: what the last session was seen to compute with (see `model.observe`).
        divergence: what is known of the loss's course.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    observed: dict[str, Any] = field(default_factory=dict)
    divergence: Divergence = field(default_factory=Divergence)

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Progress":
        """Rebuild it from `dataclasses.asdict`; checkpoints of earlier versions know less."""
        return Progress(**{**values, "divergence": Divergence(**values.get("divergence", {}))})


def save_checkpoint(
    directory: Path,
    model: PeftModel | PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    progress: Progress,
    facts: dict[str, Any],
    *,
    keep: int = 2,
    writes: bool = True,
) -> Path:
    """Write `checkpoint-<step>` below `directory` by the commit protocol, then drop the oldest beyond `keep`.

    Args:
        directory: the stage's folder.
        model: the model being trained. Of an expansion the whole adapter is written, so that a checkpoint can be opened
            like any other; of another model the parameters that learn.
        optimizer: of parameters by the names of `trainable_parameters(model)`; they may be parts of a divided model.
        scheduler: anything with `state_dict()` of plain numbers.
        progress: where the stage stands.
        facts: what must be equal on resume (settings, data ledger, base fingerprint).
        keep: at least 2, because the newest may be damaged by what interrupts us.
        writes: False on every process but one, where it only helps to put divided moments together.
    """
    names = [name for name, _ in trainable_parameters(model)]
    target = directory / f"checkpoint-{progress.step:06d}"
    if writes and not target.exists():
        _require_space(directory)
    moments, counters = _optimizer_tensors(optimizer, names, keep=writes)
    if not writes or target.exists():
        return target
    state = {
        "progress": asdict(progress),
        "scheduler": {k: v for k, v in scheduler.state_dict().items() if isinstance(v, int | float | list | str)},
        "optimizer_steps": counters,
        "parameters": names,
        "rng": rng_state(),
        "facts": facts,
        "environment": environment(),
    }
    with storage.staged_directory(target, sealed={"kind": "training-checkpoint", "step": progress.step}) as stage:
        if _is_expansion(model):
            save_adapter(cast("PeftModel", model), stage)
        else:
            trained = {name: p.detach().to("cpu").contiguous() for name, p in trainable_parameters(model)}
            save_file(trained, str(stage / TRAINED))
        save_file(moments, str(stage / "optimizer.safetensors"))
        storage.write_json(stage / "state.json", state)
    for old in sorted(_complete(directory))[:-keep]:
        storage.remove_directory(directory / f"checkpoint-{old:06d}")
    return target


def newest_checkpoint(directory: Path, say: Any = print) -> Path | None:
    """Return the newest checkpoint that verifies, moving damaged ones aside; None when there is none.

    Args:
        directory: the stage's folder; it need not exist.
        say: told about every checkpoint that had to be refused, with the piece that is wrong.
    """
    for step in sorted(_complete(directory), reverse=True):
        path = directory / f"checkpoint-{step:06d}"
        try:
            storage.verify(path)
        except DamagedError as error:
            aside = directory / ".quarantine"
            aside.mkdir(exist_ok=True)
            storage.write_text(aside / f"{path.name}.reason.txt", f"{error}\n")
            shutil.rmtree(aside / path.name, ignore_errors=True)
            os.rename(path, aside / path.name)
            say(f"Refused a checkpoint and moved it to {aside}: {error}")
            continue
        return path
    return None


def load_checkpoint(
    path: Path,
    model: PeftModel | PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    facts: dict[str, Any],
    say: Any = print,
) -> Progress:
    """Restore everything a checkpoint holds; refuse when anything is missing or was made with other settings.

    Sums round by the number of threads and processes, how a step is split, the processor and the versions of libraries.
    Where those differ a stage goes on, and `say` is told that it will not end bit-identical to one that was not
    interrupted. Only where a term counts by micro-batch (`terms.SCOPES`) is how a step is split a setting as any other.

    Args:
        path: of the checkpoint.
        model: whole; gets what was trained.
        optimizer: gets the moments, each process its part where its parameters are parts.
        scheduler: gets the step it stood at.
        facts: as in `save_checkpoint`.
        say: told what is different now.

    Raises:
        DamagedError: a tensor of the model or the optimizer is missing or misshapen.
        UsageError: the stage's settings, data or base differ from those of the checkpoint.
    """
    state = storage.read_json_object(path / "state.json")
    then = dict(state["facts"])
    processes_then = then.pop("world_size", None)  # where versions kept it that could not go on with another number
    (facts, split), (then, split_then) = _without_split(facts), _without_split(then)
    differing = [key for key in sorted(set(facts) | set(then)) if facts.get(key) != then.get(key)]
    if differing:
        raise UsageError(
            f"{path} was made with other settings ({', '.join(differing)}), so continuing it would mix two "
            "experiments. Use a new output folder, or the settings it was made with."
        )
    here = environment() | split
    changed = [
        f"{key} {before} then, {here[key]} now"
        for key, before in ({"processes": processes_then} | split_then | state["environment"]).items()
        if key in here and before is not None and here[key] != before
    ]
    if changed:
        say(
            f"{path.name} was made elsewhere ({'; '.join(changed)}): what follows may round otherwise than in a stage "
            "that was not interrupted."
        )
    names = [name for name, _ in trainable_parameters(model)]
    if state["parameters"] != names:
        raise DamagedError(f"{path} holds optimizer state for other parameters than the ones that learn in this stage.")
    if _is_expansion(model):
        load_adapter_tensors(cast("PeftModel", model), path / TENSORS)
    else:
        _load_trained(model, path / TRAINED)
    _restore_optimizer(optimizer, names, read_tensors(path / "optimizer.safetensors"), state["optimizer_steps"], path)
    scheduler.load_state_dict(state["scheduler"])
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate  # a scheduler remembers the rate, but only `step` writes it into the optimizer
    restore_rng(state["rng"])
    return Progress.from_json(state["progress"])


def _without_split(facts: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return facts without how a step is split, and that; in the former where a term counts by micro-batch."""
    settings = dict(facts.get("settings") or {})
    counted = any(term.get("scope") == "micro_batch" for term in (facts.get("terms") or {}).values())
    if counted or "blocks_per_forward" not in settings:
        return facts, {}
    split = {"blocks_per_forward": settings.pop("blocks_per_forward")}
    return {**facts, "settings": settings}, split


def starting_fingerprint(model: PeftModel | PreTrainedModel) -> str:
    """Return what a stage starts from: an expansion's base, which stays as it is, or every number of another model."""
    return expansion_config(model).base_fingerprint if _is_expansion(model) else base_fingerprint(model)


def _is_expansion(model: PeftModel | PreTrainedModel) -> bool:
    """Say whether all that learns is an adapter of ours; a mixture that is trained as a whole is a plain model."""
    return isinstance(model, PeftModel) and bool(all_layers(model))


@torch.no_grad()
def _load_trained(model: PreTrainedModel | PeftModel, path: Path) -> None:
    tensors = read_tensors(path)
    parameters = dict(trainable_parameters(model))
    shapes = ({name: tuple(tensor.shape) for name, tensor in named.items()} for named in (parameters, tensors))
    refuse_mismatch(str(path), *shapes)
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def environment() -> dict[str, Any]:
    """Return what a bit-exact repetition depends on: versions, processor capability, threads, number of processes."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": join_processes().num_processes,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _complete(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    return [int(match[1]) for path in directory.iterdir() if (match := _NAME.match(path.name)) and path.is_dir()]


def _require_space(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    newest = max(_complete(directory), default=None)
    if newest is None:
        return
    size = sum(file.stat().st_size for file in (directory / f"checkpoint-{newest:06d}").iterdir() if file.is_file())
    free = shutil.disk_usage(directory).free
    if free < 1.2 * size:
        raise LprError(
            f"The disk has {free / 1e6:.0f} MB free and the next checkpoint needs {size / 1e6:.0f} MB. The training so "
            f"far is safe in {directory}; free some space and run the same command again."
        )


def _optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: list[str], *, keep: bool
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Return moments and step counters by name; without the moments where they are not kept."""
    by_name = named_parameters(optimizer)
    tensors, counters = {}, {}
    for name in names:
        state = optimizer.state[by_name[name]]
        counters[name] = float(state["step"]) if state else 0.0
        for key in ("exp_avg", "exp_avg_sq"):
            if key in state:
                moment = whole(state[key])
                if keep:
                    tensors[f"{key}/{name}"] = moment.to("cpu").contiguous()
    return tensors, counters


def _restore_optimizer(
    optimizer: torch.optim.Optimizer,
    names: list[str],
    tensors: dict[str, torch.Tensor],
    counters: dict[str, float],
    path: Path,
) -> None:
    by_name = named_parameters(optimizer)
    for name in names:
        parameter = by_name[name]
        if not counters.get(name):
            continue
        # Where the fused optimizer expects it.
        state: dict[str, torch.Tensor] = {"step": torch.tensor(counters[name], device=parameter.device)}
        for key in ("exp_avg", "exp_avg_sq"):
            tensor = tensors.get(f"{key}/{name}")
            if tensor is None or tensor.shape != parameter.shape:
                raise DamagedError(f"{path}/optimizer.safetensors lacks {key} of {name}, or it has the wrong shape.")
            state[key] = divided_like(tensor, parameter)  # float32, also where an earlier version kept bfloat16
        optimizer.state[parameter] = state


def _has_cuda() -> bool:
    return torch.cuda.is_available()


def rng_state() -> dict[str, Any]:
    """Return the state of every global generator of random numbers, in plain values."""
    # The global generators are saved for code of others that draws from them; this project never does.
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    python_version, python_state, python_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": [s.cpu().numpy().tobytes().hex() for s in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else [],
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "python": [python_version, list(python_state), python_gauss],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Bring every global generator back to a state from `rng_state`."""
    torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state["torch"]), dtype=torch.uint8))
    if _has_cuda() and state["cuda"]:
        torch.cuda.set_rng_state_all([torch.frombuffer(bytearray.fromhex(s), dtype=torch.uint8) for s in state["cuda"]])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    python_version, python_state, python_gauss = state["python"]
    random.setstate((python_version, tuple(python_state), python_gauss))
