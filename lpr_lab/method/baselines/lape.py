"""Language-specific neurons (LAPE): only neurons of the MLPs that fire for the expanded languages alone learn.

Which they are is told by language activation probability entropy (Tang et al., arXiv 2402.16438): how often a neuron's
activation is above zero on each language's text, as shares over the languages, and the entropy of these shares. Those
of the lowest entropy are specific. Training them alone, 0.2 to 1 % of all, is the baseline (arXiv 2510.13580).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.method.baselines.base import on_same_weights, require_dense, require_unquantized
from lpr_lab.method.baselines.calibration import read_language, require_reader, watched
from lpr_lab.method.baselines.ssu import inputs_of
from lpr_lab.model.bases.families import find_decoder_mlps, map_names
from lpr_lab.model.tuned.slices import learn_slices, weight_of
from lpr_lab.text.blocks import Batch
from lpr_lab.text.corpus import Corpus

ACTIVE_QUANTILE = 0.95
"""A neuron counts that fires, for some language, more often than this share of all neurons and languages (the
original's filter)."""


def language_neurons(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    neuron_share: float = 0.01,
    tokens_per_language: int = 4096,
    precision: str = "auto",
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Return the neurons of each MLP that are specific to the expanded languages.

    Args:
        model: the dense base.
        tokenizer: its tokenizer.
        corpus: its `replay` split of the original languages is read, and `train` of the expanded ones.
        original: languages whose neurons stay as they are.
        expanded: languages whose neurons are wanted.
        neuron_share: how many, as a share of all neurons of the model.
        tokens_per_language: how much text of each is read.
        precision: auto, fp32 or bf16.
        seed: which documents are drawn.

    Returns:
        Path of an MLP -> neurons, int64 [n], in their order; MLPs without any are left out.

    Raises:
        UsageError: a share outside 0 to 1, or no neuron fires most for an expanded language.
    """
    require_dense(model)
    require_reader(model, tokenizer)
    if not 0 < neuron_share <= 1:
        raise UsageError(f"neuron_share = {neuron_share}; expected above 0 and up to 1.")
    mlps = [mlp.path for mlp in find_decoder_mlps(model)]
    languages = [*original, *expanded]
    reading = {"tokens_per_language": tokens_per_language, "precision": precision, "seed": seed}
    rates = firing_rates(model, tokenizer, corpus, original=original, expanded=expanded, **reading)
    wanted = max(1, round(neuron_share * rates[0].numel()))
    chosen = specific_neurons(rates, range(len(original), len(languages)), wanted)
    if not bool(chosen.any()):
        raise UsageError(
            f"No neuron of {model.config.model_type} fires most often for one of {', '.join(expanded)}, so there is "
            "nothing to train. Raise calibration_tokens, or choose another baseline."
        )
    return {path: row.nonzero()[:, 0] for path, row in zip(mlps, chosen, strict=True) if bool(row.any())}


def specific_neurons(rates: torch.Tensor, wanted_languages: Sequence[int], number: int) -> torch.Tensor:
    """Return the neurons of lowest entropy among those that fire most often for a wanted language: bool [L, F].

    Args:
        rates: how often each neuron fires, [languages, L, F].
        wanted_languages: their places among the languages.
        number: of neurons, at most; fewer where fewer fire most for these languages.

    >>> rates = torch.tensor([[[0.5, 0.0, 0.3]], [[0.5, 0.4, 0.4]]])  # two languages, one layer of three neurons
    >>> specific_neurons(rates, [1], 1).tolist()  # the second fires for the second language alone
    [[False, True, False]]
    """
    shares = rates / rates.sum(0, keepdim=True).clamp(min=torch.finfo(rates.dtype).tiny)
    entropy = -torch.special.xlogy(shares, shares).sum(0)
    strongest = rates.max(0)
    is_wanted = torch.isin(strongest.indices, torch.tensor([*wanted_languages])) & (strongest.values > 0)
    filter_rank = max(1, round(ACTIVE_QUANTILE * rates.numel()))
    is_active = strongest.values >= rates.flatten().kthvalue(filter_rank).values
    # Where too few pass the filter, the most active of the others follow.
    order = torch.where(is_wanted, entropy + (~is_active) * entropy.max(), torch.inf).flatten()
    number = min(number, int(is_wanted.sum()))
    chosen = torch.zeros(order.numel(), dtype=torch.bool)
    chosen[order.argsort(stable=True)[:number]] = True
    return chosen.view(rates.shape[1:])


def firing_rates(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    tokens_per_language: int = 4096,
    precision: str = "auto",
    seed: int = 0,
) -> torch.Tensor:
    """Return how often each neuron's activation is above zero on each language's text: float64 [languages, L, F].

    The original languages come first; for arguments and text see `language_neurons`.
    """
    mlps = [mlp.path for mlp in find_decoder_mlps(model)]
    splits = {**dict.fromkeys(original, "replay"), **dict.fromkeys(expanded, "train")}
    reading = {"tokens": tokens_per_language, "precision": precision, "seed": seed}
    return torch.stack(
        [
            _firing_rates(model, mlps, tokenizer, corpus, language, split=split, **reading)
            for language, split in splits.items()
        ]
    )


def _firing_rates(
    model: PreTrainedModel,
    mlps: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    language: str,
    **reading: object,
) -> torch.Tensor:
    """Return how often each neuron's activation is above zero on a language's text, float64 [L, F].

    Every activation function that is used here keeps the sign of its input, so the map before it is looked at.
    """
    sizes = {path: _num_neurons(model, path) for path in mlps}
    maps = {path: model.get_submodule(f"{path}.{_maps(model, path)[0][0]}") for path in mlps}
    fired = {path: torch.zeros(size, dtype=torch.float64) for path, size in sizes.items()}
    counted, total = torch.empty(0), 0

    def expect(batch: Batch) -> None:
        nonlocal counted, total
        counted = batch["is_text"].flatten().bool()
        total += int(counted.sum())

    def see(path: str, _: torch.Tensor, output: torch.Tensor) -> None:
        # Of a fused map the gates are the first half.
        gates = output.flatten(0, -2)[counted.to(output.device), : sizes[path]]
        fired[path] += (gates > 0).sum(0).double().cpu()

    with watched(maps, see):
        read_language(model, tokenizer, corpus, language, **reading, before=expect)  # pyright: ignore
    return torch.stack([fired[path] / max(total, 1) for path in mlps])


def lape(model: PreTrainedModel, neurons: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """Return a model of which only the given neurons learn, their gate, up and down weights: the row "LAPE".

    Args:
        model: the dense base.
        neurons: from `language_neurons`.

    Raises:
        UnsupportedModelError: a base in four bits.
    """
    require_dense(model)
    require_unquantized(model, "lape")
    twin = on_same_weights(model).requires_grad_(False)
    chosen = {}
    for path, index in neurons.items():
        ups, down = _maps(twin, path)
        size = _num_neurons(twin, path)
        inputs = {name: inputs_of(twin, f"{path}.{name}") for name in (*ups, down)}
        for name in ups:
            outputs = 1 - inputs[name]
            is_fused = weight_of(twin, f"{path}.{name}").shape[outputs] == 2 * size  # gates, then the others
            chosen[f"{path}.{name}"] = (outputs, torch.cat([index, index + size]) if is_fused else index)
        chosen[f"{path}.{down}"] = (inputs[down], index)
    learn_slices(twin, chosen)
    return twin


def _maps(model: nn.Module, path: str) -> tuple[tuple[str, ...], str]:
    ups, down, _ = map_names(model.get_submodule(path))
    return ups, down


def _num_neurons(model: nn.Module, path: str) -> int:
    down = f"{path}.{_maps(model, path)[1]}"
    return weight_of(model, down).shape[inputs_of(model, down)]
