"""What a step on the new languages would gain in each layer's MLP, read off gradients of the base.

`gradient` is the length of the gradient: the utility by which Expert Upcycling duplicates experts (arXiv 2604.19835;
known to us from its abstract, so the form is ours). `predicted_gain` is the loss that a small step of Adam in that MLP
would take away. Adam moves every weight by about the learning rate against the sign of its gradient, so to first order
that is the learning rate times the sum of |g|. Noise alone has such a sum too; the signs are therefore taken from one
half of the text and the gradients from the other, and a layer where the halves do not agree comes to about 0:

    G = sum over weights of  (a · sign b + b · sign a) / 2        a, b: the gradients of the two halves

Both are first order: they know nothing of curvature, nor of what a router makes of the step.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.model.bases.families import find_decoder_mlps
from lpr_lab.model.bf16_products import quick_bf16_products
from lpr_lab.model.head import next_token_losses
from lpr_lab.model.machine import resolve_precision
from lpr_lab.progress import progress
from lpr_lab.text.blocks import Batch, Blocks
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.draw import first_documents, shuffled_documents
from lpr_lab.text.packing import NO_TARGET, in_mode, model_inputs
from lpr_lab.text.shards.blocks import pack_documents

_CHARACTERS_PER_TOKEN = 6
"""More than any language has on average, so that there is enough text."""

Halves = list[list[tuple[torch.Tensor, torch.Tensor]]]
"""Per layer and parameter of its MLP, the gradients of the two halves of the text, float32."""


def length_of_gradient(halves: Halves) -> tuple[float, ...]:
    """Return the Euclidean length of each layer's gradient on both halves together."""
    return tuple(math.sqrt(sum(float(((a + b) / 2).double().square().sum()) for a, b in layer)) for layer in halves)


def predicted_gain(halves: Halves) -> tuple[float, ...]:
    """Return G of each layer: nats per token for each unit of learning rate.

    >>> one, two = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 1.0])  # the halves disagree about the second weight
    >>> predicted_gain([[(one, two)]])  # (3 - 1 + 1 - 1) / 2
    (1.0,)
    """
    return tuple(float(sum((a * b.sign() + b * a.sign()).double().sum() for a, b in layer)) / 2 for layer in halves)


def mlp_gradients(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    expanded: Sequence[str],
    tokens_per_language: int = 8192,
    block_tokens: int = 256,
    batch_blocks: int = 4,
    precision: str = "auto",
    seed: int = 0,
) -> Halves:
    """Return the gradient of the new languages' loss with respect to each MLP, from two halves of their `train` text.

    The loss is the mean over the languages of each one's nats per token. Memory: three times the MLPs' weights.

    Args:
        model: the dense base; its weights and what of them learns stay as they were.
        tokenizer: its own.
        corpus: where the text comes from.
        expanded: the languages to be learned.
        tokens_per_language: text of each, over both halves; fewer where there is less.
        block_tokens: S of the packed blocks; less where the model's context is shorter.
        batch_blocks: B, blocks per pass.
        precision: auto, fp32 or bf16.
        seed: which documents are drawn.

    Raises:
        UsageError: less than one block for each half in some language.
    """
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    block_tokens = min(block_tokens, longest or block_tokens)
    texts = [_blocks(corpus, tokenizer, code, tokens_per_language, block_tokens, seed) for code in expanded]
    layers = [list(mlp.module.parameters()) for mlp in find_decoder_mlps(model)]
    halves: list[list[list[torch.Tensor]]] = []
    total = 2 * sum(len(rows) // 2 for _, rows in texts)
    with _learning(model, layers), progress(total * block_tokens, "Gradients", "token") as bar:
        for half in (0, 1):
            for blocks, rows in texts:
                chosen = rows[half : 2 * (len(rows) // 2) : 2]
                for batch in _add_gradients(model, blocks, chosen, batch_blocks, precision, len(texts)):
                    bar.update(batch["input_ids"].numel())
            halves.append([[_taken(parameter) for parameter in layer] for layer in layers])
    return [list(zip(*both, strict=True)) for both in zip(*halves, strict=True)]


def _blocks(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, code: str, tokens: int, block_tokens: int, seed: int
) -> tuple[Blocks, range]:
    documents = first_documents(shuffled_documents(corpus, "train", code, seed), _CHARACTERS_PER_TOKEN * tokens)
    blocks = pack_documents(documents, tokenizer, block_tokens, languages=[code])
    rows = range(min(len(blocks), tokens // block_tokens))
    if len(rows) < 2:
        raise UsageError(
            f"{tokens} tokens per language were asked for, and the text of {code!r} that was drawn has {len(blocks)} "
            f"blocks of {block_tokens}; expected two or more of each language, one for each half. Ask for more, or "
            "give the language more text."
        )
    return blocks, rows


def _add_gradients(
    model: PreTrainedModel, blocks: Blocks, rows: range, batch_blocks: int, precision: str, num_languages: int
) -> Iterator[Batch]:
    """Add the gradient of one language's mean loss on some blocks, divided by the number of languages."""
    device = model.device
    batches = [blocks.select(rows[start : start + batch_blocks]) for start in range(0, len(rows), batch_blocks)]
    counted = sum(int((batch["targets"] != NO_TARGET).sum()) for batch in batches)
    is_bf16 = resolve_precision(precision) == "bf16"
    for batch in batches:
        with quick_bf16_products(model, autocast=is_bf16):
            with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16), next_token_losses(model):
                nats = model(**model_inputs(batch, device), targets=batch["targets"].to(device))
            (nats / (counted * num_languages)).backward()
        yield batch


@contextmanager
def _learning(model: PreTrainedModel, layers: Sequence[Sequence[nn.Parameter]]) -> Iterator[None]:
    """Have the MLPs' weights alone take gradients inside the block; all is as before after it."""
    before = {parameter: (parameter.requires_grad, parameter.grad) for parameter in model.parameters()}
    mlps = {id(parameter) for layer in layers for parameter in layer}
    try:
        for parameter in before:
            parameter.requires_grad_(id(parameter) in mlps)
            parameter.grad = None
        with in_mode(model, training=False), torch.enable_grad():
            yield
    finally:
        for parameter, (learns, gradient) in before.items():
            parameter.requires_grad_(learns)
            parameter.grad = gradient


def _taken(parameter: nn.Parameter) -> torch.Tensor:
    gradient = parameter.grad
    assert gradient is not None
    parameter.grad = None
    return gradient.float()
