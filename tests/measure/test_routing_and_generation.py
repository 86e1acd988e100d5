"""A trace keeps every byte of a text and shows the routing that a model really has."""

import numpy as np
import pytest
import torch

from lpr_lab.errors import UsageError
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


def test_a_text_with_half_of_a_character_is_refused_with_its_place(expanded, tiny_tokenizer):
    with pytest.raises(UsageError, match=r"position 5 .*U\+DE00"):
        trace(expanded, tiny_tokenizer, "Γεια\ude00")
