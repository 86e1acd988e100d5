"""Products of bfloat16 matrices by way of float32 are those of processors that have instructions for them."""

import time
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from lpr_lab.method.expand import expand
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model import bf16_products, machine
from lpr_lab.model.bf16_products import WidenedProducts
from lpr_lab.model.forward import inference
from lpr_lab.model.observe import precision_name


def _numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.bfloat16)


ENDS = torch.tensor([9, 32], dtype=torch.int32)


@pytest.fixture
def all_sizes(monkeypatch):
    """Have products of small matrices widened too, as tiny models have no others."""
    monkeypatch.setattr(bf16_products, "_FEW", 1)


PRODUCTS = {
    "mm": (lambda a, b: a @ b, (32, 48), (48, 20)),
    "linear": (F.linear, (2, 16, 48), (20, 48)),
    "addmm": (lambda a, b, c: torch.addmm(c, a, b), (32, 48), (48, 20), (20,)),
    "bmm": (torch.bmm, (3, 32, 48), (3, 48, 20)),
    "baddbmm": (lambda a, b, c: torch.baddbmm(c, a, b), (3, 32, 48), (3, 48, 20), (3, 32, 20)),
    "transposed": (lambda a, b: a.T @ b.T, (48, 32), (20, 48)),
    "grouped": (lambda a, b: F.grouped_mm(a, b, offs=ENDS), (32, 48), (2, 48, 16)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_the_exact_one_rounded_once(name, monkeypatch):
    widened = _count(monkeypatch, slow=True)
    product, *shapes = PRODUCTS[name]
    operands = [_numbers(*shape) for shape in shapes]
    exact = product(*(one.double() for one in operands)) if name != "grouped" else _grouped(*operands)
    with WidenedProducts():
        made = product(*operands)
    assert len(widened) >= 2, "both matrices"
    assert made.dtype == torch.bfloat16 and made.shape == exact.shape
    # To the nearest number of bfloat16; a sum in float32 that lies beside the middle of two may fall to the other.
    is_nearest = made == exact.bfloat16()
    assert is_nearest.float().mean() > 0.99
    torch.testing.assert_close(made.double(), exact, rtol=2**-7, atol=1e-5)


def _grouped(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    first, second = rows.double().tensor_split([int(ENDS[0])])
    return torch.cat([first @ weights[0].double(), second @ weights[1].double()])


@pytest.mark.parametrize("causal", [True, False])
def test_attention_and_its_gradients_are_nearer_to_the_exact_ones_than_bfloat16_is_fine(causal, monkeypatch):
    widened = _count(monkeypatch, slow=True)
    kept = [_numbers(2, 4, 24, 16) for _ in range(3)]

    def attend(dtype: torch.dtype, context) -> list[torch.Tensor]:
        q, k, v = operands = [one.to(dtype).requires_grad_() for one in kept]
        with context:
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            (attended * torch.arange(16, dtype=dtype)).sum().backward()
        return [attended.detach(), *(one.grad for one in operands if one.grad is not None)]

    for exact, made in zip(
        attend(torch.float32, nullcontext()), attend(torch.bfloat16, WidenedProducts()), strict=True
    ):
        assert made.dtype == torch.bfloat16
        assert (made.float() - exact).norm() < 2**-6 * exact.norm()
    assert len(widened) > 3, "forwards and backwards"


def test_a_token_that_is_being_written_takes_the_weights_as_they_are(monkeypatch):
    widened = _count(monkeypatch, slow=True)
    with WidenedProducts():
        F.linear(_numbers(1, 1, 48), _numbers(20, 48))
        assert not widened
        F.linear(_numbers(1, 32, 48), _numbers(20, 48))
        assert len(widened) == 2


def test_products_of_other_numbers_stay_as_they_are():
    a, b = torch.randn(12, 48), torch.randn(48, 20)
    with WidenedProducts():
        assert torch.equal(a @ b, torch.matmul(a, b))
        made = a @ b
        with pytest.raises(RuntimeError):
            torch.matmul(a, b.bfloat16())  # as without it: of two kinds
    assert torch.equal(made, a @ b)


def _gradients(model, ids: torch.Tensor, context, *, rounds: bool) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    with context:
        with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
            logits = model(input_ids=ids).logits
        logits.float().logsumexp(-1).sum().backward()
    grads = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return logits.detach().float(), torch.cat(grads)


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3", "gpt2"])
@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.usefixtures("all_sizes")
def test_a_model_in_bf16_computes_what_torch_computes_in_bf16(tiny_model, family, experts):
    model = tiny_model(family)
    model = upcycle(model, (experts,) * model.config.num_hidden_layers)
    ids = torch.randint(5, 60, (2, 24))
    exact = _gradients(model, ids, nullcontext(), rounds=False)
    native = _gradients(model, ids, nullcontext(), rounds=True)
    widened = _gradients(model, ids, WidenedProducts(), rounds=True)
    for of_exact, of_native, of_widened in zip(exact, native, widened, strict=True):
        error = (of_widened - of_exact).norm()
        assert 0 < error < 1.5 * (of_native - of_exact).norm(), "it rounds, and no more than torch does"


@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.parametrize(
    ("held", "precision"), [("float32", "bf16"), ("float32", "fp32"), ("bfloat16", "fp32"), ("bfloat16", None)]
)
@pytest.mark.usefixtures("all_sizes")
def test_measurements_take_this_way_where_the_processor_is_slow_in_bf16_and_nowhere_else(
    tiny_model, monkeypatch, slow, held, precision
):
    made = _count(monkeypatch, slow)
    model = tiny_model("llama").to(getattr(torch, held))
    with inference(model, precision):
        model(input_ids=torch.tensor([[5, 6, 7]]))
    assert bool(made) == (slow and "bf16" in (precision, precision_name(next(model.parameters()).dtype)))


@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.usefixtures("all_sizes")
def test_training_takes_it_too_and_its_results_say_so(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, monkeypatch, slow
):
    made = _count(monkeypatch, slow)
    model = upcycle(tiny_model("llama"), (1, 1))
    settings = TrainSettings(tokens=256, block_tokens=32, blocks_per_step=2, blocks_per_forward=2, precision="bf16")
    result = expand(model, tiny_tokenizer, tiny_corpus, languages=["el", "tr"], out=tmp_path, settings=settings)
    assert result["precision"] == "bf16" and bool(made) == slow
    assert ("bf16_products" in result["computed_with"]) == slow, "what was seen is in the results"
    assert 0 < result["last"]["loss"] < 10


def _count(monkeypatch, slow: bool) -> list[str]:
    """Say how slow the processor is; returns a list with an entry for each value that is looked at to widen."""
    made: list[str] = []
    widened = bf16_products._widened
    monkeypatch.setattr(bf16_products, "bf16_is_slow", lambda: slow)
    monkeypatch.setattr(bf16_products, "_widened", lambda value: (made.append("an operand"), widened(value))[1])
    return made


def test_where_bf16_takes_several_times_as_long_this_way_is_quicker():
    if machine.bf16_slowdown() < 5:
        pytest.skip("this processor is not that slow in bf16")
    a, b = _numbers(256, 512), _numbers(512, 512)
    took = {}
    for name in ("torch's", "widened", "torch's", "widened"):
        with WidenedProducts() if name == "widened" else nullcontext():
            began = time.perf_counter()
            torch.matmul(a @ b.T, b)
            took[name] = min(took.get(name, 9e9), time.perf_counter() - began)
    assert took["widened"] < took["torch's"]
