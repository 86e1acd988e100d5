"""Which blocks a step sees: fixed by the seed, in the proportions asked for, every block once in an epoch."""

from collections import Counter

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.text.packing import pack


@pytest.fixture(scope="module")
def blocks(tiny_tokenizer, tiny_corpus):
    languages = ("en", "el", "tr")
    return {c: pack(tiny_corpus.documents("train", c), tiny_tokenizer, 32, languages=languages) for c in languages}


def test_an_epoch_shows_every_block_once_before_any_comes_again(blocks):
    schedule = BlockSchedule({"en": blocks["en"]}, blocks_per_step=1, seed=3)
    size = len(blocks["en"])
    first = [schedule.at(step)[0][1] for step in range(size)]
    second = [schedule.at(step)[0][1] for step in range(size, 2 * size)]
    assert sorted(first) == sorted(second) == list(range(size))
    assert first != second


def test_languages_take_turns_in_the_proportions_asked_for(blocks):
    schedule = BlockSchedule(blocks, blocks_per_step=4, seed=0, weights={"en": 1, "el": 2, "tr": 2})
    seen = Counter(language for step in range(30) for language, _ in schedule.at(step))
    assert seen == {"en": 24, "el": 48, "tr": 48}


def test_a_share_as_small_as_the_papers_replay_is_not_rounded_away(blocks):
    schedule = BlockSchedule(blocks, blocks_per_step=4, seed=0, weights={"en": 0.01, "el": 0.495, "tr": 0.495})
    seen = Counter(language for step in range(500) for language, _ in schedule.at(step))
    assert seen == {"en": 20, "el": 990, "tr": 990}


def test_the_same_seed_gives_the_same_blocks_and_another_seed_others(blocks):
    ledgers = [BlockSchedule(blocks, blocks_per_step=4, seed=seed).ledger(10) for seed in (1, 1, 2)]
    assert ledgers[0] == ledgers[1] != ledgers[2]


def test_nothing_to_train_on_is_refused():
    with pytest.raises(UsageError, match="nothing to train on"):
        BlockSchedule({}, blocks_per_step=1, seed=0)
