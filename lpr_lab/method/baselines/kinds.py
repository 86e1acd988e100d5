"""Every baseline by name: how it is made of a base, what it first looks at, and how it is kept.

A baseline's `settings` are plain values that make it again on the same base. What was chosen by looking at text (the
columns of `ssu`, the neurons of `lape`) is its *selection*, and is kept with the weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import one_of
from lpr_lab.method.baselines.full import full
from lpr_lab.method.baselines.lape import language_neurons, lape
from lpr_lab.method.baselines.llama_pro import llama_pro
from lpr_lab.method.baselines.lora import lora
from lpr_lab.method.baselines.lora_moe import lora_moe
from lpr_lab.method.baselines.sparse_moe import sparse_moe
from lpr_lab.method.baselines.ssu import least_important_columns, ssu
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.quantized import num_values
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.tuned.pair import Tuned
from lpr_lab.text.corpus import Corpus

Selection = Mapping[str, torch.Tensor]
"""What was chosen by looking at text: path of a module -> int64 [n]."""

WHOLE, ADAPTER, PARTS = "model.safetensors", "adapter_model.safetensors", "trained.safetensors"
"""The file of weights: a whole model as transformers reads it, an adapter as PEFT reads it, or what learned alone."""


@dataclass(frozen=True)
class Kind:
    """One baseline.

    Attributes:
        make: (base, settings, selection) -> the model, ready to train.
        tensors: name of its file of weights.
        select: chooses by looking at text, for those that do.
    """

    make: Callable[[PreTrainedModel, Mapping[str, Any], Selection], PreTrainedModel | PeftModel]
    tensors: str
    select: Callable[..., dict[str, torch.Tensor]] | None = None


def _columns(*args: Any, original: Sequence[str], expanded: Sequence[str], **settings: Any) -> dict[str, torch.Tensor]:
    return least_important_columns(*args, original=original, **settings)  # the new languages have no say in it


KINDS: dict[str, Kind] = {
    "full": Kind(lambda base, settings, _: full(base), WHOLE),
    "interpolate": Kind(lambda base, settings, _: full(base), WHOLE),
    "lora": Kind(lambda base, settings, _: lora(base, **settings), ADAPTER),
    "lora_moe": Kind(lambda base, settings, _: lora_moe(base, **settings), PARTS),
    "llama_pro": Kind(lambda base, settings, _: llama_pro(base, **settings), WHOLE),
    "sparse_moe": Kind(lambda base, settings, _: sparse_moe(base, **settings), PARTS),
    "ssu": Kind(lambda base, settings, selection: ssu(base, selection), PARTS, _columns),
    "lape": Kind(lambda base, settings, selection: lape(base, selection), PARTS, language_neurons),
}


def select(
    kind: str,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, torch.Tensor]:
    """Return what a baseline chooses by looking at text; empty for those that choose nothing.

    Raises:
        UsageError: no such baseline, or what its choice refuses.
    """
    one_of("baseline", kind, KINDS)
    choose = KINDS[kind].select
    if choose is None:
        return {}
    return choose(base, tokenizer, corpus, original=original, expanded=expanded, **settings)


def make(kind: str, base: PreTrainedModel, settings: Mapping[str, Any], selection: Selection | None = None) -> Tuned:
    """Return a baseline, ready to train, beside its base.

    Args:
        kind: by name.
        base: the dense base; it stays as it is.
        settings: see the function of that name; of those that choose by looking at text, what `select` took.
        selection: from `select`.

    Raises:
        UsageError: no such baseline, or what its function refuses.
    """
    one_of("baseline", kind, KINDS)
    tuned = KINDS[kind].make(base, settings, selection or {})
    return Tuned(base, tuned.train(base.training), kind, settings, selection or {})


def count_tuned(model: Tuned) -> dict[str, int]:
    """Return how many parameters the base has, how many the tuned model, how many of these learn and a token uses."""
    own = {id(parameter): parameter for parameter in model.tuned.parameters()}
    total = sum(num_values(parameter) for parameter in own.values())
    learned = sum(parameter.numel() for parameter in own.values() if parameter.requires_grad)
    idle = sum(
        stack.numel() // (layer.num_experts - 1) * (layer.num_experts - min(layer.top_k, layer.num_experts))
        for layer in moe_layers(model.tuned)
        for experts in layer.stacks
        for stack in experts.parameters()
    )
    # A learned slice stands in for numbers that the frozen weight still holds.
    replaced = sum(
        parameter.numel()
        for name, parameter in model.tuned.named_parameters()
        if name.endswith(".parametrizations.weight.0.learned")
    )
    return {
        "base": sum(num_values(parameter) for parameter in model.base.parameters()),
        "tuned": total - replaced,
        "trained": learned,
        "active_per_token": total - replaced - idle,
    }
