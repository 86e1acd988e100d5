"""Forces, bans or scales experts temporarily, to see how the output depends on the routing.

Steering changes router logits between the router and the choice of experts, inside a block and nowhere else: weights,
stages and files stay as they are. What a forced or banned layer records (`record_routing`, `trace`) is what it did.

Letters: B rows of a batch, S tokens of each, T = B·S, E experts of a layer.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from lpr_lab.errors import UsageError
from lpr_lab.model.adapter import forward_context, moe_layers
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.router import ORIGINAL_EXPERT

PerRow = tuple[int | None, ...]
"""The expert forced in each row of a batch; None where nothing is."""


class Steering:
    """What the layers of one block are told: which expert is forced, which are banned, which scaled, and from where on.

    Before a place of every row, tokens go where they go by themselves.
    """

    def __init__(
        self,
        force: Mapping[int, int | PerRow],
        ban: Mapping[int, frozenset[int]],
        scale: Mapping[int, tuple[int, float]],
        start: int = 0,
    ) -> None:
        self._force = {layer: forced for layer, forced in force.items() if isinstance(forced, int)}
        self._by_row = {layer: forced for layer, forced in force.items() if not isinstance(forced, int)}
        self._ban = dict(ban)
        self._scale = dict(scale)
        self._start = self._free = start

    def begin(self, cached: int) -> None:
        """Take note of the pass that follows: so many tokens of each row are in a cache and not in the pass."""
        self._free = max(self._start - cached, 0)

    def steer(self, layer: int, router_logits: torch.Tensor, rows: int) -> torch.Tensor:
        """Return the logits [T, E] of a layer with all closed ways at minus infinity: their weight is exactly 0.

        Args:
            layer: decoder layer index.
            router_logits: [T, E], row after row of the batch.
            rows: B.
        """
        steered = self._steered(layer, router_logits, rows)
        if not self._free:
            return steered
        return torch.where(self._is_steered(router_logits, rows).unsqueeze(-1), steered, router_logits)

    def _steered(self, layer: int, router_logits: torch.Tensor, rows: int) -> torch.Tensor:
        num_experts = router_logits.shape[-1]
        if layer in self._scale:
            expert, strength = self._scale[layer]
            router_logits = router_logits.clone()
            router_logits[:, expert] += math.log(strength)
        if layer in self._by_row:
            forced = self._of_tokens(layer, len(router_logits), rows, router_logits.device).unsqueeze(-1)
            closed = (forced >= 0) & (torch.arange(num_experts, device=forced.device) != forced)
            router_logits = router_logits.masked_fill(closed, -torch.inf)
            return self._without_banned(layer, router_logits, (forced < 0))
        if layer in self._force:
            shut = [expert for expert in range(num_experts) if expert != self._force[layer]]
        else:
            shut = sorted(self._ban.get(layer, ()))
        if not shut:
            return router_logits
        steered = router_logits.clone()
        steered[:, shut] = -torch.inf
        return steered

    def overrules_classifier(self, layer: int) -> bool:
        """Say whether a classifier has no say in a pass: an expert is forced, or expert 0, its target, is banned."""
        return self._opens(layer) and not self._free

    def past_classifier(self, layer: int, classifier_logits: torch.Tensor, rows: int) -> torch.Tensor:
        """Return a classifier's logits [T, 2] with the tokens that it has no say in called expanded: they pass."""
        if layer in self._by_row:
            passes = self._of_tokens(layer, len(classifier_logits), rows, classifier_logits.device) >= 0
        elif self._opens(layer):
            passes = torch.ones(len(classifier_logits), dtype=torch.bool, device=classifier_logits.device)
        else:
            return classifier_logits
        steered = classifier_logits.clone()
        steered[passes & self._is_steered(classifier_logits, rows), 0] = -torch.inf
        return steered

    def _opens(self, layer: int) -> bool:
        return layer in self._force or ORIGINAL_EXPERT in self._ban.get(layer, ())

    def _is_steered(self, of_tokens: torch.Tensor, rows: int) -> torch.Tensor:
        """Return which tokens of a pass are steered, bool [T], for something that has one entry for each."""
        places = torch.arange(len(of_tokens) // rows, device=of_tokens.device)
        return (places >= self._free).repeat(rows)

    def _without_banned(self, layer: int, router_logits: torch.Tensor, is_free: torch.Tensor) -> torch.Tensor:
        banned = torch.zeros(router_logits.shape[-1], dtype=torch.bool, device=router_logits.device)
        banned[sorted(self._ban.get(layer, ()))] = True
        return router_logits.masked_fill(banned & is_free, -torch.inf)

    def _of_tokens(self, layer: int, tokens: int, rows: int, device: torch.device) -> torch.Tensor:
        """Return the expert forced for each token, int64 [T]; -1 where none is."""
        forced = self._by_row[layer]
        if len(forced) != rows:
            raise UsageError(
                f"An expert was forced in layer {layer} row by row for {len(forced)} rows, and this batch has {rows}. "
                "Say one expert, or None, for each row."
            )
        of_rows = torch.tensor([-1 if expert is None else expert for expert in forced], device=device)
        return of_rows.repeat_interleave(tokens // rows)


@contextmanager
def steer(
    model: PeftModel,
    *,
    force: int | Mapping[int, int | Sequence[int | None]] | None = None,
    ban: int | Mapping[int, int | Collection[int]] | None = None,
    scale: tuple[int, float] | Mapping[int, tuple[int, float]] | None = None,
    start: int = 0,
) -> Iterator[None]:
    """Change the routing of every forward pass made inside the block; afterwards all is as before.

    A forced expert has weight 1 for every token. A banned one has weight 0, and the others share its weight by their
    router probabilities. The router's probability of a scaled one is multiplied by a strength before experts are
    chosen: above 1 it is chosen more and weighs more, below 1 less. A routing classifier steps aside in layers where an
    expert is forced or expert 0 is banned, and keeps its say where one is scaled.
    Forcing expert 0 everywhere computes the base model.

    Args:
        model: an expanded model, at any stage.
        force: an expert for all layers that have a router, or {decoder layer: expert}. In place of the expert, one for
            each row of the batch, None in rows that are left as they are: many changes in one forward pass.
        ban: an expert for all layers that have a router, or {decoder layer: expert or experts}.
        scale: (expert, strength) for all layers that have a router, or {decoder layer: (expert, strength)}; a strength
            is above 0, and 1 changes nothing.
        start: the place in every row, padding and what a cache holds counted, from which on routing is changed. Tokens
            before it are routed as ever, so a text can begin with one expert and go on with another.

    Raises:
        UsageError: nothing to change, a layer without a router, an expert that a layer does not have, an expert both
            forced and banned or scaled, a layer with no expert left, a strength that is none, a `start` below 0, or a
            block inside another. In the forward pass: a batch of another number of rows than experts were said for.

    Examples:
        >>> with steer(model, force={3: 0}, ban={7: 1}):  # doctest: +SKIP
        ...     changed = trace(model, tokenizer, text)
    """
    context = forward_context(model)
    if context.steering is not None:
        raise UsageError("This model is being steered already; say all changes in one steer(...).")
    experts = {layer.layer: layer.num_experts for layer in moe_layers(model)}
    forced = {
        layer: given if isinstance(given, int) else tuple(given) for layer, given in _by_layer(force, experts).items()
    }
    banned = {layer: _as_set(given) for layer, given in _by_layer(ban, experts).items()}
    scaled = _by_layer(scale, experts)
    _refuse_what_cannot_be(forced, banned, scaled, experts)
    if start < 0:
        raise UsageError(f"start is {start}; expected a place in the text, from 0.")
    context.steering = Steering(forced, banned, scaled, start)
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


def _experts_in(forced: int | PerRow) -> frozenset[int]:
    return frozenset({forced} if isinstance(forced, int) else (expert for expert in forced if expert is not None))


def _refuse_what_cannot_be(
    forced: Mapping[int, int | PerRow],
    banned: Mapping[int, frozenset[int]],
    scaled: Mapping[int, tuple[int, float]],
    experts: Mapping[int, int],
) -> None:
    named = {layer: _experts_in(given) for layer, given in forced.items()}
    weaker = {layer: frozenset({expert}) for layer, (expert, _) in scaled.items()}
    if not any(named.values()) and not any(banned.values()) and not weaker:
        raise UsageError("There is nothing to change: say force=expert, ban={layer: expert} or scale=(expert, 0.5).")
    for layer, asked in [*named.items(), *banned.items(), *weaker.items()]:
        if layer not in experts:
            layers = ", ".join(map(str, experts)) or "none"
            raise UsageError(f"Layer {layer} has no router at this stage; those that have one are {layers}.")
        unknown = sorted(expert for expert in asked if not 0 <= expert < experts[layer])
        if unknown:
            raise UsageError(f"Layer {layer} has experts 0 to {experts[layer] - 1}; there is no expert {unknown[0]}.")
    for layer, asked in banned.items():
        both = asked & (named.get(layer, frozenset()) | weaker.get(layer, frozenset()))
        if both:
            how = "forced" if both & named.get(layer, frozenset()) else "scaled"
            raise UsageError(f"Expert {min(both)} of layer {layer} is both {how} and banned.")
        if len(asked) == experts[layer]:
            raise UsageError(f"All {experts[layer]} experts of layer {layer} are banned; leave at least one.")
    for layer, (_, strength) in scaled.items():
        if not 0 < strength < math.inf:
            raise UsageError(
                f"The strength in layer {layer} is {strength}; expected a number above 0. Ban it for none."
            )
        if layer in forced:
            raise UsageError(f"In layer {layer} an expert is forced, so nothing is left to scale.")
