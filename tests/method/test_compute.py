"""However a step is computed, it learns the same, and the model is left as it was."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import PreTrainedModel, modeling_flash_attention_utils

from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.training import compute
from lpr_lab.method.training.compute import FLASH, as_one_row, compute_options, resolve_attention
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.machine import default_device
from lpr_lab.text.packing import refuse_if_documents_mix

# Two micro-batches of two blocks, which several documents share; experts that all tokens visit, and some.
ONE_STEP = TrainSettings(
    tokens=4 * 24, block_tokens=24, blocks_per_step=4, blocks_per_forward=2, max_grad_norm=1e9, precision="fp32"
)
COUNTS = (1, 3)


@pytest.fixture
def expanded(tiny_model):
    """An expansion whose experts and routers differ, so that all of them have gradients."""
    return expansion_of(tiny_model(), COUNTS)


def expansion_of(base, counts):
    model = upcycle(base, counts, router_input="token_and_mean", router_bias=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "moe_lpr_" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def gradients(tiny_tokenizer, tiny_corpus, tmp_path):
    """Return a function that makes one step of a copy of a model and returns its gradients by parameter name."""

    def make(model, stage="expand", settings=ONE_STEP, **changes):
        found = {}

        def see(optimizer, *_):
            for group in optimizer.param_groups:
                for name, parameter in zip(group["param_names"], group["params"], strict=True):
                    found[name] = parameter.grad.detach().cpu().clone()

        handle = register_optimizer_step_pre_hook(see)
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        common = {"out": out, "settings": replace(settings, **changes)}
        try:
            if stage == "expand":
                expand(copy.deepcopy(model), tiny_tokenizer, tiny_corpus, languages=["el", "tr"], **common)
            else:
                common |= {"original": ["en"], "expanded": ["el"], "classifier_layers": [len(moe_layers(model)) - 1]}
                review(copy.deepcopy(model), tiny_tokenizer, tiny_corpus, **common)
        finally:
            handle.remove()
        return found

    return make


def assert_same(found, expected):
    assert found.keys() == expected.keys() and found
    for name, gradient in expected.items():
        assert gradient.any(), name
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


# -- flash attention ---------------------------------------------------------------------------------------------------


def attend_document_by_document(q, k, v, *, cu_seqlens_q, cu_seqlens_k, causal, softmax_scale, **_):
    """Compute what flash attention computes from bounds of sequences, [tokens, heads, width], in plain torch."""
    assert causal and torch.equal(cu_seqlens_q, cu_seqlens_k)
    outputs = []
    for start, end in itertools.pairwise(cu_seqlens_q.tolist()):
        rows = (part[start:end].transpose(0, 1) for part in (q, k, v))
        out = F.scaled_dot_product_attention(*rows, is_causal=True, scale=softmax_scale, enable_gqa=True)
        outputs.append(out.transpose(0, 1))
    return torch.cat(outputs)


def attend_row_by_row(q, k, v, *, causal, softmax_scale, **_):
    parts = (part.transpose(1, 2) for part in (q, k, v))
    out = F.scaled_dot_product_attention(*parts, is_causal=causal, scale=softmax_scale, enable_gqa=True)
    return out.transpose(1, 2)


@pytest.fixture
def flash_in_plain_torch(monkeypatch):
    """Let transformers' own way to flash attention end in plain torch, so that it can be walked on a processor."""

    def process(*_, is_causal=True, softmax_scale=None, max_seqlen_q=None, max_seqlen_k=None, **__):
        return {"causal": is_causal, "softmax_scale": softmax_scale}

    functions = (attend_row_by_row, attend_document_by_document, None, None, None), (process, process)
    monkeypatch.setattr(modeling_flash_attention_utils, "lazy_import_flash_attention", lambda *_, **__: functions)
    monkeypatch.setattr(
        PreTrainedModel, "_check_and_adjust_attn_implementation", lambda self, name, *_, **__: name or "sdpa"
    )


@pytest.mark.parametrize("stage", ["expand", "review"])
def test_in_one_row_flash_attention_keeps_documents_apart(
    stage, expanded, gradients, flash_in_plain_torch, monkeypatch
):
    expected = gradients(expanded, stage)
    monkeypatch.setattr(compute, "_obstacle_to_flash", lambda *_: "")
    assert_same(gradients(expanded, stage, attention=FLASH), expected)


def test_flash_attention_on_several_rows_at_once_is_refused_because_it_mixes_documents(
    tiny_model, flash_in_plain_torch
):
    model = copy.deepcopy(tiny_model())
    refuse_if_documents_mix(model)
    model.set_attn_implementation(FLASH)
    with pytest.raises(UnsupportedModelError, match=r"flash_attention_2 .* attn_implementation='sdpa'"):
        refuse_if_documents_mix(model)


def test_one_row_is_the_blocks_one_after_another():
    batch = {"input_ids": torch.tensor([[1, 2], [3, 4]]), "position_ids": torch.tensor([[0, 1], [0, 0]])}
    row = as_one_row(batch)
    assert row["input_ids"].tolist() == [[1, 2, 3, 4]] and row["position_ids"].tolist() == [[0, 1, 0, 0]]


OBSTACLES = {
    "on a processor": ({"device": "cpu"}, "CUDA .*cpu"),
    "in fp32": ({"precision": "fp32"}, "precision is fp32"),
    "not installed": ({"installed": False}, "flash-attn is not installed"),
    "not in transformers": ({"supported": False}, "none for llama"),
}


@pytest.fixture
def can_have_flash(expanded, monkeypatch):
    """Say what a machine has, and return what is resolved there."""

    def ask(attention, device="cuda", precision="bf16", installed=True, supported=True):
        base = expanded.get_base_model()
        monkeypatch.setattr(type(base), "device", torch.device(device))
        monkeypatch.setattr(type(base), "_supports_flash_attn", supported)
        monkeypatch.setattr(compute, "is_flash_attn_2_available", lambda: installed)
        return resolve_attention(attention, expanded, precision)

    return ask


def test_flash_attention_is_taken_where_it_can_be_had(can_have_flash):
    assert can_have_flash("auto") == can_have_flash(FLASH) == FLASH
    assert can_have_flash("as_loaded") == "as_loaded"


@pytest.mark.parametrize("case", OBSTACLES)
def test_elsewhere_it_is_left_and_refused_with_the_reason_when_asked_for(case, can_have_flash):
    here, reason = OBSTACLES[case]
    assert can_have_flash("auto", **here) == "as_loaded"
    with pytest.raises(UsageError, match=reason):
        can_have_flash(FLASH, **here)


def test_a_classifier_that_pools_rows_stands_in_the_way(expanded, can_have_flash):
    from lpr_lab.model.stages import sync_to_config

    config = replace(expanded.peft_config["default"], classifier_input="sequence")
    config.stages[-1]["classifiers"] = [1]
    sync_to_config(expanded, config)
    assert can_have_flash("auto") == "as_loaded"


def test_an_unknown_attention_is_refused_before_anything_starts():
    with pytest.raises(UsageError, match="mean 'flash_attention_2'"):
        replace(ONE_STEP, attention="flash_attention")


# -- compiled, and with states made again ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "counts"), [("expand", COUNTS), ("review", COUNTS[1:])])
def test_a_compiled_step_has_the_same_gradients(stage, counts, tiny_model, gradients):
    """Of one layer of each kind: a layer takes ten seconds to compile."""
    expanded = expansion_of(tiny_model(num_layers=len(counts)), counts)
    expected = gradients(expanded, stage)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert_same(gradients(expanded, stage, compile=True), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before  # something was compiled


def test_afterwards_the_model_is_as_it_was_also_after_an_error(expanded):
    base, layer = expanded.get_base_model(), moe_layers(expanded)[0]
    forward, attention = layer.forward, base.config._attn_implementation

    def fail():
        with compute_options(expanded, attention="eager", activation_checkpointing=True, compiled=True):
            assert base.is_activation_checkpointing and base.config._attn_implementation == "eager"
            assert base.model.layers[0]._compiled_call_impl is not None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert layer.forward == forward and base.config._attn_implementation == attention
    assert not base.is_activation_checkpointing and base.model.layers[0]._compiled_call_impl is None


def test_activation_checkpointing_that_somebody_switched_on_stays_on(expanded):
    base = expanded.get_base_model()
    base.activation_checkpointing_enable()
    with compute_options(expanded, activation_checkpointing=True):
        pass
    assert base.is_activation_checkpointing


@pytest.mark.parametrize("what", [True, "experts"])
def test_a_stage_goes_on_when_it_is_computed_otherwise(what, expanded, tiny_tokenizer, tiny_corpus, tmp_path):
    steps = []
    two = replace(ONE_STEP, tokens=2 * ONE_STEP.tokens)
    options = {"languages": ["el"], "out": tmp_path / "1", "log": lambda metrics: steps.append(metrics["step"])}
    expand(expanded, tiny_tokenizer, tiny_corpus, settings=replace(two, max_minutes=1e-9), **options)
    facts = expand(
        expanded, tiny_tokenizer, tiny_corpus, settings=replace(two, activation_checkpointing=what), **options
    )
    assert steps == [1, 2] and facts["stopped_by"] == "tokens"
    assert facts["computed_with"] == {"attention": "sdpa", "activation_checkpointing": what, "compile": False}
    assert all(layer.checkpoint is None for layer in moe_layers(expanded))


def test_what_is_run_again_is_a_known_part():
    with pytest.raises(UsageError, match=r"'layers'.*'experts'"):
        replace(ONE_STEP, activation_checkpointing="layers")


# -- devices -----------------------------------------------------------------------------------------------------------


def test_each_process_has_its_own_gpu_and_the_processor_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert default_device() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert default_device() == torch.device("cuda", 3)


@pytest.mark.gpu
@pytest.mark.parametrize("stage", ["expand", "review"])
@pytest.mark.parametrize("how", [{}, {"activation_checkpointing": True}, {"compile": True}, {"precision": "bf16"}])
def test_a_step_on_a_gpu_learns_what_it_learns_on_a_processor(stage, how, expanded, gradients, monkeypatch):
    with monkeypatch.context() as processor:
        processor.setattr(torch.cuda, "is_available", lambda: False)
        expected = gradients(expanded, stage)
    found = gradients(expanded.to("cuda"), stage, **how)
    loose = 5e-2 if how.get("precision") == "bf16" else 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=loose, atol=loose * float(gradient.abs().max()))


@pytest.mark.gpu
@pytest.mark.parametrize("stage", ["expand", "review"])
def test_flash_attention_learns_what_the_attention_of_torch_learns(stage, expanded, gradients):
    model = expanded.to("cuda")
    if resolve_attention("auto", model, "bf16") != FLASH:
        pytest.skip("flash-attn is not installed")
    expected = gradients(model, stage, precision="bf16", attention="as_loaded")
    for name, gradient in gradients(model, stage, precision="bf16", attention=FLASH).items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], rtol=5e-2, atol=5e-2 * scale)
