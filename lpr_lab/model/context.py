"""State that routers need during one forward pass beyond their input: document boundaries, running means, recorders.

Padding, where documents start and where a cached generation stands reach the layers through one object that the
adapter fills when the decoder is called. The base model's signatures stay as they are, and nothing is global.

The running mean of a token is the mean of the MLP inputs from the start of its document up to itself. It is the same
number in one plain pass, in packed blocks, beside padding and in cached generation, where its sums travel inside the
key-value cache: beam search, which reorders the cache, reorders them too, and assisted decoding, which takes tokens
back, gets the sums from before them. A cache gets sums only from routers that read the mean: with any other router, and
with the adapter off, a cache is the base's own, of whatever kind, and so is the attention mask.

Letters: B batch, S sequence (new tokens of this pass), D model width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DummyLayer, StaticLayer

from lpr_lab.errors import UsageError

_MOST_TAKEN_BACK = 64
"""Tokens that can be taken back from a generation at once; assisted decoding proposes 20 and prompt look-up 10."""
_MEAN = "Routers of this model read the running mean of the document"
_TOKEN_ROUTERS = "or upcycle with router_input='token', whose routers work with every cache and mask"


class RunningSums(DummyLayer):
    """Sums of MLP inputs per layer, carried as one more layer of the key-value cache.

    Attributes:
        sums: by decoder layer, [B, P, D]: after each of the last P - 1 tokens of the last pass, and before them.
        counts: [B, P], how many tokens (not padding) these are sums of.
        num_positions: tokens seen so far, padding included, as the cache counts them.
    """

    is_compileable = False

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Forget everything: the cache is used for another generation."""
        self.sums: dict[int, torch.Tensor] = {}
        self.counts: torch.Tensor | None = None
        self.num_positions = 0

    def _apply(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.sums = {layer: change(value) for layer, value in self.sums.items()}
        self.counts = None if self.counts is None else change(self.counts)

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
        """Take the last tokens back, no more than the last pass had: a sum does not say what its terms were.

        Args:
            tokens_to_remove: a number of tokens, negative as in transformers.

        Raises:
            UsageError: more than that; nothing is changed.
        """
        number = abs(tokens_to_remove)
        if not number:
            return
        kept = 0 if self.counts is None else self.counts.shape[1] - 1
        if number > kept:
            raise UsageError(
                f"A router that reads the running mean can take back the tokens of the last pass, here {kept}, and not "
                f"{number}. Compute the text again without its last tokens, {_TOKEN_ROUTERS}."
            )
        self._apply(lambda value: value[:, :-number])
        self.num_positions -= number


class ForwardContext:
    """Filled by hooks on the decoder; read by the routers and by `capture`.

    `begin` runs before every forward pass of the decoder and overwrites what was there. Nothing is cleared at the
    end, because activation checkpointing runs layers again during the backward pass and must see the same context.

    Attributes:
        recorders: are told of every pass and every routing.
        steering: is told of every pass as well; forces, bans or scales experts. None: nothing does.
    """

    def __init__(self) -> None:
        self.recorders: list[Any] = []
        self.steering: Any = None
        self._valid: torch.Tensor | None = None
        self._document_start: torch.Tensor | None = None
        self._shape: tuple[int, int] | None = None
        self._past: RunningSums | None = None
        self._total: torch.Tensor | None = None
        self._obstacle = ""
        self._keeps_sums = False
        self._new_sums: dict[int, torch.Tensor] = {}

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
        use_cache = kwargs.get("use_cache")
        self.begin(
            (tokens.shape[0], tokens.shape[1]),
            tokens.device,
            attention_mask=kwargs.get("attention_mask"),
            position_ids=kwargs.get("position_ids"),
            cache=_cache_in(kwargs),
            makes_cache=bool(getattr(decoder.config, "use_cache", False) if use_cache is None else use_cache),
        )
        # A mixture layer says whether it reads the mean as it stands; they are looked for only if that matters.
        if self._obstacle and any(getattr(module, "reads_mean", False) for module in decoder.modules()):
            raise UsageError(self._obstacle)

    def _after(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Put the sums of this pass, if any router asked for them, into the cache."""
        given = _cache_in(kwargs)
        cache = given if given is not None else _cache_in(output)
        if cache is None or not self._new_sums:
            return
        sums = self._past
        if sums is None:
            sums = RunningSums()
            cache.layers.append(sums)
        assert self._total is not None and self._shape is not None
        before = self._total.new_zeros(len(self._total), 1) if sums.counts is None else sums.counts[:, -1:]
        sums.counts = torch.cat([before, self._total], dim=1)[:, -_MOST_TAKEN_BACK - 1 :]
        sums.sums, self._new_sums = self._new_sums, {}
        sums.num_positions += self._shape[1]

    def begin(
        self,
        shape: tuple[int, int],
        device: torch.device,
        *,
        attention_mask: Any = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        makes_cache: bool = False,
    ) -> None:
        """Describe the forward pass that follows.

        Args:
            shape: (B, S) of the new tokens.
            device: where they are.
            attention_mask: [B, past + S], 1 on real tokens, or None: no padding. Prepared masks of any kind say nothing
                that can be read for certain, and running means are refused with them.
            position_ids: [B or 1, S]. Restarts mark packed documents, exactly where transformers itself reads them as
                such: without an attention mask and without a cache.
            cache: the key-value cache of a generation under way.
            makes_cache: the decoder makes one if none is given.
        """
        for recorder in self.recorders:
            recorder.begin()
        if self.steering is not None:
            self.steering.begin(0 if cache is None else int(cache.get_seq_length()))
        batch, length = shape
        self._shape, self._new_sums = shape, {}
        self._keeps_sums = makes_cache or cache is not None
        self._past = next((layer for layer in cache.layers if isinstance(layer, RunningSums)), None) if cache else None
        self._obstacle = _obstacle_to_mean(attention_mask, cache, self._past)
        self._valid = None
        if isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2:
            self._valid = attention_mask[:, -length:].to(device).bool()
        self._document_start = None
        if position_ids is not None and attention_mask is None and not self._keeps_sums:
            restarts = torch.ones(batch, length, dtype=torch.bool, device=device)
            restarts[:, 1:] = (position_ids.to(device).diff(dim=-1) != 1).expand(batch, -1)
            index = torch.arange(length, device=device).expand(batch, -1)
            self._document_start = torch.where(restarts, index, 0).cummax(dim=1).values
        new = torch.ones(shape, device=device) if self._valid is None else self._valid.float()
        self._total = new.cumsum(1)
        if self._past is not None and self._past.counts is not None and not self._obstacle:
            self._total = self._total + self._past.counts[:, -1:]

    def running_mean(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """Return the causal running mean of `x` [B, S, D], in float32, and remember this layer's sums.

        Args:
            layer: decoder layer index, the key under which sums are kept between the steps of a generation.
            x: MLP inputs.
        """
        if self._shape != tuple(x.shape[:2]):  # the layer was called on its own: one document per row, no padding
            self.begin((x.shape[0], x.shape[1]), x.device)
        if self._obstacle:
            raise UsageError(self._obstacle)
        values = x.float()
        if self._valid is not None:
            values = values * self._valid.unsqueeze(-1)
        sums = values.cumsum(1)
        assert self._total is not None
        total = self._total
        if self._document_start is not None:
            # Sum since the document's start = running sum here - running sum just before the start.
            start = self._document_start
            before = torch.cat([torch.zeros_like(sums[:, :1]), sums[:, :-1]], dim=1)
            sums = sums - before.gather(1, start.unsqueeze(-1).expand_as(sums))
            total = torch.arange(1, x.shape[1] + 1, device=x.device) - start
        if self._keeps_sums:
            sums = self._continued(layer, sums)
        return sums / total.clamp(min=1).unsqueeze(-1)

    def _continued(self, layer: int, sums: torch.Tensor) -> torch.Tensor:
        """Return the sums [B, S, D] of this pass on top of those in the cache, and keep the last of them for it."""
        before = torch.zeros_like(sums[:, :1])
        if self._past is not None and self._past.num_positions:
            if layer not in self._past.sums:
                raise UsageError(
                    f"The cache was filled at a stage at which layer {layer} did not read the running mean. Begin the "
                    "generation anew at the stage selected now."
                )
            before = self._past.sums[layer][:, -1:]
            sums = sums + before
        self._new_sums[layer] = torch.cat([before, sums.detach()[:, -_MOST_TAKEN_BACK:]], dim=1)
        return sums


def _cache_in(given: Any) -> Cache | None:
    """Return the key-value cache among a decoder's arguments, or in what it returns, or None."""
    if isinstance(given, dict):  # also a transformers ModelOutput
        # Under its new name, from transformers 5.24 on, or its old one.
        found = given.get("cache", given.get("past_key_values"))
        return found if isinstance(found, Cache) else None
    if isinstance(given, tuple):
        return next((item for item in given if isinstance(item, Cache)), None)
    return None


def _obstacle_to_mean(mask: Any, cache: Cache | None, past: RunningSums | None) -> str:
    """Say why a running mean cannot be had in a pass with this mask and this cache; empty where it can."""
    if cache is not None and any(isinstance(layer, StaticLayer) for layer in cache.layers):
        what = "a static cache has no place for its sums. Generate with cache_implementation='dynamic'"
        return f"{_MEAN}, and {what}, {_TOKEN_ROUTERS}."
    if mask is not None and not (isinstance(mask, torch.Tensor) and mask.dim() == 2):
        kind = f"{mask.dim()}-D" if isinstance(mask, torch.Tensor) else f"a {type(mask).__name__}"
        return (
            f"{_MEAN}, and the attention mask is {kind}, which does not say what is padding. Pass one of [batch, "
            f"tokens], 1 on text, {_TOKEN_ROUTERS}."
        )
    if cache is None:
        return ""
    cached, summed = int(cache.get_seq_length()), 0 if past is None else past.num_positions
    if cached != summed:
        return (
            f"{_MEAN}, and the cache holds {cached} tokens, of which they saw {summed}: the others were computed with "
            "the adapter off, at another stage or by another model. Begin the generation with an empty cache."
        )
    return ""
