"""Processes that were started together train together, or say why not."""

import pytest
import torch
from accelerate import PartialState

from helpers.processes import TOGETHER, run_program
from lpr_lab.errors import UsageError
from lpr_lab.experiments.tracking.log import tracking
from lpr_lab.method import baselines
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.parallel.processes import join_processes

SETTINGS = TrainSettings(tokens=4 * 32, block_tokens=32, precision="fp32")
BOTH = {"original": ["en"], "expanded": ["el"]}


@pytest.fixture(autouse=True)
def one_process():
    """A state that knows of one process, as whoever asked too early has made it."""
    PartialState(cpu=True)


def test_alone_there_is_one_process_and_asking_again_changes_nothing():
    threads = torch.get_num_threads()
    assert join_processes().num_processes == join_processes().num_processes == 1
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"])
def test_more_processes_in_the_environment_than_accelerate_knows_of_are_refused(name, monkeypatch):
    monkeypatch.setenv(name, "2")
    with pytest.raises(UsageError, match=rf"{name} = 2.*PartialState"):
        join_processes()
    monkeypatch.setenv(name, "1")
    assert join_processes().num_processes == 1


@pytest.mark.parametrize("way", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_ways_to_divide_a_model_that_are_not_ours_are_refused(way, monkeypatch):
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    with pytest.raises(UsageError, match=f"ACCELERATE_USE_{way}"):
        join_processes()


def run_verb(verb, dense, out):
    given = (None, None)  # neither tokenizer nor corpus is asked for anything
    match verb:
        case "expand":
            expand(upcycle(dense, (1, 1)), *given, languages=["el"], out=out, settings=SETTINGS)
        case "review":
            review(upcycle(dense, (1, 1)), *given, **BOTH, out=out, settings=SETTINGS)
        case "finetune":
            baselines.finetune(baselines.full(dense), *given, **BOTH, out=out, settings=SETTINGS)
        case "tracking":
            with tracking(None, "expand", ["tensorboard"]):
                pass


@pytest.mark.parametrize("verb", ["expand", "review", "finetune", "tracking"])
def test_whatever_trains_refuses_before_it_reads_any_text(verb, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="WORLD_SIZE = 2"):
        run_verb(verb, tiny_model("llama"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


ALONE = """
import sys
from accelerate import PartialState
PartialState()  # too early, and without cpu=True: it sees no GPU, and so nobody else
from pathlib import Path
from lpr_lab.errors import UsageError
from helpers.one_step import SETTINGS, load, run

folder = Path(sys.argv[1])
try:
    run("expand", *load(folder), out=folder / "alone", settings=SETTINGS)
except UsageError as error:
    print("refused:", error, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU, a state that was made early sees all processes")
def test_under_torchrun_a_state_that_was_made_too_early_is_refused_by_every_process(
    tiny_model, tiny_tokenizer, sentences, tmp_path
):
    import json

    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "sentences.json").write_text(json.dumps(sentences))
    (tmp_path / "alone.py").write_text(ALONE)
    printed = run_program(tmp_path / "alone.py", str(tmp_path), under=TOGETHER)
    assert printed.count("refused: WORLD_SIZE = 2") == 2, printed
    assert not list((tmp_path / "alone").glob("checkpoint-*"))
