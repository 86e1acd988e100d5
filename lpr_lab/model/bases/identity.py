"""What an expansion records about its base, so that the same base can be loaded again.

An expansion is saved without its base, and opened on the base that its name leads to. So a model that is no longer what
its files hold is refused here, before anything is made of it, while it can still be saved: resized embeddings, a merged
adapter, weights changed by hand, or an adapter that still sits inside.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lpr_lab.errors import LprError, UnsupportedModelError, UsageError
from lpr_lab.model.bases.files import weight_files
from lpr_lab.model.bases.fingerprint import base_fingerprint
from lpr_lab.model.bases.load import canonical_name, load_model, local_folder, path_for_auto_classes
from lpr_lab.model.bases.quantized import dequantized, is_quantized, quantization_of, requantized
from lpr_lab.model.bases.tensor_files import open_tensors
from lpr_lab.model.mixture import MoELayer
from lpr_lab.model.peft import BaseTunerLayer

_SAVE_IT = (
    "Save the model as it is, with its tokenizer, model.save_pretrained('my-base') and "
    "tokenizer.save_pretrained('my-base'); then upcycle what lpr_lab.load_base('my-base') returns."
)


def describe_base(model: PreTrainedModel) -> dict[str, Any]:
    """Return the fields of `MoeLprConfig` that say which base an expansion belongs to.

    Args:
        model: a dense model, before anything is put on it.

    Raises:
        UsageError: it is not what is stored under its name, so that an expansion of it could not be opened again.
    """
    _refuse_changed(model)
    name = canonical_name(model.config.name_or_path or "")
    return {
        "base_fingerprint": base_fingerprint(model),
        "base_fingerprint_bfloat16": base_fingerprint(model, torch.bfloat16),
        "base_quantization": quantization_of(model),
        "base_dtype": str(model.dtype).removeprefix("torch."),
        "base_name": name,
        "base_model_name_or_path": path_for_auto_classes(name),
    }


def refuse_non_base(model: nn.Module) -> None:
    """Refuse a wrapped model, and one with the adapter of another method inside.

    Raises:
        UsageError: a wrapper.
        UnsupportedModelError: an adapter, with how to merge it.
    """
    if not isinstance(model, PreTrainedModel):
        inside = next((name for name in ("_orig_mod", "module") if hasattr(model, name)), None)
        advice = f" Pass the model inside it, model.{inside}." if inside else ""
        raise UsageError(f"Expected a model of transformers, got {type(model).__name__}.{advice}")
    for path, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and not isinstance(module, MoELayer):
            raise UnsupportedModelError(
                f"This model has an adapter inside ({type(module).__name__} at {path}), so it is not its base "
                f"{model.config.name_or_path!r}. Load the base again and upcycle that; or merge the adapter first: "
                "model.save_pretrained('my-adapter'), then base, tokenizer = lpr_lab.load_base(…), "
                "peft.PeftModel.from_pretrained(base, 'my-adapter').merge_and_unload().save_pretrained('my-base') and "
                "tokenizer.save_pretrained('my-base'); then upcycle what lpr_lab.load_base('my-base') returns."
            )


def _refuse_changed(model: PreTrainedModel) -> None:
    """Refuse a model whose tensors are not those in the files that its name leads to, where these are at hand."""
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise UnsupportedModelError(
                f"{name} is not in memory (it is on the meta device); load the base whole, without offloading."
            )
    given = model.config.name_or_path or ""
    try:
        folder = local_folder(given)
    except LprError as error:
        raise UsageError(
            f"An expansion of this model would never open again, because its base is looked for as {given!r}: {error} "
            f"{_SAVE_IT}"
        ) from error
    if folder is None:
        return
    difference = next(_differences(model, folder), None)
    if difference:
        raise UsageError(
            f"This model is no longer the base {given!r} that is stored in {folder}: {difference}. An expansion of it "
            f"would never open again. {_SAVE_IT}"
        )


def _differences(model: PreTrainedModel, folder: Path) -> Iterator[str]:
    """Yield what differs between a model and its files, one tensor at a time, so that no second model is held."""
    with ExitStack() as stack:
        readers: dict[str, Any] = {}
        for file in weight_files(folder):
            reader = stack.enter_context(open_tensors(file))
            readers |= dict.fromkeys(reader.keys(), reader)
        names = {name: _stored_name(model, name, readers) for name, _ in model.named_parameters()}
        if None in names.values():  # a family whose tensors have other names in files: let transformers match them
            yield from _differences_by_loading(model, folder)
            return
        for name, parameter in model.named_parameters():
            stored = readers[str(names[name])].get_tensor(names[name])
            yield from _difference(name, parameter, stored)


def _stored_name(model: PreTrainedModel, name: str, known: dict[str, Any]) -> str | None:
    """Return what a parameter is called in the files: with or without the prefix of the decoder, or by a tied name."""
    prefix = f"{model.base_model_prefix}."
    tied = [target for target, source in (model.all_tied_weights_keys or {}).items() if source == name]
    candidates = [other for one in (name, *tied) for other in (one, one.removeprefix(prefix), prefix + one)]
    return next((candidate for candidate in candidates if candidate in known), None)


def _differences_by_loading(model: PreTrainedModel, folder: Path) -> Iterator[str]:
    device = next(model.parameters()).device
    stored = load_model(folder, dtype=model.dtype, device=device, quantization=quantization_of(model))
    known = dict(stored.named_parameters())
    for name, parameter in model.named_parameters():
        if name not in known:
            yield f"{name} is not in the files"
        else:
            yield from _difference(name, parameter, known[name].data)


def _difference(name: str, parameter: torch.Tensor, stored: torch.Tensor) -> Iterator[str]:
    stored = stored.to(parameter.device)
    if is_quantized(parameter) and not stored.is_floating_point():  # packed in the files, too
        alike = torch.equal(parameter.data.view(torch.uint8).flatten(), stored.view(torch.uint8).flatten())
    else:
        values = dequantized(parameter)
        # A packed Conv1D, as GPT-2 has, is stored the other way round.
        forms = [stored, stored.T] if is_quantized(parameter) else [stored]
        forms = [form for form in forms if form.shape == values.shape]
        if not forms:
            yield f"{name} is {tuple(values.shape)} in memory and {tuple(stored.shape)} in the files"
            return
        if is_quantized(parameter):
            forms = [requantized(form, parameter) for form in forms]
        else:
            forms.append(stored.bfloat16())  # a base that was rounded and is kept in float32
        alike = any(torch.equal(values, form.to(values.dtype)) for form in forms)
    if not alike:
        yield f"{name} has other numbers in memory than in the files"
