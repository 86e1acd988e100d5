"""The scorecard of a folder of runs: which runs belong to which arm, and the table that is shown, saved and read."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.sample_scorecard import MOE, arm_run, scorecard_runs
from lpr_lab.errors import MissingError
from lpr_lab.experiments.scorecard import build
from lpr_lab.experiments.scorecard.plan import card_for, experiment_of
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.scorecard import table
from lpr_lab.runs.scorecard.claims import CLAIMS
from lpr_lab.runs.scorecard.kept_runs import SUFFIX, unpack
from lpr_lab.runs.scorecard.parts import MIN_SEEDS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return root, scorecard_runs(root)


def test_runs_belong_to_an_arm_by_their_settings_and_other_seeds_of_an_arm_are_another_arm(made):
    root, card = made
    arms = build.find_arms(card, list_runs(root))
    assert {name: list(own) for name, own in arms.items()} == {
        name: [0, 1, 2] for name in ("moe_lpr", "review_without_lpr", "full_replay", "moe_lpr again")
    }
    assert {run.config["seed"] for run in arms["moe_lpr again"].values()} == {100, 101, 102}


def test_the_table_has_every_claim_with_its_verdict_its_runs_and_the_command_that_makes_them(made):
    root, card = made
    found = build.build(card, root)
    rows = {row["number"]: row for row in found["claims"]}
    assert list(rows) == [claim.number for claim in CLAIMS] and sum(found["verdicts"].values()) == len(CLAIMS)
    assert rows[10]["parts"][0]["verdict"] == "holds" and rows[10]["parts"][0]["seeds"] == 3
    assert rows[15]["verdict"] == "not decidable here" and "no_copy" in rows[15]["why"]
    assert all(f"--only {number}" in row["command"] for number, row in rows.items())
    beside = {arm["arm"]: arm.get("expanded_less_moe_lpr") for arm in found["arms"]}
    assert beside["moe_lpr"] is None and beside["full_replay"]["high"] < 0, "it gains more, seed by seed"
    assert found["allocations"] == {"rules": [], "scores": []}
    of_arm = next(arm for arm in found["arms"] if arm["arm"] == "moe_lpr")
    assert set(of_arm["runs"].values()) <= {run.id for run in list_runs(root)} and of_arm["expanded"]["value"] < 0


def test_a_saved_scorecard_is_read_where_there_are_no_runs(made, tmp_path, monkeypatch):
    root, card = made
    path = table.save(build.build(card, root), tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["claims"] and path.stat().st_size < 200_000
    assert table.saved_bases(tmp_path) == ["small-world"]
    assert table.read_saved("small-world", tmp_path)["verdicts"] == build.build(card, root)["verdicts"]
    with pytest.raises(MissingError, match="--base other"):
        table.read_saved("other", tmp_path)


def test_what_came_with_the_code_is_as_the_code_writes_it():
    for base in table.saved_bases():
        card = table.read_saved(base)
        assert card["schema_version"] == table.SCHEMA_VERSION and card["base"] == base
        assert [row["number"] for row in card["claims"]] == [claim.number for claim in CLAIMS]
        assert card["verdicts"] == table.count_verdicts(card["claims"])
        assert not any("/" in str(value) for value in card["environment"].get("packages", {}).values())


def test_a_small_world_of_another_seed_is_compared_on_the_same_text_and_budget():
    own, other = card_for("small-world"), card_for("small-world-4")
    assert replace(other, base=own.base, seeds=own.seeds, instrument_seeds=24, probed_layers=5) == own
    assert other.seeds == MIN_SEEDS and set(other.arms) < set(own.arms)
    assert build.rerun(other, 15) == "lpr-lab scorecard run --base small-world-4 --only 15"


def test_a_card_is_found_by_its_runs_also_of_a_base_that_has_none_of_its_own_or_where_something_was_chosen(
    made, tmp_path, monkeypatch
):
    root, card = made
    monkeypatch.setattr(table, "saved_bases", lambda: ["small-world", "small-world-1"])
    own = build.cards_of(list_runs(tmp_path / "none"))
    assert own == [card_for(base) for base in ("small-world", "smollm2-135m", "gemma3-270m", "small-world-1")]
    assert build.cards_of(list_runs(root)) == [*own, card] and build.choices(card) == {"expanded": ("hu",)}
    other = card_for("small-world-2")
    arm_run(tmp_path / "runs", 0, MOE, config=experiment_of(other, "moe_lpr", 0).to_config())
    assert build.cards_of(list_runs(tmp_path / "runs")) == [*own, other]


def test_a_card_with_a_second_group_of_its_own_is_found_by_the_runs_of_that_group(tmp_path):
    own = len(build.cards_of([]))
    card = build.chosen_card("small-world", expanded=["hu", "tr"], further=["de"])
    first = arm_run(tmp_path, 0, MOE, config=experiment_of(card, "moe_lpr", 0).to_config())
    assert build.cards_of(list_runs(tmp_path))[own:] == [replace(card, further=())]
    second = experiment_of(card, "second group", 0, parent=first)
    arm_run(tmp_path, 0, MOE, config=second.to_config())
    assert build.cards_of(list_runs(tmp_path))[own:] == [card]
    assert set(build.find_arms(card, list_runs(tmp_path))) == {"moe_lpr", "second group"}


def test_runs_on_another_base_of_the_same_name_are_left_out(made, tmp_path):
    root, card = made
    root = Path(shutil.copytree(root, tmp_path / "runs"))
    newest, *others = list_runs(root)
    for run, base in [(newest, "b" * 64), *((run, "a" * 64) for run in others[:4])]:
        run.phases.record("upcycle", {"base_fingerprint": base})
    kept = {run.id for own in build.find_arms(card, list_runs(root)).values() for run in own.values()}
    assert newest.id in kept and not kept & {run.id for run in others[:4]}
    assert kept >= {run.id for run in others[4:]}, "runs from before bases were recorded stay"


@pytest.mark.slow  # there are seven hundred of them
def test_a_table_that_came_with_its_runs_is_what_they_say(tmp_path):
    with_runs = sorted(table.RESULTS.glob(f"*{SUFFIX}"))
    assert with_runs
    for archive in with_runs:
        base = archive.name.removesuffix(SUFFIX)
        unpack(base, tmp_path, table.RESULTS)
        found, saved = json.loads(json.dumps(build.build(card_for(base), tmp_path))), table.read_saved(base)
        assert found | {"gate": None} == saved | {"gate": None}, (
            "the gate is of the base, which is made on each machine"
        )
