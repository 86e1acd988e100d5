"""How many processes train together is known, and can be, before anything starts."""

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.experiments import recipes
from lpr_lab.experiments.config import StageBudget
from lpr_lab.experiments.processes import check as checks
from lpr_lab.experiments.processes.check import check
from lpr_lab.experiments.processes.number import PROCESSES, num_processes, rank

BUDGET = StageBudget(tokens=6 * 256, blocks_per_step=6)


def test_one_unless_somebody_says_otherwise_and_what_is_given_wins(monkeypatch):
    assert num_processes() == 1
    monkeypatch.setenv(PROCESSES, "4")
    assert num_processes() == 4
    assert num_processes(2) == 2


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_that_is_none_is_refused_with_its_source(text, monkeypatch):
    monkeypatch.setenv(PROCESSES, text)
    with pytest.raises(UsageError, match=rf"{PROCESSES} = {text}"):
        num_processes()


def test_what_a_launcher_started_is_used_and_another_number_beside_it_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert num_processes() == num_processes(4) == 4
    assert rank() == 3
    with pytest.raises(UsageError, match=r"processes = 2.*WORLD_SIZE = 4"):
        num_processes(2)


def test_a_step_that_so_many_cannot_share_is_refused_by_its_stage():
    experiment = recipes.moe_lpr(stage2=BUDGET)
    check(experiment, 1)
    check(experiment, 2)
    with pytest.raises(UsageError, match=r"stage2.*blocks_per_step = 6.*4 processes"):
        check(experiment, 4)
    check(recipes.route_first(stage2=BUDGET), 4)  # which has no stage 2


def test_more_processes_than_gpus_are_refused_and_more_than_cores_are_only_slow(monkeypatch, capsys):
    experiment = recipes.route_first(stage1=StageBudget(tokens=64 * 256, blocks_per_step=64))
    monkeypatch.setattr(checks.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(checks, "num_cores", lambda: 2)
    check(experiment, 4)
    assert "4 processes share 2 cores" in capsys.readouterr().err
    monkeypatch.setattr(checks.torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="this machine has 2"):
        check(experiment, 4)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    check(experiment, 4)


def test_nothing_is_left_of_a_run_that_so_many_cannot_train(tmp_path, monkeypatch):
    from lpr_lab.experiments import pipeline

    with pytest.raises(UsageError, match="blocks_per_step"):
        pipeline.run(recipes.route_first(stage1=BUDGET), root=tmp_path, processes=4)
    monkeypatch.setenv(PROCESSES, "4")
    with pytest.raises(UsageError, match="blocks_per_step"):
        pipeline.start(recipes.route_first(stage1=BUDGET), root=tmp_path)
    assert not list(tmp_path.iterdir())
