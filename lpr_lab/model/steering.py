"""Forces or bans experts temporarily, to see how the output depends on the routing.

Steering changes router logits between the router and the choice of experts, inside a block and nowhere else: weights,
stages and files stay as they are. What a forced or banned layer records (`record_routing`, `trace`) is what it did.

Letters: T tokens, E experts of a layer.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch

from lpr_lab.errors import UsageError
from lpr_lab.model.adapter import forward_context, moe_layers
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.router import ORIGINAL_EXPERT


class Steering:
    """What the layers of one block are told: which expert is forced, which are banned, layer by layer."""

    def __init__(self, force: Mapping[int, int], ban: Mapping[int, frozenset[int]]) -> None:
        self._force = dict(force)
        self._ban = dict(ban)

    def steer(self, layer: int, router_logits: torch.Tensor) -> torch.Tensor:
        """Return the logits [T, E] of a layer with all closed ways at minus infinity: their weight is exactly 0."""
        experts = range(router_logits.shape[-1])
        if layer in self._force:
            closed = [expert for expert in experts if expert != self._force[layer]]
        else:
            closed = sorted(self._ban.get(layer, ()))
        if not closed:
            return router_logits
        steered = router_logits.clone()
        steered[:, closed] = -torch.inf
        return steered

    def overrules_classifier(self, layer: int) -> bool:
        """Say whether a routing classifier has no say: a forced expert, or its own target, expert 0, banned."""
        return layer in self._force or ORIGINAL_EXPERT in self._ban.get(layer, ())


@contextmanager
def steer(
    model: PeftModel,
    *,
    force: int | Mapping[int, int] | None = None,
    ban: int | Mapping[int, int | Collection[int]] | None = None,
) -> Iterator[None]:
    """Change the routing of every forward pass made inside the block; afterwards all is as before.

    A forced expert has weight 1 for every token. A banned one has weight 0, and the others share its weight by their
    router probabilities. A routing classifier steps aside in layers where an expert is forced or expert 0 is banned.
    Forcing expert 0 everywhere computes the base model.

    Args:
        model: an expanded model, at any stage.
        force: an expert for all layers that have a router, or {decoder layer: expert}.
        ban: an expert for all layers that have a router, or {decoder layer: expert or experts}.

    Raises:
        UsageError: nothing to change, a layer without a router, an expert that a layer does not have, an expert both
            forced and banned, a layer with no expert left, or a block inside another.

    Examples:
        >>> with steer(model, force={3: 0}, ban={7: 1}):  # doctest: +SKIP
        ...     changed = trace(model, tokenizer, text)
    """
    context = forward_context(model)
    if context.steering is not None:
        raise UsageError("This model is being steered already; say all changes in one steer(...).")
    experts = {layer.layer: layer.num_experts for layer in moe_layers(model)}
    forced = _by_layer(force, experts)
    banned = {layer: _as_set(given) for layer, given in _by_layer(ban, experts).items()}
    _refuse_what_cannot_be(forced, banned, experts)
    context.steering = Steering(forced, banned)
    try:
        yield
    finally:
        context.steering = None


def _by_layer(given, experts: Mapping[int, int]) -> dict:
    if given is None:
        return {}
    return dict(given) if isinstance(given, Mapping) else dict.fromkeys(experts, given)


def _as_set(given: int | Collection[int]) -> frozenset[int]:
    return frozenset({given} if isinstance(given, int) else given)


def _refuse_what_cannot_be(
    forced: Mapping[int, int], banned: Mapping[int, frozenset[int]], experts: Mapping[int, int]
) -> None:
    if not forced and not any(banned.values()):
        raise UsageError("There is nothing to change: say force=expert or ban={layer: expert}.")
    for layer, asked in [*((layer, {expert}) for layer, expert in forced.items()), *banned.items()]:
        if layer not in experts:
            layers = ", ".join(map(str, experts)) or "none"
            raise UsageError(f"Layer {layer} has no router at this stage; those that have one are {layers}.")
        unknown = sorted(expert for expert in asked if not 0 <= expert < experts[layer])
        if unknown:
            raise UsageError(f"Layer {layer} has experts 0 to {experts[layer] - 1}; there is no expert {unknown[0]}.")
    for layer, asked in banned.items():
        if forced.get(layer) in asked:
            raise UsageError(f"Expert {forced[layer]} of layer {layer} is both forced and banned.")
        if len(asked) == experts[layer]:
            raise UsageError(f"All {experts[layer]} experts of layer {layer} are banned; leave at least one.")
