"""Forward passes over packed blocks for measurements: evaluation mode, no gradients, the requested precision."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lpr_lab.model.bf16_products import quick_bf16_products
from lpr_lab.model.machine import resolve_precision
from lpr_lab.model.parallel.sharing import num_readers, own_batches
from lpr_lab.text.blocks import Batch, Blocks, text_mask
from lpr_lab.text.packing import in_mode, model_inputs


@contextmanager
def inference(model: nn.Module, precision: str | None = "auto", *, cache_rounded: bool = True) -> Iterator[None]:
    """Have a model in evaluation mode, without gradients, with autocast to bf16 where the precision says so.

    Args:
        model: any.
        precision: auto, fp32 or bf16; None for that of its weights.
        cache_rounded: keep weights that were rounded to bf16 for the next pass: quicker, and a second copy of them.
    """
    is_bf16 = precision is not None and resolve_precision(precision) == "bf16"
    device = next(model.parameters()).device.type
    autocast = torch.autocast(device, torch.bfloat16, enabled=is_bf16, cache_enabled=cache_rounded)
    with in_mode(model, training=False), torch.no_grad(), autocast, quick_bf16_products(model, autocast=is_bf16):
        torch.clear_autocast_cache()  # inside another block, weights may have learned since they were rounded
        yield


def read_blocks(
    model: nn.Module,
    blocks: Blocks,
    rows: range | None = None,
    *,
    batch_blocks: int = 4,
    before: Callable[[Batch], object] | None = None,
    targets: Callable[[Batch], torch.Tensor] | None = None,
    bar: Any = None,
) -> Iterator[tuple[Batch, Any]]:
    """Run a model over packed blocks; yields each batch, with `is_text` [B, S] in it, and what the model returned.

    Processes that read together (`parallel.sharing`) get each its part of the batches, and have to put together what
    they found in it.

    Args:
        model: a causal LM, or its decoder alone (`capture.decoder_of`), inside `inference`.
        blocks: what to read.
        rows: which of the blocks; all by default.
        batch_blocks: B, blocks per forward pass.
        before: called with each batch before its pass, for hooks that must know which tokens they see.
        targets: inside `head.next_token_losses`, what is to be predicted of a batch; the model returns losses [B, S].
        bar: told after each batch how many tokens were read.
    """
    rows = range(len(blocks)) if rows is None else rows
    batches = (blocks.select(rows[start : start + batch_blocks]) for start in range(0, len(rows), batch_blocks))
    marked = ({**batch, "is_text": text_mask(batch, blocks.separator_id)} for batch in batches)
    yield from read_batches(model, marked, before=before, targets=targets, bar=bar)


def read_batches(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    before: Callable[[Batch], object] | None = None,
    targets: Callable[[Batch], torch.Tensor] | None = None,
    bar: Any = None,
) -> Iterator[tuple[Batch, Any]]:
    """Run a model over batches of packed blocks; otherwise as `read_blocks`."""
    device = next(model.parameters()).device
    for batch in own_batches(batches):
        if before is not None:
            before(batch)
        wanted = {} if targets is None else {"targets": targets(batch).to(device), "reduction": "none"}
        yield batch, model(**model_inputs(batch, device), **wanted)
        if bar is not None:
            bar.update(num_readers() * batch["input_ids"].numel())
