"""The papers' own hyperparameters, each with its place in the paper; sized for a cluster. Torch-free.

    lab.recipes.moe_lpr(**lab.paper_settings.MOE_LPR)
    lab.recipes.layer_moe(**lab.paper_settings.LAYER_MOE)
    lab.recipes.further(run, **lab.paper_settings.LAYER_MOE_G2_AFTER_G1)
    lab.expand(model, tokenizer, corpus, languages=G1, out=..., settings=lab.paper_settings.MOE_LPR_STAGE1)

Each is what the paper writes; `RELEASED` adds what the authors' code does otherwise: `moe_lpr(**MOE_LPR, **RELEASED)`.
A notebook takes one by name, `-p preset=moe_lpr` (see `PRESETS`). No corpus is among them, because the papers' cannot
be fetched unasked: 8B tokens each of el, hu and tr from CulturaX, replay from SlimPajama (en), SkyPile-150B (zh) and
CulturaX (es).

The defaults of the verbs are for minutes on two cores; their coefficients, top-k and replay share are the papers'
already. Sources: MoE-LPR (§ Experiment Setup) and its scripts; of LayerMoE the paper and its `scripts-train`.

MoE-LPR does not state optimiser, warm-up, weight decay or clipping, and no script of either sets them. So both ran on
the defaults of Hugging Face's Trainer: AdamW with betas 0.9 and 0.999, no warm-up, no weight decay, a cosine to zero,
gradients clipped at norm 1. Routers learn at the rate of everything else. `blocks_per_forward` is what a device of the
scripts takes at once; it changes no result unless load balancing is counted per micro-batch, as in `RELEASED`.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from lpr_lab.method.training.budget import StageBudget

# What both stages of both papers share.
BASE = "Qwen/Qwen1.5-1.8B"  # MoE-LPR and LayerMoE; 24 layers
G0 = ("en", "zh", "es")  # original languages of both
G1 = ("el", "hu", "tr")  # MoE-LPR's expanded ones, LayerMoE's first group
G2 = ("bn", "hi", "ne")  # LayerMoE's second group
NEW_EXPERTS_PER_LAYER = 5  # MoE-LPR, main experiments: six experts with the original one, in each of 24 layers
TOP_K = 2  # MoE-LPR eq. 2; the scripts of both
LOAD_BALANCING_COEF = 0.01  # alpha, MoE-LPR eq. 8. Its code leaves out 1/K, and so has 0.02 of the formula's loss
LPR_COEF = 0.1  # gamma, MoE-LPR eq. 11
CLASSIFIER_COEF = 0.1  # LayerMoE, `--classify_loss_coef` of stage 2
REPLAY_SHARE = 1 / 3  # MoE-LPR: 50k documents per original language to 100k per expanded one, three of each
REPLAY_TOKENS = 138_000_000  # MoE-LPR: "0.138B", of 150k documents in the original languages
PRECISION = "bf16"  # MoE-LPR, and `--bf16` of every script
SIMILARITY_TOKENS = 100_000  # LayerMoE, of each language
_LEARNING_RATE = 5e-5  # MoE-LPR, and `--learning_rate` of every LayerMoE script


def _new(*totals: int) -> tuple[int, ...]:
    """Return the new experts of a list that counts expert 0 in every layer, as the papers' do."""
    return tuple(total - 1 for total in totals)


# LayerMoE, `--moe_num_experts_list` of its scripts for Qwen1.5-1.8B: 48 new experts in each expansion.
NEW_EXPERTS_G1 = _new(
    5, 4, 3, 5, 4, 3, 2, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4, 4, 3, 3
)  # also of G1 and G2 at once
NEW_EXPERTS_G2 = _new(5, 5, 4, 5, 4, 3, 2, 3, 3, 3, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 2, 2)
_BOTH_G1_FIRST = _new(10, 8, 6, 9, 8, 5, 3, 5, 5, 4, 3, 3, 3, 3, 3, 3, 3, 5, 5, 6, 6, 6, 4, 4)
_BOTH_G2_FIRST = _new(9, 8, 6, 8, 7, 5, 3, 5, 5, 4, 3, 3, 3, 3, 3, 5, 5, 5, 6, 6, 6, 6, 3, 3)
NEW_EXPERTS_G2_AFTER_G1 = tuple(both - first for both, first in zip(_BOTH_G1_FIRST, NEW_EXPERTS_G1, strict=True))
NEW_EXPERTS_G1_AFTER_G2 = tuple(both - first for both, first in zip(_BOTH_G2_FIRST, NEW_EXPERTS_G2, strict=True))
CLASSIFIER_LAYERS = (5, 6, 10, 11, 12, 13, 23)  # LayerMoE, `--group_nums`; 7 of 24
CLASSIFIER_LAYERS_G2_AFTER_G1 = (6, 10, 11, 12, 23)
NEW_EXPERTS_MOLA = _new(*[2] * 6, *[4] * 6, *[6] * 6, *[8] * 6)  # LayerMoE's baseline: more towards the last layers
DELTA_LLAMA = 70  # LayerMoE's allocation sheet: 84 experts in 28 layers, 56 of them new

MOE_LPR_STAGE1 = StageBudget(
    tokens=45_856 * 512 * 1024,  # MoE-LPR: 45,856 steps, one pass over 8B tokens each of el, hu, tr
    block_tokens=1024,  # MoE-LPR: sequence length of stage 1
    blocks_per_step=512,  # MoE-LPR: batch size; the released script has 4 x 16 x 4 = 256
    blocks_per_forward=16,  # per device in the released script
    learning_rate=_LEARNING_RATE,
    router_learning_rate=_LEARNING_RATE,
    # Not stated; the defaults of the Trainer that the code uses:
    warmup_fraction=0.0,
    final_learning_rate_fraction=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    adam_beta2=0.999,
)

MOE_LPR_STAGE2 = replace(
    MOE_LPR_STAGE1,
    # Not stated in tokens: all replay once, at its share, if documents of all languages are equally long.
    tokens=round(REPLAY_TOKENS / REPLAY_SHARE),
    block_tokens=512,  # MoE-LPR: sequence length of stage 2, whose batch is 512 too (128 in the released script)
    blocks_per_forward=4,  # per device in the released script
)

LAYER_MOE_STAGE1 = replace(
    MOE_LPR_STAGE1,
    tokens=6_000_000_000,  # 2B tokens per language, three languages of a group
    blocks_per_forward=8,  # 8 GPUs x 8 x 8 = 512 blocks a step
)

LAYER_MOE_STAGE2 = replace(
    MOE_LPR_STAGE2,  # the same numbers of documents; how many tokens they have is not stated
    blocks_per_step=768,  # 8 GPUs x 24 x 4, a single expansion of Qwen1.5-1.8B
    blocks_per_forward=24,
)

LAYER_MOE_STAGE2_FURTHER = replace(
    LAYER_MOE_STAGE2,
    # 100k documents of each of six expanded languages now, to 50k of each of three original ones.
    tokens=5 * REPLAY_TOKENS,
    blocks_per_step=640,  # 8 GPUs x 20 x 4: lifelong, and Llama
    blocks_per_forward=20,
)
REPLAY_SHARE_FURTHER = 1 / 5  # three times 50k of 750k documents

LAYER_MOE_BASELINES_STAGE2 = replace(LAYER_MOE_STAGE2, blocks_per_step=320, blocks_per_forward=20)
"""What LayerMoE gives MoE-LPR and MoLA as baselines, 4 GPUs x 20 x 4: less than half of its own batch."""

REPLAY_SHARE_OF_BOTH = REPLAY_TOKENS / (MOE_LPR_STAGE1.tokens + REPLAY_TOKENS)
"""What the baselines of MoE-LPR replay, all in one stage: under 1 % of their text."""

# Whole runs, as settings of a recipe.

MOE_LPR: Mapping[str, Any] = MappingProxyType(
    {
        "base": BASE,
        "original": G0,
        "expanded": G1,
        "new_experts_per_layer": NEW_EXPERTS_PER_LAYER,
        "allocation": "uniform",
        "top_k": TOP_K,
        "router_input": "token",  # MoE-LPR eq. 1
        "router_bias": False,
        "router_init": "xavier",  # its code
        "expert_init": "copy",  # MoE-LPR, and its ablation "w/o expert-copy"
        "stage1": MOE_LPR_STAGE1,
        "stage2": MOE_LPR_STAGE2,
        "load_balancing_coef": LOAD_BALANCING_COEF,
        "lpr_coef": LPR_COEF,
        "replay_share": REPLAY_SHARE,
        "precision": PRECISION,
    }
)
"""MoE-LPR's main experiment, for `recipes.moe_lpr`."""

LAYER_MOE: Mapping[str, Any] = MappingProxyType(
    {
        **MOE_LPR,
        "new_experts_per_layer": 2,  # 48 in 24 layers
        "allocation": NEW_EXPERTS_G1,  # what its measurement came to; "similarity" measures again
        "allocation_rule": "round_up",
        "similarity_tokens": SIMILARITY_TOKENS,
        "similarity_state": "mlp_input",  # its code; `attention_output` is what the paper writes
        "classifiers": CLASSIFIER_LAYERS,
        "classifier_coef": CLASSIFIER_COEF,
        "stage1": LAYER_MOE_STAGE1,
        "stage2": LAYER_MOE_STAGE2,
    }
)
"""LayerMoE's first group, for `recipes.layer_moe`."""

LAYER_MOE_G2: Mapping[str, Any] = MappingProxyType({**LAYER_MOE, "expanded": G2, "allocation": NEW_EXPERTS_G2})
"""Its second group as the first one."""

LAYER_MOE_BOTH: Mapping[str, Any] = MappingProxyType(
    {
        **LAYER_MOE,
        "expanded": (*G1, *G2),
        "stage1": replace(LAYER_MOE_STAGE1, tokens=2 * LAYER_MOE_STAGE1.tokens),
        "stage2": replace(LAYER_MOE_STAGE2, tokens=LAYER_MOE_STAGE2_FURTHER.tokens),
        "replay_share": REPLAY_SHARE_FURTHER,
    }
)
"""Both groups at once, with the experts of the first."""

LAYER_MOE_G2_AFTER_G1: Mapping[str, Any] = MappingProxyType(
    {
        "expanded": G2,
        "allocation": NEW_EXPERTS_G2_AFTER_G1,
        "classifiers": CLASSIFIER_LAYERS_G2_AFTER_G1,
        "stage2": LAYER_MOE_STAGE2_FURTHER,
        "replay_share": REPLAY_SHARE_FURTHER,
    }
)
"""Its second expansion, for `recipes.further` on a run of `LAYER_MOE`."""

LAYER_MOE_G1_AFTER_G2: Mapping[str, Any] = MappingProxyType(
    {
        **LAYER_MOE_G2_AFTER_G1,
        "expanded": G1,
        "allocation": NEW_EXPERTS_G1_AFTER_G2,
        "classifiers": CLASSIFIER_LAYERS,
    }
)
"""The other order, on a run of `LAYER_MOE_G2`."""

LAYER_MOE_LLAMA: Mapping[str, Any] = MappingProxyType(
    {
        **LAYER_MOE,
        "base": "meta-llama/Llama-3.2-3B",
        "allocation": "similarity",
        "delta": DELTA_LLAMA,
        "classifiers": 0,  # its only script for Llama is `no_cls`
        "stage2": replace(LAYER_MOE_STAGE2, blocks_per_step=640, blocks_per_forward=20),
    }
)
"""Its other base, for `recipes.layer_moe`."""

MOE_LPR_AS_BASELINE: Mapping[str, Any] = MappingProxyType(
    {**MOE_LPR, "stage1": LAYER_MOE_STAGE1, "stage2": LAYER_MOE_BASELINES_STAGE2}
)
"""MoE-LPR as LayerMoE runs it beside its own, for `recipes.moe_lpr`."""

MOLA: Mapping[str, Any] = MappingProxyType({**MOE_LPR_AS_BASELINE, "allocation": NEW_EXPERTS_MOLA})
"""The same with MoLA's pattern, 96 new experts, for `recipes.moe_lpr`."""

RELEASED: Mapping[str, Any] = MappingProxyType(
    {
        "loss_variant": "released",  # no 1/K in the balance loss, two softmaxes in the LPR loss
        "load_balancing_scope": "micro_batch",  # `load_balancing_loss_func` sees one micro-batch
        "classifier_input": "sequence",  # LayerMoE: one decision for a whole block
        "router_rows": "reinit",  # LayerMoE: a further expansion draws all routers anew
    }
)
"""What the authors' code does otherwise than the papers write; to be added to one of the others."""

PRESETS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "moe_lpr": ("moe_lpr", MOE_LPR),
        "moe_lpr_released": ("moe_lpr", {**MOE_LPR, **RELEASED}),
        "layer_moe": ("layer_moe", LAYER_MOE),
        "layer_moe_released": ("layer_moe", {**LAYER_MOE, **RELEASED}),
        "layer_moe_g2": ("layer_moe", LAYER_MOE_G2),
        "layer_moe_both": ("layer_moe", LAYER_MOE_BOTH),
        "layer_moe_llama": ("layer_moe", LAYER_MOE_LLAMA),
        "moe_lpr_as_baseline": ("moe_lpr", MOE_LPR_AS_BASELINE),
        "mola": ("moe_lpr", MOLA),
    }
)
"""Name, as a notebook takes it, to recipe and settings."""
