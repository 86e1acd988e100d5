"""Next-token losses from hidden states equal those of whole logits, gradients too."""

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPT2Config, GraniteConfig, LlamaConfig

from helpers.shaken import shake
from helpers.tiny_families import IDS
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model import head
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.head import next_token_losses
from lpr_lab.model.stages import set_trainable

_SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "num_hidden_layers": 2, "vocab_size": 64, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip
_SAMPLES = {
    "llama": LlamaConfig(**_SIZES, tie_word_embeddings=False),
    "llama, tied": LlamaConfig(**_SIZES, tie_word_embeddings=True),
    "gpt2": GPT2Config(n_embd=32, n_head=4, n_layer=2, vocab_size=64, n_positions=64),
    "gemma2, soft cap": Gemma2Config(**_SIZES, final_logit_softcapping=2.0),
    "granite, divided": GraniteConfig(**_SIZES, logits_scaling=7.0),
    "cohere, scaled": CohereConfig(**_SIZES, logit_scale=0.3),
}


@pytest.fixture
def few_rows(monkeypatch):
    """Have even a tiny model's logits made five rows at a time."""
    monkeypatch.setitem(head._LOGITS_AT_ONCE, "cpu", 5 * 64)


def ragged_targets():
    """Return targets of which some are missing, a whole row's beginning among them."""
    targets = IDS.roll(-1, 1).clone()
    targets[0, :4] = -100
    targets[1, 7] = -100
    return targets


def made(name):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(_SAMPLES[name]).eval()


def learned(model, *, whole, targets, **ways):
    """Return whether logits were made in pieces, the summed loss, and the gradient of every parameter that has one."""
    model.zero_grad(set_to_none=True)
    with next_token_losses(model, whole=whole) as direct:
        loss = model(input_ids=IDS, use_cache=False, targets=targets, **ways)
        (3 * loss).backward()
    return direct, loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours, plain):
    assert ours.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize("name", _SAMPLES)
def test_loss_and_gradients_of_a_whole_model_equal_those_of_whole_logits(name):
    model, targets = made(name), ragged_targets()
    direct, ours, gradients = learned(model, whole=False, targets=targets)
    piecewise, plain, expected = learned(model, whole=True, targets=targets)
    assert direct and not piecewise
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=0)
    assert_same_gradients(gradients, expected)


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize("name", ["llama, tied", "gemma2, soft cap", "gpt2"])
def test_loss_and_gradients_of_an_expansion_equal_those_of_whole_logits(name):
    model = shake(upcycle(made(name), (3, 1)))
    set_trainable(model, experts=True, routers=True)
    targets = ragged_targets()
    direct, ours, gradients = learned(model, whole=False, targets=targets)
    _, plain, expected = learned(model, whole=True, targets=targets)
    assert direct and gradients
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=0)
    assert_same_gradients(gradients, expected)


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize("learns", [True, False])
def test_under_autocast_too(learns):
    model, targets = made("llama").requires_grad_(learns), ragged_targets()
    if not learns:
        model = shake(upcycle(model, (1, 1)))
        set_trainable(model, experts=True, routers=False)
    with torch.autocast("cpu", torch.bfloat16):
        direct, ours, gradients = learned(model, whole=False, targets=targets)
        _, plain, expected = learned(model, whole=True, targets=targets)
    assert direct and ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=0)
    assert ours.dtype == torch.float32 and gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=0.05, atol=0.02 * float(gradient.abs().max()))


@pytest.mark.usefixtures("few_rows")
def test_a_model_in_bfloat16_loses_no_digits_of_its_sum():
    model, targets = made("llama").bfloat16(), ragged_targets()
    direct, ours, _ = learned(model, whole=False, targets=targets)
    _, plain, _ = learned(model, whole=True, targets=targets)
    assert direct and ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=0)


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize("whole", [True, False])
def test_without_reduction_each_position_has_its_loss_and_others_have_none(whole):
    model, targets = made("gemma2, soft cap"), ragged_targets()
    with torch.no_grad(), next_token_losses(model, whole=whole):
        losses = model(input_ids=IDS, use_cache=False, targets=targets, reduction="none")
        logits = model(input_ids=IDS, use_cache=False).logits
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    assert losses.shape == targets.shape and (losses[targets == -100] == 0).all()
    torch.testing.assert_close(losses, expected)


def test_no_more_logits_are_made_than_a_few_rows_at_once(few_rows):
    model, sizes = made("llama"), []
    handle = model.lm_head.register_forward_hook(lambda _, __, logits: sizes.append(logits.shape[-2]))
    learned(model, whole=False, targets=ragged_targets())
    handle.remove()
    assert max(sizes[2:]) == 5 and sum(sizes[2:]) == int(
        (ragged_targets() != -100).sum()
    )  # after two of the comparison


def test_a_micro_batch_without_any_target_has_no_loss_and_gradients_of_zero():
    model = made("llama")
    _, loss, gradients = learned(model, whole=False, targets=torch.full_like(IDS, -100))
    assert float(loss) == 0 and all((gradient == 0).all() for gradient in gradients.values())


def test_afterwards_the_model_is_as_it_was():
    model = made("llama")
    before, modules = dict(vars(model)), dict(model.named_modules())
    with pytest.raises(ZeroDivisionError), next_token_losses(model):
        raise ZeroDivisionError
    assert vars(model) == before and dict(model.named_modules()) == modules


def test_a_model_that_does_more_between_decoder_and_logits_is_left_whole():
    class Odd(type(made("llama"))):
        def forward(self, input_ids=None, **kwargs):
            output = super().forward(input_ids=input_ids, **kwargs)
            if input_ids is not None:
                output.logits = output.logits + input_ids[..., None]
            return output

    model = made("llama")
    model.__class__ = Odd
    direct, ours, gradients = learned(model, whole=False, targets=ragged_targets())
    _, plain, expected = learned(model, whole=True, targets=ragged_targets())
    assert not direct and torch.equal(ours, plain)
    assert_same_gradients(gradients, expected)


def test_routing_is_that_of_the_pass_and_not_of_the_head(tiny_model):
    from lpr_lab.model.capture import record_routing

    model = upcycle(tiny_model("llama"), (1, 1))
    with torch.no_grad(), record_routing(model) as record, next_token_losses(model):
        model(input_ids=IDS, use_cache=False, targets=ragged_targets())
        assert len(record.routing) == len(moe_layers(model)) and record.shape == tuple(IDS.shape)
