"""A step for which memory runs out is made again in smaller pieces, where that is the same training."""

from dataclasses import replace

import pytest
import torch

from lpr_lab.errors import LprError, UsageError
from lpr_lab.method.expand import expand
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle

SETTINGS = TrainSettings(tokens=2 * 128, block_tokens=32, blocks_per_step=4, blocks_per_forward=4, precision="fp32")
GPU = "CUDA out of memory. Tried to allocate 20.00 GiB."
CPU = "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


def fits(model, blocks, message=GPU, error: type[RuntimeError] = torch.OutOfMemoryError):
    """Have the last layer of a model run out of memory when it trains on more than so many blocks."""

    def hook(module, args, kwargs, output):
        states = output[0] if isinstance(output, tuple) else output
        if module.training and torch.is_grad_enabled() and len(states) > blocks:
            raise error(message)

    model.base_model.model.model.layers[-1].register_forward_hook(hook, with_kwargs=True)
    return model


def train(model, tokenizer, corpus, out, **changes):
    return expand(model, tokenizer, corpus, languages=["el"], out=out, settings=replace(SETTINGS, **changes))


def learnt(model):
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize(("message", "error"), [(GPU, torch.OutOfMemoryError), (CPU, RuntimeError)])
@pytest.mark.parametrize("blocks", [1, 2])
def test_what_is_learnt_is_what_smaller_micro_batches_learn(
    blocks, message, error, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, capsys
):
    asked = upcycle(tiny_model("llama"), [1, 1])
    expected = train(asked, tiny_tokenizer, tiny_corpus, tmp_path / "asked", blocks_per_forward=blocks)
    model = fits(upcycle(tiny_model("llama"), [1, 1]), blocks, message, error)
    report = train(model, tiny_tokenizer, tiny_corpus, tmp_path / "out")
    assert report["blocks_per_forward"] == expected["blocks_per_forward"] == blocks
    assert report["last"]["loss"] == expected["last"]["loss"] and report["terms"] == expected["terms"]
    found = learnt(model)
    for name, value in learnt(asked).items():
        assert torch.equal(found[name], value), name
    assert f"with {blocks}" in capsys.readouterr().out


def test_another_error_is_not_taken_for_a_lack_of_memory(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    model = fits(upcycle(tiny_model("llama"), [1, 1]), 1, "sizes differ", RuntimeError)
    with pytest.raises(RuntimeError, match="sizes differ"):
        train(model, tiny_tokenizer, tiny_corpus, tmp_path)


def test_a_single_block_that_does_not_fit_ends_the_training_and_says_what_takes_less(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    model = fits(upcycle(tiny_model("llama"), [1, 1]), 0)
    with pytest.raises(LprError, match="activation_checkpointing"):
        train(model, tiny_tokenizer, tiny_corpus, tmp_path)


def test_load_balancing_of_micro_batches_is_not_made_another_loss(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    model = fits(upcycle(tiny_model("llama"), [2, 1]), 2)
    with pytest.raises(LprError, match="load_balancing_scope"):
        expand(
            model,
            tiny_tokenizer,
            tiny_corpus,
            languages=["el"],
            out=tmp_path,
            settings=SETTINGS,
            load_balancing_coef=0.01,
            load_balancing_scope="micro_batch",
        )


def test_a_stage_goes_on_with_other_micro_batches_and_says_so(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, capsys
):
    def go(settings, **options):
        model = upcycle(tiny_model("llama"), [2, 1])
        options = {"languages": ["el"], "out": tmp_path, "settings": settings, **options}
        return expand(model, tiny_tokenizer, tiny_corpus, **options)

    go(replace(SETTINGS, max_minutes=1e-9))
    report = go(replace(SETTINGS, blocks_per_forward=1))
    assert (report["steps"], report["blocks_per_forward"]) == (2, 1)
    assert "blocks_per_forward 4 then, 1 now" in capsys.readouterr().out


def test_a_stage_whose_loss_counts_by_micro_batch_does_not_go_on_with_others(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    def go(settings):
        scope = {"load_balancing_coef": 0.01, "load_balancing_scope": "micro_batch"}
        model = upcycle(tiny_model("llama"), [2, 1])
        return expand(model, tiny_tokenizer, tiny_corpus, languages=["el"], out=tmp_path, settings=settings, **scope)

    go(replace(SETTINGS, max_minutes=1e-9))
    with pytest.raises(UsageError, match="settings"):
        go(replace(SETTINGS, blocks_per_forward=1))
