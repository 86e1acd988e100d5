"""Saving, verifying and loading expansions.

An adapter directory holds `adapter_config.json`, `adapter_model.safetensors` and a `MANIFEST.json` with the SHA-256
of both. It is loaded onto the base it was made from and no other: the configuration carries a fingerprint of the base
model's tensors. Nothing is ever unpickled.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab import storage
from lpr_lab.errors import ComparisonRefusedError, DamagedError, MissingError
from lpr_lab.model.adapter import expansion_config, wrap
from lpr_lab.model.adapter_config import MoeLprConfig
from lpr_lab.model.bases import load_base
from lpr_lab.model.bases import load_tokenizer as load_base_tokenizer
from lpr_lab.model.stages import conform

ADAPTER = "checkpoint"
_REFUSED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".py")


def base_fingerprint(model: PreTrainedModel) -> str:
    """Return the SHA-256 over a dense model's parameters: names, shapes and values (as float32), 64 hex digits.

    A base that was stored in bfloat16 has the same fingerprint whether it is loaded as bfloat16 or as float32.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()


def adapter_tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return everything that is new in an expanded model, by its name in the saved file."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.items()}


def save_adapter(model: PeftModel, directory: Path) -> None:
    """Write the adapter's configuration and tensors into an existing directory (usually a staged one)."""
    config = expansion_config(model)
    config.save_pretrained(str(directory))
    save_file(adapter_tensors(model), str(directory / "adapter_model.safetensors"), metadata={"format": "pt"})


def save_expansion(model: PeftModel, directory: Path, facts: dict[str, Any] | None = None) -> None:
    """Write a sealed adapter directory, whole or not at all; an existing one is replaced."""
    if directory.exists():
        storage.remove_directory(directory)
    with storage.staged_directory(directory, sealed={"kind": "adapter", **(facts or {})}) as stage:
        save_adapter(model, stage)


def load_adapter_tensors(model: PeftModel, path: Path) -> None:
    """Load a saved adapter file into an expanded model, refusing missing, surplus or misshapen tensors by name.

    PEFT's own loader only warns about missing keys; a half-loaded expansion would run and be wrong.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in adapter_tensors(model).items()}
    with safe_open(str(path), framework="pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        for name, shape in expected.items():
            if name not in found:
                raise DamagedError(f"{path} lacks the tensor {name}; it was saved from another expansion.")
            if found[name] != shape:
                raise DamagedError(f"{path}: {name} has shape {found[name]}, expected {shape}.")
        surplus = sorted(set(found) - set(expected))
        if surplus:
            raise DamagedError(f"{path} holds tensors that this expansion does not have, such as {surplus[0]}.")
        state = {name: file.get_tensor(name) for name in expected}
    set_peft_model_state_dict(model, state)


def restore_expansion(model: PeftModel, directory: Path) -> None:
    """Bring an expanded model to where a saved adapter of it stands: stages and experts are added or dropped.

    Raises:
        DamagedError: the directory does not verify, or lacks a tensor.
        UsageError: the adapter has another history than the model.
    """
    storage.verify(directory)
    config = PeftConfig.from_pretrained(str(directory))
    assert isinstance(config, MoeLprConfig)
    conform(model, config)
    load_adapter_tensors(model, directory / "adapter_model.safetensors")


def load_expansion(
    path: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device | None = None
) -> PeftModel:
    """Load an expanded model from a run directory or an adapter directory, with its base.

    Args:
        path: `runs/<run>`, or a directory with `adapter_config.json`.
        dtype: of the base and the experts; routers stay in float32.
        device: where to put it; the processor by default.

    Returns:
        The `peft.PeftModel` in evaluation mode; `model.disable_adapter()` is the base.

    Raises:
        MissingError: no adapter there.
        DamagedError: a file is missing, altered, or not an expansion's.
        ComparisonRefusedError: the base found under the recorded name is not the one it was trained on.
    """
    directory = find_adapter(path)
    if (directory / storage.MANIFEST).exists():
        storage.verify(directory)
    for file in directory.iterdir():
        if file.suffix in _REFUSED_SUFFIXES:
            raise DamagedError(f"{directory} holds {file.name}, a kind of file that can run code; remove it.")
    config = PeftConfig.from_pretrained(str(directory))
    if not isinstance(config, MoeLprConfig):
        raise DamagedError(f"{directory} holds a {config.peft_type} adapter, not an expansion.")
    base, _ = load_base(config.base_name, dtype=dtype, device=device)
    check_base(base, config)
    model = wrap(base, config)
    load_adapter_tensors(model, directory / "adapter_model.safetensors")
    return model.eval()


def check_base(base: PreTrainedModel, config: MoeLprConfig) -> None:
    """Refuse a base whose tensors are not those the expansion was trained on."""
    fingerprint = base_fingerprint(base)
    if fingerprint != config.base_fingerprint:
        raise ComparisonRefusedError(
            f"This expansion belongs to another base model: it was trained on {config.base_name!r} with fingerprint "
            f"{config.base_fingerprint[:12]}, the one loaded has {fingerprint[:12]}. Load the base it names."
        )


def find_adapter(path: str | Path) -> Path:
    """Return the adapter directory of a run or of the directory itself.

    Raises:
        MissingError: neither holds an adapter.
    """
    path = Path(path)
    for candidate in (path, path / ADAPTER):
        if (candidate / "adapter_config.json").is_file():
            return candidate
    raise MissingError(
        f"{path} has no weights ({ADAPTER}/adapter_config.json is missing). Make a run that has them with "
        "`lpr-lab demo`, or point to an adapter directory."
    )


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the base that an expansion was made from."""
    config = PeftConfig.from_pretrained(str(find_adapter(path)))
    assert isinstance(config, MoeLprConfig)
    return load_base_tokenizer(config.base_name)
