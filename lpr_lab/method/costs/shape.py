"""The sizes of a dense decoder and of what an expansion adds to it, in parameters.

Letters: L layers, D model width, F hidden width of the MLP, V vocabulary, E experts of a layer.
"""

from dataclasses import dataclass
from typing import Any

from lpr_lab.errors import UsageError
from lpr_lab.method.costs.operations import Sizes


@dataclass(frozen=True, kw_only=True)
class BaseShape:
    """Sizes of a dense decoder of the Llama kind: gated MLP, RMS norms, no biases but those of q, k and v."""

    name: str
    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    """Whether the head is the embedding."""
    qkv_bias: bool = False

    @classmethod
    def of(cls, config: Any, name: str = "") -> "BaseShape":
        """Return the sizes that a configuration of transformers says (Llama, Mistral or Qwen2)."""
        heads = config.num_attention_heads
        return cls(
            name=name or config.name_or_path or config.model_type,
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            hidden=config.intermediate_size,
            heads=heads,
            kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocabulary=config.vocab_size,
            tied=config.tie_word_embeddings,
            qkv_bias=config.model_type == "qwen2",
        )

    @property
    def attention(self) -> int:
        """Parameters of the four products of one layer's attention, without biases."""
        return 2 * self.width * self.head_dim * (self.heads + self.kv_heads)

    @property
    def mlp(self) -> int:
        """Parameters of one layer's MLP, 3 D F; a new expert has as many."""
        return 3 * self.width * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        biases = self.head_dim * (self.heads + 2 * self.kv_heads) if self.qkv_bias else 0
        return self.attention + biases + self.mlp + 2 * self.width

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layers * self.layer + self.width + (1 if self.tied else 2) * self.vocabulary * self.width

    def sizes(self, block_tokens: int) -> Sizes:
        """Return what its arithmetic depends on, for blocks of so many tokens."""
        feed_forward = self.layers * self.mlp
        matrices = self.layers * self.attention + feed_forward + self.vocabulary * self.width
        return Sizes(matrices, feed_forward, 4.0 * self.layers * block_tokens * self.heads * self.head_dim)


SHAPES = {
    "SmolLM2-135M": {"layers": 30, "width": 576, "hidden": 1536, "heads": 9, "kv_heads": 3, "head_dim": 64}
    | {"vocabulary": 49_152, "tied": True},
    "Qwen1.5-1.8B": {"layers": 24, "width": 2048, "hidden": 5504, "heads": 16, "kv_heads": 16, "head_dim": 128}
    | {"vocabulary": 151_936, "qkv_bias": True},
    "Llama-3.1-8B": {"layers": 32, "width": 4096, "hidden": 14_336, "heads": 32, "kv_heads": 8, "head_dim": 128}
    | {"vocabulary": 128_256},
    "Llama-3.1-70B": {"layers": 80, "width": 8192, "hidden": 28_672, "heads": 64, "kv_heads": 8, "head_dim": 128}
    | {"vocabulary": 128_256},
}
"""Sizes of some bases, from their `config.json`."""
BASES = {name: BaseShape(name=name, **sizes) for name, sizes in SHAPES.items()}


@dataclass(frozen=True)
class Expansion:
    """New experts per layer, and how many a token visits."""

    base: BaseShape
    new_experts: tuple[int, ...]
    """Layer by layer; a layer with 0 stays dense."""
    top_k: int = 2

    def __post_init__(self) -> None:
        if len(self.new_experts) != self.base.layers or min(self.new_experts) < 0 or not any(self.new_experts):
            raise UsageError(
                f"new_experts = {self.new_experts}; expected a number for each of the {self.base.layers} layers of "
                f"{self.base.name}, none negative and not all 0."
            )

    @property
    def experts(self) -> int:
        """Parameters of all new experts."""
        return sum(self.new_experts) * self.base.mlp

    @property
    def routers(self) -> int:
        """Parameters of all routers: a row per expert, the original one included."""
        return sum(count + 1 for count in self.new_experts if count) * self.base.width

    @property
    def learnt(self) -> int:
        """Parameters that stage 1 trains."""
        return self.experts + self.routers

    @property
    def visited(self) -> float:
        """Experts that a token visits, averaged over layers; a dense layer counts 1."""
        return sum(min(self.top_k, count + 1) for count in self.new_experts) / self.base.layers

    @property
    def visited_new(self) -> float:
        """How many of these are new ones where the load is balanced, which is what the balancing loss asks for."""
        chosen = (min(self.top_k, count + 1) * count / (count + 1) for count in self.new_experts)
        return sum(chosen) / self.base.layers
