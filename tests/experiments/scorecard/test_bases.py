"""All bases that there is something of, side by side: from runs in a folder, else from what came with the code."""

import pytest

from helpers.sample_scorecard import MOE, WITHOUT_LPR, arm_run
from lpr_lab.experiments.scorecard.bases import compare_all
from lpr_lab.experiments.scorecard.plan import card_for, experiment_of
from lpr_lab.runs.scorecard import table

WORLDS = ("small-world", "small-world-1", "small-world-2")


@pytest.fixture(scope="module")
def three_worlds(tmp_path_factory):
    """Make three seeds of two arms in three worlds; the LPR loss helps in all of them."""
    root = tmp_path_factory.mktemp("runs")
    for base in reversed(WORLDS):
        for arm, stages in (("moe_lpr", MOE), ("review_without_lpr", WITHOUT_LPR)):
            for seed in range(3):
                config = experiment_of(card_for(base), arm, seed).to_config()
                arm_run(root, seed + 10 * len(base), stages, config=config, plan={"new_experts": [1] * 5})
    return root


def test_worlds_come_first_by_seed_and_are_taken_together(three_worlds, monkeypatch):
    monkeypatch.setattr(table, "saved_bases", lambda: ["smollm2-135m", "gemma3-270m"])
    found = compare_all(three_worlds)
    assert found["worlds"] == list(WORLDS) and found["bases"] == [*WORLDS, "smollm2-135m", "gemma3-270m"]
    assert found["sources"]["small-world-2"].startswith("the runs in")
    assert found["sources"]["smollm2-135m"].startswith("the results that came with the code")
    lpr = found["claims"][9]["parts"][0]
    assert lpr["over_worlds"]["worlds"] == 3 and lpr["over_worlds"]["value"] == pytest.approx(-1.5, abs=0.5)
    of_worlds = [lpr["bases"][world]["value"] for world in WORLDS]
    assert lpr["over_worlds"]["value"] == pytest.approx(sum(of_worlds) / 3, abs=1e-4)


def test_one_world_alone_is_no_sample_of_worlds(tmp_path, monkeypatch):
    card = table.read_saved("smollm2-135m")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    table.save(card, tmp_path)
    table.save({**card, "base": "small-world"}, tmp_path)
    found = compare_all(tmp_path / "none")
    assert found["bases"] == ["small-world", "smollm2-135m"] and found["worlds"] == []
    assert all(row["over_worlds"] is None for row in found["claims"])
