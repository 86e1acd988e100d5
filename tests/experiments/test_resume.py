"""A run of several stages ends with the same bits whether it was made in one process or cut and taken up by others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from helpers.cut_runs import MOST_CUTS, NAMES
from helpers.tiny_corpus import write_corpus

TESTS = Path(__file__).parents[1]


def python(folder, where):
    """Run every recipe in a new process; returns the id of each run that was trained to its end."""
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(TESTS / "helpers" / "cut_runs.py"), str(folder), where],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [line.removeprefix("trained: ") for line in done.stdout.splitlines() if line.startswith("trained: ")]
    return dict(line.split(" - ") for line in lines)


@pytest.mark.slow
def test_runs_in_bf16_that_were_cut_inside_and_between_stages_end_bit_identical_in_new_processes(
    tiny_model, tiny_tokenizer, sentences, tmp_path
):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    write_corpus(tmp_path / "corpus.jsonl", sentences, ("en", "es", "el", "tr"))
    whole = python(tmp_path, "whole")
    assert set(whole) == {*NAMES, "further moe_lpr", "further route_first"}
    finished = [python(tmp_path, where) for where in ("inside", "between") * (MOST_CUTS // 2)]
    assert not finished[0] and not finished[1]  # every recipe was cut
    cut = python(tmp_path, "whole-of-cut")
    assert set(cut) == set(whole)
    for name, run in whole.items():
        expected, found = (
            load_file(tmp_path / kind / which / "checkpoint" / "adapter_model.safetensors")
            for kind, which in (("whole", run), ("cut", cut[name]))
        )
        assert expected.keys() == found.keys(), name
        assert all(expected[tensor].equal(found[tensor]) for tensor in expected), name
