"""What a router must know beyond its input, for the duration of one forward pass.

Padding, where documents start and where a cached generation stands reach the layers through one object that the
adapter fills when the decoder is called. The base model's signatures stay as they are, and nothing is global.

The running mean of a token is the mean of the MLP inputs from the start of its document up to itself. It is the same
number in one plain pass, in packed blocks, beside padding and in cached generation, where its sums travel inside the
key-value cache: beam search, which reorders the cache, reorders them too.

Letters: B batch, S sequence (new tokens of this pass), D model width.
"""

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DummyLayer

from lpr_lab.errors import UsageError


class RunningSums(DummyLayer):
    """Sums of MLP inputs per layer, carried as one more layer of the key-value cache."""

    is_compileable = False
    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[int, torch.Tensor] = {}
        self.counts: torch.Tensor | None = None

    def _apply(self, change: Any) -> None:
        self.sums = {layer: change(value) for layer, value in self.sums.items()}
        self.counts = None if self.counts is None else change(self.counts)

    def reset(self) -> None:
        """Forget everything: the cache is used for another generation."""
        self.sums, self.counts = {}, None

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Follow beam search, which keeps some rows and drops others."""
        self._apply(lambda value: value.index_select(0, beam_idx.to(value.device)))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows."""
        self._apply(lambda value: value[indices.to(value.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, for several generations from one prompt."""
        self._apply(lambda value: value.repeat_interleave(repeats, dim=0))

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse to take tokens back: a sum does not say what its last terms were."""
        if tokens_to_remove:
            raise UsageError(
                "A router that reads the running mean cannot take tokens back from a generation, which assisted "
                "(speculative) decoding asks for. Generate without an assistant model, or upcycle with "
                "router_input='token'."
            )


class ForwardContext:
    """Filled by hooks on the decoder; read by the routers and by `capture`.

    `begin` runs before every forward pass of the decoder and overwrites what was there. Nothing is cleared at the
    end, because activation checkpointing runs layers again during the backward pass and must see the same context.
    """

    def __init__(self) -> None:
        self.recorders: list[Any] = []
        self.steering: Any = None
        self._valid: torch.Tensor | None = None
        self._document_start: torch.Tensor | None = None
        self._shape: tuple[int, int] | None = None
        self._past: RunningSums | None = None
        self._present: RunningSums | None = None
        self._total: torch.Tensor | None = None

    def attach(self, decoder: nn.Module) -> list[Any]:
        """Hook the decoder (not the head: every way of calling the model goes through it) and return the handles."""
        return [
            decoder.register_forward_pre_hook(self._before, with_kwargs=True),
            decoder.register_forward_hook(self._after, with_kwargs=True),
        ]

    def _before(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = kwargs.get("input_ids")
        if tokens is None:
            tokens = kwargs["inputs_embeds"] if kwargs.get("inputs_embeds") is not None else args[0]
        self.begin(
            (tokens.shape[0], tokens.shape[1]),
            tokens.device,
            attention_mask=kwargs.get("attention_mask"),
            position_ids=kwargs.get("position_ids"),
            # Under its new name, from transformers 5.24 on, or its old one.
            cache=kwargs.get("cache", kwargs.get("past_key_values")),
        )

    def _after(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        cache = getattr(output, "past_key_values", None)
        if isinstance(cache, Cache) and self._present is not None and self._present not in cache.layers:
            cache.layers.append(self._present)

    def begin(
        self,
        shape: tuple[int, int],
        device: torch.device,
        *,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
    ) -> None:
        """Describe the forward pass that follows.

        Args:
            shape: (B, S) of the new tokens.
            device: where they are.
            attention_mask: [B, past + S], 1 on real tokens; None or a prepared 4-D mask means no padding.
            position_ids: [B or 1, S]. Restarts mark packed documents, exactly where transformers itself reads them as
                such: without an attention mask and without a cache.
            cache: the key-value cache of a generation under way.
        """
        for recorder in self.recorders:
            recorder.begin()
        batch, length = shape
        self._shape = shape
        past = next((layer for layer in cache.layers if isinstance(layer, RunningSums)), None) if cache else None
        self._past = past
        self._present = past or RunningSums()
        self._valid = None
        if attention_mask is not None and attention_mask.dim() == 2:
            self._valid = attention_mask[:, -length:].to(device).bool()
        self._document_start = None
        if position_ids is not None and attention_mask is None and cache is None:
            restarts = torch.ones(batch, length, dtype=torch.bool, device=device)
            restarts[:, 1:] = (position_ids.to(device).diff(dim=-1) != 1).expand(batch, -1)
            index = torch.arange(length, device=device).expand(batch, -1)
            self._document_start = torch.where(restarts, index, 0).cummax(dim=1).values
        new = torch.ones(shape, device=device) if self._valid is None else self._valid.float()
        self._total = new.cumsum(1)
        if past is not None and past.counts is not None:
            self._total = self._total + past.counts[:, None]
        self._present.counts = self._total[:, -1].clone()

    def running_mean(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """Return the causal running mean of `x` [B, S, D], in float32, and remember this layer's sums.

        Args:
            layer: decoder layer index, the key under which sums are kept between the steps of a generation.
            x: MLP inputs.
        """
        if self._shape != tuple(x.shape[:2]):  # the layer was called on its own: one document per row, no padding
            self.begin((x.shape[0], x.shape[1]), x.device)
        values = x.float()
        if self._valid is not None:
            values = values * self._valid.unsqueeze(-1)
        sums = values.cumsum(1)
        assert self._total is not None and self._present is not None
        total = self._total
        if self._document_start is not None:
            # Sum since the document's start = running sum here - running sum just before the start.
            start = self._document_start
            before = torch.cat([torch.zeros_like(sums[:, :1]), sums[:, :-1]], dim=1)
            sums = sums - before.gather(1, start.unsqueeze(-1).expand_as(sums))
            total = torch.arange(1, x.shape[1] + 1, device=x.device) - start
        if self._past is not None and layer in self._past.sums:
            sums = sums + self._past.sums[layer][:, None]
        self._present.sums[layer] = sums[:, -1].detach().clone()
        return sums / total.clamp(min=1).unsqueeze(-1)
