"""PEFT, imported here and nowhere else, so that bitsandbytes does not come with it.

PEFT imports bitsandbytes wherever that is installed, which takes time, asks the hub for a kernel on some processors and
warns about it. Four bits are asked for in `load_base`, and only there is it needed.
"""

from lpr_lab.model.bases.quantized import without_bitsandbytes

with without_bitsandbytes():
    from peft import LoraConfig, PeftConfig, PeftModel, PeftModelForCausalLM, TaskType, get_peft_model
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
    from peft.utils import PeftType

__all__ = [
    "PEFT_TYPE_TO_CONFIG_MAPPING",
    "PEFT_TYPE_TO_PREFIX_MAPPING",
    "PEFT_TYPE_TO_TUNER_MAPPING",
    "BaseTuner",
    "BaseTunerLayer",
    "LoraConfig",
    "PeftConfig",
    "PeftModel",
    "PeftModelForCausalLM",
    "PeftType",
    "TaskType",
    "get_peft_model",
]
