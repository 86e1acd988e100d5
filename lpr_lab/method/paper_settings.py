"""The papers' own settings, number by number with where each stands; far too large for a test, right for a cluster.

    lab.expand(model, tokenizer, corpus, languages=["el", "hu", "tr"], out=..., settings=MOE_LPR_STAGE1)

The defaults of the verbs are for minutes on two cores; their coefficients, top-k and replay share are the papers'
already. Sources: MoE-LPR (§ Experiment Setup) and its scripts; of LayerMoE the scripts (`scripts-train`).

MoE-LPR does not state optimiser, warm-up, weight decay or clipping, and no script of either sets them. So both ran on
the defaults of Hugging Face's Trainer: AdamW with betas 0.9 and 0.999, no warm-up, no weight decay, a cosine to zero,
gradients clipped at norm 1. Routers learn at the rate of everything else. `blocks_per_forward` says what fits into
memory at once, and changes no result.
"""

from dataclasses import replace

from lpr_lab.method.training import TrainSettings

# What both stages of both papers share.
NEW_EXPERTS_PER_LAYER = 5  # MoE-LPR, main experiments: six experts with the original one, in each of 24 layers
TOP_K = 2  # MoE-LPR eq. 2; the scripts of both
LOAD_BALANCING_COEF = 0.01  # alpha, MoE-LPR eq. 8. Its code leaves out 1/K, and so has 0.02 of the formula's loss
LPR_COEF = 0.1  # gamma, MoE-LPR eq. 11
CLASSIFIER_COEF = 0.1  # LayerMoE, `--classify_loss_coef` of stage 2
REPLAY_SHARE = 1 / 3  # MoE-LPR: 50k documents per original language to 100k per expanded one, three of each
REPLAY_TOKENS = 138_000_000  # MoE-LPR: "0.138B", of 150k documents in the original languages
_LEARNING_RATE = 5e-5  # MoE-LPR, and `--learning_rate` of every LayerMoE script

MOE_LPR_STAGE1 = TrainSettings(
    tokens=45_856 * 512 * 1024,  # MoE-LPR: 45,856 steps, one pass over 8B tokens each of el, hu, tr
    block_tokens=1024,  # MoE-LPR: sequence length of stage 1
    blocks_per_step=512,  # MoE-LPR: batch size; the released script has 4 x 16 x 4 = 256
    blocks_per_forward=16,  # per device in the released script
    learning_rate=_LEARNING_RATE,
    router_learning_rate=_LEARNING_RATE,
    precision="bf16",  # MoE-LPR
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
