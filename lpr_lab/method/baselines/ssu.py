"""Source-shielded updates (SSU): the columns of each map that matter most to the original languages stay frozen.

After Yamaguchi et al., arXiv 2512.04844: the importance of a weight is |W_ij| · ‖x_j‖₂ over a little text of the
original languages (Wanda's score), a column's is the sum over its weights, and the upper half of each map's columns is
frozen before the model is trained on the new languages alone. Embeddings and head learn as a whole, as there; norms and
biases have no columns, and learn too.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from lpr_lab.errors import UsageError
from lpr_lab.method.baselines.base import on_same_weights, require_dense, require_float32, require_unquantized
from lpr_lab.method.baselines.calibration import linear_maps, read_language, require_reader, watched
from lpr_lab.model.tuned.slices import INPUTS, OUTPUTS, learn_slices, weight_of
from lpr_lab.text.blocks import Batch
from lpr_lab.text.corpus import Corpus

SPLIT = "replay"
"""Where the text of the original languages comes from, as for every replay."""


def least_important_columns(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    frozen_share: float = 0.5,
    tokens_per_language: int = 4096,
    precision: str = "auto",
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Return which columns (inputs) of each linear map are to learn: those that matter least to the originals.

    Args:
        model: the dense base.
        tokenizer: its tokenizer.
        corpus: its `replay` split of the original languages is read.
        original: the languages to be shielded.
        frozen_share: of each map's columns, those of the highest importance.
        tokens_per_language: how much text is read (500 samples in the paper).
        precision: auto, fp32 or bf16.
        seed: which documents are drawn.

    Returns:
        Path of a map -> its columns, int64 [n], in their order.

    Raises:
        UsageError: a share outside 0 to 1, or one that leaves nothing to learn.
    """
    require_dense(model)
    require_reader(model, tokenizer)
    if not 0 <= frozen_share < 1:
        raise UsageError(f"frozen_share = {frozen_share}; expected 0 (nothing frozen) to below 1.")
    maps = {path: model.get_submodule(path) for path in linear_maps(model)}
    squares: dict[str, torch.Tensor] = {}
    counted = torch.empty(0)

    def expect(batch: Batch) -> None:
        nonlocal counted
        counted = batch["is_text"].flatten().bool()

    def see(path: str, inputs: torch.Tensor, _: torch.Tensor) -> None:
        rows = inputs.flatten(0, -2)[counted.to(inputs.device)].double()
        squares[path] = squares.get(path, torch.zeros(())) + rows.square().sum(0).cpu()

    with watched(maps, see):
        for language in original:
            options = {"split": SPLIT, "tokens": tokens_per_language, "precision": precision, "seed": seed}
            read_language(model, tokenizer, corpus, language, **options, before=expect)
    return {path: _lowest(importance(module, squares[path].sqrt()), frozen_share) for path, module in maps.items()}


def importance(module: nn.Module, norms: torch.Tensor) -> torch.Tensor:
    """Return how much each column of a map matters, float64 [in]: Σ_i |W_ij| · ‖x_j‖₂.

    Args:
        module: a linear map, or GPT-2's, whose weight is transposed.
        norms: the length of each input over all tokens, float64 [in].
    """
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    weight = weight if isinstance(module, Conv1D) else weight.T
    return weight.detach().double().abs().sum(1).cpu() * norms


def _lowest(scores: torch.Tensor, frozen_share: float) -> torch.Tensor:
    """Return the columns that are not among the most important ones; equals by their order."""
    learned = len(scores) - round(frozen_share * len(scores))
    return scores.argsort(stable=True)[:learned].sort().values


def ssu(model: PreTrainedModel, columns: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """Return a model of which the given columns learn, and embeddings, head, norms and biases: the row "SSU".

    Args:
        model: the dense base, in float32.
        columns: from `least_important_columns`.

    Raises:
        UnsupportedModelError: a base in four bits.
        UsageError: a base in another precision.
    """
    require_dense(model)
    require_unquantized(model, "ssu")
    require_float32(model, "ssu")
    weights = {id(weight_of(model, path)) for path in linear_maps(model)}
    shielded = on_same_weights(model, but=[p for p in model.parameters() if id(p) not in weights])
    for parameter in shielded.parameters():
        parameter.requires_grad_(id(parameter) not in weights)
    learn_slices(shielded, {path: (inputs_of(shielded, path), index) for path, index in columns.items()})
    return shielded


def inputs_of(model: nn.Module, path: str) -> int:
    """Return along which dimension of a map's weight its inputs lie."""
    return OUTPUTS if isinstance(model.get_submodule(path), Conv1D) else INPUTS
