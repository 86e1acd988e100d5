"""Whatever a verb does, and however it ends, it leaves the model and the process as it found them."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from helpers.as_found import model_state, process_state
from lpr_lab.measure.bits import evaluate
from lpr_lab.measure.classifiers import classifier_accuracy
from lpr_lab.measure.generation import generate_pair
from lpr_lab.measure.routing import trace
from lpr_lab.method import baselines
from lpr_lab.method.closed_form import fit_routers, local_review
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.settings import FitSettings
from lpr_lab.method.similarity import measure_similarity
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model import machine
from lpr_lab.model.capture import decoder_of
from lpr_lab.model.parallel.processes import join_processes
from lpr_lab.model.stages import enter_stage

SETTINGS = TrainSettings(tokens=2 * 4 * 32, block_tokens=32, blocks_per_step=4, blocks_per_forward=2)
ORIGINAL, EXPANDED = ["en", "es"], ["el", "tr"]
BOTH = {"original": ORIGINAL, "expanded": EXPANDED}


def fit_settings(precision):
    return FitSettings(tokens_per_language=256, block_tokens=32, precision=precision)


def settings_of(precision, **ways):
    return replace(SETTINGS, precision=precision, **ways)


def run_expand(model, tokenizer, corpus, out, precision, **ways):
    return expand(model, tokenizer, corpus, languages=EXPANDED, out=out, settings=settings_of(precision, **ways))


def run_review(model, tokenizer, corpus, out, precision, **ways):
    settings = settings_of(precision, **ways)
    return review(model, tokenizer, corpus, **BOTH, out=out, settings=settings, classifier_layers=[1])


def run_evaluate(model, tokenizer, corpus, out, precision):
    options = {"languages": [*ORIGINAL, *EXPANDED], "original": ORIGINAL, "stages": ["G1 expand"], "bootstrap": 10}
    evaluate(model, tokenizer, corpus, **options, tokens_per_language=64, block_tokens=32, precision=precision)


def run_classifiers(model, tokenizer, corpus, out, precision):
    options = {"languages": ["en", "el"], "original": ["en"], "block_tokens": 32, "tokens_per_language": 64}
    classifier_accuracy(model, tokenizer, corpus, **options, precision=precision)


def run_similarity(model, tokenizer, corpus, out, precision):
    options = {"tokens_per_language": 64, "block_tokens": 32, "precision": precision}
    measure_similarity(model, tokenizer, corpus, **BOTH, **options)


def run_fit(model, tokenizer, corpus, out, precision):
    fit_routers(model, tokenizer, corpus, **BOTH, settings=fit_settings(precision))


def run_local_review(model, tokenizer, corpus, out, precision):
    local_review(model, tokenizer, corpus, **BOTH, settings=fit_settings(precision))


def run_trace(model, tokenizer, corpus, out, precision):
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        trace(model, tokenizer, "Ένα γράμμα", stages=["G1 expand", "G1 review"])


def run_generation(model, tokenizer, corpus, out, precision):
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        list(generate_pair(model, tokenizer, "Ένα", max_new_tokens=3, temperature=1.0))


def run_baseline(model, tokenizer, corpus, out, precision):
    baselines.finetune(model, tokenizer, corpus, **BOTH, out=out, settings=settings_of(precision), replay_share=0.5)


VERBS = {
    "expand": run_expand,
    "expand, layers run again": lambda *given: run_expand(*given, activation_checkpointing=True),
    "review": run_review,
    "review, layers run again": lambda *given: run_review(*given, activation_checkpointing=True),
    "fit_routers": run_fit,
    "local_review": run_local_review,
    "evaluate": run_evaluate,
    "classifier_accuracy": run_classifiers,
    "measure_similarity": run_similarity,
    "trace": run_trace,
    "generate_pair": run_generation,
    "lora": run_baseline,
    "full": run_baseline,
}


@pytest.fixture
def subject(tiny_model):
    """Return a function that makes a model that a verb takes, with parts in different modes and of their own mind."""

    def make(verb):
        if verb in ("lora", "full"):
            model = getattr(baselines, verb)(tiny_model("llama"))
        else:
            model = upcycle(tiny_model("llama"), (1, 3), router_bias=True)
            if verb in ("evaluate", "trace", "generate_pair", "classifier_accuracy", "review"):
                enter_stage(model, "review", classifiers=[1])
        decoder = decoder_of(model)
        decoder.layers[0].self_attn.train()  # a part in another mode than the rest
        decoder.layers[0].self_attn.q_proj.weight.requires_grad_(verb != "lora")
        decoder.norm.register_forward_hook(lambda *_: None)
        return model

    return make


class Stop(Exception):
    """Something that goes wrong inside a verb."""


def ends_well(*_):
    pass


def raises(*_):
    raise Stop


def is_interrupted(*_):
    os.kill(os.getpid(), signal.SIGINT)


ENDS = {"well": (ends_well, None), "by an exception": (raises, Stop), "by Ctrl-C": (is_interrupted, KeyboardInterrupt)}


PRECISIONS = ("fp32", "bf16")
CASES = [(verb, end, PRECISIONS[(i + j) % 2]) for i, verb in enumerate(VERBS) for j, end in enumerate(ENDS)]
"""Every verb with every end and in every precision, and every end in every precision."""


@pytest.mark.parametrize(("verb", "end", "precision"), CASES)
def test_a_verb_leaves_model_and_process_as_it_found_them(
    verb, end, precision, subject, tiny_tokenizer, tiny_corpus, tmp_path
):
    model = subject(verb)
    join_processes()  # once per process, and it stays
    happens, error = ENDS[end]
    calls = []

    def third_pass(*_):
        calls.append(1)
        if len(calls) == 3:
            happens()

    handle = decoder_of(model).layers[1].register_forward_pre_hook(third_pass)
    before = [model_state(model), process_state()]
    if error is None:
        VERBS[verb](model, tiny_tokenizer, tiny_corpus, tmp_path, precision)
    else:
        with pytest.raises(error):
            VERBS[verb](model, tiny_tokenizer, tiny_corpus, tmp_path, precision)
    assert len(calls) >= 3
    after = [model_state(model), process_state()]
    for found, left in zip(before, after, strict=True):
        assert {key: (found.get(key), left[key]) for key in left if left[key] != found.get(key)} == {}
        assert set(found) <= set(left)
    handle.remove()
    assert machine.resolve_precision("fp32") == "fp32"
