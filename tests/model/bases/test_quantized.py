"""A base in four bits carries an expansion as any other does: the same start, stages and ways to load it.

Every test runs on a processor without AVX512-BF16 and on one with it, both pretended, and on this one where it has it.
"""

import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from helpers.pretend_avx512 import PROCESSORS
from lpr_lab.errors import ComparisonRefusedError, UnsupportedModelError, UsageError
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.similarity import measure_similarity
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import count_parameters, upcycle
from lpr_lab.model.adapter import moe_layers, trainable_parameters
from lpr_lab.model.bases import quantized
from lpr_lab.model.bases.families import find_decoder_mlps, read_mlp
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.formats import save_load as files
from lpr_lab.model.formats.export import export

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT's own doors

# Experts in both kinds of layers: all chosen for every token, and some.
COUNTS = (1, 3)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
IDS = torch.arange(5, 29).view(2, 12)
SETTINGS = TrainSettings(
    tokens=8 * 4 * 24, block_tokens=24, blocks_per_step=4, learning_rate=2e-2, router_learning_rate=0.1
)


@pytest.fixture(params=PROCESSORS, autouse=True)
def processor(request):
    with PROCESSORS[request.param]():
        yield request.param


@pytest.fixture
def folder(tiny_model, tiny_tokenizer, tmp_path):
    """Return a function that writes a tiny base of one family and says where."""

    def write(family="llama"):
        tiny_model(family).save_pretrained(tmp_path / family)
        tiny_tokenizer.save_pretrained(tmp_path / family)
        return tmp_path / family

    return write


def dtypes_in(module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in module.parameters()}


def of_the_base(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if "moe_lpr_" not in name}


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(input_ids=IDS.to(model.device)).logits.float()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox", "gpt2"])  # every layout of the MLP
def test_the_upcycled_model_computes_what_the_quantised_base_computes(folder, family, device):
    whole, _ = load_base(folder(family), device=device)
    base, _ = load_base(folder(family), device=device, quantization="nf4")
    expected = logits(base)
    correlation = torch.corrcoef(torch.stack([expected.flatten(), logits(whole).flatten()]))[0, 1]
    assert 0.5 < correlation < 0.9999  # the same model, said in four bits
    model = upcycle(base, COUNTS)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)


def test_what_learns_is_whole_and_what_is_counted_are_numbers_not_bytes(folder, tiny_tokenizer, tiny_corpus):
    whole, _ = load_base(folder())
    base, _ = load_base(folder(), quantization="nf4")
    of = {"original": ["en"], "expanded": ["el"], "tokens_per_language": 100}
    tables = [measure_similarity(model, tiny_tokenizer, tiny_corpus, **of) for model in (whole, base)]
    assert tables[0].expert_parameters == tables[1].expert_parameters
    model = upcycle(base, COUNTS)
    assert count_parameters(model) == count_parameters(upcycle(whole, COUNTS))
    assert {parameter.dtype for _, parameter in trainable_parameters(model)} == {torch.float32}
    assert dtypes_in(moe_layers(model)[0].base_layer) == {torch.uint8}


def test_new_experts_are_what_the_four_bits_say(folder):
    whole, quantised = (load_base(folder(), quantization=how)[0] for how in ("", "nf4"))
    layers = [read_mlp(find_decoder_mlps(model)[0].module) for model in (whole, quantised)]
    assert layers[0].up.shape == layers[1].up.shape and layers[0].down.shape == layers[1].down.shape
    assert 0 < (layers[0].up - layers[1].up).abs().mean() < 0.2 * layers[0].up.abs().mean()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_stages_train_experts_and_routers_and_leave_the_base(
    folder, tiny_tokenizer, tiny_corpus, tmp_path, precision, device
):
    base, _ = load_base(folder(), device=device, quantization="nf4")
    model = upcycle(base, COUNTS)
    before = of_the_base(model)
    logged = []
    settings = replace(SETTINGS, precision=precision)
    common = {"settings": settings, "log": logged.append}
    expand(model, tiny_tokenizer, tiny_corpus, languages=["el", "tr"], out=tmp_path / "1", **common)
    losses = [metrics["lm_loss"] for metrics in logged]
    assert sum(losses[-2:]) < 0.98 * sum(losses[:2])
    logged.clear()
    common |= {"original": ["en"], "expanded": ["el"], "out": tmp_path / "2", "classifier_layers": [1]}
    review(model, tiny_tokenizer, tiny_corpus, **common)
    assert logged[-1]["lpr_loss"] < logged[0]["lpr_loss"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in of_the_base(model).items())


def test_an_expansion_comes_back_on_the_base_it_was_made_on_and_on_no_other(folder, tmp_path):
    path = folder()
    model = upcycle(load_base(path, quantization="nf4")[0], COUNTS)
    with torch.no_grad():
        for parameter in moe_layers(model)[0].stacks[0].parameters():
            parameter += 0.01
    files.save_expansion(model, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "adapter_config.json").read_text())["base_quantization"] == "nf4"
    assert torch.equal(logits(files.load_expansion(tmp_path / "saved")), logits(model))
    fresh, _ = load_base(path, quantization="nf4")
    assert torch.equal(logits(PeftModel.from_pretrained(fresh, tmp_path / "saved")), logits(model))
    with pytest.raises(ComparisonRefusedError, match=r"nf4.* loaded .*whole weights"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(path), tmp_path / "saved")


def test_an_expansion_of_whole_weights_is_refused_on_four_bits(folder, tmp_path):
    files.save_expansion(upcycle(load_base(folder())[0], COUNTS), tmp_path / "saved")
    packed, _ = load_base(folder(), quantization="nf4")
    with pytest.raises(ComparisonRefusedError, match=r"whole weights.* loaded .*nf4"):
        PeftModel.from_pretrained(packed, tmp_path / "saved")


def test_another_base_in_four_bits_is_refused(folder, tmp_path, tiny_model):
    files.save_expansion(upcycle(load_base(folder(), quantization="nf4")[0], COUNTS), tmp_path / "saved")
    tiny_model("llama", seed=1).save_pretrained(folder())
    other, _ = load_base(tmp_path / "llama", quantization="nf4")
    with pytest.raises(ComparisonRefusedError, match="another base model"):
        PeftModel.from_pretrained(other, tmp_path / "saved")


def test_a_native_model_of_four_bits_is_refused(folder, tmp_path):
    model = upcycle(load_base(folder(), quantization="nf4")[0], (1, 1))
    with pytest.raises(UnsupportedModelError, match="four bits"):
        export(model, tmp_path / "native", "mixtral")
    assert not (tmp_path / "native").exists()


def test_an_unknown_quantisation_or_a_missing_package_is_said_before_anything_is_loaded(monkeypatch):
    with pytest.raises(UsageError, match="Did you mean 'nf4'"):
        load_base("no-such-base", quantization="nf-4")
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"lpr_lab\[quantized\]"):
        load_base("no-such-base", quantization="nf4")
