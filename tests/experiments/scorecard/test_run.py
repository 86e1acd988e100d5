"""The scorecard's plan, and what trains it: nothing twice, parents first, and on after an interruption."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.other_commands import while_waiting
from helpers.sample_scorecard import tiny_card
from lpr_lab.errors import BusyError, LprError
from lpr_lab.experiments import pipeline
from lpr_lab.experiments.config import Experiment
from lpr_lab.experiments.scorecard import run as making
from lpr_lab.experiments.scorecard.build import build, find_arms
from lpr_lab.experiments.scorecard.plan import ARMS, card_for, choices, chosen_card, experiment_of, jobs
from lpr_lab.experiments.scorecard.run import make_missing
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.scorecard import instrument
from lpr_lab.runs.scorecard.allocations import ORACLE, RULES, UNIFORM, probe_of
from lpr_lab.storage import remove_directory


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if not arm.after])
def test_every_arm_is_an_experiment_that_a_run_can_record(name):
    experiment = experiment_of(card_for(), name, 3)
    assert Experiment.from_config(experiment.to_config()).to_config() == experiment.to_config()
    assert set(experiment.languages) == {"en", "es", "hu", "qac_Latn"}


def test_arms_differ_in_their_settings_and_share_text_and_evaluation():
    card = card_for()
    configs = {name: experiment_of(card, name, 0).to_config() for name, arm in ARMS.items() if not arm.after}
    assert len({str(config) for config in configs.values()}) == len(configs)
    for shared in ("base", "corpus", "original", "unreviewed", "expanded", "eval_tokens_per_language", "precision"):
        assert len({str(config[shared]) for config in configs.values()}) == 1


@pytest.mark.parametrize("base", ["small-world", "smollm2-135m"])
def test_all_arms_compute_in_one_precision_whatever_the_machine_has(base):
    card = card_for(base)
    precisions = {experiment_of(card, name, 0).precision for name, arm in ARMS.items() if not arm.after}
    assert precisions == {card.precision} <= {"fp32", "bf16"}
    assert experiment_of(card_for(base, precision="fp32"), "moe_lpr", 0).precision == "fp32"


def test_text_that_somebody_chose_is_asked_only_the_tasks_that_are_named():
    assert card_for("smollm2-135m").tasks == chosen_card("smollm2-135m", corpus="demo").tasks == ("choice",)
    assert chosen_card("smollm2-135m", corpus="mine/").tasks == ()
    for tasks, asked in ((["inflection", "choice"], ("inflection", "choice")), (["none"], ())):
        card = chosen_card("smollm2-135m", tasks=tasks)
        assert card.tasks == experiment_of(card, "moe_lpr", 0).asked.tasks == asked
        assert choices(card) == {"tasks": tuple(tasks)}
        assert chosen_card("smollm2-135m", corpus="mine/", tasks=tasks).tasks == asked
    assert choices(chosen_card("smollm2-135m", corpus="mine/", tasks=["none"])) == {"corpus": ("mine/",)}
    with pytest.raises(LprError, match="riddles"):
        chosen_card("smollm2-135m", tasks=["riddles"])


def test_languages_that_do_not_go_with_the_chosen_ones_are_left_out_of_a_card():
    own = card_for("small-world")
    assert (own.unreviewed, own.further) == (("es",), ("tr",))
    assert chosen_card("small-world", original=["fi"]).unreviewed == ()
    assert chosen_card("small-world", expanded=["es"]).unreviewed == ()
    assert chosen_card("small-world", original=["en"]) == own
    for chosen in ({"expanded": ["hu", "tr"]}, {"original": ["tr"]}, {"unreviewed": ["tur"]}, {"corpus": "mine/"}):
        card = chosen_card("small-world", **chosen)
        assert card.further == () and "second group" not in card.arms and "moe_lpr" in card.arms
        assert "further" not in choices(card)
        named = chosen_card("small-world", **chosen, further=["de"])
        assert named.further == ("de",) and "second group" in named.arms and choices(named)["further"] == ("de",)
    for twice in ({"expanded": ["tr"], "further": ["tur"]}, {"expanded": ["en"]}, {"original": ["hu"]}):
        with pytest.raises(LprError, match="in two groups"):
            chosen_card("small-world", **twice)
    assert chosen_card("small-world", expanded=["hu", "hun"]).expanded == ("hu",)


def test_a_learning_rate_is_a_share_of_what_suits_the_recipe():
    card = card_for()
    names = ("full_replay", "full_replay, third of the rate")
    whole, third = (experiment_of(card, name, 0).resolved().stage1 for name in names)
    assert third.learning_rate == pytest.approx(whole.learning_rate / 3)


def test_an_arm_that_goes_on_from_another_has_that_one_made_first():
    assert jobs(card_for(), ["second group"], 2) == [
        *(("moe_lpr", seed) for seed in range(2)),
        *(("second group", seed) for seed in range(2)),
    ]


def test_rules_for_where_experts_go_share_their_number_and_differ_in_nothing_else():
    card = card_for()
    assert set(RULES) <= set(card.arms) and set(RULES) - set(ARMS) == {ORACLE}
    budgets = {name: experiment_of(card, name, 0, gains=[1.0] * 5) for name in RULES}
    same = {name: one.new_experts_per_layer for name, one in budgets.items() if not isinstance(one.allocation, tuple)}
    assert set(same.values()) == {2, 5} and [name for name, count in same.items() if count == 5] == ["5 experts"]
    uniform = budgets[UNIFORM].to_config()
    for name, one in budgets.items():
        other = {key for key, value in one.to_config().items() if value != uniform[key]}
        assert other <= {"recipe", "allocation", "similarity_state", "new_experts_per_layer"}, name


def test_the_oracle_divides_by_what_one_expert_gained_in_each_layer():
    card, probes = card_for(), [probe_of(layer) for layer in range(5)]
    assert [experiment_of(card, name, 0).allocation for name in probes[:2]] == [(1, 0, 0, 0, 0), (0, 1, 0, 0, 0)]
    assert experiment_of(card, ORACLE, 0, gains=[4, 2, 2, 1, 1]).allocation == (4, 2, 2, 1, 1)
    planned = jobs(card, [ORACLE], 3)
    assert planned == [*((name, seed) for name in probes for seed in range(3)), *((ORACLE, seed) for seed in range(3))]
    assert ORACLE not in card_for("smollm2-135m").arms, "thirty probes are too dear"


def test_the_instrument_has_more_seeds_where_all_that_the_card_asks_for_are_made():
    card = card_for()
    every = jobs(card, card.arms, card.seeds)
    seeds = {name: sum(name == other for other, _ in every) for name in card.arms}
    assert {seeds.pop(name) for name in instrument.PAIR} == {card.instrument_seeds} and set(seeds.values()) == {
        card.seeds
    }
    assert len(jobs(card, card.arms, 1)) == len(card.arms) + 2 * card.probed_layers


@pytest.mark.slow
def test_every_arm_can_be_trained(materials, tmp_path):
    card = replace(tiny_card(materials), stage1_tokens=64, self_samples=0, tasks=())
    made = make_missing(card, card.arms, 1, tmp_path, say=lambda text: None)
    assert not made.failed and {name for name, _ in made.runs} == set(card.arms)


@pytest.mark.slow
def test_the_oracle_is_made_after_its_probes_and_found_again(materials, tmp_path):
    card = replace(tiny_card(materials), probed_layers=2, stage1_tokens=64)
    made = make_missing(card, [ORACLE], 1, tmp_path, say=lambda text: None)
    assert not made.failed and len(made.new) == 7, "three seeds of each of two layers, and one of its own"
    assert sum(made.runs[ORACLE, 0].config["allocation"]) == 4
    found = build(card, tmp_path)["allocations"]
    assert {name for row in found["rules"] for name in row["arms"]} == {ORACLE, probe_of(0), probe_of(1)}
    assert not make_missing(card, [ORACLE], 1, tmp_path, say=lambda text: None).new
    remove_directory(made.runs[probe_of(1), 2].path)
    assert ORACLE not in find_arms(card, list_runs(tmp_path)), "of which experts it would have is not known"
    dev, heldout = (set(made.runs[name, 0].tables.read("documents")["dataset"]) for name in (probe_of(0), ORACLE))
    assert (dev, heldout) == ({"dev", "heldout"}, {"heldout"})


@pytest.mark.slow
def test_runs_that_are_there_are_not_made_again_and_an_interrupted_one_goes_on(materials, tmp_path, monkeypatch):
    card, said = tiny_card(materials), []
    results_of = pipeline.results_of
    monkeypatch.setattr(pipeline, "results_of", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make_missing(card, ["full"], 1, tmp_path, say=said.append)
    monkeypatch.setattr(pipeline, "results_of", results_of)

    made = make_missing(card, ["full", "second group"], 1, tmp_path, say=said.append)
    assert set(made.runs) == {("full", 0), ("moe_lpr", 0), ("second group", 0)} and not made.failed
    assert len(list(tmp_path.glob("2*"))) == 3  # the interrupted one is one of them
    assert made.runs["second group", 0].parents == (made.runs["moe_lpr", 0].id,)
    again = make_missing(card, ["full", "second group"], 1, tmp_path, say=said.append)
    assert not again.new and {job: run.id for job, run in again.runs.items()} == {
        job: run.id for job, run in made.runs.items()
    }
    facts = made.runs["full", 0].phases["baseline"]
    made.runs["full", 0].phases.record("baseline", {**facts, "base_fingerprint": "another"})
    assert ("full", 0) not in make_missing(card, ["full"], 1, tmp_path, say=said.append, dry_run=True).runs
    made.runs["full", 0].phases.record("baseline", facts)
    remove_directory(made.runs["moe_lpr", 0].paths.checkpoint)
    light = make_missing(card, ["second group"], 1, tmp_path, say=said.append)
    assert ("second group", 0) in light.runs, "what was made from it is found though its weights are gone"
    remove_directory(made.runs["second group", 0].path)
    lost = make_missing(card, ["second group"], 1, tmp_path, say=said.append)
    assert lost.new == [("moe_lpr", 0), ("second group", 0)] and not lost.failed
    assert lost.runs["moe_lpr", 0].id != made.runs["moe_lpr", 0].id
    changes = made.runs["moe_lpr", 0].results["change"]
    assert {row["language"]: row["role"] for row in changes} == {"en": "original", "es": "original", "el": "expanded"}


@pytest.mark.slow
def test_how_long_the_rest_takes_is_told_from_runs_of_such_a_machine_alone(materials, tmp_path):
    card, said = tiny_card(materials), []
    run = make_missing(card, ["full"], 1, tmp_path, say=said.append).runs["full", 0]
    run.phases.record("seconds", {"baseline": 7200.0})
    make_missing(card, ["full", "lora"], 1, tmp_path, say=said.append, dry_run=True)
    assert "2.0 hours" in said[-1]
    run.documents.write("env", run.documents.read("env") | {"instructions": ["amx_bf16"]})
    make_missing(card, ["full", "lora"], 1, tmp_path, say=said.append, dry_run=True)
    assert "hours" not in said[-1], "another machine's times say nothing about this one"


@pytest.mark.slow
def test_the_classifiers_of_a_run_are_judged_on_the_test_set_that_it_reads(materials, tmp_path):
    made = make_missing(tiny_card(materials), ["layer_moe"], 1, tmp_path)
    assert not made.failed
    table = made.runs["layer_moe", 0].tables.read("classifiers")
    assert set(table["dataset"]) == {"heldout"} and table["accuracy"].between(0, 1).all() and len(table)


@pytest.fixture
def finished_at_once(monkeypatch):
    """Let no run be trained: it is finished as soon as it has begun."""
    monkeypatch.setattr(making.Texts, "of", lambda self, experiment, dev: None)
    monkeypatch.setattr(making, "work_on", lambda experiment, run, corpus: run.finish({"schema_version": 1}))


def test_a_run_that_another_command_works_on_is_left_to_it_and_found_when_it_is_done(
    materials, tmp_path, monkeypatch, finished_at_once
):
    card, said = tiny_card(materials), []
    theirs = pipeline.start(experiment_of(card, "full", 0), root=tmp_path)
    assert theirs.status.is_live
    while_waiting(monkeypatch, lambda: theirs.finish({"schema_version": 1}))
    made = make_missing(card, ["full", "lora"], 1, tmp_path, say=said.append)
    assert made.new == [("lora", 0)] and made.runs["full", 0].id == theirs.id and not made.failed
    assert len(list_runs(tmp_path)) == 2 and "Waiting for 1 run " in said[-1]


def test_a_run_that_another_command_gave_up_is_taken_up(materials, tmp_path, monkeypatch, finished_at_once):
    card = tiny_card(materials)
    theirs = pipeline.start(experiment_of(card, "full", 0), root=tmp_path)
    while_waiting(monkeypatch, lambda: theirs.stop("failed", error_tail="no room"))
    made = make_missing(card, ["full"], 1, tmp_path, say=lambda text: None)
    assert made.new == [("full", 0)] and made.runs["full", 0].id == theirs.id


def test_what_goes_on_from_a_run_of_another_command_waits_for_it(materials, tmp_path, monkeypatch, finished_at_once):
    card = tiny_card(materials)
    theirs = pipeline.start(experiment_of(card, "moe_lpr", 0), root=tmp_path)

    def finish():
        theirs.paths.checkpoint.mkdir()
        (theirs.paths.checkpoint / "MANIFEST.json").write_text("{}")
        theirs.finish({"schema_version": 1})

    while_waiting(monkeypatch, finish)
    made = make_missing(card, ["second group"], 1, tmp_path, say=lambda text: None)
    assert made.new == [("second group", 0)] and made.runs["second group", 0].parents == (theirs.id,)


def test_what_an_arm_goes_on_from_is_made_anew_where_its_weights_are_gone(materials, tmp_path, monkeypatch):
    def finish(experiment, run, corpus):
        run.paths.checkpoint.mkdir()
        (run.paths.checkpoint / "MANIFEST.json").write_text("{}")
        run.finish({"schema_version": 1})

    monkeypatch.setattr(making.Texts, "of", lambda self, experiment, dev: None)
    monkeypatch.setattr(making, "work_on", finish)
    card, said = tiny_card(materials), []
    light = pipeline.start(experiment_of(card, "moe_lpr", 0), root=tmp_path)
    light.finish({"schema_version": 1})
    assert not make_missing(card, ["moe_lpr"], 1, tmp_path, say=said.append).new, "by itself it is there"
    planned = make_missing(card, ["second group"], 1, tmp_path, say=said.append, dry_run=True)
    assert not planned.runs and "2 to be made" in said[-1]
    made = make_missing(card, ["second group"], 1, tmp_path, say=said.append)
    assert made.new == [("moe_lpr", 0), ("second group", 0)] and not made.failed
    assert made.runs["second group", 0].parents == (made.runs["moe_lpr", 0].id,) != (light.id,)
    assert not make_missing(card, ["second group"], 1, tmp_path, say=said.append).new


def test_without_its_text_nothing_is_begun_that_stays(materials, tmp_path, monkeypatch):
    def no_text(self, experiment, dev):
        raise LprError("no such text")

    monkeypatch.setattr(making.Texts, "of", no_text)
    made = make_missing(tiny_card(materials), ["full", "lora"], 1, tmp_path, say=lambda text: None)
    assert set(made.failed.values()) == {"no such text"} and list_runs(tmp_path) == []


def test_any_text_is_good_for_a_scorecard_though_no_tasks_can_be_made_of_it(materials, tmp_path, own_text):
    chosen = chosen_card(str(materials / "base"), corpus=own_text, original=["en"], expanded=["el"])
    small = {name: getattr(tiny_card(materials), name) for name in ("block_tokens", "eval_tokens_per_language")}
    card = replace(chosen, stage1_tokens=64, stage2_tokens=64, blocks_per_step=2, self_samples=0, **small)
    made = make_missing(card, ["full"], 1, tmp_path / "runs", say=lambda text: None)
    assert not made.failed and made.new == [("full", 0)]
    assert build(card, tmp_path / "runs")["test_set"] == "dev"


def test_held_out_text_in_some_languages_alone_does_not_take_the_dev_text_of_the_others(materials, tmp_path):
    lines = (materials / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if (row := json.loads(line))["split"] != "heldout" or row["language"] == "en"]
    (tmp_path / "partial.jsonl").write_text("\n".join(kept), encoding="utf-8")
    card = replace(tiny_card(materials), corpus=str(tmp_path / "partial.jsonl"), tasks=(), self_samples=0)
    made = make_missing(card, ["full"], 1, tmp_path / "runs", say=lambda text: None)
    assert not made.failed and set(made.runs["full", 0].tables.read("change")["language"]) == {"en", "es", "el"}
    assert build(card, tmp_path / "runs")["test_set"] == "dev"


def test_a_run_that_fails_before_anything_is_done_does_not_stay(materials, tmp_path, own_text):
    card = replace(tiny_card(materials), corpus=own_text, unreviewed=(), tasks=("choice",))
    made = make_missing(card, ["full", "lora"], 1, tmp_path / "runs", say=lambda text: None)
    assert len(made.failed) == 2 and all("in common" in why for why in made.failed.values())
    assert list_runs(tmp_path / "runs") == []


def test_runs_of_a_base_that_is_not_here_are_not_taken_for_missing(materials, tmp_path, finished_at_once):
    card = tiny_card(materials)
    run = make_missing(card, ["full"], 1, tmp_path, say=lambda text: None).runs["full", 0]
    run.phases.record("baseline", {"base_fingerprint": "a" * 64})
    (materials / "base" / "model.safetensors").rename(materials / "gone")
    try:
        with pytest.raises(LprError, match="base"):
            make_missing(card, ["full"], 1, tmp_path, say=lambda text: None, dry_run=True)
    finally:
        (materials / "gone").rename(materials / "base" / "model.safetensors")


_COMMAND = """
import sys, time
from pathlib import Path
from helpers.sample_scorecard import tiny_card
from lpr_lab.experiments.scorecard import run as making

making.Texts.of = lambda self, experiment, dev: None
making._LOOK_AGAIN = 0.05
def work_on(experiment, run, corpus):
    time.sleep(0.3)
    run.finish({"schema_version": 1})
making.work_on = work_on
made = making.make_missing(tiny_card(Path(sys.argv[1])), sys.argv[3:], 3, sys.argv[2], say=lambda text: None)
print(len(made.new), len(made.runs), len(made.failed))
"""


@pytest.mark.slow
def test_commands_that_make_one_scorecard_at_once_share_its_runs(materials, tmp_path):
    arms = ["full", "lora", "ssu", "interpolate"]
    command = [sys.executable, "-c", _COMMAND, str(materials), str(tmp_path), *arms]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    new, there, failed = zip(*(map(int, one.communicate(timeout=300)[0].split()) for one in both), strict=True)
    assert sum(new) == 12 and there == (12, 12) and failed == (0, 0)
    assert len(list_runs(tmp_path)) == 12, "none was made twice"


def test_an_arm_that_fails_is_noted_and_the_others_are_made(materials, tmp_path, monkeypatch):
    def fails(experiment, *args):
        if experiment.recipe == "full":
            raise LprError("out of paper")

    monkeypatch.setattr("lpr_lab.experiments.scorecard.run.work_on", fails)
    monkeypatch.setattr("lpr_lab.experiments.scorecard.run.Texts.of", lambda self, experiment, dev: None)
    made = make_missing(tiny_card(materials), ["full", "lora"], 1, tmp_path, say=lambda text: None)
    assert made.failed == {("full", 0): "out of paper"} and made.new == [("lora", 0)]


def test_the_time_left_is_that_of_all_runs_that_are_not_done(materials, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=lambda seconds: None)

    def takes_a_minute(experiment, run, corpus):
        clock.now += 60
        run.finish({"schema_version": 1})

    monkeypatch.setattr(making, "time", clock)
    monkeypatch.setattr(making, "work_on", takes_a_minute)
    monkeypatch.setattr(making.Texts, "of", lambda self, experiment, dev: None)
    said = []
    make_missing(tiny_card(materials), ["full", "lora", "ssu", "interpolate"], 1, tmp_path, say=said.append)
    assert re.findall(r"(-?\d+) min left", " ".join(said)) == ["3", "2", "1"]


def test_a_run_that_another_command_began_first_stays_its_own(materials, tmp_path, monkeypatch):
    def is_taken(experiment, run, corpus):
        raise BusyError(f"{run.id} is worked on")

    monkeypatch.setattr(making, "work_on", is_taken)
    monkeypatch.setattr(making.Texts, "of", lambda self, experiment, dev: None)
    made = make_missing(tiny_card(materials), ["full"], 1, tmp_path, say=lambda text: None)
    (run,) = list_runs(tmp_path)
    assert run.id in made.failed["full", 0] and run.status.recorded_state != "failed"
