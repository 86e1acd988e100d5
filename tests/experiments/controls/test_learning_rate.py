"""The range test: its rule, an exact return to where it began, and dev text alone."""

import copy

import pandas as pd
import pytest
import torch

from helpers.as_found import model_state
from helpers.tiny_corpus import small_settings, steps_of_four_blocks
from lpr_lab.errors import LprError, UsageError
from lpr_lab.experiments import recipes
from lpr_lab.experiments.config import StageBudget
from lpr_lab.experiments.controls import learning_rate as lr
from lpr_lab.method.expand import expand
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import expansion_config
from lpr_lab.text.corpus import Corpus

BUDGET = StageBudget(tokens=2 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=0.5)


def curve(*points: tuple[float, float, bool]) -> pd.DataFrame:
    return pd.DataFrame(points, columns=["learning_rate", "change_percent", "diverged"])


@pytest.mark.parametrize(
    ("points", "chosen"),
    [
        ([(1e-4, -5, False), (3e-4, -9.5, False), (1e-3, -10, False)], 3e-4),  # 95 % of the fall at a third of the rate
        ([(1e-4, -5, False), (3e-4, -8, False), (1e-3, -10, False)], 1e-3),
        ([(1e-4, -5, False), (1e-3, -20, True)], 1e-4),  # what diverged is not taken however low it stands
        ([(1e-4, -5, False), (1e-3, float("nan"), True)], 1e-4),
    ],
)
def test_the_lowest_rate_with_nearly_all_of_the_fall_is_taken(points, chosen):
    assert lr.choose(curve(*points)) == chosen


def test_no_rate_is_made_up_where_none_helps():
    with pytest.raises(LprError, match="none of the rates"):
        lr.choose(curve((1e-4, 0.0, False), (1e-3, 4.0, False)))


def test_rates_beyond_an_end_are_tried_where_the_best_is_there_and_no_others():
    asked = []

    def measure(rate: float) -> tuple[float, bool]:
        asked.append(rate)
        return 2 + abs(rate - 2.7e-2), False

    table = lr.range_test(measure, [1e-3, 3e-3], before=2.5)
    assert asked == pytest.approx([1e-3, 3e-3, 9e-3, 2.7e-2])
    assert table["chosen"].sum() == 1 and list(table.columns) == lr.COLUMNS
    asked.clear()
    lr.range_test(lambda rate: measure(rate * 9), [1e-3, 3e-3, 9e-3], before=2.5)
    assert len(asked) == 3


def test_a_short_training_leaves_the_model_exactly_as_it_was(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    model = upcycle(tiny_model(), [1, 1])
    before = model_state(model), {name: p.clone() for name, p in model.state_dict().items()}
    config = copy.deepcopy(vars(expansion_config(model)))
    options = {"languages": ["el"], "settings": steps_of_four_blocks(1)}
    with lr.kept_state(model):
        expand(model, tiny_tokenizer, tiny_corpus, **options, out=tmp_path / "a")
        first = {name: p.clone() for name, p in model.state_dict().items()}
    assert model_state(model) == before[0] and vars(expansion_config(model)) == config
    assert all(torch.equal(p, before[1][name]) for name, p in model.state_dict().items())
    expand(model, tiny_tokenizer, tiny_corpus, **options, out=tmp_path / "b")
    assert all(torch.equal(p, first[name]) for name, p in model.state_dict().items())


def test_rates_that_are_none_are_refused_before_any_work(tmp_path):
    for rates in ([1e-3], [1e-3, -1.0]):
        with pytest.raises(UsageError, match="rates"):
            lr.find_learning_rate(recipes.moe_lpr(), rates=rates, root=tmp_path)
    with pytest.raises(UsageError, match=r"learning_rate = 0\.1"):
        recipes.from_notebook("moe_lpr", {"learning_rate": 0.1, "find_learning_rate": True})
    with pytest.raises(UsageError, match="stage 1"):
        lr.find_learning_rate(recipes.full(), root=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_range_test_is_a_run_made_once_that_read_no_held_out_text_and_its_rate_is_recorded(
    materials, tmp_path, monkeypatch
):
    splits = set()
    documents = Corpus.documents
    monkeypatch.setattr(Corpus, "documents", lambda self, split, *a: splits.add(split) or documents(self, split, *a))
    experiment = recipes.moe_lpr(**small_settings(materials, BUDGET))
    options = {"rates": (1e-3, 1e-2), "steps": 2, "eval_tokens_per_language": 200, "root": tmp_path}
    found, run = lr.with_found_rate(experiment, **options)
    table = run.tables.read("learning_rates")
    assert table is not None and splits == {"train", "dev"}
    assert found.stage1.learning_rate == run.results["learning_rate"] in set(table["learning_rate"])
    assert found.to_config()["stage1"]["learning_rate"] == found.stage1.learning_rate
    assert lr.find_learning_rate(found, **options).id == run.id  # also when asked with the rate that was found
