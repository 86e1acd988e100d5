"""Computes causal maps: many switches in one forward pass, each in a row of the batch.

The plain way is a forward pass within `model.steering.steer` for every layer and expert; tests compare with it. Here
the same text stands in every row of a batch, and each row has another layer switched. A row whose switch is in layer l
is the text as it is up to layer l, so it joins the batch only there, as a copy of the first row, which is left as it
is: half of the work, on average. Whether a model lets rows join is seen on a few tokens before anything relies on it;
where it does not, all rows are there from the beginning.

Letters: L layers with a router, T tokens, E most experts of a layer, N switches of one pass.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError, one_of
from lpr_lab.measure.causal.causal_map import CausalMap, Cell, NextTokens
from lpr_lab.measure.routing import ids_of_text
from lpr_lab.model.adapter import expansion_config, moe_layers
from lpr_lab.model.bases.families import decoder_layers
from lpr_lab.model.bases.rounding import logit_tolerance
from lpr_lab.model.capture import causal_lm_of
from lpr_lab.model.forward import inference
from lpr_lab.model.head import head_of, hidden_states, next_token_losses
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import selected_stage, stage_names, use_stage
from lpr_lab.model.steering import steer
from lpr_lab.progress import run_through
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.packing import NO_TARGET

BATCH_TOKENS = 4096
"""Tokens of one forward pass, all rows together."""
_PROBE_TOKENS = 8


class _Switch(NamedTuple):
    """One row of a batch: all its tokens go to this expert in this layer."""

    layer: int
    expert: int


class CausalStep(NamedTuple):
    """How far a map is: switches computed, of how many, and the map, filled in as it gets on."""

    done: int
    total: int
    result: CausalMap


def causal_map(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    language: str | None = None,
    *,
    stage: str | None = None,
    experts: Collection[int] | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> CausalMap:
    """Compute by how many bits each token gets dearer when one layer alone sends all tokens to another expert.

    The text is read as a document of its own, as in `trace`. Nothing of the model is changed.

    Args:
        model: an expanded model.
        tokenizer: the base model's.
        text: anything in any script.
        language: ISO 639-1 code, kept with the map.
        stage: a name from `stage_names(model)`; None: the stage in use.
        experts: which to switch to; None: every one that a layer has. 0 is the original one.
        batch_tokens: tokens of one forward pass, all its rows together, which bounds the memory.

    Raises:
        UsageError: empty text, half of a character, more tokens than the model's context, a stage or an expert that the
            model does not have, or a `batch_tokens` below 1. Raised before anything is computed.

    Examples:
        >>> found = causal_map(model, tokenizer, "Καλημέρα, κόσμε.", "el")  # doctest: +SKIP
        >>> found.of_layers(expert=0)  # doctest: +SKIP
    """
    steps = causal_steps(model, tokenizer, text, language, stage=stage, experts=experts, batch_tokens=batch_tokens)
    return run_through(steps, "Switching layers", "switch")


def causal_steps(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    language: str | None = None,
    *,
    stage: str | None = None,
    experts: Collection[int] | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[CausalStep]:
    """Compute a causal map batch by batch, for whoever shows progress or lets a reader stop it.

    Arguments and errors are those of `causal_map`, and errors come at once. Between two steps the model stands as it
    stood before, and stopping costs nothing but what is missing from the map.
    """
    stage = stage or selected_stage(model)
    one_of("stage", stage, stage_names(model))
    if batch_tokens < 1:
        raise UsageError(f"batch_tokens is {batch_tokens}; expected at least 1.")
    ids, pieces = ids_of_text(model, tokenizer, text)
    with use_stage(model, stage):
        counts = {layer.layer: layer.num_experts for layer in moe_layers(model)}
    switches = _switches(counts, experts)
    shape = (len(counts), max(counts.values()), len(ids))
    result = CausalMap(
        text=text,
        language=language,
        stage=stage,
        token_ids=ids,
        token_bytes=pieces,
        layers=np.array(list(counts)),
        num_experts=np.array(list(counts.values())),
        bits=np.full(len(ids), np.nan),
        change=np.full(shape, np.nan),
        model={"base": expansion_config(model).base_name},
    )
    return _steps(model, result, switches, batch_tokens)


def next_tokens(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, causal: CausalMap, cell: Cell, k: int = 8
) -> NextTokens:
    """Return what the model expects in a token's place, as it is and with one layer switched: the likeliest k of each.

    Args:
        model: the model that the map is of.
        tokenizer: the base model's.
        causal: the map.
        cell: one of its cells.
        k: how many tokens of either distribution; what both name counts once.

    Raises:
        UsageError: a cell that the map does not have.
    """
    counts = dict(zip(causal.layers.tolist(), causal.num_experts.tolist(), strict=True))
    if not 0 <= cell.expert < counts.get(cell.layer, 0) or not 1 <= cell.token < causal.num_tokens or k < 1:
        raise UsageError(
            f"Layer {cell.layer}, expert {cell.expert}, token {cell.token} with k = {k} is no cell of this map; it has "
            f"the layers {', '.join(map(str, counts))} and the tokens 1 to {causal.num_tokens - 1}."
        )
    ids = torch.tensor([causal.token_ids], device=next(model.parameters()).device)
    with use_stage(model, causal.stage), inference(model, None):
        as_is = _distribution(model, ids, cell.token - 1)
        with steer(model, force={cell.layer: cell.expert}):
            switched = _distribution(model, ids, cell.token - 1)
    named = {int(i) for found in (as_is, switched) for i in found.topk(min(k, len(found))).indices}
    chosen = sorted(named, key=lambda i: (-float(as_is[i]), i))
    really = causal.token_ids[cell.token]
    bits = [float(-found[really].log2()) for found in (as_is, switched)]
    return NextTokens(
        cell,
        chosen,
        token_bytes(tokenizer, chosen),
        as_is[chosen].cpu().numpy(),
        switched[chosen].cpu().numpy(),
        (bits[0], bits[1]),
    )


# ------------------------------------------------------------------------------------------------------- the passes


def _switches(counts: Mapping[int, int], experts: Collection[int] | None) -> list[_Switch]:
    most = max(counts.values())
    unknown = sorted(expert for expert in experts or () if not 0 <= expert < most)
    if unknown or (experts is not None and not experts):
        raise UsageError(
            f"Asked for {f'expert {unknown[0]}' if unknown else 'no expert'}; expected some of 0 to {most - 1}, of "
            "which 0 is the original one."
        )
    return [
        _Switch(layer, expert)
        for layer, count in counts.items()
        for expert in range(count)
        if experts is None or expert in experts
    ]


def _steps(model: PeftModel, result: CausalMap, switches: Sequence[_Switch], batch_tokens: int) -> Iterator[CausalStep]:
    rows = {layer: row for row, layer in enumerate(result.layers.tolist())}
    at_once = max(batch_tokens // result.num_tokens - 1, 1)
    joins = None
    for start in range(0, len(switches), at_once):
        part = switches[start : start + at_once]
        with use_stage(model, result.stage), inference(model, None):
            if joins is None:
                joins = _lets_rows_join(model)
            losses = _losses(model, result.token_ids, part, joins=joins)
        bits = losses[:, :-1].double().cpu().numpy() / np.log(2)
        result.bits[1:] = bits[0]
        for switch, of_switch in zip(part, bits[1:], strict=True):
            result.change[rows[switch.layer], switch.expert, 1:] = of_switch - bits[0]
        yield CausalStep(start + len(part), len(switches), result)


def _losses(model: PeftModel, ids: Sequence[int], switches: Sequence[_Switch], *, joins: bool) -> torch.Tensor:
    """Return the losses [1 + N, T] in nats: of the text as it is, then of every switch; the last of a row is 0."""
    device = next(model.parameters()).device
    text = torch.tensor([ids], device=device)
    targets = torch.cat([text[:, 1:], torch.full_like(text[:, :1], NO_TARGET)], dim=1)
    number = Counter(switch.layer for switch in switches)
    if joins:
        tokens, joining = text, _rows_joining(model, number)
    else:
        tokens, joining = text.expand(1 + len(switches), -1), nullcontext()
    # A row is forced in one layer; those that stand before it there are left as they are, and so is the first.
    force: dict[int, list[int | None]] = {}
    for layer in number:
        length = 1 + (sum(switch.layer <= layer for switch in switches) if joins else len(switches))
        force[layer] = [None] * length
    for row, switch in enumerate(switches, 1):
        force[switch.layer][row] = switch.expert
    with next_token_losses(model), joining, steer(model, force=force):
        return model(input_ids=tokens, use_cache=False, targets=targets.expand(1 + len(switches), -1), reduction="none")


@contextmanager
def _rows_joining(model: nn.Module, number: Mapping[int, int]) -> Iterator[None]:
    """Let so many rows join the batch before each decoder layer, as copies of the first row, inside the block."""
    handles = []
    try:
        for layer, module in enumerate(decoder_layers(causal_lm_of(model))):
            if not number.get(layer):
                continue

            def join(_: nn.Module, args: Any, kwargs: Any, more: int = number[layer]) -> tuple[Any, Any]:
                if args:
                    return (_grown(args[0], more), *args[1:]), kwargs
                return args, {**kwargs, "hidden_states": _grown(kwargs["hidden_states"], more)}

            handles.append(module.register_forward_pre_hook(join, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _grown(states: torch.Tensor, more: int) -> torch.Tensor:
    return torch.cat([states, states[:1].expand(more, -1, -1)])


@torch.no_grad()
def _lets_rows_join(model: PeftModel) -> bool:
    """Return whether rows that join between two layers get the losses of the first row, as seen on a few tokens."""
    ids = torch.arange(_PROBE_TOKENS, device=next(model.parameters()).device)[None]
    layers = len(decoder_layers(causal_lm_of(model)))
    with next_token_losses(model, whole=True):
        plain = model(input_ids=ids, use_cache=False, targets=ids, reduction="none")
        try:
            with _rows_joining(model, {layers // 2: 1, layers - 1: 1}):
                grown = model(input_ids=ids, use_cache=False, targets=ids.expand(3, -1), reduction="none")
        except Exception:  # whatever a family says to it: then all rows are there from the beginning
            return False
    dtype = "float32" if next(model.parameters()).dtype == torch.float32 else "bfloat16"
    return float((grown - plain).abs().max()) <= 10 * logit_tolerance(float(plain.abs().max()), dtype)


def _distribution(model: PeftModel, ids: torch.Tensor, place: int) -> torch.Tensor:
    """Return the probabilities [V] of the token that follows a place, float32."""
    with hidden_states(model) as direct:
        if direct:
            logits = head_of(model)(model(input_ids=ids, use_cache=False, only_states=True)[0, place : place + 1])[0]
        else:
            logits = model(input_ids=ids, use_cache=False).logits[0, place]
    return logits.float().softmax(-1)
