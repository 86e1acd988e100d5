"""How evenly a training step used the experts that were added last: what tells a collapse while it happens."""

from collections.abc import Mapping, Sequence

import torch

from lpr_lab.model.mixture import MoELayer
from lpr_lab.model.router import Routing


def choices(routing: Mapping[int, Routing], is_text: torch.Tensor) -> dict[int, torch.Tensor]:
    """Return how many tokens chose each expert with a weight above 0, by layer, int64 [E].

    Args:
        routing: of one forward pass, layer index -> `Routing` of T tokens.
        is_text: bool [T], False on padding.
    """
    found = {}
    for layer, seen in routing.items():
        chosen = (seen.expert_weights.detach() > 0) & is_text[:, None]
        counts = torch.zeros(seen.router_logits.shape[-1], dtype=torch.int64, device=chosen.device)
        # Unlike bincount, this does not make the processor wait for the GPU.
        found[layer] = counts.scatter_add_(0, seen.expert_ids.flatten(), chosen.flatten().long())
    return found


def least_load(counts: Mapping[int, Sequence[int]], layers: Sequence[MoELayer]) -> dict[str, float]:
    """Return the lowest load among the experts that were added last, and where it is; empty where there are none.

    Load 1 is an even share of a layer's choices, 0 an expert that no token chose. Expert 0 and earlier groups' experts
    are left out: that new languages keep away from them is what they were frozen for.

    Args:
        counts: choices of each expert over a whole step, by layer.
        layers: the mixture layers.
    """
    loads = [
        (number * len(counts[layer.layer]) / total, layer.layer, expert)
        for layer in layers
        if layer.layer in counts and (total := sum(counts[layer.layer]))
        # None where the last group was given no experts in this layer.
        if (newest := layer.stack_of(layer.expansion)) is not None
        for expert, number in enumerate(counts[layer.layer])
        if expert >= len(counts[layer.layer]) - newest.num_experts
    ]
    if not loads:
        return {}
    load, layer, expert = min(loads)
    return {"least_load": load, "least_load_layer": float(layer), "least_load_expert": float(expert)}
