"""A mixture of experts that learns as a whole, expert 0 and attention included."""

import copy
from collections.abc import Sequence
from typing import cast

from transformers import PreTrainedModel

from lpr_lab.method.allocation import Allocation
from lpr_lab.method.baselines.base import require_dense, require_unquantized
from lpr_lab.method.upcycle import upcycle


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
    require_dense(model)
    require_unquantized(model, "sparse_moe")
    expanded = upcycle(copy.deepcopy(model).float(), allocation, top_k, seed=seed)
    mixture = cast("PreTrainedModel", expanded.get_base_model())
    del mixture.peft_config
    return mixture.requires_grad_(True)
