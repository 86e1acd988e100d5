"""What a stage says it computed with is what was seen in its first step, in every stage of a process."""

import os
import signal
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lpr_lab.errors import LprError
from lpr_lab.measure.bits import evaluate
from lpr_lab.measure.generation import generate_pair
from lpr_lab.measure.routing import trace
from lpr_lab.method import baselines
from lpr_lab.method.closed_form import fit_routers
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.settings import FitSettings
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model import bf16_products, experts
from lpr_lab.model.capture import decoder_of

SETTINGS = TrainSettings(tokens=2 * 4 * 32, block_tokens=32, blocks_per_step=4, blocks_per_forward=2)
FULL, HALF = torch.float32, torch.bfloat16
PRECISION = {"fp32": FULL, "bf16": HALF}


@pytest.fixture(autouse=True)
def products_in_their_own_precision(monkeypatch):
    """Have products that are counted here made in bfloat16 itself, also where the processor is slow in it."""
    monkeypatch.setattr(bf16_products, "bf16_is_slow", lambda: False)


class Products(TorchDispatchMode):
    """Counts matrix products by the precision that they are computed in, below everything that could pretend."""

    def __init__(self):
        super().__init__()
        self.counts = {FULL: 0, HALF: 0}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.name().split(".")[0] in ("aten::mm", "aten::addmm", "aten::_grouped_mm"):
            self.counts[result.dtype] += 1
        return result


def run_expand(model, tokenizer, corpus, out, precision, **options):
    settings = replace(SETTINGS, precision=precision)
    return expand(model, tokenizer, corpus, languages=["el", "tr"], out=out, settings=settings, **options)


def run_review(model, tokenizer, corpus, out, precision, **options):
    options |= {"original": ["en"], "expanded": ["el", "tr"], "settings": replace(SETTINGS, precision=precision)}
    return review(model, tokenizer, corpus, out=out, **options)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("fp32", "bf16"),
        ("bf16", "fp32"),
        pytest.param("fp32", "fp32", marks=pytest.mark.slow),
        pytest.param("bf16", "bf16", marks=pytest.mark.slow),
    ],
)
def test_the_second_stage_of_a_process_computes_in_the_precision_that_it_reports(
    first, second, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    model = upcycle(tiny_model("llama"), (1, 3))
    for number, (run, precision) in enumerate([(run_expand, first), (run_review, second), (run_review, first)]):
        with Products() as seen:
            result = run(model, tiny_tokenizer, tiny_corpus, tmp_path / str(number), precision)
        assert result["precision"] == precision
        # Routers, a small part of all products, are float32 in any precision.
        assert seen.counts[HALF] > seen.counts[FULL] if precision == "bf16" else seen.counts[HALF] == 0


def test_a_wrapper_that_changes_the_precision_is_refused_before_anything_is_updated(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    model = upcycle(tiny_model("llama"), (1, 3))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    decoder = decoder_of(model)
    decoder.layers[1].self_attn.forward = torch.autocast("cpu", enabled=False)(decoder.layers[1].self_attn.forward)
    with pytest.raises(LprError, match=r"bf16.* model\.layers\.1\.self_attn\.[qkv]_proj .*fp32"):
        run_expand(model, tiny_tokenizer, tiny_corpus, tmp_path, "bf16")
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert not list(tmp_path.glob("checkpoint-*"))


def test_experts_that_compute_in_another_precision_are_noticed_too(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(experts, "_compute_dtype", lambda x: torch.float32)
    model = upcycle(tiny_model("llama"), (3, 3))
    with pytest.raises(LprError, match=r"bf16.* experts of layer 0 .*fp32"):
        run_expand(model, tiny_tokenizer, tiny_corpus, tmp_path, "bf16")


def test_a_base_in_bfloat16_computes_in_bf16_also_without_autocast_and_says_so(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    model = upcycle(tiny_model("llama").bfloat16(), (1, 3))
    assert run_expand(model, tiny_tokenizer, tiny_corpus, tmp_path, "fp32")["precision"] == "bf16"
    report = evaluate(model, tiny_tokenizer, tiny_corpus, languages=["en"], bootstrap=10, precision="fp32")
    assert report.settings["precision"] == "bf16"


@pytest.mark.parametrize("precision", PRECISION)
def test_scores_say_in_which_precision_they_were_made(precision, tiny_model, tiny_tokenizer, tiny_corpus):
    model = upcycle(tiny_model("llama"), (1, 3))
    options = {"languages": ["en", "el"], "bootstrap": 10, "tokens_per_language": 64, "precision": precision}
    with torch.autocast("cpu", torch.bfloat16):  # what goes on around it changes nothing
        found = evaluate(model, tiny_tokenizer, tiny_corpus, **options)
    assert found.settings["precision"] == precision
    assert found.to_frame().equals(evaluate(model, tiny_tokenizer, tiny_corpus, **options).to_frame())


def test_a_stage_inside_an_autocast_computes_in_its_own_precision(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    model = upcycle(tiny_model("llama"), (1, 3))
    with torch.autocast("cpu", torch.bfloat16), Products() as seen:
        result = run_expand(model, tiny_tokenizer, tiny_corpus, tmp_path, "fp32")
    assert result["precision"] == "fp32" and seen.counts[HALF] == 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3"])
def test_the_attention_that_is_reported_was_called(
    family, attention, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    dense = tiny_model(family)
    dense.set_attn_implementation(attention)
    result = run_expand(upcycle(dense, (1, 1)), tiny_tokenizer, tiny_corpus, tmp_path, "fp32")
    assert result["computed_with"] == {"attention": attention, "activation_checkpointing": False, "compile": False}


def test_activation_checkpointing_that_somebody_else_switched_on_is_reported(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    model = upcycle(tiny_model("llama"), (1, 3))
    model.get_base_model().activation_checkpointing_enable()
    result = run_expand(model, tiny_tokenizer, tiny_corpus, tmp_path / "1", "fp32")
    assert result["computed_with"]["activation_checkpointing"]
    model.get_base_model().activation_checkpointing_disable()
    result = run_expand(model, tiny_tokenizer, tiny_corpus, tmp_path / "2", "fp32")
    assert not result["computed_with"]["activation_checkpointing"]


@pytest.mark.slow
def test_a_compiled_stage_says_that_compiled_code_ran_and_with_which_attention(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    model = upcycle(tiny_model("llama", num_layers=1), (1,))  # every other layer takes ten seconds to compile
    settings = replace(SETTINGS, precision="bf16", compile=True)
    for number in range(2):  # the second has nothing left to compile
        out = tmp_path / str(number)
        result = expand(model, tiny_tokenizer, tiny_corpus, languages=["el"], out=out, settings=settings)
        assert result["precision"] == "bf16"
        assert result["computed_with"] == {"attention": "sdpa", "activation_checkpointing": False, "compile": True}


def test_a_finished_stage_that_is_asked_for_again_says_what_it_had_computed_with(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    first, again = (
        run_expand(upcycle(tiny_model("llama"), (1, 3)), tiny_tokenizer, tiny_corpus, tmp_path, "bf16")
        for _ in range(2)
    )
    assert {key: first[key] for key in ("precision", "computed_with")} == {
        key: again[key] for key in ("precision", "computed_with")
    }


@pytest.mark.parametrize("kind", ["full", "sparse_moe", "lora"])
def test_baselines_compute_in_the_precision_that_they_report(kind, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    make = {"sparse_moe": lambda model: baselines.sparse_moe(model, (1, 3))}.get(kind, getattr(baselines, kind))
    for dtype in (FULL, HALF):
        tuned = make(tiny_model("llama").to(dtype))
        options = {"original": [], "expanded": ["el"], "settings": replace(SETTINGS, precision="bf16")}
        result = baselines.finetune(tuned, tiny_tokenizer, tiny_corpus, **options, out=tmp_path / str(dtype))
        assert result["precision"] == "bf16"


def test_gradients_that_somebody_left_do_not_enter_the_first_step(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    weights = []
    for out in ("clean", "left"):
        model = upcycle(tiny_model("llama"), (1, 3))
        if out == "left":
            model(input_ids=torch.arange(20)[None], labels=torch.arange(20)[None]).loss.backward()
        run_expand(model, tiny_tokenizer, tiny_corpus, tmp_path / out, "fp32")
        weights.append(dict(model.named_parameters()))
    assert all(torch.equal(parameter, weights[1][name]) for name, parameter in weights[0].items())


@pytest.mark.parametrize(
    ("interrupted", "precision"),
    [
        ("expand", "bf16"),
        ("review", "fp32"),
        pytest.param("expand", "fp32", marks=pytest.mark.slow),
        pytest.param("review", "bf16", marks=pytest.mark.slow),
    ],
)
def test_a_stage_that_was_interrupted_goes_on_with_the_same_model_and_ends_bit_identical(
    precision, interrupted, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    def both(out, cut=""):
        model = upcycle(tiny_model("llama"), (1, 3))
        for name, run in (("expand", run_expand), ("review", run_review)):
            given = (model, tiny_tokenizer, tiny_corpus, tmp_path / out / name, precision)
            if name == cut:
                with pytest.raises(KeyboardInterrupt):
                    run(*given, log=lambda _: os.kill(os.getpid(), signal.SIGINT))
            run(*given)
        return dict(model.named_parameters())

    whole, cut = both("whole"), both("cut", interrupted)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(parameter, cut[name]) for name, parameter in whole.items())


@pytest.mark.parametrize("verb", ["evaluate", "trace", "generate_pair", "fit_routers"])
def test_what_is_measured_does_not_depend_on_the_mode_a_model_is_in(verb, tiny_model, tiny_tokenizer, tiny_corpus):
    found = []
    for training in (False, True):
        model = upcycle(tiny_model("gpt2"), (1, 3), router_bias=True).train(training)  # GPT-2 has dropout
        assert any(isinstance(part, torch.nn.Dropout) and part.p for part in model.modules())
        if verb == "evaluate":
            options = {"languages": ["en", "el"], "tokens_per_language": 64, "bootstrap": 10, "precision": "fp32"}
            report = evaluate(model, tiny_tokenizer, tiny_corpus, **options, block_tokens=32)
            found.append([test.nats[model].tolist() for test in report.sets for model in test.nats])
        elif verb == "trace":
            found.append(trace(model, tiny_tokenizer, "Ένα γράμμα ήρθε").log_prob[1:].tolist())
        elif verb == "generate_pair":
            *_, last = generate_pair(model, tiny_tokenizer, "Ένα", max_new_tokens=8)
            found.append((last.left.ids, last.right.ids))
        else:
            settings = FitSettings(tokens_per_language=256, block_tokens=32, precision="fp32")
            options = {"original": ["en"], "expanded": ["el"], "settings": settings}
            found.append(fit_routers(model, tiny_tokenizer, tiny_corpus, **options).to_frame().to_dict("records"))
        assert model.training == training
    assert found[0] == found[1]
