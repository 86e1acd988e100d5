"""Processes that a launcher started together make one run, and so does `accelerate launch` with our files."""

import re
from pathlib import Path

import pytest
import yaml

from helpers.processes import TESTS, TOGETHER, run_program
from lpr_lab.errors import UsageError
from lpr_lab.experiments.processes import group
from lpr_lab.experiments.processes.configurations import configuration_file, configuration_names
from lpr_lab.runs.run import Run


def assert_one_run_each(printed: str, root: Path) -> None:
    for recipe in ("route_first", "moe_lpr"):
        seen = dict(re.findall(rf"rank (\d): {recipe} (\S+) finished", printed))
        assert set(seen) == {"0", "1"} and len(set(seen.values())) == 1, printed
        run = Run(root / seen["0"])
        steps = run.config["steps"]
        assert run.phases.processes == {step: [2] for step in steps}
        assert run.status.attempts == 1
        losses = run.metrics.read().query("name == 'loss'")
        assert not losses.duplicated(["stage", "step"]).any()
    assert len(list(root.glob("2*"))) == 2


@pytest.mark.slow
def test_processes_of_torchrun_make_one_run_one_after_another(materials):
    printed = run_program(TESTS / "helpers" / "lead_and_follow.py", str(materials), under=TOGETHER, timeout=600)
    assert_one_run_each(printed, materials / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["ddp", "fsdp2"])
def test_accelerate_launch_with_a_shipped_file_makes_one_run(file, materials, tmp_path):
    for name in ("base", "corpus.jsonl"):
        (tmp_path / name).symlink_to(materials / name)
    under = ("-m", "accelerate.commands.launch", "--config_file", str(configuration_file(file)))
    printed = run_program(TESTS / "helpers" / "lead_and_follow.py", str(tmp_path), under=under, timeout=600)
    assert_one_run_each(printed, tmp_path / "runs")


@pytest.mark.parametrize("name", configuration_names())
def test_accelerate_knows_every_setting_of_the_shipped_files(name):
    from accelerate.commands.config.config_args import load_config_from_file

    file = configuration_file(name)
    loaded = load_config_from_file(str(file))
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert loaded.num_processes == written["num_processes"] > 1
    assert loaded.mixed_precision == "no"  # ours is a setting of the experiment


def test_a_file_that_does_not_ship_is_refused_with_those_that_do():
    with pytest.raises(UsageError, match="ddp"):
        configuration_file("dpp")


def test_processes_of_another_launcher_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    group._store.cache_clear()
    with pytest.raises(UsageError, match=r"WORLD_SIZE = 2.*torchrun"):
        group.share("train", Path("run"))
