"""A base in four bits gives the same results on every processor, whatever bitsandbytes does there, or is refused."""

import copy

import pytest
import torch
from bitsandbytes import functional as bnb
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from helpers.pretend_avx512 import PROCESSORS, avx512_bf16
from lpr_lab.errors import UnsupportedModelError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.families import find_decoder_mlps
from lpr_lab.model.bases.fingerprint import base_fingerprint
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.bases.quantized import dequantized, use_portable_linear

COUNTS = (1, 3)
IDS = torch.arange(5, 29).view(2, 12)
OTHERS = [name for name in PROCESSORS if name != "without"]


@pytest.fixture
def narrow(tiny_model, tiny_tokenizer, tmp_path):
    """Return a function that writes a base of one family whose widths 64 does not divide, in one precision."""

    def write(family="llama", dtype=torch.float32):
        tiny_model(family).to(dtype).save_pretrained(tmp_path / family)
        tiny_tokenizer.save_pretrained(tmp_path / family)
        return tmp_path / family

    return write


@pytest.fixture
def wide(tiny_model, tmp_path):
    """A base that bitsandbytes' own kernels for AVX512-BF16 can compute: 64 divides every width."""
    config = copy.deepcopy(tiny_model("llama").config)
    config.update({"hidden_size": 64, "intermediate_size": 128, "head_dim": 32})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wide")
    return tmp_path / "wide"


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits.float()


def loaded_by_transformers(path):
    """Load a base in four bits without this library's help."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(path, quantization_config=config, device_map="cpu")


class Operations(TorchDispatchMode):
    """Records the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_pretended_processors_differ_so_that_the_other_tests_mean_something(processor, wide, narrow):
    with PROCESSORS[processor]():
        model = loaded_by_transformers(wide)
        use_portable_linear(model)
        expected = logits(model)
        difference = (logits(loaded_by_transformers(wide)) - expected).abs().max() / expected.abs().max()
        assert (difference > 1e-3) == (processor != "without")
        if processor != "without":
            with pytest.raises((AssertionError, RuntimeError), match=r"divisible|invalid for input"):
                logits(loaded_by_transformers(narrow()))


@pytest.mark.skipif("this" not in PROCESSORS, reason="this processor has no AVX512-BF16")
def test_the_pretence_computes_what_the_processors_own_kernel_computes(wide):
    with avx512_bf16(True):
        pretended = logits(loaded_by_transformers(wide))
    torch.testing.assert_close(pretended, logits(loaded_by_transformers(wide)), rtol=2e-2, atol=2e-2)


def results(path, dtype):
    """Return what a base in four bits decides: its fingerprint, its logits, its experts' start, the model's logits."""
    base, _ = load_base(path, dtype=dtype, device="cpu", quantization="nf4")
    before = logits(base)
    model = upcycle(base, COUNTS)
    with model.disable_adapter():
        again = logits(model)
    starts = [p.detach() for layer in moe_layers(model) for stack in layer.stacks for p in stack.parameters()]
    return base_fingerprint(model.get_base_model()), [before, logits(model), again, *starts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox", "gpt2"])  # every layout of the MLP
def test_all_processors_give_the_same_results(narrow, family, dtype):
    path = narrow(family)
    with avx512_bf16(False):
        expected = results(path, dtype)
    for processor in OTHERS:
        with PROCESSORS[processor]():
            found = results(path, dtype)
        assert found[0] == expected[0]
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found[1], expected[1], strict=True))


def test_no_kernel_of_bitsandbytes_computes_on_a_processor(narrow):
    model = upcycle(load_base(narrow(), device="cpu", quantization="nf4")[0], COUNTS)
    with Operations() as operations:
        logits(model)
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
    assert any("aten.mm" in name for name in operations.names)
    assert not any("bitsandbytes" in name for name in operations.names)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_base_that_transformers_loaded_is_expanded_alike_or_refused_once_repacked(processor, wide):
    with PROCESSORS[processor]():
        model = loaded_by_transformers(wide)
        use_portable_linear(model)
        expected = logits(model)
        torch.testing.assert_close(
            logits(upcycle(loaded_by_transformers(wide), COUNTS)), expected, rtol=1e-4, atol=1e-4
        )
        used = loaded_by_transformers(wide)
        logits(used)
        if processor == "without":
            torch.testing.assert_close(logits(upcycle(used, COUNTS)), expected, rtol=1e-4, atol=1e-4)
        else:
            with pytest.raises(UnsupportedModelError, match="AVX512-BF16"):
                upcycle(used, COUNTS)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=["float32 file", "bfloat16 file"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["in float32", "in bfloat16"])
def test_whatever_a_base_is_stored_and_loaded_in_dtypes_do_not_clash(narrow, stored, dtype):
    base, _ = load_base(narrow(dtype=stored), dtype=dtype, device="cpu", quantization="nf4")
    expected = logits(base)
    rounding = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert (logits(upcycle(base, COUNTS)) - expected).abs().max() <= rounding * expected.abs().max()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("shape", [(96, 64), (5, 24), (3, 7), (70, 33)])
def test_dequantised_numbers_are_level_by_scale(shape, quant_type, nested):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    packed, state = bnb.quantize_4bit(matrix, quant_type=quant_type, compress_statistics=nested)
    packed.quant_state = state
    with avx512_bf16(False):
        expected = bnb.dequantize_4bit(packed, state)
    assert torch.equal(dequantized(packed), expected)
    assert torch.equal(dequantized(packed, torch.bfloat16), expected.bfloat16())


def test_gradients_pass_a_packed_map_as_they_pass_the_whole_one(narrow):
    base, _ = load_base(narrow("gpt_neox"), device="cpu", quantization="nf4")
    packed = find_decoder_mlps(base)[0].module.dense_h_to_4h
    inputs = [torch.randn(2, 3, packed.in_features, requires_grad=True)]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    outputs = [packed(inputs[0]), torch.nn.functional.linear(inputs[1], dequantized(packed.weight), packed.bias)]
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
