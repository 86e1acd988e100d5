"""What a device holds while stage 1 trains, in bytes.

Counted exactly: weights, gradients and AdamW's moments, which a test compares with real tensors. Reckoned: activations
(what autograd keeps of a layer; a test holds them to what was seen on a small model), the logits, and what processes
exchange. Not counted: the allocator's waste, the CUDA context (about a GB) and communication buffers of the library.

Under `fsdp2` everything that stays is divided by the number of devices, and what a layer computes with is gathered for
it and for the one after it. Under `ddp` every device holds all of it, and the gradients a second time, in the buckets
that are exchanged.
"""

from dataclasses import dataclass, fields

from lpr_lab.errors import UsageError, one_of
from lpr_lab.method.costs.shape import BaseShape, Expansion

LEARNT_BYTES = 16
"""Per parameter that learns, in float32: itself, its gradient and the two moments of AdamW."""
BASE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "nf4": 0.5625}
"""Per parameter of a frozen base; `nf4` holds for its linear maps alone, which this takes for all of it."""
SHARDINGS = ("none", "ddp", "fsdp2")
LOGIT_BYTES = 14
"""Per token and entry of the vocabulary where logits are materialised: bf16, their float32 copy, its soft-max and its
gradient."""
CHUNK_TOKENS = 1024
"""Tokens whose logits exist at a time where they are not."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a step is computed on one device."""

    devices: int = 1
    sharding: str = "none"
    base_in: str = "bfloat16"
    computes_in: str = "bfloat16"
    tokens: int = 8192
    """Of one forward pass on one device."""
    checkpointing: bool = True
    """Keep of each layer its input alone, and run it again in the backward pass."""
    logits: bool = False
    """Whether the logits of the whole vocabulary exist at once."""

    def __post_init__(self) -> None:
        one_of("sharding", self.sharding, SHARDINGS)
        one_of("base_in", self.base_in, BASE_BYTES)
        one_of("computes_in", self.computes_in, ("float32", "bfloat16"))
        if self.devices < 1 or self.tokens < 1:
            raise UsageError(f"devices = {self.devices}, tokens = {self.tokens}; expected at least 1 of each.")
        if (self.devices == 1) != (self.sharding == "none"):
            raise UsageError(
                f"sharding = {self.sharding!r} with {self.devices} devices; expected 'none' with one, 'ddp' or 'fsdp2' "
                "with more."
            )


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, part by part."""

    base: float
    experts: float
    gradients: float
    moments: float
    gathered: float
    """Copies that are computed with or exchanged: weights in bf16, gathered layers, buckets of gradients."""
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(getattr(self, part.name) for part in fields(self))


def layer_activations(base: BaseShape, visited: float, new: float, num_bytes: int = 2) -> float:
    """Return the bytes that autograd keeps of one token in one layer with a frozen base.

    Attention keeps q, k, v and its output; each norm its input, in float32; each visited expert the outputs of its two
    maps up, and what it adds to the others, to be weighed; expert 0 the activation as well, which a new one makes
    again; and a new one, whose weights need a gradient, its input. A frozen map keeps nothing.
    """
    attention = 2 * base.head_dim * (base.heads + base.kv_heads)
    norms = 2 * base.width * 4
    experts = visited * (2 * base.hidden + base.width) + (visited - new) * base.hidden + new * base.width
    return num_bytes * (attention + experts) + norms


def training_memory(expansion: Expansion, setup: Setup) -> Memory:
    """Return what one device holds at the peak of a step of stage 1."""
    base, learnt = expansion.base, expansion.learnt
    shards = setup.devices if setup.sharding == "fsdp2" else 1
    size = 4 if setup.computes_in == "float32" else 2
    per_layer = layer_activations(base, expansion.visited, expansion.visited_new, size)
    kept = base.layers * size * base.width + per_layer if setup.checkpointing else base.layers * per_layer
    vocabulary = setup.tokens * LOGIT_BYTES if setup.logits else min(setup.tokens, CHUNK_TOKENS) * LOGIT_BYTES
    rounded = 2 * expansion.experts if size == 2 else 0  # autocast keeps the rounded experts until the step is done
    if setup.sharding == "ddp":
        gathered = rounded + 4 * learnt
    elif setup.sharding == "fsdp2":  # the largest layer and the one fetched before it is needed; or embedding and head
        layer = size * (base.layer + max(expansion.new_experts) * base.mlp)
        gathered = max(2 * layer, layer + size * base.vocabulary * base.width)
    else:
        gathered = rounded
    return Memory(
        base=BASE_BYTES[setup.base_in] * base.parameters / shards,
        experts=4 * learnt / shards,
        gradients=4 * learnt / shards,
        moments=8 * learnt / shards,
        gathered=gathered,
        activations=setup.tokens * kept,
        logits=vocabulary * base.vocabulary,
    )
