"""Processes that were started together train together, or say why not."""

import os
from dataclasses import replace

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
from lpr_lab.model.bases.load import load_model
from lpr_lab.model.parallel.processes import divides_model, every_process_reads, join_processes
from lpr_lab.model.parallel.sharding import divided

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


@pytest.mark.parametrize("way", ["DEEPSPEED", "MEGATRON_LM"])
def test_ways_to_divide_a_model_that_are_not_ours_are_refused(way, monkeypatch):
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    with pytest.raises(UsageError, match=f"ACCELERATE_USE_{way}"):
        join_processes()


def test_fsdp_is_taken_in_version_2_and_without_offloading(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="FSDP_VERSION=2"):
        join_processes()  # Accelerate's own default is version 1
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert join_processes().num_processes == 1
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(UsageError, match="FSDP_OFFLOAD_PARAMS"):
        join_processes()


def test_one_process_alone_divides_nothing(tiny_model, monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with divided(model) as same:
        assert same is model
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert divides_model()


def test_a_model_to_be_divided_is_loaded_onto_the_processor_by_every_process(tiny_model, tmp_path, monkeypatch):
    tiny_model("llama").save_pretrained(tmp_path)
    for name, value in {"ACCELERATE_USE_FSDP": "1", "WORLD_SIZE": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lpr_lab.model.bases.load.default_device", lambda: torch.device("meta"))
    with every_process_reads():
        assert "FSDP_CPU_RAM_EFFICIENT_LOADING" not in os.environ
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "1"
    assert load_model(tmp_path).device.type == "cpu"


def test_compilation_of_a_divided_model_is_refused_before_work_starts(
    tiny_model, tiny_corpus, tiny_tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr("lpr_lab.method.training.train.divides_model", lambda: True)
    model, settings = upcycle(tiny_model("llama"), (1, 1)), replace(SETTINGS, compile=True)
    with pytest.raises(UsageError, match="compile"):
        expand(model, tiny_tokenizer, tiny_corpus, languages=["el"], out=tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


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
