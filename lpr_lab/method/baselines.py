"""The papers' baselines: full fine-tuning, LoRA, MoE, LoRAMoE and LLaMA-Pro, trained on the same text.

MoE-LPR's Table 1 has five rows beside its own, all trained on the text of both its stages, the small replay included.
Each is a function here that makes a dense model ready to train, and one verb trains any of them:

    tuned = baselines.full(model)                                  # or lora, sparse_moe, lora_moe, llama_pro
    baselines.finetune(tuned, tokenizer, corpus, original=["en"], expanded=["el"], out="runs/mine/full")
    report = lab.evaluate(tuned, tokenizer, corpus, languages=["en", "el"], original=["en"], base=model)

The model that is given keeps its weights, all of them and always: `full` and `sparse_moe` train a copy, the others add
to weights that they share with it and freeze. `lora` has its base inside, like an expansion, and is evaluated without
`base`.

What learns is float32, also where the base is in bfloat16, in which most small steps are rounded away: a copy that
learns as a whole is made in float32, what is added is float32 and computes in the base's precision.
"""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.method.allocation import Allocation
from lpr_lab.method.expand import pack_by_language, shares
from lpr_lab.method.training.budget import StageBudget
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.method.training.terms import balance_term, lm_term
from lpr_lab.method.training.train import Metrics, train, train_settings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.families import find_decoder_mlps, read_mlp
from lpr_lab.model.bases.quantized import quantization_of, use_portable_linear, without_bitsandbytes
from lpr_lab.model.mixture import all_layers
from lpr_lab.model.parallel.processes import join_processes
from lpr_lab.model.peft import LoraConfig, PeftModel, TaskType, get_peft_model
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.vocabulary import require_embeddings

_LORA_SCALING = 2  # alpha / rank; the paper does not state alpha, and LLaMA-Factory, which it trains with, takes 2 r


def finetune(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    out: str | Path,
    settings: StageBudget | None = None,
    replay_share: float = 1 / 12,
    load_balancing_coef: float = 0.01,
    log: Callable[[Metrics], None] | None = None,
) -> dict[str, Any]:
    """Train a baseline in one stage, on the text that both stages of the method see together.

    The keywords are those of `expand` and `review` that a baseline shares with them.

    Args:
        model: from one of the functions here; changed in place. To resume from a checkpoint, make it anew.
        tokenizer: the base model's.
        corpus: originals come from its `replay` split, expanded languages from `train`.
        original: languages to replay; may be empty.
        expanded: languages to learn.
        out: folder for checkpoints; a training that was interrupted continues from there.
        settings: budget and rates, or `TrainSettings` for all of it; 81,920 tokens by default, those of `expand` and
            `review` together.
        replay_share: share of blocks in original languages. 1/12 is what both stages have together by default; in the
            paper's runs it is 0.6 % (`paper_settings.REPLAY_SHARE_OF_BOTH`).
        load_balancing_coef: alpha, for `sparse_moe` only.
        log: called with the numbers of every step.

    Returns:
        steps, tokens, seconds, what stopped it, coefficients and variants, last metrics.

    Raises:
        UsageError: an expansion, which has stages of its own, or a language on both sides; or as in `expand` on
            processes.
    """
    if isinstance(model, PeftModel) and all_layers(model):
        raise UsageError(
            "An expansion is trained by lpr_lab.expand and lpr_lab.review; the baselines start from a base."
        )
    join_processes()
    settings = train_settings(settings, model, 81_920)
    weights = shares(original, expanded, replay_share if original else 0.0)
    splits = {language: "replay" if language in original else "train" for language in weights}
    require_embeddings(model, tokenizer)
    blocks = pack_by_language(corpus, tokenizer, splits, settings, weights)
    terms = [lm_term()]
    if moe_layers(model):
        terms.append(balance_term(model, load_balancing_coef))
    schedule = BlockSchedule(blocks, blocks_per_step=settings.blocks_per_step, seed=settings.seed, weights=weights)
    result = train(model, schedule, terms, settings, out=Path(out), label="Baseline", log=log)
    return result | {"original": list(original), "expanded": list(expanded)}


def full(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of which every weight learns: the row "Full FT" (Tables 1 and 3).

    It takes as much memory again as the model, because nothing of it stays as it was; more if that is in bfloat16.

    Raises:
        UnsupportedModelError: a base in four bits, which cannot learn.
    """
    _require_dense(model)
    _require_unquantized(model, "full")
    return copy.deepcopy(model).float().requires_grad_(True)


def lora(model: PreTrainedModel, rank: int = 8, seed: int = 0) -> PeftModel:
    """Return the model with low-rank updates on all its linear maps, which alone learn: the row "LoRA".

    The paper's rank is 8; with 64, it says, new languages are better and old ones forgotten more. The output head has
    none, and there is no dropout.
    """
    _require_dense(model)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=rank, lora_alpha=_LORA_SCALING * rank, target_modules="all-linear"
    )
    # PEFT would import bitsandbytes to ask whether a map is one of its own.
    lookup = nullcontext() if quantization_of(model) else without_bitsandbytes()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), lookup:
        # PEFT 0.21 asks transformers for a property under its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        torch.manual_seed(seed)
        return cast("PeftModel", get_peft_model(_on_same_weights(model), config))


def sparse_moe(
    model: PreTrainedModel, allocation: Allocation | Sequence[int], top_k: int = 2, seed: int = 0
) -> PreTrainedModel:
    """Return a copy that is upcycled and learns as a whole, expert 0 and attention included: the row "MoE".

    The paper has 5 new experts in every layer and trains in one stage with the balance loss. It takes as much memory
    again as the model. What comes back is no expansion, whose base would have to stay as it is, but a plain causal LM
    with mixtures in it: there is no base inside, and `save_expansion` refuses it.

    Raises:
        UnsupportedModelError: a base in four bits, which cannot learn.
    """
    _require_dense(model)
    _require_unquantized(model, "sparse_moe")
    expanded = upcycle(copy.deepcopy(model).float(), allocation, top_k, seed=seed)
    mixture = cast("PreTrainedModel", expanded.get_base_model())
    del mixture.peft_config
    return mixture.requires_grad_(True)


def lora_moe(model: PreTrainedModel, num_experts: int = 8, rank: int = 180, seed: int = 0) -> PreTrainedModel:
    """Return the model with a mixture of LoRA experts on each linear map of its MLPs: the row "LoRAMoE".

    8 experts of rank 180, all selected for every token, in the paper; its 2.6B parameters are reached with exactly the
    three maps of each MLP. After Dou et al., arXiv 2312.09979, without their balancing constraint, which needs a type
    of task for every text.

    Raises:
        UnsupportedModelError: an MLP whose maps are not `nn.Linear` (GPT-2).
    """
    _require_dense(model)
    twin = _on_same_weights(model).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for mlp in find_decoder_mlps(twin):
        maps = {name: child for name, child in mlp.module.named_children() if isinstance(child, nn.Linear)}
        if not maps:
            raise UnsupportedModelError(
                f"The maps of {mlp.path} in {model.config.model_type} are no nn.Linear, so they take no LoRA experts "
                "here; choose a model such as Llama, Qwen or GPT-NeoX."
            )
        for name, linear in maps.items():
            setattr(mlp.module, name, LoraMixture(linear, num_experts, rank, generator))
    return twin


class LoraMixture(nn.Module):
    """A frozen linear map and E low-rank updates of it, all at work on every token, weighted by a softmax gate.

    The updates start at zero, so the map starts as it was.
    """

    def __init__(self, linear: nn.Linear, num_experts: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear
        self.num_experts = num_experts
        device = linear.weight.device
        bound = 1 / math.sqrt(linear.in_features)

        def drawn(rows: int) -> nn.Parameter:
            values = torch.empty(rows, linear.in_features).uniform_(-bound, bound, generator=generator)
            return nn.Parameter(values.to(device))

        self.gate = drawn(num_experts)
        # All experts are one matrix each way: E · rank hidden channels, which the gate weights expert by expert.
        self.down = drawn(num_experts * rank)
        self.up = nn.Parameter(torch.zeros(linear.out_features, num_experts * rank, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map of `x` [..., D] plus the weighted updates."""
        gate, down, up = (weight.to(x.dtype) for weight in (self.gate, self.down, self.up))
        weights = F.linear(x, gate).float().softmax(-1) * _LORA_SCALING
        hidden = F.linear(x, down).unflatten(-1, (self.num_experts, -1)) * weights.to(x.dtype).unsqueeze(-1)
        return self.linear(x) + F.linear(hidden.flatten(-2), up)


@torch.no_grad()
def llama_pro(model: PreTrainedModel, num_blocks: int = 12) -> PreTrainedModel:
    """Return a deeper model of which only the new decoder blocks learn: the row "LLaMA-Pro".

    After every L / num_blocks blocks comes a copy of the last of them whose output projections are zero, so it passes
    on what it gets and the model starts as it was. The paper adds 12 to 24 (2.4B parameters), and 6 or 24 in its
    Figure 5. After Wu et al., arXiv 2401.02415. The result is a plain model of its family: `save_pretrained` and
    `from_pretrained` know it.

    Raises:
        UsageError: a number of blocks that does not divide the number of layers, or a base that is not float32: whole
            blocks learn here, and blocks of another precision cannot stand between those of the base.
        UnsupportedModelError: a family whose blocks do not add the output of `o_proj` and of the MLP as they are, or a
            base in four bits, whose blocks cannot learn.
    """
    _require_dense(model)
    _require_unquantized(model, "llama_pro")
    if model.dtype != torch.float32:
        raise UsageError(
            f"llama_pro trains whole blocks, and those of this base are {model.dtype}, where most small steps are "
            "rounded away. Load it in float32; precision='bf16' makes products in bfloat16."
        )
    deeper = _on_same_weights(model).requires_grad_(False)
    mlps = find_decoder_mlps(deeper)
    if num_blocks < 1 or len(mlps) % num_blocks:
        raise UsageError(
            f"num_blocks = {num_blocks} does not divide the {len(mlps)} layers of {model.config.model_type}; each new "
            "block follows a group of equally many."
        )
    path = mlps[0].path.rpartition(".")[0].rpartition(".")[0]
    blocks = cast("nn.ModuleList", deeper.get_submodule(path))
    config = deeper.config.get_text_config()
    group = len(mlps) // num_blocks
    source = [(layer, added) for layer in range(len(mlps)) for added in (False, True)[: 1 + ((layer + 1) % group == 0)]]
    stack = nn.ModuleList(_identity_block(blocks[layer], config) if added else blocks[layer] for layer, added in source)
    for position, block in enumerate(stack):
        for module in block.modules():
            if hasattr(module, "layer_idx"):  # where its keys and values are in the cache
                cast("Any", module).layer_idx = position
    deeper.set_submodule(path, stack)
    for setting in ("layer_types", "no_rope_layers"):  # those that have one value per layer
        values = getattr(config, setting, None)
        if values:
            setattr(config, setting, [values[layer] for layer, _ in source])
    config.num_hidden_layers = len(source)
    return deeper


def _identity_block(block: nn.Module, config: Any) -> nn.Module:
    """Return a copy of a decoder block that adds nothing to what passes through it, ready to learn."""
    parts = dict(block.named_children())
    attention = parts.get("self_attn")
    if not isinstance(getattr(attention, "o_proj", None), nn.Linear) or "post_feedforward_layernorm" in parts:
        raise UnsupportedModelError(
            f"{type(block).__name__} is not built like Llama's blocks, where the outputs of self_attn.o_proj and of "
            "the MLP are added as they are: with them at zero it would not start as no block at all, or jump at the "
            "first step. Choose a Llama, Mistral, Qwen, Phi-3 or SmolLM3 model."
        )
    added = copy.deepcopy(block, {id(config): config})
    output = cast("nn.Linear", added.get_submodule("self_attn.o_proj"))
    mlp = read_mlp(added.get_submodule("mlp"))
    for tensor in (output.weight, output.bias, mlp.down, mlp.down_bias):
        if tensor is not None:
            tensor.zero_()
    return added.requires_grad_(True)


def _on_same_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model with modules of its own, which can be replaced, and with the very tensors of the one given."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def _require_dense(model: nn.Module) -> None:
    if isinstance(model, PeftModel) or all_layers(model):
        raise UsageError(
            f"The baselines start from a dense base, and this {type(model).__name__} carries an adapter; load the base "
            "again with lpr_lab.load_base."
        )
    use_portable_linear(model)


def _require_unquantized(model: nn.Module, row: str) -> None:
    if quantization_of(model):
        raise UnsupportedModelError(
            f"The base is in four bits ({quantization_of(model)}), and {row} trains its weights, which only whole ones "
            "can do. Load it without quantization, or take lora or lora_moe, which leave it as it is."
        )
