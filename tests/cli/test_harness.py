"""`lpr-lab harness` takes the harness's own arguments, and prints results alone."""

import json

import pytest

from helpers.cli_calls import call
from lpr_lab.cli import harness


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    said = call("harness", "--tasks", "anything")
    assert said.exit_code == 3 and "lpr_lab[eval]" in said.stderr


@pytest.mark.slow
def test_options_of_the_harness_go_to_the_harness_and_results_to_stdout(tiny_model, tiny_tokenizer, tmp_path):
    pytest.importorskip("lm_eval", reason="needs the extra eval")
    from helpers.harness_tasks import write_choice
    from helpers.small_expansion import make_expansion

    subject, _ = make_expansion(tmp_path, tiny_model("llama"), tiny_tokenizer)
    task = write_choice(tmp_path / "tasks")
    given = ["--tasks", "our_choice", "--include_path", str(task.parent), "-L", "2", "--batch_size", "2"]
    folder = ["--runs-dir", str(subject.path.parent)]
    model = ["--model_args", f"run={subject.id}", "stage=G1 expand"]
    done = call("harness", *folder, *given, *model, "--json")
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["kind"] == "harness" and facts["results"]["stage"] == "G1 expand"
    assert {score["metric"] for score in facts["results"]["scores"]} == {"acc", "acc_norm"}
    shown = call("harness", *folder, *given, *model, "--quiet")
    assert (
        shown.exit_code == 0
        and "our_choice" in shown.stdout
        and shown.stdout.rstrip().splitlines()[-1].startswith("Run:")
    )
    assert call("harness", *folder, *given, "--model_args", "run=nothing").exit_code == 3
