"""Text that a baseline looks at before it is trained, to choose what of the base is to learn."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.model.capture import decoder_of
from lpr_lab.model.forward import inference, read_blocks
from lpr_lab.model.machine import keep_freed_memory
from lpr_lab.text.blocks import Batch
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.draw import first_documents, shuffled_documents
from lpr_lab.text.packing import refuse_if_documents_mix
from lpr_lab.text.shards.blocks import pack_documents
from lpr_lab.text.vocabulary import require_embeddings

_CHARACTERS_PER_TOKEN = 6
"""More than any language has on average, so that there is enough text."""


def require_reader(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer or a model that `read_language` cannot use; call it before hooks are put on the model.

    Raises:
        UsageError: tokens without an embedding.
        UnsupportedModelError: a model that mixes packed documents.
    """
    require_embeddings(model, tokenizer)
    refuse_if_documents_mix(decoder_of(model))


def read_language(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    language: str,
    *,
    split: str,
    tokens: int,
    block_tokens: int = 256,
    precision: str = "auto",
    seed: int = 0,
    before: Callable[[Batch], object] | None = None,
) -> None:
    """Run the model over some text of one language, for hooks that look on.

    Args:
        model: a dense model; its head is not run.
        tokenizer: its tokenizer.
        corpus: where the text comes from.
        language: which.
        split: of the corpus.
        tokens: how many to read, rounded up to whole blocks; fewer where there is less text.
        block_tokens: S; less where the model's context is shorter.
        precision: auto, fp32 or bf16.
        seed: which documents are drawn.
        before: called with each batch before its pass; `is_text` [B, S] in it says which tokens count.

    Raises:
        UsageError: no text in the language, or no tokens asked for.
    """
    if tokens < 1:
        raise UsageError(f"calibration_tokens = {tokens}; expected at least one token per language.")
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    block_tokens = min(block_tokens, longest or block_tokens)
    documents = first_documents(shuffled_documents(corpus, split, language, seed), _CHARACTERS_PER_TOKEN * tokens)
    blocks = pack_documents(documents, tokenizer, block_tokens, languages=[language])
    rows = range(min(len(blocks), -(-tokens // block_tokens)))
    with (
        keep_freed_memory() if model.device.type == "cpu" else nullcontext(),
        inference(model, precision, cache_rounded=False),
    ):
        for _ in read_blocks(decoder_of(model), blocks, rows, before=before):
            pass


@contextmanager
def watched(modules: dict[str, nn.Module], see: Callable[[str, torch.Tensor, torch.Tensor], None]) -> Iterator[None]:
    """Call `see(path, input, output)` whenever one of the modules has run inside the block."""
    handles = []
    try:
        for path, module in modules.items():

            def hook(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor, path: str = path) -> None:
                see(path, args[0], output)

            handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def linear_maps(model: PreTrainedModel) -> Sequence[str]:
    """Return the paths of all linear maps between embedding and head."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        path for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]
