"""The mixture-of-experts layer that replaces an MLP, with the experts, routers and classifiers of all its stages.

Letters: B batch, S sequence, T = B·S tokens, D model width, E experts, K chosen per token.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from lpr_lab.errors import DamagedError, UnsupportedModelError, UsageError
from lpr_lab.model.adapter_config import PREFIX, MoeLprConfig
from lpr_lab.model.bases.families import read_mlp
from lpr_lab.model.context import ForwardContext
from lpr_lab.model.experts import Checkpoint, ExpertStack, mix, mix_by_loop
from lpr_lab.model.peft import BaseTunerLayer
from lpr_lab.model.router import Router, Routing, RoutingClassifier, route

CANNOT_MERGE = (
    "An expansion cannot be merged into its base or taken out of it: which experts a token gets is decided token by "
    "token, so no dense weights equal it. Use the model as it is; model.disable_adapter() is the base, "
    "lpr_lab.load_base loads it alone, lpr_lab.export writes an expansion as a native mixture of experts, and "
    "lpr_lab.extract one language's experts as a dense model."
)
CANNOT_DELETE = (
    "An expansion cannot be deleted from the model that carries it. Use model.disable_adapter() for the base, or load "
    "the base alone with lpr_lab.load_base."
)
CANNOT_CHOOSE = (
    "What learns in an expansion is decided by its stages, so that earlier experts and the base stay as they are: "
    "lpr_lab.expand trains the newest experts, lpr_lab.review the routers."
)


class MoELayer(nn.Module, BaseTunerLayer):
    """One decoder layer's MLP as a mixture of experts; expert 0 is `base_layer`."""

    adapter_layer_names = (f"{PREFIX}router", f"{PREFIX}experts", f"{PREFIX}classifier")

    def __init__(self, base_layer: nn.Module, layer: int, context: ForwardContext) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.layer = layer
        self.context = context
        # By adapter name; inside, experts by the number of their expansion, routers and classifiers by their stage.
        self.moe_lpr_router = nn.ModuleDict()
        self.moe_lpr_experts = nn.ModuleDict()
        self.moe_lpr_classifier = nn.ModuleDict()
        self.top_k = 2
        self.dispatch = mix
        self.checkpoint: Checkpoint | None = None
        self.stage = 0
        self.expansion = 0
        self._is_filled = False

    def sync_to_config(self, adapter_name: str, config: MoeLprConfig, counts: list[int]) -> None:
        """Have exactly what `config` says: add what is missing, empty (NaN) until filled, and drop what is beyond it.

        Args:
            adapter_name: of the adapter.
            config: its configuration.
            counts: new experts in this layer, expansion by expansion.
        """
        mlp = read_mlp(self.base_layer)
        width, device = mlp.up.shape[1], mlp.up.device
        options = {
            "uses_mean": config.router_input == "token_and_mean",
            "has_bias": config.router_bias,
            "device": device,
        }
        pools = config.classifier_input == "sequence"
        experts = {str(number): count for number, count in enumerate(counts) if count}
        stages = {str(number): stage for number, stage in enumerate(config.stages)}
        experts_at = {key: 1 + sum(counts[: stage["expansion"] + 1]) for key, stage in stages.items()}
        wanted: dict[str, dict[str, Callable[[], nn.Module]]] = {
            "moe_lpr_experts": {key: partial(ExpertStack, mlp, count) for key, count in experts.items()},
            "moe_lpr_router": {
                key: partial(Router, width, number, **options) for key, number in experts_at.items() if number > 1
            },
            "moe_lpr_classifier": {
                key: partial(RoutingClassifier, width, pools_sequence=pools, **options)
                for key, stage in stages.items()
                if self.layer in stage["classifiers"]
            },
        }
        for part_name, members in wanted.items():
            part = getattr(self, part_name)
            if adapter_name not in part:
                part[adapter_name] = nn.ModuleDict()
            for key in set(part[adapter_name]) - set(members):
                del part[adapter_name][key]
            for key in set(members) - set(part[adapter_name]):
                part[adapter_name][key] = members[key]()
        self.top_k = config.top_k
        self.dispatch = {"grouped": mix, "loop": mix_by_loop}[config.dispatch]
        self._is_filled = False

    def _part(self, part: nn.ModuleDict, key: int) -> nn.Module | None:
        by_number = cast("nn.ModuleDict", part[self.active_adapters[0]])
        return by_number[str(key)] if str(key) in by_number else None

    def router_of(self, stage: int) -> Router | None:
        """Return the router of one stage, or None where this layer was still dense then."""
        return cast("Router | None", self._part(self.moe_lpr_router, stage))

    def classifier_of(self, stage: int) -> RoutingClassifier | None:
        """Return the routing classifier of one stage, or None where there is none."""
        return cast("RoutingClassifier | None", self._part(self.moe_lpr_classifier, stage))

    def stack_of(self, expansion: int) -> ExpertStack | None:
        """Return the experts that one expansion added here, or None where it added none."""
        return cast("ExpertStack | None", self._part(self.moe_lpr_experts, expansion))

    @property
    def router(self) -> Router:
        """The selected stage's router."""
        router = self.router_of(self.stage)
        assert router is not None, f"layer {self.layer} is dense at this stage"
        return router

    @property
    def classifier(self) -> RoutingClassifier | None:
        """The selected stage's routing classifier, if any."""
        return self.classifier_of(self.stage)

    @property
    def stacks(self) -> list[ExpertStack]:
        """The selected stage's new experts, one stack per expansion that added any here, earlier ones first."""
        stacks = (self.stack_of(expansion) for expansion in range(self.expansion + 1))
        return [stack for stack in stacks if stack is not None]

    @property
    def num_experts(self) -> int:
        """E: all experts of this layer at the selected stage, the original one included."""
        return 1 + sum(stack.num_experts for stack in self.stacks)

    @property
    def reads_mean(self) -> bool:
        """Whether the router now at work here needs the running mean."""
        return not self.disable_adapters and bool(self.stacks) and self.router.mean_weight is not None

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Route and mix; [B, S, D] -> [B, S, D]. With the adapter disabled, exactly the base MLP."""
        if self.disable_adapters or not self.stacks:
            return self.base_layer(x, *args, **kwargs)
        if args or kwargs:
            raise UnsupportedModelError(
                f"Layer {self.layer} hands its {type(self.base_layer).__name__} more than tokens, which new experts do "
                "not take; choose a base of another family."
            )
        if not self._is_filled:
            self._refuse_if_empty()
        router, classifier, steering = self.router, self.classifier, self.context.steering
        mean = self.context.running_mean(self.layer, x) if router.mean_weight is not None else None
        tokens = x.reshape(-1, x.shape[-1])
        logits = router(tokens, None if mean is None else mean.reshape(tokens.shape))
        if steering is not None:
            logits = steering.steer(self.layer, logits, len(x))
            classifier = None if steering.overrules_classifier(self.layer) else classifier
        routing = route(logits, self.top_k)
        if classifier is not None:
            classes = classifier.classify(x, mean)
            if steering is not None:
                classes = steering.past_classifier(self.layer, classes, len(x))
            routing = routing.behind_classifier(classes)
        for recorder in self.context.recorders:
            recorder.add_routing(self.layer, routing, x.shape[:2])
        if routing.classifier_logits is not None:
            return self._mix_behind_classifier(x, routing)
        mixed = self.dispatch(tokens, routing, self.base_layer, self.stacks, checkpoint=self.checkpoint)
        return mixed.view(x.shape)

    def _mix_behind_classifier(self, x: torch.Tensor, routing: Routing) -> torch.Tensor:
        """Mix only the tokens that the classifier calls expanded; the others get what the base MLP computes.

        The base MLP runs on the whole tensor, as in the base model, because a matrix product over fewer rows may round
        differently: only so are original tokens equal to the base bit for bit.
        """
        assert routing.classifier_logits is not None
        dense = self.base_layer(x)
        rows = (routing.classifier_logits.argmax(-1) != 0).nonzero().squeeze(-1)
        if not len(rows):
            return dense
        chosen = Routing(routing.router_logits[rows], routing.expert_ids[rows], routing.expert_weights[rows])
        tokens = x.reshape(-1, x.shape[-1])[rows]
        mixed = self.dispatch(tokens, chosen, self.base_layer, self.stacks, checkpoint=self.checkpoint)
        return dense.flatten(0, 1).index_copy(0, rows, mixed.to(dense.dtype)).view(x.shape)

    def _refuse_if_empty(self) -> None:
        """Refuse to compute with tensors that nothing filled: a file that lacked them was loaded by other means."""
        for name, parameter in self.named_parameters():
            if PREFIX in name and parameter.isnan().any():
                raise DamagedError(
                    f"Layer {self.layer} has no numbers for {name}: the adapter was loaded in part, or training made "
                    "it not finite. Its file may lack this tensor or be one of several, which only "
                    "lpr_lab.load_expansion reads together; it names what is missing."
                )
        self._is_filled = True

    def train(self, mode: bool = True) -> "MoELayer":
        """Switch to training or evaluation; every way of loading ends with the latter, which an empty layer refuses."""
        if not mode and not self._is_filled:
            self._refuse_if_empty()
        return super().train(mode)

    # Refused for a single layer as for the whole model (`MoeLprModel`), in the same words.
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: see the message."""
        raise UsageError(CANNOT_MERGE)

    def unmerge(self) -> None:
        """Refuse: nothing was merged."""
        raise UsageError(CANNOT_MERGE)

    def delete_adapter(self, adapter_name: str) -> None:
        """Refuse: without its expansion a layer would have no router to ask."""
        raise UsageError(CANNOT_DELETE)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Refuse: what learns is the business of the stages."""
        raise UsageError(CANNOT_CHOOSE)

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


def all_layers(model: nn.Module) -> list[MoELayer]:
    """Return every mixture layer of a model, in decoder order, also those that are dense at the selected stage."""
    return sorted((module for module in model.modules() if isinstance(module, MoELayer)), key=lambda m: m.layer)
