"""A training that diverges is noticed while it runs and in what it leaves; a sound one is never called so."""

import dataclasses

import pytest

from lpr_lab.method import baselines
from lpr_lab.method.training.divergence import Divergence
from lpr_lab.method.training.train import TrainSettings

SETTINGS = TrainSettings(tokens=12 * 4 * 32, block_tokens=32, blocks_per_step=4, precision="fp32")

# Stage 1 on SmolLM2, (loss, gradient norm) of the first 20 of 60 steps at the default rate: sound, with steps that are
# 27 % above the first because their text is in another language.
SMOLLM2 = [
    (3.084, 2.34), (3.921, 2.89), (3.179, 2.18), (2.825, 1.71), (3.455, 1.94), (3.065, 1.81), (2.365, 1.37),
    (3.164, 1.57), (2.959, 1.35), (2.693, 1.26), (3.353, 1.47), (2.730, 1.34), (2.428, 1.24), (2.994, 2.96),
    (3.147, 1.48), (2.713, 1.25), (2.843, 1.34), (2.724, 1.26), (2.538, 1.07), (2.611, 1.28),
]  # fmt: skip
# The same on Gemma 3 270M at 3e-5: sound, and its gradients begin at 75 times the clip.
GEMMA3 = [
    (4.260, 74.57), (4.382, 79.22), (3.708, 49.65), (2.971, 31.92), (3.206, 22.63), (3.776, 17.19), (3.202, 16.33),
    (3.369, 40.55),
]  # fmt: skip
# And at 3e-4: the loss jumps with the first update.
GEMMA3_HOT = [
    (4.100, 90.76), (5.509, 62.86), (5.697, 81.67), (5.994, 108.20), (5.414, 21.93), (4.523, 49.75), (4.130, 13.85),
    (4.125, 13.51), (4.124, 13.70), (3.612, 11.50), (3.711, 10.62), (4.192, 10.22),
]  # fmt: skip


def judged(steps, max_grad_norm=1.0):
    watch = Divergence()
    noticed = [
        number for number, (loss, norm) in enumerate(steps, 1) if watch.update(number, loss, norm, max_grad_norm)
    ]
    return watch, noticed


@pytest.mark.parametrize("steps", [SMOLLM2, SMOLLM2[1:], SMOLLM2[3:], SMOLLM2[6:], GEMMA3, GEMMA3[3:]])
def test_a_sound_training_is_not_flagged_wherever_it_begins(steps):
    watch, noticed = judged(steps)
    assert noticed == [] and watch.diverged is None and not watch.is_diverging


@pytest.mark.parametrize("until", [2, 20])
def test_a_loss_that_stays_above_its_start_is_noticed_once_and_its_return_too(until):
    risen = [*SMOLLM2[:1], *[(1.34 * 3.084, 5.0)] * until, *[(2.9, 1.0)] * 6]
    watch, noticed = judged(risen)
    if until < 4:
        assert noticed == []
        return
    assert noticed == [5]
    assert "1.25 times its start (3.08)" in watch.diverged["why"]
    assert 21 < watch.diverged["recovered"] <= 25 and not watch.is_diverging


def test_a_real_training_that_jumped_at_its_first_update_is_noticed_at_the_fifth_step():
    watch, noticed = judged(GEMMA3_HOT)
    assert noticed == [5]
    assert judged(GEMMA3_HOT[:9])[0].is_diverging
    assert watch.diverged["recovered"] == 10


def test_an_easy_first_batch_does_not_make_a_long_sound_training_diverge():
    assert judged([(1.99, 1.0), *SMOLLM2[10:] * 50])[1] == []


def test_gradients_far_beyond_the_clip_and_their_start_are_noticed():
    assert judged([(3.0, 2.0), *[(3.0, 40.0)] * 9])[1] == [5]
    assert judged([(3.0, 2.0), *[(3.0, 40.0)] * 9], max_grad_norm=10.0)[1] == []
    assert judged([(3.0, 20.0), *[(3.0, 40.0)] * 9])[1] == []


@pytest.fixture
def diverging(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    """Return a function that trains a whole model at a rate far too high, at once or over several sessions."""

    def train(out, sessions=1, rate=1.0):
        logged = []
        settings = dataclasses.replace(SETTINGS, learning_rate=rate)
        options = {"original": [], "expanded": ["el", "tr"], "out": tmp_path / out, "log": logged.append}
        for session in range(sessions):
            cut = 1e-9 if session < sessions - 1 else None
            given = dataclasses.replace(settings, max_minutes=cut)
            model = baselines.full(tiny_model("llama"))
            result = baselines.finetune(model, tiny_tokenizer, tiny_corpus, settings=given, **options)
        return result, logged

    return train


def test_it_is_said_while_it_runs_and_in_the_results(diverging, capfd):
    result, logged = diverging("whole")
    assert result["diverged"]["step"] == 6 and "times its start" in result["diverged"]["why"]
    assert [metrics["step"] for metrics in logged if metrics.get("diverged")] == list(range(6, 13))
    assert "diverges at step 6" in capfd.readouterr().err
    assert diverging("sound", rate=0.03)[0]["diverged"] is None


def test_a_resumed_stage_remembers_where_it_began(diverging):
    assert diverging("cut", sessions=4)[0]["diverged"]["step"] == 6
