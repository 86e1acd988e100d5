"""Base models by name: embedded (`smollm2-135m`), on the Hugging Face hub (`org/name`), or a local folder.

Whatever the name, the model is loaded from a folder on disk: an embedded one from the cache, a hub one from the hub's
own cache. The configuration is looked at first, so that a model that cannot be upcycled is refused before its weights
are fetched. Code that comes with a model is never run, and only safetensors weights are read.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lpr_lab.errors import DamagedError, MissingError, UnsupportedModelError, UsageError, did_you_mean, first_line
from lpr_lab.fetching import HUB_NAME, hub_errors
from lpr_lab.model.bases.embedded import EMBEDDED
from lpr_lab.model.bases.fetch import ensure_cached
from lpr_lab.model.bases.files import is_complete, refuse_damaged_files, refuse_damaged_tokenizer, refuse_incomplete
from lpr_lab.model.bases.made import SMALL_WORLD, is_made, made_folder, require_made
from lpr_lab.model.bases.quantized import check_quantization, quantization_config, use_portable_linear
from lpr_lab.model.bases.quiet import without_progress_bars
from lpr_lab.model.machine import default_device
from lpr_lab.model.parallel.processes import divides_model, every_process_reads
from lpr_lab.progress import remark
from lpr_lab.storage import friendly_disk_errors, read_json_object, verify
from lpr_lab.text.vocabulary import refuse_tokens_beyond

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CONFIG_FILES = ["config.json", "adapter_config.json"]
_MODEL_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_OTHER_FILES = ["*/*", "consolidated*"]  # copies in other formats, which some repositories carry


def load_base(
    name: str | Path = "smollm2-135m",
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    quantization: str = "",
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a base model and its tokenizer, ready for evaluation.

    Args:
        name: an embedded base (`EMBEDDED`), one that is made here (`made`), a hub id, or a local folder.
        dtype: of the weights in memory. What is put on the base to learn is float32 in any case.
        device: where to put the model; by default this process's GPU, or the processor where there is none or where
            processes are to divide the model (see `model.parallel.sharding`).
        quantization: `nf4` packs the linear maps into four bits (see `model.bases.quantized`); empty leaves them whole.

    Returns:
        The model in evaluation mode, and its tokenizer with a padding token set. `model.name_or_path` is what to give
        to `load_base` for the same model: the name, or the absolute path of a folder.

    Raises:
        UsageError: a name that cannot be one, no bitsandbytes to quantise with, or a tokenizer with more tokens than
            the model has embeddings for.
        UnsupportedModelError: an encoder-decoder, or not a causal language model.
        MissingError: not there, or not reachable.
        DamagedError: a file that is not what its name says, or weights that do not fill the model.

    >>> model, tokenizer = load_base("smollm2-135m")  # doctest: +SKIP
    """
    check_quantization(quantization)
    path = resolve_base(name)  # once for both: its files are looked at, an embedded base's all read
    tokenizer = _tokenizer_in(path, name)
    return _model_in(path, name, dtype=dtype, device=device, quantization=quantization), tokenizer


def load_model(
    name: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    quantization: str = "",
) -> "PreTrainedModel":
    """Load a base model alone; its folder need not hold a tokenizer.

    Args, errors and what is said of the result: as `load_base`.
    """
    check_quantization(quantization)
    return _model_in(resolve_base(name), name, dtype=dtype, device=device, quantization=quantization)


def _model_in(
    path: Path, name: str | Path, *, dtype: torch.dtype, device: str | torch.device | None, quantization: str
) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    if device is None:  # a model to be divided over processes stays whole on the processor
        device = "cpu" if divides_model() else default_device()
    device = torch.device(device)
    packed: dict[str, Any] = {}
    if quantization:  # packed while it is loaded, hence where it will be
        packed = {"quantization_config": quantization_config(quantization, dtype), "device_map": {"": device}}
    options = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True, **packed}
    with without_progress_bars(), every_process_reads():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    model, loading = loaded
    use_portable_linear(model)
    refuse_incomplete(model, loading, path)
    if not quantization:
        torch.nn.Module.to(model, device)
    model.name_or_path = model.config._name_or_path = canonical_name(name)
    return model.eval()


def load_tokenizer(name: str | Path = "smollm2-135m") -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a base model, with a padding token set.

    Raises:
        LprError: as `load_base`.
    """
    return _tokenizer_in(resolve_base(name), name)


def _tokenizer_in(path: Path, name: str | Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoConfig, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the tokenizers library knows no other class
        refuse_damaged_tokenizer(path)
        raise MissingError(
            f"The tokenizer of {str(name)!r} cannot be loaded from {path} ({first_line(error)}); "
            "put the tokenizer files beside the weights."
        ) from error
    if tokenizer.pad_token is None:
        known = tokenizer.get_vocab()
        tokenizer.pad_token = "<|endoftext|>" if "<|endoftext|>" in known else tokenizer.eos_token
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    refuse_tokens_beyond(tokenizer, config.get_text_config().vocab_size, str(name))
    return tokenizer


def resolve_base(name: str | Path) -> Path:
    """Return the folder that holds a base model, fetching it first when that is needed.

    Raises:
        LprError: as `load_base`.
    """
    text = str(name).strip()
    if text in EMBEDDED or is_made(text):
        path = ensure_cached(EMBEDDED[text]) if text in EMBEDDED else require_made(text)
        try:
            verify(path)
        except DamagedError as error:
            raise DamagedError(f"{error} Delete {path} and run the same command again; it is then made anew.") from None
        return path
    if isinstance(name, Path) or text.startswith(("/", ".", "~")) or (text and Path(text).is_dir()):
        return _local_folder(Path(text).expanduser())
    if not HUB_NAME.fullmatch(text):
        raise UsageError(
            f"{text!r} cannot be the name of a model; expected one of {', '.join([*EMBEDDED, SMALL_WORLD])}, a hub id "
            "such as 'org/model', or the path of a folder."
        )
    if "/" not in text and did_you_mean(text, EMBEDDED):
        raise UsageError(f"There is no embedded base {text!r}.{did_you_mean(text, EMBEDDED)}")
    return _hub_folder(text)


def local_folder(name: str) -> Path | None:
    """Return the folder that holds a base, where it is on this machine already; nothing is fetched.

    Raises:
        LprError: a folder that `load_base` cannot load from.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if name in EMBEDDED or is_made(name):
        path = _cached(name)
        return path if path.is_dir() else None
    if name and Path(name).is_dir():
        return _local_folder(Path(name))
    if not HUB_NAME.fullmatch(name):
        return None
    try:
        folder = Path(snapshot_download(name, allow_patterns=_MODEL_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if is_complete(folder) else None


def path_for_auto_classes(name: str | None) -> str | None:
    """Return where the `Auto` classes of transformers and PEFT find a base: the folder of an embedded one, a hub id.

    >>> path_for_auto_classes("HuggingFaceTB/SmolLM2-135M")
    'HuggingFaceTB/SmolLM2-135M'
    """
    return str(_cached(name)) if name and (name in EMBEDDED or is_made(name)) else name or None


def canonical_name(name: str | Path) -> str:
    """Return the name by which `load_base` finds the same base from anywhere: folders become absolute paths."""
    text = str(name).strip()
    folder = Path(text).expanduser()
    return str(folder.resolve()) if text and text not in EMBEDDED and not is_made(text) and folder.is_dir() else text


def _cached(name: str) -> Path:
    return EMBEDDED[name].path if name in EMBEDDED else made_folder(name)


def _local_folder(path: Path) -> Path:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise MissingError(f"{path} {what}; expected a folder with config.json, safetensors weights and a tokenizer.")
    check_supported(path, str(path))
    refuse_damaged_files(path)
    return path


# -- the hub -----------------------------------------------------------------------------------------------------------


def _hub_folder(name: str) -> Path:
    """Return the hub cache's folder of a model; the network is asked only when something is missing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=_MODEL_FILES, local_files_only=True))
        if (folder / "config.json").is_file() and is_complete(folder):
            check_supported(folder, name)
            refuse_damaged_files(folder)
            return folder
    except LocalEntryNotFoundError:
        pass
    instead = f"give a local folder, or use the embedded {next(iter(EMBEDDED))!r}"
    with hub_errors("model", name, instead), friendly_disk_errors(f"fetching {name}", Path.home()):
        folder = Path(snapshot_download(name, allow_patterns=_CONFIG_FILES))
        check_supported(folder, name)
        remark(f"Fetching {name} from the hub; its licence is on its page there.")
        folder = Path(snapshot_download(name, allow_patterns=_MODEL_FILES, ignore_patterns=_OTHER_FILES))
    if not is_complete(folder):
        raise MissingError(f"{name} has no complete safetensors weights on the hub; choose a model that has them.")
    refuse_damaged_files(folder)
    return folder


# -- what can be a base ------------------------------------------------------------------------------------------------


def check_supported(folder: Path, name: str) -> None:
    """Refuse, from its configuration alone, a model that is not a dense decoder-only causal language model.

    Whether its layers can be upcycled is decided later, on the loaded model (`model/bases/families.py`).

    Raises:
        MissingError: no configuration there, or a damaged one.
        UnsupportedModelError: with what was found.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import (
        CONFIG_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage]  # the mapping itself has no public name
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from lpr_lab.model.bases.families import refuse_by_config

    expected = "expected a decoder-only causal language model such as Llama, Qwen or GPT-NeoX"
    # transformers would load the adapter over its base without a word, and the base would not be the base.
    if (folder / "adapter_config.json").is_file():
        raise UnsupportedModelError(
            f"{name} holds an adapter (adapter_config.json), not a base model; open an expansion with load_expansion, "
            "or give the base it was made from."
        )
    if not (folder / "config.json").is_file():
        raise MissingError(f"{name} has no config.json; expected a model folder in the transformers format.")
    kind = read_json_object(folder / "config.json").get("model_type")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # each family checks its values in its own way
        if kind in CONFIG_MAPPING_NAMES:
            raise DamagedError(f"{folder / 'config.json'} is not one of a {kind} ({first_line(error)}).") from error
        raise UnsupportedModelError(
            f"{name} is of type {kind!r}, which this version of transformers cannot load without running code that "
            f"comes with the model; {expected}."
        ) from error
    refuse_by_config(config, name)
    classes = config.architectures or []
    causal = {
        known
        for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        for known in ([names] if isinstance(names, str) else names)
        if known.endswith(("ForCausalLM", "LMHeadModel"))
    }
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or (classes and not causal.intersection(classes)):
        found = f"{config.model_type}, {', '.join(classes)}" if classes else config.model_type
        raise UnsupportedModelError(f"{name} is not a causal language model ({found}); {expected}.")
