"""A run of several stages ends with the same bits whether it was made in one process or cut and taken up by others."""

import pytest
from safetensors.torch import load_file

from helpers.cut_runs import MOST_CUTS, NAMES
from helpers.processes import TESTS, run_program, run_warm
from helpers.tiny_corpus import write_corpus


def python(folder, where, run=run_warm):
    """Run every recipe in a new process; returns the id of each run that was trained to its end."""
    printed = run(TESTS / "helpers" / "cut_runs.py", str(folder), where, timeout=900)
    lines = [line.removeprefix("trained: ") for line in printed.splitlines() if line.startswith("trained: ")]
    return dict(line.split(" - ") for line in lines)


@pytest.mark.slow
def test_runs_in_bf16_that_were_cut_inside_and_between_stages_end_bit_identical_in_new_processes(
    tiny_model, tiny_tokenizer, sentences, tmp_path
):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    write_corpus(tmp_path / "corpus.jsonl", sentences, ("en", "es", "el", "tr"))
    whole = python(tmp_path, "whole", run_program)  # with a hash seed of its own, as the last one has
    assert set(whole) == {*NAMES, "further moe_lpr", "further route_first"}
    finished = [python(tmp_path, where) for where in ("inside", "between") * (MOST_CUTS // 2)]
    assert not finished[0] and not finished[1]  # every recipe was cut
    cut = python(tmp_path, "whole-of-cut", run_program)
    assert set(cut) == set(whole)
    for name, run in whole.items():
        expected, found = (
            load_file(tmp_path / kind / which / "checkpoint" / "adapter_model.safetensors")
            for kind, which in (("whole", run), ("cut", cut[name]))
        )
        assert expected.keys() == found.keys(), name
        assert all(expected[tensor].equal(found[tensor]) for tensor in expected), name
