"""A native model computes what the expansion computes, without this library; where it cannot, it is refused."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Ernie4_5_MoeForCausalLM,
    MixtralForCausalLM,
    Qwen2MoeForCausalLM,
    Qwen3MoeForCausalLM,
)

from helpers.expansions import changed, moved
from lpr_lab.errors import DamagedError, UnsupportedModelError, UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.formats.compare import Difference
from lpr_lab.model.formats.export import export
from lpr_lab.model.formats.save_load import load_expansion, save_expansion
from lpr_lab.model.stages import enter_stage, select_stage

IDS = torch.arange(5, 85).view(2, 40)
NATIVE = {"llama": "mixtral", "mistral": "mixtral", "qwen2": "qwen2_moe", "qwen3": "qwen3_moe"}
CLASSES = {
    "mixtral": MixtralForCausalLM,
    "qwen2_moe": Qwen2MoeForCausalLM,
    "qwen3_moe": Qwen3MoeForCausalLM,
    "ernie4_5_moe": Ernie4_5_MoeForCausalLM,
}


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("family", NATIVE)
@pytest.mark.parametrize("new_experts", [1, 3, 5])
def test_the_native_model_has_the_same_logits(tiny_model, tmp_path, family, new_experts):
    model = moved(upcycle(tiny_model(family), (new_experts, new_experts)))
    expected = logits(model)
    assert export(model, tmp_path / "native", NATIVE[family]) == tmp_path / "native"
    native, report = AutoModelForCausalLM.from_pretrained(tmp_path / "native", output_loading_info=True)
    assert type(native) is CLASSES[NATIVE[family]]
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert native.dtype == torch.float32
    assert torch.allclose(logits(native), expected, atol=1e-5)
    assert torch.equal(logits(model), expected), "exporting leaves the model as it was"


@pytest.mark.parametrize("family", NATIVE)
def test_generation_with_a_cache_is_the_same(tiny_model, tmp_path, family):
    model = moved(upcycle(tiny_model(family), (2, 2)))
    export(model, tmp_path / "native", NATIVE[family])
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "native")
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[0, :4] = 0
    both = [m.generate(input_ids=IDS[:, :9], attention_mask=mask, **options) for m in (model, native)]
    assert torch.equal(*both)


@pytest.mark.slow
def test_a_process_without_this_library_and_peft_loads_it(tiny_model, tiny_tokenizer, tmp_path):
    model = moved(upcycle(tiny_model("llama"), (2, 2)))
    export(model, tmp_path / "native", "mixtral", tokenizer=tiny_tokenizer)
    script = """
import sys
sys.modules["lpr_lab"] = sys.modules["peft"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("native")
assert len(AutoTokenizer.from_pretrained("native")) == 400
try:
    import lpr_lab
except ImportError:
    torch.save(model(torch.arange(5, 85).view(2, 40)).logits, "logits.pt")
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert torch.allclose(torch.load(tmp_path / "logits.pt"), logits(model), atol=1e-5)


def test_several_expansions_are_one_native_mixture_at_the_selected_stage(tiny_model, tmp_path):
    model = moved(upcycle(tiny_model("llama"), (1, 1)))
    first = logits(model)
    second = logits(moved(upcycle(model, (2, 2))))
    export(model, tmp_path / "second", "mixtral")
    select_stage(model, "G1 expand")
    export(model, tmp_path / "first", "mixtral")
    for name, experts, expected in (("first", 2, first), ("second", 4, second)):
        native = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert native.config.num_local_experts == experts
        assert torch.allclose(logits(native), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize("counts", [(0, 2, 2), (2, 0, 0), (0, 0, 4), (1, 1, 0), (0, 3, 0)])
def test_dense_layers_stay_dense_where_the_native_class_has_them(tiny_model, tmp_path, family, counts):
    model = moved(upcycle(tiny_model(family, num_layers=3), counts))
    upcycle(model, (2, 2, 2))  # a layer that is dense at the stage before
    select_stage(model, "G1 expand")
    export(model, tmp_path / "native", NATIVE[family])
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "native")
    assert native.config.mlp_only_layers == [layer for layer, count in enumerate(counts) if not count]
    assert torch.allclose(logits(native), logits(model), atol=1e-5)


@pytest.mark.parametrize("counts", [(0, 2, 2), (1, 0, 0), (0, 0, 4)])
def test_a_dense_layer_is_copies_of_its_mlp_where_every_layer_must_be_a_mixture(tiny_model, tmp_path, counts):
    model = moved(upcycle(tiny_model("llama", num_layers=3), counts))
    export(model, tmp_path / "native", "mixtral")
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "native")
    assert Difference.of(logits(model), logits(native)).is_rounding


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize(("counts", "top_k"), [((1, 3, 2), 2), ((0, 4, 1), 2), ((0, 2, 4), 3), ((0, 0, 1), 2)])
def test_layers_with_other_numbers_of_experts_are_padded_with_experts_that_are_never_chosen(
    tiny_model, tmp_path, family, counts, top_k
):
    model = moved(upcycle(tiny_model(family, num_layers=3), counts, top_k=top_k))
    export(model, tmp_path / "native", "ernie4_5_moe")
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "native")
    assert type(native) is CLASSES["ernie4_5_moe"]
    assert native.config.moe_num_experts == 1 + max(counts)
    assert Difference.of(logits(model), logits(native)).is_rounding
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    assert torch.equal(*(m.generate(input_ids=IDS[:, :9], **options) for m in (model, native)))


def test_attention_biases_and_other_positions_are_carried_into_ernie(tiny_model, tmp_path):
    rope = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
    model = moved(upcycle(changed(tiny_model("llama"), attention_bias=True, rope_parameters=rope), (1, 2)))
    export(model, tmp_path / "native", "ernie4_5_moe")
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "native")
    assert Difference.of(logits(model), logits(native)).is_rounding


def test_what_was_written_is_opened_again_before_it_gets_its_name(tiny_model, tmp_path, monkeypatch):
    model = moved(upcycle(tiny_model("llama"), (1, 1)))
    write = MixtralForCausalLM.save_pretrained

    def write_badly(native, folder, **options):
        native.model.norm.weight.data = native.model.norm.weight * 2
        write(native, folder, **options)

    monkeypatch.setattr(MixtralForCausalLM, "save_pretrained", write_badly)
    with pytest.raises(DamagedError, match="differ by up to"):
        export(model, tmp_path / "native", "mixtral")
    assert not list(tmp_path.iterdir())


def test_the_shared_expert_of_qwen2_moe_is_one_unit_of_zeros(tiny_model, tmp_path):
    export(moved(upcycle(tiny_model("qwen2"), (2, 2))), tmp_path / "native", "qwen2_moe")
    shared = {k: v for k, v in load_file(tmp_path / "native" / "model.safetensors").items() if "shared_expert" in k}
    assert len(shared) == 2 * 4
    assert sum(tensor.numel() for tensor in shared.values()) == 2 * 4 * 32
    assert not any(tensor.any() for tensor in shared.values())


def test_experts_in_float32_on_a_base_in_bfloat16_are_exported_after_loading_all_in_float32(
    tiny_model, tiny_tokenizer, tmp_path
):
    """What is written has one precision, float32, whatever mixture of them the model has in memory."""
    dense = tiny_model("qwen2").bfloat16()
    dense.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    model = moved(upcycle(AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16), (2, 2)))
    for layer in moe_layers(model):
        for stack in layer.stacks:
            stack.float()
    with pytest.raises(UsageError, match=r"bfloat16.*load_expansion\(path, dtype=torch\.float32\)"):
        export(model, tmp_path / "native", "qwen2_moe")
    save_expansion(model, tmp_path / "adapter")
    whole = load_expansion(tmp_path / "adapter", base=tmp_path / "base", dtype=torch.float32)
    export(whole, tmp_path / "native", "qwen2_moe")
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "native")
    assert {parameter.dtype for parameter in native.parameters()} == {torch.float32}
    assert torch.allclose(logits(native), logits(whole), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}}),
        ("llama", {"head_dim": 16, "rms_norm_eps": 1e-2, "hidden_act": "gelu"}),
        ("mistral", {"sliding_window": 8}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2", {"num_key_value_heads": 4, "head_dim": 16, "rms_norm_eps": 1e-2, "hidden_act": "gelu"}),
        ("qwen2", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0}}),
        ("qwen3", {"attention_bias": True, "tie_word_embeddings": True, "head_dim": 16}),
    ],
)
def test_settings_that_the_native_class_has_are_carried_over(tiny_model, tmp_path, family, settings):
    dense = changed(tiny_model(family), **settings)
    assert not torch.allclose(logits(dense), logits(changed(tiny_model(family))), atol=1e-2)
    model = moved(upcycle(dense, (2, 2)))
    export(model, tmp_path / "native", NATIVE[family])
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "native")
    assert torch.allclose(logits(native), logits(model), atol=1e-5)
    if settings.get("tie_word_embeddings"):
        assert "lm_head.weight" not in load_file(tmp_path / "native" / "model.safetensors")


def test_the_end_of_text_and_how_to_generate_come_along(tiny_model, tiny_tokenizer, tmp_path):
    dense = tiny_model("llama")
    dense.generation_config.temperature = 0.7
    dense.generation_config.do_sample = True
    export(upcycle(dense, (1, 1)), tmp_path / "native", "mixtral", tokenizer=tiny_tokenizer)
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "native")
    assert native.config.eos_token_id == native.generation_config.eos_token_id == 0
    assert native.generation_config.temperature == 0.7
    assert AutoTokenizer.from_pretrained(tmp_path / "native").eos_token == "<|endoftext|>"
    facts = json.loads((tmp_path / "native" / "MANIFEST.json").read_text())
    assert facts["stage"] == "G1 expand" and facts["difference"] < 1e-5


def test_notes_in_a_configuration_that_nothing_reads_are_left_behind(tiny_model, tmp_path):
    dense = tiny_model("llama")
    dense.config.converted_by = "some tool"
    export(upcycle(dense, (1, 1)), tmp_path / "native", "mixtral")
    assert not hasattr(AutoModelForCausalLM.from_pretrained(tmp_path / "native").config, "converted_by")


def test_a_larger_top_k_than_experts_uses_all_of_them(tiny_model, tmp_path):
    model = moved(upcycle(tiny_model("llama"), (1, 1), top_k=3))
    export(model, tmp_path / "native", "mixtral")
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "native")), logits(model), atol=1e-5)


# What cannot be exact


def with_classifier(model):
    enter_stage(model, "review", classifiers=[1])
    return model


REFUSED = {
    "heterogeneous counts": ("llama", lambda d: upcycle(d, (1, 2)), "mixtral", r"Layers have 2, 3 experts.*uniform\(2"),
    "fewer experts than are chosen": (
        "llama",
        lambda d: upcycle(d, (1, 3), top_k=3),
        "ernie4_5_moe",
        r"\[0\] .*top_k = 3",
    ),
    "a classifier before padded layers": (
        "llama",
        lambda d: with_classifier(upcycle(d, (1, 2))),
        "ernie4_5_moe",
        "routing classifier",
    ),
    "a family that ernie does not hold": (
        "qwen3",
        lambda d: upcycle(d, (1, 2)),
        "ernie4_5_moe",
        "Use format='qwen3_moe'",
    ),
    "a sliding window in ernie": (
        "mistral",
        lambda d: upcycle(changed(d, sliding_window=8), (1, 2)),
        "ernie4_5_moe",
        "sliding_window",
    ),
    "classifiers": ("llama", lambda d: with_classifier(upcycle(d, (1, 1))), "mixtral", "routing classifier"),
    "a router bias": ("llama", lambda d: upcycle(d, (1, 1), router_bias=True), "mixtral", "use a bias"),
    "running means": ("llama", lambda d: upcycle(d, (1, 1), router_input="token_and_mean"), "mixtral", "running mean"),
    "another family": ("gemma2", lambda d: upcycle(d, (1, 1)), "mixtral", "gemma2.* native class"),
    "the other format": ("qwen3", lambda d: upcycle(d, (1, 1)), "mixtral", "Use format='qwen3_moe'"),
    "qwen2": ("qwen2", lambda d: upcycle(d, (1, 1)), "qwen3_moe", "Use format='qwen2_moe'"),
    "qwen2, heterogeneous": ("qwen2", lambda d: upcycle(d, (1, 3)), "qwen2_moe", r"2, 4 experts.*uniform\(2"),
    "qwen2, a classifier": ("qwen2", lambda d: with_classifier(upcycle(d, (1, 1))), "qwen2_moe", "routing classifier"),
    "qwen2, running means": (
        "qwen2",
        lambda d: upcycle(d, (1, 1), router_input="token_and_mean"),
        "qwen2_moe",
        "running mean",
    ),
    "qwen2, sliding windows": (
        "qwen2",
        lambda d: upcycle(changed(d, use_sliding_window=True, max_window_layers=1, sliding_window=8), (1, 1)),
        "qwen2_moe",
        "sliding window in some layers",
    ),
    "attention biases": ("llama", lambda d: upcycle(changed(d, attention_bias=True), (1, 1)), "mixtral", "attention_b"),
    "MLP biases": ("llama", lambda d: upcycle(changed(d, mlp_bias=True), (1, 1)), "mixtral", "have biases"),
    "sliding windows in some layers": (
        "qwen3",
        lambda d: upcycle(changed(d, use_sliding_window=True, max_window_layers=1, sliding_window=8), (1, 1)),
        "qwen3_moe",
        "sliding window in some layers",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_native_class_has_no_place_for_is_refused_with_what_to_do(tiny_model, tmp_path, what):
    family, make, format, message = REFUSED[what]
    model = make(tiny_model(family))
    with pytest.raises(UnsupportedModelError, match=message) as refusal:
        export(model, tmp_path / "native", format)
    assert "adapter" in str(refusal.value) or "Use format" in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_stage_without_classifiers_can_be_exported_though_a_later_one_has_them(tiny_model, tmp_path):
    model = with_classifier(moved(upcycle(tiny_model("llama"), (1, 1))))
    select_stage(model, "G1 expand")
    export(model, tmp_path / "native", "mixtral")
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "native")), logits(model), atol=1e-5)


def test_a_model_in_bfloat16_is_refused_because_routers_would_be_rounded(tiny_model, tmp_path):
    model = upcycle(tiny_model("llama").bfloat16(), (1, 1))
    with pytest.raises(UsageError, match=r"bfloat16.*dtype=torch\.float32"):
        export(model, tmp_path / "native", "mixtral")


def test_a_native_model_that_computes_something_else_is_not_written(tiny_model, tmp_path):
    model = moved(upcycle(tiny_model("llama"), (1, 1)))
    moe_layers(model)[0].base_layer.act_fn = torch.nn.Tanh()  # as code that transformers does not know would do
    with pytest.raises(UnsupportedModelError, match="differ by up to"):
        export(model, tmp_path / "native", "mixtral")
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_and_an_existing_folder_are_refused(tiny_model, tmp_path):
    model = upcycle(tiny_model("llama"), (1, 1))
    with pytest.raises(UsageError, match=r"onnx.* mixtral, qwen2_moe, qwen3_moe, ernie4_5_moe, gguf"):
        export(model, tmp_path / "native", "onnx")
    with pytest.raises(UsageError, match="exists"):
        export(model, tmp_path, "mixtral")
