"""What learns is float32, whatever the base is in: the start, training at the papers' rate, files, and baselines."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lpr_lab import storage
from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.method import baselines
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.training import train as training
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers, trainable_parameters
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.formats.save_load import load_expansion, save_expansion

COUNTS = (1, 3)  # both kinds of layers: all experts chosen for every token, and some
DTYPES = [torch.float32, torch.bfloat16]
IDS = torch.arange(5, 45).view(2, 20)
SETTINGS = TrainSettings(
    tokens=6 * 4 * 24,
    block_tokens=24,
    blocks_per_step=4,
    learning_rate=1e-2,
    router_learning_rate=1e-2,
    precision="fp32",
)
PAPERS = replace(SETTINGS, learning_rate=5e-5, router_learning_rate=5e-5, warmup_fraction=0.0)

ROWS = {
    "full": baselines.full,
    "lora": lambda model: baselines.lora(model, rank=2),
    "sparse_moe": lambda model: baselines.sparse_moe(model, COUNTS),
    "lora_moe": lambda model: baselines.lora_moe(model, num_experts=3, rank=2),
    "llama_pro": lambda model: baselines.llama_pro(model, num_blocks=1),
}


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits.float()


@torch.no_grad()
def loss_of(model, ids) -> float:
    return float(model(input_ids=ids, labels=ids, use_cache=False).loss)


def new_in(model) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if "moe_lpr_" in name}


def assert_as_the_base(found, expected, dtype):
    """Within the rounding of the precision: that of sums in another order in float32, some last places in bfloat16."""
    most = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}[dtype]
    assert (found - expected).abs().max() <= most * expected.abs().max()


@pytest.mark.parametrize(
    ("dtype", "dispatch"), [(torch.float32, "grouped"), (torch.bfloat16, "loop"), (torch.float16, "grouped")]
)
def test_the_start_equals_the_base_and_all_that_is_new_is_float32(family_model, dtype, dispatch):
    dense = family_model.to(dtype)
    expected = logits(dense)
    model = upcycle(dense, COUNTS, dispatch=dispatch)
    assert {parameter.dtype for parameter in new_in(model).values()} == {torch.float32}
    assert {p.dtype for name, p in model.named_parameters() if "moe_lpr_" not in name} == {dtype}
    assert_as_the_base(logits(model), expected, dtype)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_layer_gives_what_the_mlp_gives_up_to_one_rounding(tiny_model, dtype):
    model = upcycle(tiny_model().to(dtype), COUNTS)
    x = torch.randn(2, 9, 32).to(dtype)
    for layer in moe_layers(model):
        dense, mixed = layer.base_layer(x), layer(x)
        assert mixed.dtype == dtype
        # Weights sum to 1 within 1e-7 and the sum is rounded once; rows in other company may differ by one last place.
        assert ((mixed - dense).abs() <= torch.finfo(dtype).eps * 4 * dense.abs().max()).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_and_moments_are_float32(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, monkeypatch, dtype):
    made = []
    make = training.make_optimizer
    monkeypatch.setattr(training, "make_optimizer", lambda *args: made.append(make(*args)) or made[-1])
    model = upcycle(tiny_model().to(dtype), COUNTS)
    expand(model, tiny_tokenizer, tiny_corpus, languages=["el"], out=tmp_path / "1", settings=SETTINGS)
    options = {"original": ["en"], "expanded": ["el"], "classifier_layers": [1], "settings": SETTINGS}
    review(model, tiny_tokenizer, tiny_corpus, out=tmp_path / "2", **options)
    moments = [t for optimizer in made for state in optimizer.state.values() for t in state.values() if t.dim()]
    assert len(made) == 2 and {tensor.dtype for tensor in moments} == {torch.float32}
    assert {parameter.dtype for parameter in new_in(model).values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_at_the_papers_rate_experts_on_a_bfloat16_base_learn_as_those_on_a_float32_base(
    family, tiny_model, tiny_tokenizer, tiny_corpus, sentences, tmp_path
):
    greek = torch.tensor([tiny_tokenizer("\n".join(sentences["el"]))["input_ids"][:120]])
    fall, moved = {}, {}
    for dtype in DTYPES:
        model = upcycle(tiny_model(family).to(torch.bfloat16).to(dtype), COUNTS)
        start = {name: parameter.detach().clone() for name, parameter in new_in(model).items()}
        before = loss_of(model, greek)
        settings = replace(PAPERS, tokens=60 * 4 * 24)
        expand(model, tiny_tokenizer, tiny_corpus, languages=["el"], out=tmp_path / str(dtype), settings=settings)
        fall[dtype] = before - loss_of(model, greek)
        moved[dtype] = sum(float((p - start[name]).abs().sum()) for name, p in new_in(model).items())
    assert fall[torch.float32] > 0.01
    assert 0.8 < fall[torch.bfloat16] / fall[torch.float32] < 1.25
    assert 0.9 < moved[torch.bfloat16] / moved[torch.float32] < 1.1


@pytest.mark.parametrize("base_dtype", DTYPES)
@pytest.mark.parametrize("saved", [None, torch.bfloat16])
def test_what_is_saved_in_either_precision_opens_in_float32(tiny_model, tiny_tokenizer, tmp_path, base_dtype, saved):
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    model = upcycle(load_base(tmp_path / "base", dtype=base_dtype)[0], COUNTS)
    with torch.no_grad():
        for parameter in new_in(model).values():
            parameter += 0.01 * torch.randn(parameter.shape)
    save_expansion(model, tmp_path / "adapter", dtype=saved)
    opened = load_expansion(tmp_path / "adapter", dtype=base_dtype)
    for name, parameter in new_in(opened).items():
        expected = new_in(model)[name]
        rounded = expected.to(saved).float() if saved and "experts" in name else expected
        assert parameter.dtype == torch.float32 and torch.equal(parameter, rounded)


def test_a_stage_that_an_earlier_version_began_in_bfloat16_goes_on_in_float32(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    def run(settings):
        model = upcycle(tiny_model().bfloat16(), COUNTS)
        options = {"languages": ["el"], "out": tmp_path / "stage", "settings": settings}
        return model, expand(model, tiny_tokenizer, tiny_corpus, **options)

    _, result = run(replace(SETTINGS, max_minutes=1e-9))
    assert result["steps"] == 1
    (checkpoint,) = (tmp_path / "stage").glob("checkpoint-*")
    facts = storage.read_json(checkpoint / storage.MANIFEST)
    for file in ("adapter_model.safetensors", "optimizer.safetensors"):  # as bfloat16 experts were kept
        tensors = load_file(checkpoint / file)
        save_file({n: t.bfloat16() if "experts" in n else t for n, t in tensors.items()}, checkpoint / file)
    (checkpoint / storage.MANIFEST).unlink()
    storage.seal(checkpoint, {key: value for key, value in facts.items() if key != "files"})
    model, result = run(SETTINGS)
    assert result["steps"] == SETTINGS.num_steps
    assert {parameter.dtype for parameter in new_in(model).values()} == {torch.float32}


@pytest.mark.parametrize("row", ROWS)
def test_a_baseline_of_a_bfloat16_base_learns_in_float32_or_is_refused(
    row, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    dense = tiny_model().bfloat16()
    expected = logits(dense)
    if row == "llama_pro":
        with pytest.raises(UsageError, match=r"bfloat16.*float32"):
            ROWS[row](dense)
        return
    tuned = ROWS[row](dense)
    assert {parameter.dtype for _, parameter in trainable_parameters(tuned)} == {torch.float32}
    is_copy = row in ("full", "sparse_moe")  # the same numbers, computed in float32
    reference = logits(copy.deepcopy(dense).float()) if is_copy else expected
    assert_as_the_base(logits(tuned.eval()), reference, torch.float32 if is_copy else torch.bfloat16)
    options = {"original": ["en"], "expanded": ["el"], "replay_share": 0.25, "settings": SETTINGS}
    start = {name: parameter.detach().clone() for name, parameter in trainable_parameters(tuned)}
    baselines.finetune(tuned, tiny_tokenizer, tiny_corpus, out=tmp_path, **options)
    assert any(not torch.equal(parameter, start[name]) for name, parameter in trainable_parameters(tuned))
    assert torch.equal(logits(dense), expected)


@pytest.mark.parametrize("row", ROWS)
def test_a_baseline_of_a_base_in_four_bits_starts_as_it_or_is_refused(row, tiny_model, tiny_tokenizer, tmp_path):
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    dense, _ = load_base(tmp_path / "base", quantization="nf4", device="cpu")
    if row not in ("lora", "lora_moe"):
        with pytest.raises(UnsupportedModelError, match="four bits"):
            ROWS[row](dense)
        return
    expected = logits(dense)
    tuned = ROWS[row](dense).train()
    assert {parameter.dtype for _, parameter in trainable_parameters(tuned)} == {torch.float32}
    assert torch.equal(logits(tuned.eval()), expected)
    tuned.train()(input_ids=IDS, labels=IDS).loss.backward()
    assert all(parameter.grad is not None for _, parameter in trainable_parameters(tuned))


def test_a_model_that_was_converted_afterwards_is_refused_before_a_step(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    plain = tiny_model().bfloat16().requires_grad_(True)
    with pytest.raises(UsageError, match=r"bfloat16.*float32"):
        baselines.finetune(plain, tiny_tokenizer, tiny_corpus, original=[], expanded=["el"], out=tmp_path)
    assert not list(tmp_path.iterdir())
