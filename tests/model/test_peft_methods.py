"""Every public method that PEFT gives a model: it works on an expansion, or says why not and what to use instead."""

import pytest
import torch
from peft import LoraConfig, PeftModelForCausalLM
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from transformers.utils import PushToHubMixin

from lpr_lab.errors import UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers, trainable_parameters

IDS = torch.arange(5, 29).view(2, 12)
SECOND = LoraConfig(r=2, target_modules=["q_proj"])

MERGE, DELETE, CHOOSE, ADD = "cannot be merged", "cannot be deleted", "decided by its stages", "cannot be added up"

# What is refused, by whom it is offered: name -> (arguments, word of the message).
REFUSED = {
    "model": {
        "merge_adapter": ((), MERGE),
        "unmerge_adapter": ((), MERGE),
        "merge_and_unload": ((), MERGE),
        "unload": ((), MERGE),
        "add_weighted_adapter": ((["default", "default"], [0.5, 0.5], "sum"), ADD),
        "delete_adapter": (("default",), DELETE),
        "set_requires_grad": (("default",), CHOOSE),
    },
    "tuner": {
        "merge_adapter": ((), MERGE),
        "unmerge_adapter": ((), MERGE),
        "merge_and_unload": ((), MERGE),
        "unload": ((), MERGE),
        "delete_adapter": (("default",), DELETE),
        "set_requires_grad": (("default",), CHOOSE),
    },
    "layer": {
        "merge": ((), MERGE),
        "unmerge": ((), MERGE),
        "delete_adapter": (("default",), DELETE),
        "set_requires_grad": (("default",), CHOOSE),
    },
}

# What works, or is refused by PEFT or transformers themselves with a reason of theirs.
WORKS = {
    "model": {
        "active_adapters", "active_peft_config", "base_model_torch_dtype", "create_or_update_model_card",
        "disable_adapter", "forward", "generate", "get_base_model", "get_layer_status", "get_model_status",
        "get_nb_trainable_parameters", "has_active_enabled_adapter", "modules_to_save", "peft_config",
        "prepare_inputs_for_generation", "prepare_model_for_gradient_checkpointing", "print_trainable_parameters",
        "save_pretrained", "from_pretrained", "set_adapter", "supports_lora_conversion",
        "add_adapter", "load_adapter",  # a second adapter is refused, see below
        "get_prompt", "get_prompt_embedding_to_save",  # of prompt tuning: there is no such module
    },
    "tuner": {
        "active_adapters", "disable_adapter_layers", "enable_adapter_layers", "forward", "get_model_config",
        "inject_adapter", "prefix", "set_adapter", "supports_lora_conversion", "tuner_layer_cls", "uses_shared_state",
    },
    "layer": {
        "active_adapter", "active_adapters", "adapter_layer_names", "bias", "disable_adapters", "enable_adapters",
        "frozen_peft_weight_names", "get_base_layer", "get_base_weight", "merged", "merged_adapters",
        "other_param_names", "quantization_backend", "set_adapter", "set_base_weight", "supports_lora_conversion",
        "weight",
    },
}  # fmt: skip
OFFERED = {"model": PeftModelForCausalLM, "tuner": BaseTuner, "layer": BaseTunerLayer}


@pytest.fixture
def model(tiny_model):
    return upcycle(tiny_model("llama"), (1, 1)).eval()


def part(model, who):
    return {"model": model, "tuner": model.base_model, "layer": moe_layers(model)[0]}[who]


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("who", OFFERED)
def test_every_public_method_is_looked_at(who):
    public = {name for name in dir(OFFERED[who]) if not name.startswith("_")}
    public -= set(dir(nn.Module)) - {"forward"}
    public -= set(dir(PushToHubMixin))
    if who == "layer":
        public -= {"forward"}
    assert public - WORKS[who] - set(REFUSED[who]) == set()


@pytest.mark.parametrize(("who", "name"), [(who, name) for who, names in REFUSED.items() for name in names])
def test_what_makes_no_sense_is_refused_with_the_reason_and_changes_nothing(model, who, name):
    arguments, word = REFUSED[who][name]
    before, learning = logits(model), [name for name, _ in trainable_parameters(model)]
    with pytest.raises(UsageError, match=word) as caught:
        getattr(part(model, who), name)(*arguments)
    assert "lpr_lab." in str(caught.value)
    assert torch.equal(logits(model), before)
    assert [name for name, _ in trainable_parameters(model)] == learning
    assert list(model.peft_config) == ["default"]


@pytest.mark.parametrize("who", ["model", "tuner"])
def test_switching_the_adapter_leaves_what_learns_as_it_was(model, who):
    learning = [name for name, _ in trainable_parameters(model)]
    part(model, who).set_adapter("default")
    with model.disable_adapter():
        pass
    model.base_model.disable_adapter_layers()
    model.base_model.enable_adapter_layers()
    assert [name for name, _ in trainable_parameters(model)] == learning


def test_a_second_adapter_is_refused_and_changes_nothing(model):
    before = logits(model)
    with pytest.raises(ValueError, match="different peft types"):
        model.add_adapter("second", SECOND)
    with pytest.raises(UsageError, match="one adapter"):
        model.add_adapter("second", model.peft_config["default"])
    assert list(model.peft_config) == ["default"]
    assert torch.equal(logits(model), before)


def test_what_can_be_asked_is_answered(model, tmp_path, capsys):
    assert model.get_model_status().enabled is True
    assert {status.name for status in model.get_layer_status()} == {f"model.model.layers.{i}.mlp" for i in (0, 1)}
    learning, total = model.get_nb_trainable_parameters()
    assert 0 < learning < total
    model.print_trainable_parameters()
    assert f"{learning:,}" in capsys.readouterr().out
    model.create_or_update_model_card(str(tmp_path))
    assert (tmp_path / "README.md").is_file()
    assert model.supports_lora_conversion() is False
