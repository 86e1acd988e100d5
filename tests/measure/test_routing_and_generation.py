"""A trace shows the routing a generation really has; both generations come from one copy of the weights."""

import numpy as np
import pytest
import torch

from lpr_lab.errors import UsageError
from lpr_lab.measure.generation import generate_pair, visible_text
from lpr_lab.measure.routing import trace
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers


@pytest.fixture(scope="module")
def expanded(tiny_model):
    torch.manual_seed(0)
    model = upcycle(tiny_model("llama", num_layers=3), (1, 0, 3), router_input="token_and_mean", router_bias=True)
    with torch.no_grad():
        for layer in moe_layers(model):
            for parameter in [*layer.router.parameters(), *layer.stacks[0].parameters()]:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("language", ["el", "ar", "bn", "th", "zh"])
def test_a_trace_keeps_every_byte_of_the_text(expanded, tiny_tokenizer, sentences, language):
    text = sentences[language][1]
    result = trace(expanded, tiny_tokenizer, text, language)
    assert b"".join(piece for piece in result.token_bytes if piece is not None) == text.encode()
    assert result.token_bytes[0] is None  # the separator that every document begins with
    assert result.num_tokens == len(result.token_bytes) == result.expert_ids.shape[1]


def test_a_trace_names_layers_and_weights_that_sum_to_one(expanded, tiny_tokenizer):
    result = trace(expanded, tiny_tokenizer, "A letter came this morning.")
    assert result.layers.tolist() == [0, 2]
    assert result.num_experts.tolist() == [2, 4]
    assert result.expert_ids.shape == (2, result.num_tokens, 2)
    assert result.expert_weights.sum(-1) == pytest.approx(np.ones((2, result.num_tokens)), abs=1e-5)
    assert np.isnan(result.log_prob[0])
    assert (result.log_prob[1:] < 0).all()
    assert not np.allclose(result.log_prob[1:], result.base_log_prob[1:])


def test_an_empty_text_and_one_beyond_the_context_are_refused(expanded, tiny_tokenizer):
    with pytest.raises(UsageError, match="empty"):
        trace(expanded, tiny_tokenizer, "  \n")
    with pytest.raises(UsageError, match="context of 128"):
        trace(expanded, tiny_tokenizer, "word " * 500)


@torch.no_grad()
def test_both_sides_are_what_each_model_generates_on_its_own(expanded, tiny_tokenizer):
    *_, last = generate_pair(expanded, tiny_tokenizer, "The baker", max_new_tokens=8)
    ids = torch.tensor([[0, *tiny_tokenizer("The baker")["input_ids"]]])
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False}
    assert (
        list(last.expanded_ids)
        == expanded.generate(ids, **options)[0, ids.shape[1] :].tolist()[: len(last.expanded_ids)]
    )
    with expanded.disable_adapter():
        base = expanded.generate(ids, **options)[0, ids.shape[1] :].tolist()
    assert list(last.base_ids) == base[: len(last.base_ids)]
    first = next((i for i, (a, b) in enumerate(zip(last.base_ids, last.expanded_ids, strict=False)) if a != b), None)
    assert first is None or last.diverged_at == first


def test_sampling_with_one_seed_repeats_itself(expanded, tiny_tokenizer):
    runs = [list(generate_pair(expanded, tiny_tokenizer, "The", 6, temperature=1.0, seed=3))[-1] for _ in range(2)]
    assert (runs[0].base_ids, runs[0].expanded_ids) == (runs[1].base_ids, runs[1].expanded_ids)


def test_shown_text_only_grows_and_never_holds_a_replacement_character(expanded, tiny_tokenizer):
    before = ""
    for step in generate_pair(expanded, tiny_tokenizer, "สวัสดี", 24, temperature=1.0, seed=1):
        assert step.expanded_text.startswith(before)
        assert "\ufffd" not in step.expanded_text
        before = step.expanded_text


def test_bytes_of_a_character_still_being_written_wait():
    whole = "নদী".encode()
    shown = [visible_text([whole[:end]]) for end in range(len(whole) + 1)]
    assert shown[-1] == "নদী"
    assert all("নদী".startswith(text) for text in shown)
    assert visible_text([b"\xff", b"a"]) == "⟨FF⟩a"


def test_an_empty_prompt_is_refused_before_the_first_step(expanded, tiny_tokenizer):
    with pytest.raises(UsageError, match="empty"):
        generate_pair(expanded, tiny_tokenizer, " ")
