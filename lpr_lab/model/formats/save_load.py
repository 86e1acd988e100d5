"""Saving, verifying and loading expansions.

An adapter directory holds `adapter_config.json`, the tensors in `adapter_model.safetensors` and a `MANIFEST.json` with
the SHA-256 of every file. Large adapters go on in `adapter_model-00002.safetensors` and so on, with an index beside
them. Nothing is ever unpickled.

There are four ways to load an expanded model. Each checks the base's tensors first (`check_base`), and gives the same
logits or refuses:

    lab.load_expansion(path)                          finds the base, verifies every file, reads all of them
    PeftModel.from_pretrained(base, path)             on a base that is in memory
    AutoPeftModelForCausalLM.from_pretrained(path)    looks for the base where it was when the expansion was made
    AutoModelForCausalLM.from_pretrained(path)        the same, without a PeftModel around it

The last three belong to PEFT and transformers. They know the method after `lpr_lab.model.adapter.register()` and say
KeyError 'MOE_LPR' before. They compare no file with the manifest and read only the first file of tensors: what they
leave unfilled is refused at the end of loading.
"""

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from lpr_lab import storage
from lpr_lab.errors import ComparisonRefusedError, DamagedError, MissingError, UsageError
from lpr_lab.model.adapter import expansion_config, refuse_mismatch, saved_name, wrap
from lpr_lab.model.adapter_config import METHOD, PREFIX, MoeLprConfig
from lpr_lab.model.bases.fingerprint import check_base
from lpr_lab.model.bases.load import load_model
from lpr_lab.model.bases.load import load_tokenizer as load_base_tokenizer
from lpr_lab.model.bases.tensor_files import open_tensors
from lpr_lab.model.capture import causal_lm_of
from lpr_lab.model.peft import PeftConfig, PeftModel
from lpr_lab.model.stages import sync_to_config
from lpr_lab.model.tuned.names import BASELINE

ADAPTER = "checkpoint"
TENSORS = "adapter_model.safetensors"
INDEX = f"{TENSORS}.index.json"
MAX_SHARD_BYTES = 5_000_000_000
_REFUSED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".py")


def _parameters(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """Return everything that is new in an expanded model, by its name in the saved file."""
    adapter = str(model.active_adapter)
    return {saved_name(name, adapter): tensor for name, tensor in model.named_parameters() if PREFIX in name}


def save_adapter(
    model: PeftModel, directory: Path, *, dtype: torch.dtype | None = None, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write the adapter's configuration and tensors into an existing directory (usually a staged one).

    Args:
        model: an expanded model.
        directory: where to.
        dtype: of the experts; see `save_expansion`.
        max_shard_bytes: see `save_expansion`.
    """
    expansion_config(model).save_pretrained(str(directory))
    parameters = _parameters(model)
    dtypes = {name: dtype if dtype and "experts" in name else tensor.dtype for name, tensor in parameters.items()}
    sizes = {name: tensor.numel() * dtypes[name].itemsize for name, tensor in parameters.items()}
    shards = _divide(sizes, max_shard_bytes)
    files = [TENSORS, *(f"adapter_model-{number:05d}.safetensors" for number in range(2, len(shards) + 1))]
    for file, names in zip(files, shards, strict=True):  # copies of one file's tensors at a time
        tensors = {name: parameters[name].detach().to("cpu", dtypes[name]).contiguous() for name in names}
        save_file(tensors, str(directory / file), metadata={"format": "pt"})
    if len(files) > 1:
        weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        storage.write_json(directory / INDEX, index)


def _divide(sizes: dict[str, int], most: int) -> list[list[str]]:
    """Divide names into consecutive groups of at most `most` bytes; what is larger alone has a group of its own."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > most:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def save_expansion(
    model: PeftModel,
    directory: str | Path,
    facts: dict[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a sealed adapter directory, whole or not at all; an existing one is replaced.

    Args:
        model: an expanded model; all its expansions and stages are saved.
        directory: where to.
        facts: anything to put into the manifest.
        dtype: of the experts in the file: `torch.bfloat16` rounds them and halves it, None leaves them as they are.
            Routers and classifiers are always float32.
        max_shard_bytes: a larger adapter is divided over several files, which only this library reads together.

    Raises:
        UsageError: another dtype, or not an expanded model.
        ComparisonRefusedError: the base inside is no longer the one that was upcycled; nothing is written.
    """
    if dtype not in (None, torch.float32, torch.bfloat16):
        raise UsageError(f"dtype = {dtype}; expected torch.float32, torch.bfloat16, or None for the experts' own.")
    config = expansion_config(model)
    try:
        check_base(causal_lm_of(model), config)
    except ComparisonRefusedError as error:
        raise ComparisonRefusedError(
            "Nothing was saved: the base inside this model was changed after upcycling (resized, merged or edited), "
            f"and the expansion would open on the unchanged one. {error} Make such changes first, save the changed "
            "base with save_pretrained, and upcycle that."
        ) from error
    directory = Path(directory)
    if directory.exists():
        storage.remove_directory(directory)
    with storage.staged_directory(directory, sealed={"kind": "adapter", **(facts or {})}) as stage:
        save_adapter(model, stage, dtype=dtype, max_shard_bytes=max_shard_bytes)


def load_adapter_tensors(model: PeftModel, path: Path) -> None:
    """Load a saved adapter into an expanded model, refusing missing, surplus or misshapen tensors by name.

    All names and shapes are compared before the first number is read. Then every tensor goes from its file straight
    to its place, so that nothing large is held twice.

    Args:
        model: of the form that the adapter's configuration says.
        path: the file of tensors; with an index beside it, the first of those that the index names.

    Raises:
        DamagedError: with the file and the tensor.
    """
    parameters = _parameters(model)
    with ExitStack() as stack:
        readers: dict[str, Any] = {}
        for file in _files_of(path):
            reader = stack.enter_context(open_tensors(file))
            readers |= dict.fromkeys(reader.keys(), reader)
        found = {name: tuple(reader.get_slice(name).get_shape()) for name, reader in readers.items()}
        refuse_mismatch(str(path), {name: tuple(tensor.shape) for name, tensor in parameters.items()}, found)
        with torch.no_grad():
            for name, tensor in parameters.items():
                tensor.copy_(readers[name].get_tensor(name))


def _files_of(path: Path) -> list[Path]:
    index = path.with_name(INDEX)
    if not index.is_file():
        return [path]
    places = storage.read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(Path(str(place)).name == place for place in places.values()):
        raise DamagedError(f"{index} has no weight_map from tensors to files beside it; save the adapter again.")
    return [path.with_name(name) for name in sorted(set(places.values()))]


def restore_expansion(model: PeftModel, directory: Path) -> None:
    """Load a saved adapter of the same history: stages and experts are added or dropped to match it.

    Raises:
        DamagedError: the directory does not verify, or lacks a tensor.
        UsageError: the adapter has another history than the model.
    """
    storage.verify(directory)
    sync_to_config(model, read_config(directory))
    load_adapter_tensors(model, directory / TENSORS)


def load_expansion(
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    base: str | Path | None = None,
) -> PeftModel:
    """Load an expanded model from a run directory or an adapter directory, with its base.

    Args:
        path: `runs/<run>`, or a directory with `adapter_config.json`.
        dtype: of the base, and so of its products; what it was held in when the expansion was made, if not given.
            Experts and routers are float32 in memory, whatever they were saved in.
        device: where to put it; this process's GPU, or the processor, by default.
        base: the name or folder of the base, if it is no longer where it was when the expansion was made.

    Returns:
        The `peft.PeftModel` in evaluation mode; `model.disable_adapter()` is the base.

    Raises:
        MissingError: no adapter there, or no base.
        DamagedError: a file is missing, altered, or not an expansion's.
        ComparisonRefusedError: the base found under the recorded name is not the one the expansion was made on, or is
            loaded in float16.
    """
    directory = find_adapter(path)
    if (directory / storage.MANIFEST).exists():
        storage.verify(directory)
    for file in directory.iterdir():
        if file.suffix in _REFUSED_SUFFIXES:
            raise DamagedError(f"{directory} holds {file.name}, a kind of file that can run code; remove it.")
    config = read_config(directory)
    name = base if base is not None else config.base_name
    if not name:
        raise MissingError(
            f"The expansion in {directory} was made on a model that came from no folder. Save that model with "
            "save_pretrained and say where it is: load_expansion(…, base=folder)."
        )
    if dtype is None:
        dtype = torch.bfloat16 if config.base_dtype == "bfloat16" else torch.float32
    try:
        dense = load_model(name, dtype=dtype, device=device, quantization=config.base_quantization)
    except MissingError as error:
        raise type(error)(
            f"{error} If the base of {path} is elsewhere, say where: load_expansion(…, base=…)."
        ) from error
    check_base(dense, config)
    model = wrap(dense, config)
    load_adapter_tensors(model, directory / TENSORS)
    return model.eval()


def read_config(directory: Path) -> MoeLprConfig:
    """Read the configuration in an adapter directory.

    Raises:
        DamagedError: it is not an expansion's.
    """
    kind = storage.read_json_object(directory / "adapter_config.json").get("peft_type")
    if kind != METHOD:
        raise DamagedError(f"{directory} holds a {kind} adapter, not an expansion.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The base of this expansion")  # it is looked for by its name here
        config = PeftConfig.from_pretrained(str(directory))
    assert isinstance(config, MoeLprConfig)
    rows = {len(config.layer_paths), len(config.layer_indices), *map(len, config.new_experts)}
    if len(rows) > 1 or not config.new_experts or not config.stages:
        raise DamagedError(
            f"{directory / 'adapter_config.json'} does not say which layers have how many experts at which stage; use "
            "another copy of this adapter."
        )
    return config


def find_adapter(path: str | Path) -> Path:
    """Return the adapter directory of a run or of the directory itself.

    Raises:
        MissingError: neither holds an adapter.
        UsageError: it holds a baseline.
    """
    path = Path(path)
    for candidate in (path, path / ADAPTER):
        if (candidate / BASELINE).is_file():
            raise UsageError(
                f"{path} holds a baseline, not an expansion; open it with lpr_lab.load_trained, which knows both."
            )
        if (candidate / "adapter_config.json").is_file():
            return candidate
    raise MissingError(
        f"{path} has no weights ({ADAPTER}/adapter_config.json is missing). Make a run that has them with "
        "`lpr-lab demo`, or point to an adapter directory."
    )


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the base that an expansion or a baseline was made from."""
    for candidate in (Path(path), Path(path) / ADAPTER):
        if (candidate / BASELINE).is_file():
            return load_base_tokenizer(storage.read_json_object(candidate / BASELINE)["base"]["base_name"])
    return load_base_tokenizer(read_config(find_adapter(path)).base_name)
