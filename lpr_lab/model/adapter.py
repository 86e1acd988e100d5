"""The expansion as a PEFT method: new experts, routers and routing classifiers on an untouched base model.

Expert 0 of every layer *is* the base model's own MLP module, not a copy, and it is frozen here (`MoELayer.set_adapter`
and `set_trainable` never reach it). So `model.disable_adapter()` gives exactly the base model on the same weights,
what is saved is only what is new, and every tool that takes a PEFT adapter takes an expansion.

One adapter holds a whole history. An *expansion* adds experts for one language group and freezes those before it; a
*stage* is one way of routing: each training step after upcycling begins one, with routers of its own. Routers are
small, so all are kept, and any earlier stage can be selected again bit for bit (`select_stage`).

    expansion 1 (G1)    stages  "G1 expand"  "G1 review"
    expansion 2 (G2)    stages  "G2 expand"  "G2 review"

PEFT reaches a method through three mappings and a closed enum of names. `register` fills them once; that is the only
place where this project touches the inside of another library.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from lpr_lab.errors import DamagedError, UsageError
from lpr_lab.model.adapter_config import METHOD, PREFIX, MoeLprConfig
from lpr_lab.model.bases.fingerprint import check_base
from lpr_lab.model.bases.quantized import use_portable_linear
from lpr_lab.model.context import ForwardContext
from lpr_lab.model.mixture import CANNOT_CHOOSE, CANNOT_DELETE, CANNOT_MERGE, MoELayer, all_layers
from lpr_lab.model.peft import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
    BaseTuner,
    PeftModel,
    PeftModelForCausalLM,
    PeftType,
)

_CANNOT_ADD = (
    "Expansions cannot be added up: a router knows its own experts only. For further languages call lpr_lab.upcycle on "
    "the expanded model, which adds experts beside those it has."
)
_ONE_ADAPTER = "This model already carries an expansion; load one adapter at a time, on a fresh base."


class MoeLprModel(BaseTuner):
    """Puts a `MoELayer` around each MLP that the configuration names."""

    prefix = PREFIX
    tuner_layer_cls = MoELayer

    def _pre_injection_hook(self, model: nn.Module, config: MoeLprConfig, adapter_name: str) -> None:
        """Look at the base before anything is put on it, whatever the way here."""
        if all_layers(model):
            raise UsageError(_ONE_ADAPTER)
        use_portable_linear(model)
        if not config.base_is_checked:
            check_base(model, config)
        self.context = ForwardContext()
        decoder = model.base_model
        assert isinstance(decoder, nn.Module)
        self.context.attach(decoder)

    @staticmethod
    def _prepare_adapter_config(peft_config: MoeLprConfig, model_config: dict) -> MoeLprConfig:
        return peft_config

    @staticmethod
    def _check_target_module_exists(peft_config: MoeLprConfig, key: str) -> bool:
        return key in peft_config.layer_paths

    def _create_and_replace(
        self,
        peft_config: MoeLprConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, MoELayer):
            raise UsageError(_ONE_ADAPTER)
        layer = MoELayer(target, peft_config.layer_indices[peft_config.layer_paths.index(current_key)], self.context)
        layer.set_adapter(adapter_name)
        layer.sync_to_config(adapter_name, peft_config, peft_config.experts_of(current_key))
        layer.stage = len(peft_config.stages) - 1
        layer.expansion = peft_config.stages[-1]["expansion"]
        setattr(parent, target_name, layer)

    def sync_to_config(self, adapter_name: str, config: MoeLprConfig) -> None:
        """Have exactly what `config` says; what is new is empty (NaN) until filled."""
        self.peft_config[adapter_name] = config
        for layer in all_layers(self.model):
            row = config.layer_indices.index(layer.layer) if layer.layer in config.layer_indices else None
            counts = [0] * len(config.new_experts) if row is None else [group[row] for group in config.new_experts]
            layer.sync_to_config(adapter_name, config, counts)
        for path in config.layer_paths:
            module = self.model.get_submodule(path)
            if not isinstance(module, MoELayer):
                parent_path, _, name = path.rpartition(".")
                parent = self.model.get_submodule(parent_path)
                self._create_and_replace(config, adapter_name, module, name, parent, path)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """Return a parameter's name in the saved file, where it does not depend on what the adapter is called."""
        return saved_name(key, adapter_name)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Give saved tensors the names they have in the model; refuse a set that is not complete.

        PEFT itself would go on with a warning. Values get the precision that the model keeps them in.
        """
        named = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        expected = {name: p for name, p in model.named_parameters() if PREFIX in name}
        shapes = (
            {saved_name(name, adapter_name): tuple(tensor.shape) for name, tensor in tensors.items()}
            for tensors in (expected, named)
        )
        refuse_mismatch("The adapter", *shapes)
        return {name: tensor.to(expected[name].dtype) for name, tensor in named.items()}

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Leave every tensor as it is: experts, routers and classifiers are float32 already."""

    # What PEFT offers for other methods and an expansion has no sense for. Refused here, before anything is changed:
    # PEFT would raise an empty error, take the adapter half apart, or let frozen experts learn.

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> nn.Module:
        raise UsageError(CANNOT_MERGE)

    def merge_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: see the message."""
        raise UsageError(CANNOT_MERGE)

    def unmerge_adapter(self) -> None:
        """Refuse: nothing was merged."""
        raise UsageError(CANNOT_MERGE)

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: weights of expansions do not add up to one."""
        raise UsageError(_CANNOT_ADD)

    def delete_adapter(self, adapter_name: str) -> None:
        """Refuse: without its expansion a layer would have no router to ask."""
        raise UsageError(CANNOT_DELETE)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Refuse: what learns is the business of the stages."""
        raise UsageError(CANNOT_CHOOSE)


def wrap(base: PreTrainedModel, config: MoeLprConfig) -> PeftModel:
    """Put an expansion on a base model, in place; experts and routers are float32.

    The caller vouches for the base: it is the one `config` was made for, or has been through `check_base`.
    """
    vars(config)["base_is_checked"] = True
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers for a property under its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return PeftModelForCausalLM(base, config)


def saved_name(name: str, adapter_name: str) -> str:
    """Return a parameter's name in the saved file, where it does not depend on what the adapter is called.

    >>> saved_name("model.layers.0.mlp.moe_lpr_router.default.1.weight", "default")
    'model.layers.0.mlp.moe_lpr_router.1.weight'
    """
    return re.sub(rf"({PREFIX}[a-z]+)\.{re.escape(adapter_name)}\.", r"\1.", name)


def refuse_mismatch(what: str, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    """Refuse saved tensors that are not exactly those a model needs, naming the first that is wrong.

    Args:
        what: the file, or whatever holds them.
        expected: name to shape.
        found: the same of what is there.

    Raises:
        DamagedError: a tensor is missing, has another shape, or is too many.
    """
    for name, shape in expected.items():
        if name not in found:
            raise DamagedError(
                f"{what} lacks the tensor {name}: it was cut short, saved from another expansion, or is one of several "
                "files, which only lpr_lab.load_expansion reads together."
            )
        if found[name] != shape:
            raise DamagedError(f"{what}: {name} has shape {found[name]}, expected {shape}.")
    surplus = sorted(set(found) - set(expected))
    if surplus:
        raise DamagedError(f"{what} holds tensors that this expansion does not have, such as {surplus[0]}.")


def moe_layers(model: nn.Module) -> list[MoELayer]:
    """Return the mixture layers of the selected stage, in decoder order; empty for a model that was not upcycled."""
    return [layer for layer in all_layers(model) if layer.stacks]


def forward_context(model: nn.Module) -> ForwardContext:
    """Return the forward context that the mixture layers of `model` share."""
    layers = moe_layers(model)
    if not layers:
        raise UsageError("This model has no mixture layers. Call lpr_lab.upcycle on it first.")
    return layers[0].context


def expansion_config(model: nn.Module) -> MoeLprConfig:
    """Return the active expansion's configuration, or say that there is none."""
    layers = all_layers(model)
    # Asked of a layer, because a model that transformers itself put the adapter on has no `active_adapter`.
    config = getattr(model, "peft_config", {}).get(layers[0].active_adapters[0]) if layers else None
    if config is not None and not isinstance(config, MoeLprConfig):
        raise UsageError(
            "Another adapter was put into this expanded model. Delete it, or load the expansion again with "
            "lpr_lab.load_expansion: an expansion stands on its base alone."
        )
    if not isinstance(config, MoeLprConfig):
        raise UsageError(
            f"{type(model).__name__} is not an expanded model. Call lpr_lab.upcycle or lpr_lab.load_expansion first."
        )
    return config


def trainable_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (name, parameter) of everything that learns, sorted by name so that the order never depends on chance."""
    return iter(sorted((name, p) for name, p in model.named_parameters() if p.requires_grad))


def register() -> None:
    """Make PEFT, and transformers through it, know the method, so that their own ways of loading open expansions.

    Importing this module does it once; calling it again changes nothing. `model/formats/save_load.py` has the ways.

    >>> from peft import PeftModel
    >>> register()
    >>> model = PeftModel.from_pretrained(base, "runs/my-run/checkpoint")  # doctest: +SKIP
    """
    if METHOD not in PeftType.__members__:
        # A str enum is closed to new members from outside; a member made by hand is a full one: it has a `.value`,
        # is found by name and by value, and compares as a string.
        member = str.__new__(PeftType, METHOD)
        member._name_ = METHOD
        member._value_ = METHOD
        PeftType._member_map_[METHOD] = member
        PeftType._value2member_map_[METHOD] = member
        PeftType._member_names_.append(METHOD)
    PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[METHOD]] = MoeLprConfig
    PEFT_TYPE_TO_TUNER_MAPPING[PeftType[METHOD]] = MoeLprModel
    PEFT_TYPE_TO_PREFIX_MAPPING[PeftType[METHOD]] = PREFIX


register()
