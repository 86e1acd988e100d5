"""Checks of a base model's files: complete, readable, and with a tensor for every parameter.

transformers fills a parameter that no file has with random numbers and says so in a table on stderr only. Here such a
base is refused, with the names.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lpr_lab.errors import DamagedError, MissingError
from lpr_lab.model.bases.quantized import is_quantized
from lpr_lab.model.bases.tensor_files import open_tensors, refuse_zeros_at_the_end
from lpr_lab.storage import read_json_object

_INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_MODEL_JSON = ("config.json", "generation_config.json")
_TOKENIZER_JSON = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DistributedDataParallel", "_fsdp_wrapped_module.": "FSDP"}


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that a folder should have, whether or not they are there.

    Raises:
        DamagedError: the index of several files is not one.
    """
    index = folder / _INDEX
    if (folder / _WEIGHTS).is_file() or not index.is_file():
        return [folder / _WEIGHTS]
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise DamagedError(
            f"{index} has no weight_map from tensors to files; save the model again, or fetch the index."
        )
    strange = [place for place in places.values() if Path(place).name != place]
    if strange:
        raise DamagedError(f"{index} names {strange[0]!r}, which is not a file of this folder.")
    return [folder / place for place in sorted(set(places.values()))]


def is_complete(folder: Path) -> bool:
    """Whether all safetensors files that a folder should have are there."""
    return all(file.is_file() for file in weight_files(folder))


def refuse_damaged_files(folder: Path) -> None:
    """Look at the start and the end of every file that a model is loaded from.

    Raises:
        MissingError: no safetensors weights, or not all of them.
        DamagedError: one that is not what its name says.
    """
    missing = [file.name for file in weight_files(folder) if not file.is_file()]
    if missing:
        raise MissingError(
            f"{folder} has no complete safetensors weights ({_few(missing)} not there); save the model with "
            "save_pretrained, which writes them."
        )
    for name in _MODEL_JSON:
        if (folder / name).is_file():
            read_json_object(folder / name)
    for file in weight_files(folder):
        with open_tensors(file):
            pass
        refuse_zeros_at_the_end(file)


def refuse_damaged_tokenizer(folder: Path) -> None:
    """Name the first file of a tokenizer that is not readable, if there is one.

    Raises:
        DamagedError: with the file.
    """
    for name in _TOKENIZER_JSON:
        if (folder / name).is_file():
            read_json_object(folder / name)


def refuse_incomplete(model: nn.Module, loading: dict[str, Any], folder: Path) -> None:
    """Refuse a model some of whose numbers are not those of its files.

    Args:
        model: as loaded.
        loading: what `from_pretrained(output_loading_info=True)` says of it. Tied tensors and masks that became
            buffers are not in it.
        folder: where it was loaded from.

    Raises:
        DamagedError: tensors that are missing, of another shape, unknown to the model, or not finite.
    """
    missing, unknown = sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"])
    unknown = [name for name in unknown if not name.endswith(".masked_bias")]  # a constant of the first GPT-2
    for prefix, wrapper in _WRAPPERS.items():
        if any(name.startswith(prefix) for name in unknown):
            raise DamagedError(
                f"The tensors in {folder} are named {prefix}…, such as {unknown[0]}: it was saved from inside the "
                f"wrapper of {wrapper}. Save the model itself (the wrapper's `{prefix.rstrip('.')}`) with "
                "save_pretrained; loaded like this its numbers would be random."
            )
    misshapen = [
        f"{name} {tuple(found)} instead of {tuple(wanted)}" for name, found, wanted in loading["mismatched_keys"]
    ]
    for names, what in (
        (missing, "lacks {} of the model, which would be random"),
        (sorted(misshapen), "does not fit its config.json: {}"),
        (unknown, "holds {} that the model does not have and would leave out"),
    ):
        if names:
            raise DamagedError(
                f"{folder} {what.format(_few(names))}. Its weights and its config.json are not of one model, or a file "
                "was left out; save or fetch the model again."
            )
    _refuse_not_finite(model, folder)


def _refuse_not_finite(model: nn.Module, folder: Path) -> None:
    for name, parameter in model.named_parameters():
        if not is_quantized(parameter) and parameter.is_floating_point() and not torch.isfinite(parameter).all():
            raise DamagedError(
                f"{folder}: {name} holds numbers that are not finite in {parameter.dtype}. The weights are damaged, or "
                "too large for this dtype: load the base in float32 or bfloat16."
            )


def _few(names: Iterable[str]) -> str:
    """Return the first names, and how many there are more."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
