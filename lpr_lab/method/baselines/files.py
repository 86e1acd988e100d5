"""Keeping a baseline: a sealed folder from which it is made again on its base.

    checkpoint/   baseline.json         kind, settings, stages, and which base it belongs to
                  model.safetensors     a whole model (full, interpolate, llama_pro), with config.json: transformers and
                                        what builds on it open the folder as it is
                  or adapter_model.safetensors with adapter_config.json (lora), as PEFT reads them
                  or trained.safetensors (the others): what learned, by name, and which rows and columns it is
                  MANIFEST.json         sizes and SHA-256, written last

Nothing is ever unpickled. `load_trained` opens any run's model, this or an expansion.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from lpr_lab import storage
from lpr_lab.errors import DamagedError
from lpr_lab.method.baselines.kinds import ADAPTER, KINDS, PARTS, WHOLE, make
from lpr_lab.model.adapter import refuse_mismatch, trainable_parameters
from lpr_lab.model.adapter_config import MoeLprConfig
from lpr_lab.model.bases.fingerprint import check_base
from lpr_lab.model.bases.identity import describe_base
from lpr_lab.model.bases.load import load_model
from lpr_lab.model.bases.tensor_files import read_tensors
from lpr_lab.model.formats.save_load import ADAPTER as CHECKPOINT
from lpr_lab.model.formats.save_load import load_expansion, restore_expansion, save_expansion
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.tuned.names import BASELINE, FINETUNE
from lpr_lab.model.tuned.pair import Tuned

_INDEX = ".index"


def save_tuned(
    model: Tuned,
    directory: str | Path,
    facts: dict[str, Any] | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Write a baseline as a sealed folder, whole or not at all; an existing one is replaced.

    Args:
        model: from `kinds.make`, usually trained.
        directory: where to.
        facts: anything to put into the manifest.
        tokenizer: to lie beside a whole model, which other software then opens.
    """
    directory, tensors = Path(directory), KINDS[model.kind].tensors
    about = {"format": 1, "kind": model.kind, "settings": model.settings, "stages": [{"name": FINETUNE}]}
    if directory.exists():
        storage.remove_directory(directory)
    with storage.staged_directory(directory, sealed={"kind": "baseline", **(facts or {})}) as stage:
        kept = {name: tensor.detach().to("cpu").contiguous() for name, tensor in _tensors(model).items()}
        save_file(kept, str(stage / tensors), metadata={"format": "pt"})
        if tensors == WHOLE:
            model.tuned.config.save_pretrained(str(stage))
            if tokenizer is not None:
                tokenizer.save_pretrained(str(stage))
        elif tensors == ADAPTER:
            cast("PeftModel", model.tuned).active_peft_config.save_pretrained(str(stage))
        storage.write_json(stage / BASELINE, about | {"base": describe_base(model.base)})


def _tensors(model: Tuned) -> dict[str, torch.Tensor]:
    """Return what is kept of a baseline by its name in the file; the tensors are the model's own."""
    if KINDS[model.kind].tensors == WHOLE:
        return dict(model.tuned.named_parameters())
    named: dict[str, torch.Tensor] = dict(trainable_parameters(model.tuned))
    if KINDS[model.kind].tensors == ADAPTER:
        return {name.replace(".default.", "."): tensor for name, tensor in named.items()}
    return named | {f"{path}{_INDEX}": index for path, index in model.selection.items()}


@torch.no_grad()
def restore_tuned(model: Tuned, directory: str | Path) -> None:
    """Put the weights of a saved baseline into one of the same form that is in memory.

    Raises:
        DamagedError: a file is missing or altered, or holds other tensors than the model has.
    """
    directory = Path(directory)
    storage.verify(directory)
    path = directory / KINDS[model.kind].tensors
    own, found = _tensors(model), read_tensors(path)
    shapes = ({name: tuple(tensor.shape) for name, tensor in named.items()} for named in (own, found))
    refuse_mismatch(str(path), *shapes)
    for name, tensor in own.items():
        if name.endswith(_INDEX) and not torch.equal(tensor.cpu(), found[name]):
            raise DamagedError(f"{path} is of a model in which other rows and columns learn ({name}).")
        tensor.copy_(found[name])


def load_tuned(path: str | Path, *, device: str | torch.device | None = None, base: str | Path | None = None) -> Tuned:
    """Load a baseline from a run directory or its checkpoint, with its base; both in evaluation mode.

    Args:
        path: `runs/<run>`, or the folder with `baseline.json`.
        device: where to put it; this process's GPU, or the processor, by default.
        base: the name or folder of the base, if it is no longer where it was.

    Raises:
        DamagedError: a file is missing or altered.
        MissingError: no base of that name.
        ComparisonRefusedError: the base there is not the one that the baseline was made on.
    """
    directory = _directory_of(path)
    storage.verify(directory)
    about = storage.read_json_object(directory / BASELINE)
    known, kind = about["base"], about["kind"]
    if kind not in KINDS:
        raise DamagedError(f"{directory / BASELINE} is of a baseline {kind!r}, which this version does not know.")
    dtype = torch.bfloat16 if known["base_dtype"] == "bfloat16" else torch.float32
    name = base if base is not None else known["base_name"]
    dense = load_model(name, dtype=dtype, device=device, quantization=known["base_quantization"])
    check_base(dense, cast("MoeLprConfig", SimpleNamespace(**known)))
    model = make(kind, dense, about["settings"], saved_selection(directory))
    restore_tuned(model, directory)
    return model.eval()


def saved_selection(directory: Path) -> dict[str, torch.Tensor]:
    """Return what a saved baseline had chosen by looking at text; empty where it chose nothing."""
    if not (directory / PARTS).is_file():
        return {}
    tensors = read_tensors(directory / PARTS)
    return {name.removesuffix(_INDEX): index for name, index in tensors.items() if name.endswith(_INDEX)}


def load_trained(path: str | Path, *, device: str | torch.device | None = None) -> PeftModel | Tuned:
    """Load the model of any run, from its directory: an expansion, or a baseline with its base beside it.

    Inside `model.disable_adapter()` either is its base.

    Raises:
        MissingError, DamagedError, ComparisonRefusedError: see `load_expansion`; a baseline refuses the same.

    Examples:
        >>> model = load_trained("runs/20261128-1200-full")  # doctest: +SKIP
        >>> with model.disable_adapter():  # doctest: +SKIP
        ...     of_the_base = model(input_ids=ids).logits
    """
    return load_tuned(path, device=device) if is_baseline(path) else load_expansion(path, device=device)


def save_trained(
    model: PeftModel | Tuned,
    directory: str | Path,
    facts: dict[str, Any] | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Write a sealed folder with what training changed: of an expansion the adapter, of a baseline see `save_tuned`."""
    if isinstance(model, Tuned):
        save_tuned(model, directory, facts, tokenizer=tokenizer)
    else:
        save_expansion(model, directory, facts)


def restore_trained(model: PeftModel | Tuned, directory: str | Path) -> None:
    """Put saved weights into a model of the same form that is in memory."""
    if isinstance(model, Tuned):
        restore_tuned(model, directory)
    else:
        restore_expansion(model, Path(directory))


def is_baseline(path: str | Path) -> bool:
    """Say whether a run directory or a checkpoint holds a baseline."""
    return (_directory_of(path) / BASELINE).is_file()


def _directory_of(path: str | Path) -> Path:
    path = Path(path)
    return path if (path / BASELINE).is_file() else path / CHECKPOINT
