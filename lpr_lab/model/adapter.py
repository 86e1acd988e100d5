"""The expansion as a PEFT method: new experts and routers on an untouched base model.

Expert 0 of every layer *is* the base model's own MLP module, not a copy, and it is frozen here (`MoELayer.set_adapter`
and `set_trainable` never reach it). So `model.disable_adapter()` gives exactly the base model on the same weights,
what is saved is only what is new, and every tool that takes a PEFT adapter takes an expansion.

PEFT reaches a method through three mappings and a closed enum of names. `register` fills them once; that is the only
place where this project touches the inside of another library.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig, PeftModel, PeftModelForCausalLM
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType
from torch import nn
from transformers import PreTrainedModel

from lpr_lab.errors import UsageError
from lpr_lab.model.context import ForwardContext
from lpr_lab.model.experts import ExpertStack, mix, mix_by_loop
from lpr_lab.model.families import read_mlp
from lpr_lab.model.router import Router, route

METHOD = "MOE_LPR"
PREFIX = "moe_lpr_"  # transformers looks adapters' parameters up by the lower-case method name
ROUTER_INPUTS = ("token", "token_and_mean")


@dataclass
class MoeLprConfig(PeftConfig):
    """What an expansion consists of; stored as `adapter_config.json`.

    Attributes:
        layer_paths: dotted module paths of the MLPs that become mixtures, from the causal LM down.
        layer_indices: decoder layer index of each of them.
        new_experts: one list per expansion; how many experts it adds to each of these layers.
        top_k: experts per token; at least 2.
        router_input: `token` (the papers) or `token_and_mean` (also the causal running mean of the document).
        router_bias: whether routers have a constant per expert.
        base_fingerprint: SHA-256 over the base model's tensors; another base is refused.
        base_name: the name by which `load_base` finds the base again.
        seed: for the routers' Xavier start.
        dispatch: `grouped` (fast) or `loop` (the oracle of the tests).
    """

    layer_paths: list[str] = field(default_factory=list)
    layer_indices: list[int] = field(default_factory=list)
    new_experts: list[list[int]] = field(default_factory=list)
    top_k: int = 2
    router_input: str = "token"
    router_bias: bool = False
    base_fingerprint: str = ""
    base_name: str = ""
    seed: int = 0
    dispatch: str = "grouped"
    target_modules: None = None  # PEFT reads it; layers are named by `layer_paths`, one by one

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType[METHOD]
        if self.top_k < 2:
            raise UsageError(
                f"top_k = {self.top_k}: with one expert per token the combine weight is always 1, so the router would "
                "get no gradient from the language model and the start would not equal the base. Use 2 or more."
            )
        if self.router_input not in ROUTER_INPUTS:
            raise UsageError(f"router_input = {self.router_input!r}; expected one of {', '.join(ROUTER_INPUTS)}.")

    def experts_of(self, path: str) -> list[int]:
        """Return how many experts each expansion adds to the layer at `path`."""
        row = self.layer_paths.index(path)
        return [group[row] for group in self.new_experts]


class MoELayer(nn.Module, BaseTunerLayer):
    """One decoder layer's MLP as a mixture of experts; expert 0 is `base_layer`."""

    adapter_layer_names = (f"{PREFIX}router", f"{PREFIX}experts")

    def __init__(self, base_layer: nn.Module, layer: int, context: ForwardContext) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.layer = layer
        self.context = context
        self.moe_lpr_router = nn.ModuleDict()
        self.moe_lpr_experts = nn.ModuleDict()
        self.top_k = 2
        self.dispatch = mix

    def update_layer(self, adapter_name: str, config: MoeLprConfig, counts: list[int]) -> None:
        """Add the experts and the router of one adapter: `counts` new experts, expansion by expansion."""
        mlp = read_mlp(self.base_layer)
        device = mlp.up.device
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.layer)
        self.moe_lpr_experts[adapter_name] = nn.ModuleList(ExpertStack(mlp, count) for count in counts if count)
        self.moe_lpr_router[adapter_name] = Router(
            mlp.up.shape[1],
            1 + sum(counts),
            uses_mean=config.router_input == "token_and_mean",
            has_bias=config.router_bias,
            generator=generator,
            device=device,
        )
        self.top_k = config.top_k
        self.dispatch = {"grouped": mix, "loop": mix_by_loop}[config.dispatch]

    @property
    def router(self) -> Router:
        """The active adapter's router."""
        router = self.moe_lpr_router[self.active_adapters[0]]
        assert isinstance(router, Router)
        return router

    @property
    def stacks(self) -> list[ExpertStack]:
        """The active adapter's new experts, one stack per expansion."""
        stacks = self.moe_lpr_experts[self.active_adapters[0]]
        assert isinstance(stacks, nn.ModuleList)
        return [stack for stack in stacks if isinstance(stack, ExpertStack)]

    @property
    def num_experts(self) -> int:
        """E: all experts of this layer, the original one included."""
        return 1 + sum(stack.num_experts for stack in self.stacks)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Route and mix; [B, S, D] -> [B, S, D]. With the adapter disabled, exactly the base MLP."""
        if self.disable_adapters:
            return self.base_layer(x, *args, **kwargs)
        router = self.router
        mean = self.context.running_mean(self.layer, x) if router.mean_weight is not None else None
        tokens = x.reshape(-1, x.shape[-1])
        routing = route(router(tokens, None if mean is None else mean.reshape(tokens.shape)), self.top_k)
        for recorder in self.context.recorders:
            recorder.see_routing(self.layer, routing, x.shape[:2])
        return self.dispatch(tokens, routing, self.base_layer, self.stacks).view(x.shape)

    # PEFT switches `requires_grad` on for the whole adapter whenever it is enabled again. Which part of an expansion
    # learns is the business of the stages (`set_trainable`), so enabling only toggles the flag here.
    def enable_adapters(self, enabled: bool) -> None:
        """Switch between the mixture and the base MLP without touching `requires_grad`."""
        self._disable_adapters = not enabled

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Select the active adapter without touching `requires_grad`."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        if len(names) != 1:
            raise UsageError(f"One expansion can be active at a time; got {', '.join(names) or 'none'}.")
        self._active_adapter = names


class MoeLprModel(BaseTuner):
    """Puts a `MoELayer` around each MLP that the configuration names."""

    prefix = PREFIX
    tuner_layer_cls = MoELayer

    def _pre_injection_hook(self, model: nn.Module, config: MoeLprConfig, adapter_name: str) -> None:
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
            raise UsageError("This model already carries an expansion; load one adapter at a time.")
        layer = MoELayer(target, peft_config.layer_indices[peft_config.layer_paths.index(current_key)], self.context)
        layer.update_layer(adapter_name, peft_config, peft_config.experts_of(current_key))
        layer.set_adapter(adapter_name)
        setattr(parent, target_name, layer)

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> nn.Module:
        raise UsageError("An expansion cannot be merged into a dense model; use model.disable_adapter() for the base.")


def wrap(base: PreTrainedModel, config: MoeLprConfig) -> PeftModel:
    """Put an expansion on a base model, in place, with experts in the base's dtype and routers in float32.

    PEFT would lift experts to float32, and a bfloat16 base would meet float32 experts in the middle of a layer.
    """
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers for a property under its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return PeftModelForCausalLM(base, config, autocast_adapter_dtype=False)


def moe_layers(model: nn.Module) -> list[MoELayer]:
    """Return a model's mixture layers, in decoder order; empty for a model that was not upcycled."""
    return sorted((module for module in model.modules() if isinstance(module, MoELayer)), key=lambda m: m.layer)


def forward_context(model: nn.Module) -> ForwardContext:
    """Return the forward context that the mixture layers of `model` share."""
    layers = moe_layers(model)
    if not layers:
        raise UsageError("This model has no mixture layers. Call lpr_lab.upcycle on it first.")
    return layers[0].context


def expansion_config(model: PeftModel) -> MoeLprConfig:
    """Return the active expansion's configuration, or say that there is none."""
    config = getattr(model, "peft_config", {}).get(getattr(model, "active_adapter", "default"))
    if not isinstance(config, MoeLprConfig):
        raise UsageError(
            f"{type(model).__name__} is not an expanded model. Call lpr_lab.upcycle or lpr_lab.load_expansion first."
        )
    return config


def set_trainable(model: nn.Module, *, experts: bool, routers: bool) -> None:
    """Say what learns: the newest expansion's experts, the routers, or both. Everything else is frozen, always.

    Expert 0 and the experts of earlier expansions never learn: that is what keeps the original languages and the
    earlier groups where they are.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for layer in moe_layers(model):
        for parameter in layer.router.parameters():
            parameter.requires_grad_(routers)
        for parameter in layer.stacks[-1].parameters():
            parameter.requires_grad_(experts)


def trainable_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (name, parameter) of everything that learns, sorted by name so that the order never depends on chance."""
    return iter(sorted((name, p) for name, p in model.named_parameters() if p.requires_grad))


def register() -> None:
    """Make PEFT (and transformers through it) know the method. Safe to call twice."""
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
