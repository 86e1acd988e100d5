"""Adapters in the released layout compute here what a plain reading of the released forward pass computes."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from lpr_lab.errors import DamagedError, MissingError, UnsupportedModelError, UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import expansion_config, moe_layers
from lpr_lab.model.capture import record_routing
from lpr_lab.model.formats.import_released import import_released
from lpr_lab.model.formats.save_load import load_expansion, save_expansion
from lpr_lab.model.stages import enter_stage, selected_stage

IDS = torch.randint(400, (8, 12), generator=torch.Generator().manual_seed(0))
ROUTER = "base_model.model.model.layers.{}.mlp.moe_router_embedding.weight"
CLASSIFIER = "base_model.model.model.layers.{}.mlp.moe_token_classify.weight"


class PlainMixture(nn.Module):
    """One layer's forward pass as the papers' code describes it, token by token, sequence by sequence."""

    def __init__(self, mlp, experts, router, classifier, top_k):
        super().__init__()
        self.experts = nn.ModuleList([mlp, *experts])
        self.router, self.classifier, self.top_k = router, classifier, top_k

    def forward(self, x):
        return torch.stack([self.of_sequence(sequence) for sequence in x])

    def of_sequence(self, x):
        if self.classifier is not None and (self.classifier @ x.sum(0)).argmax() == 0:
            return self.experts[0](x)
        return torch.stack([self.of_token(token) for token in x])

    def of_token(self, token):
        probabilities = F.softmax((self.router @ token).float(), dim=0)
        kept = probabilities.argsort(descending=True)[: self.top_k]
        total = probabilities[kept].sum()
        return sum(probabilities[expert] / total * self.experts[expert](token) for expert in kept.tolist())


@torch.no_grad()
def logits(model, ids=IDS):
    return model(input_ids=ids).logits


@pytest.fixture
def release(tiny_model, tmp_path):
    """Write an adapter in the released layout; return its folder, a fresh base and the plain model's logits."""

    def write(counts, classified=(), *, family="llama", top_k=2, dtype=torch.float32, **settings):
        dense = tiny_model(family, num_layers=len(counts))
        generator = torch.Generator().manual_seed(1)

        def drawn(*shape):
            return (0.5 * torch.randn(*shape, generator=generator)).to(dtype).float()

        tensors, experts = {}, {}
        for layer, count in enumerate(counts):
            if count == 1:
                continue
            mlp = dense.model.layers[layer].mlp
            experts[layer] = [copy.deepcopy(mlp) for _ in range(count - 1)]
            tensors[ROUTER.format(layer)] = drawn(count, 32)
            if layer in classified:
                tensors[CLASSIFIER.format(layer)] = drawn(2, 32)
            for number, expert in enumerate(experts[layer]):
                for name, parameter in expert.named_parameters():
                    parameter.data = drawn(*parameter.shape)
                    tensors[f"base_model.model.model.layers.{layer}.mlp.moe_experts.{number}.{name}"] = parameter.data
        folder = tmp_path / "released"
        folder.mkdir()
        save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
        config = {
            "auto_mapping": None,
            "base_model_name_or_path": "/somewhere/Qwen1.5-1.8B",
            "inference_mode": True,
            "init_moe_weights": True,
            "layers_to_transform": [layer for layer, count in enumerate(counts) if count > 1],
            "num_experts": list(counts),
            "peft_type": "MOE",
            "task_type": "CAUSAL_LM",
            "topk": top_k,
            "aux_loss_coef": None,
            "lpr_loss_coef": 0.1,
            "save_all_params": False,
            **settings,
        }
        if classified:
            config["group_nums"] = [2 * (layer in classified) for layer in range(len(counts))]
            config["old_num_experts"] = list(counts)
        (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))
        for layer, new in experts.items():
            block = dense.model.layers[layer]
            block.mlp = PlainMixture(
                block.mlp, new, tensors[ROUTER.format(layer)], tensors.get(CLASSIFIER.format(layer)), top_k
            )
        return folder, tiny_model(family, num_layers=len(counts)), logits(dense)

    return write


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_moe_lpr_adapter_computes_what_the_released_code_describes(release, family, dtype):
    settings = {"num_experts": 4, "layers_to_transform": [0, 1]}  # one number for all layers, as MoE-LPR has it
    folder, base, expected = release((4, 4), family=family, dtype=dtype, **settings)
    model = import_released(folder, base)
    assert torch.allclose(logits(model), expected, atol=1e-4)
    assert [layer.num_experts for layer in moe_layers(model)] == [4, 4]
    assert moe_layers(model)[0].router.weight.dtype == torch.float32


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_layer_moe_adapter_with_classifiers_computes_what_the_released_code_describes(release, family):
    folder, base, expected = release((3, 1, 2, 4), classified=(0, 2), family=family)
    model = import_released(folder, base)
    with record_routing(model) as record:
        assert torch.allclose(logits(model), expected, atol=1e-4)
    layers = moe_layers(model)
    assert [(layer.layer, layer.num_experts) for layer in layers] == [(0, 3), (2, 2), (3, 4)]
    assert [layer.classifier is not None for layer in layers] == [True, True, False]
    said = {int(c) for layer in (0, 2) for c in record.routing[layer].classifier_logits.argmax(-1)}
    assert said == {0, 1}, "both answers occur, or this test says little"


def test_more_experts_per_token_than_a_layer_has_uses_all_of_them(release):
    folder, base, expected = release((2, 4), top_k=3)
    assert torch.allclose(logits(import_released(folder, base)), expected, atol=1e-4)


def test_every_second_layer_can_be_a_mixture(release):
    folder, base, expected = release((1, 3, 1, 3), num_experts=3, layers_to_transform=[1, 3])
    assert torch.allclose(logits(import_released(folder, base)), expected, atol=1e-4)


@torch.no_grad()
def test_an_imported_expansion_is_like_any_other(release, tiny_tokenizer, tmp_path):
    folder, base, _ = release((3, 2), classified=(1,))
    base.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    base.config._name_or_path = str(tmp_path / "base")
    dense = logits(base)
    model = import_released(folder, base, expanded=["el", "tr"], original=["en"])
    expected = logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), dense)
    assert selected_stage(model) == "G1 review"
    config = expansion_config(model)
    assert (config.groups, config.original) == ([["el", "tr"]], ["en"])
    assert config.classifier_input == "sequence"
    save_expansion(model, tmp_path / "adapter")
    assert torch.equal(logits(load_expansion(tmp_path / "adapter")), expected)
    upcycle(model, (1, 1))
    assert [layer.num_experts for layer in moe_layers(model)] == [4, 3]


def test_an_adapter_after_stage_1_can_be_reviewed(release):
    folder, base, _ = release((3, 2), lpr_loss_coef=None, aux_loss_coef=0.01)
    model = import_released(folder, base)
    assert selected_stage(model) == "G1 expand"
    enter_stage(model, "review", classifiers=[0])
    assert selected_stage(model) == "G1 review"


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(ROUTER.format(0)), "lacks the tensor .*layers.0.mlp.moe_router_embedding"),
        (lambda t: t.pop("base_model.model.model.layers.1.mlp.moe_experts.0.up_proj.weight"), "moe_experts.0.up_proj"),
        (lambda t: t.update({ROUTER.format(1): torch.zeros(5, 32)}), r"shape \(5, 32\), expected \(2, 32\)"),
        (lambda t: t.update({"base_model.model.model.norm.weight": torch.zeros(32)}), "not have.*norm"),
        (lambda t: t.update({CLASSIFIER.format(0): torch.zeros(2, 32)}), "not have.*classify"),
    ],
)
def test_missing_surplus_and_misshapen_tensors_are_refused_by_name(release, change, message):
    folder, base, _ = release((3, 2))
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    before = logits(base)
    with pytest.raises(DamagedError, match=message):
        import_released(folder, base)
    assert torch.equal(logits(base), before), "a refused import leaves the base as it was"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"peft_type": "LORA"}, DamagedError, "'LORA'.*'MOE'"),
        ({"topk": 1}, UnsupportedModelError, "one expert per token"),
        ({"num_experts": [3, 2, 2]}, DamagedError, "num_experts .*3 layers.* 2"),
        ({"layers_to_transform": [0, 7]}, DamagedError, r"mixtures in layers \[7\]"),
        ({"num_experts": 1}, DamagedError, "adds no expert"),
        ({"group_nums": 3}, UnsupportedModelError, "knows 3 groups"),
        ({"group_nums": 2, "old_num_experts": [2, 2]}, UnsupportedModelError, "2 of 3 experts"),
        ({"token_route": True}, UnsupportedModelError, "token_route"),
    ],
)
def test_settings_that_mean_something_else_are_refused(release, settings, error, message):
    folder, base, _ = release((3, 2), **settings)
    with pytest.raises(error, match=message):
        import_released(folder, base)


def test_pickles_are_refused_with_how_to_convert_them(release):
    folder, base, _ = release((3, 2))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(MissingError, match=r"weights_only=True.*save_file"):
        import_released(folder, base)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(MissingError, match=r"no adapter_model\.safetensors"):
        import_released(folder, base)


def test_a_model_that_already_carries_an_adapter_is_refused(release):
    folder, base, _ = release((3, 2))
    with pytest.raises(UsageError, match="dense base"):
        import_released(folder, upcycle(base, (1, 1)))
