"""The baselines: what the method is compared with, trained on the same text.

MoE-LPR's Table 1 has five rows beside its own, all trained on the text of both its stages, the small replay included;
three more are what a sceptic asks for. Each is a function here that makes a dense model ready to train, and one verb
trains any of them:

    tuned = baselines.full(model)                                  # or lora, sparse_moe, lora_moe, llama_pro
    baselines.finetune(tuned, tokenizer, corpus, original=["en"], expanded=["el"], out="runs/mine/full")
    report = lab.evaluate(tuned, tokenizer, corpus, languages=["en", "el"], original=["en"], base=model)

    full          every weight learns
    interpolate   weights between the base's and those of `full`
    lora          low-rank updates on all linear maps
    lora_moe      a mixture of low-rank experts on every map of the MLPs
    llama_pro     new blocks between the old ones
    sparse_moe    a mixture of experts of which everything learns
    ssu           the columns of each map that matter least to the original languages
    lape          neurons that fire for the expanded languages alone

The model that is given keeps its weights, all of them and always: `full` and `sparse_moe` train a copy, the others add
to weights that they share with it and freeze. `lora` has its base inside, like an expansion, and is evaluated without
`base`. As a run each of them is a recipe of the same name (`experiments.recipes`).

What learns is float32, also where the base is in bfloat16, in which most small steps are rounded away: a copy that
learns as a whole is made in float32, what is added is float32 and computes in the base's precision.
"""

from lpr_lab.method.baselines.finetune import finetune
from lpr_lab.method.baselines.full import full, interpolate
from lpr_lab.method.baselines.lape import language_neurons, lape
from lpr_lab.method.baselines.llama_pro import llama_pro
from lpr_lab.method.baselines.lora import lora
from lpr_lab.method.baselines.lora_moe import LoraMixture, lora_moe
from lpr_lab.method.baselines.sparse_moe import sparse_moe
from lpr_lab.method.baselines.ssu import least_important_columns, ssu

__all__ = [
    "LoraMixture",
    "finetune",
    "full",
    "interpolate",
    "language_neurons",
    "lape",
    "least_important_columns",
    "llama_pro",
    "lora",
    "lora_moe",
    "sparse_moe",
    "ssu",
]
