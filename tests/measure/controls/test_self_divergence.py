"""KL_self: 0 at the base, never below, exact over the vocabulary, and it finds what bits per byte would not."""

import copy

import numpy as np
import pytest
import torch

from helpers.expansions import moved
from lpr_lab.errors import UsageError
from lpr_lab.measure.controls import self_divergence as divergence
from lpr_lab.measure.controls.self_samples import MAX_REPETITION, draw_samples, sample_rows, samples_of
from lpr_lab.method.upcycle import upcycle


@pytest.fixture
def samples(tiny_model, tiny_tokenizer, tiny_corpus):
    options = {"languages": ["en", "es"], "count": 6, "tokens": 12, "keep_loops": True}
    return draw_samples(tiny_model(), tiny_tokenizer, tiny_corpus, **options)


def test_samples_are_fixed_by_the_seed_come_back_from_a_table_and_leave_random_numbers_alone(
    samples, tiny_model, tiny_tokenizer, tiny_corpus
):
    options = {"languages": ["en", "es"], "count": 6, "tokens": 12, "keep_loops": True}
    before = torch.get_rng_state()
    again = draw_samples(tiny_model(), tiny_tokenizer, tiny_corpus, **options)
    assert torch.equal(torch.get_rng_state(), before)
    assert again == samples != draw_samples(tiny_model(), tiny_tokenizer, tiny_corpus, **options, seed=1)
    assert samples_of(sample_rows(samples)) == samples
    assert [one.language for one in samples].count("en") == 3 and {one.form for one in samples} == {"raw"}
    assert all(len(one.prompt_ids) == 9 and len(one.ids) <= 12 and one.num_bytes > 0 for one in samples)


def test_a_chat_template_gives_half_of_the_samples_the_form_of_an_answer(tiny_model, tiny_tokenizer, tiny_corpus):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = "{% for m in messages %}> {{ m.content }}{% endfor %}\n"
    found = draw_samples(tiny_model(), tokenizer, tiny_corpus, languages=["en"], count=4, tokens=4, keep_loops=True)
    assert sorted(one.form for one in found) == ["chat", "chat", "raw", "raw"]
    chat = next(one for one in found if one.form == "chat")
    assert tokenizer.decode(list(chat.prompt_ids)).startswith("> ")


def test_samples_that_loop_are_left_out(tiny_tokenizer, tiny_corpus, tiny_model):
    loops = tiny_model()
    with torch.no_grad():
        for parameter in loops.lm_head.parameters():
            parameter.zero_()[7] = 1e3  # only one token is ever written, or none is likelier than others
    options = {"languages": ["en"], "count": 2, "tokens": 12}
    kept = draw_samples(loops, tiny_tokenizer, tiny_corpus, **options)
    assert all(one.repetition <= MAX_REPETITION for one in kept)


def test_a_base_does_not_diverge_from_itself(samples, tiny_model, tiny_tokenizer):
    table = divergence.self_divergence(tiny_model(), tiny_tokenizer, samples, base=tiny_model())
    (row,) = table[table["language"] == "all"].to_dict("records")
    assert row["kl_bits_per_byte"] == row["kl_percent"] == 0 and row["same_top"] == row["unchanged_samples"] == 1
    assert row["n_samples"] == len(samples) and row["tokens"] == sum(len(one.ids) for one in samples)


def test_it_is_the_sum_over_the_whole_vocabulary_and_equal_to_the_plain_form(samples, tiny_model, tiny_tokenizer):
    base = tiny_model()
    model = moved(upcycle(copy.deepcopy(base), [1, 1]))
    found = divergence.diverged(model, tiny_tokenizer, samples, batch=4)
    plain = divergence.diverged(model, tiny_tokenizer, samples, batch=1, whole_logits=True)
    for name in ("kl", "largest", "base_nats"):
        assert np.allclose(getattr(found, name), getattr(plain, name), rtol=1e-4, atol=1e-6)
    one = samples[0]
    ids = torch.tensor([[*one.prompt_ids, *one.ids]])
    with torch.no_grad():
        with model.disable_adapter():
            p = model(ids).logits[0].log_softmax(-1)
        q = model(ids).logits[0].log_softmax(-1)
    expected = (p.exp() * (p - q)).sum(-1)[len(one.prompt_ids) - 1 : -1].sum()
    assert found.kl[0] == pytest.approx(float(expected), rel=1e-3) and (found.kl > 0).all()


def test_a_plain_model_is_compared_with_the_base_beside_it_and_more_damage_is_more(samples, tiny_model, tiny_tokenizer):
    base, values = tiny_model(), []
    for scale in (0.0, 0.002, 0.02):
        model = tiny_model()
        with torch.no_grad():
            model.lm_head.weight += scale * torch.randn_like(model.lm_head.weight)
        table = divergence.self_divergence(model, tiny_tokenizer, samples, base=base)
        row = table[table["language"] == "all"].iloc[0]
        values.append(row["kl_bits_per_byte"])
        assert 0 <= row["ci_low"] <= row["kl_bits_per_byte"] <= row["ci_high"] or scale == 0
    assert values[0] == 0 < values[1] < values[2]


def test_what_cannot_be_measured_is_refused(tiny_model, tiny_tokenizer, tiny_corpus, samples):
    with pytest.raises(UsageError, match="samples"):
        divergence.self_divergence(tiny_model(), tiny_tokenizer, [])
    with pytest.raises(UsageError, match="base"):
        divergence.self_divergence(tiny_model(), tiny_tokenizer, samples)
    with pytest.raises(UsageError, match="count = 0"):
        draw_samples(tiny_model(), tiny_tokenizer, tiny_corpus, languages=["en"], count=0)
