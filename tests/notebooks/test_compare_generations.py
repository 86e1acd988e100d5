"""The notebook of generations from first cell to last, on a tiny run: two stages, three kinds of prompts."""

import io
import re

import pytest

from helpers.tiny_notebooks import copy_run
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.compare import page as compare
from lpr_lab.errors import ComparisonRefusedError, UsageError
from lpr_lab.experiments.notebooks.run import notebooks_dir, run_notebook
from lpr_lab.experiments.studies import generations
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.people.continuations import Continuation, Pair
from lpr_lab.runs.run import Run

PROMPTS = [{"language": "ar", "prompt": "كان يا ما كان"}, {"language": "el", "prompt": "Μια φορά"}, "Once upon a time"]


@pytest.mark.notebook
def test_two_stages_continue_every_prompt_and_the_dashboard_shows_their_pairs(finished_runs):
    done = run_notebook(
        notebooks_dir() / "08_compare_generations.ipynb",
        runs_dir=finished_runs,
        values={"left": "G1 expand", "prompts": PROMPTS, "max_new_tokens": 12},
        output=io.StringIO(),
    )
    run = Run.open(finished_runs, done.run.id)
    subject = next(other for other in list_runs(finished_runs) if other.paths.has_checkpoint)
    assert (run.kind, run.status.state, run.parents) == ("comparison", "finished", (subject.id,))
    assert [record["language"] for record in run.generations.read()] == ["ar", "el", ""]
    assert {claim["name"] for claim in run.results["claims"] if not claim["holds"]} <= {"they_part"}
    table = run.tables.read("pairs")
    assert list(table["left_tokens"]) == [12, 12, 12] and table["agreement"].between(0, 1).all()
    copy = run.paths.notebook.read_text()
    assert len(copy) < 1_000_000 and 'dir=\\"rtl\\" lang=\\"ar\\"' in copy and "lpr-fork" in copy

    shown = compare.compose(shell.page_context(finished_runs, {"run": run.id}), finished_runs)
    assert "G1 expand" in shown["pair"] and "Pairs kept with this run (3)" in shown["kept"]
    assert subject.id in shown["why"] and "no weights" not in shown["why"]


def test_a_table_says_where_they_part_whose_script_it_is_and_what_goes_in_circles():
    loop = Continuation(" a big house a big house a big house", 9, 1.0)
    rows = generations.table(
        [Pair("Μια φορά", "el", loop, Continuation(" κι έναν καιρό", 8, 1.0), 2), Pair("Hi", "", loop, loop)]
    )
    first, second = rows.to_dict("records")
    assert (first["parted_at"], first["agreement"]) == (3, pytest.approx(2 / 9))
    assert (first["left_foreign"], first["right_foreign"]) == (1.0, 0.0)
    assert first["left_loop"] == "a big house (3 times)" and first["right_loop"] == ""
    assert second["parted_at"] != second["parted_at"] and second["agreement"] == 1.0


@pytest.mark.parametrize("prompt", ["", {"language": "el"}, {"prompt": "x", "lang": "el"}, 3])
def test_a_prompt_that_is_none_is_refused_with_an_example(prompt):
    with pytest.raises(UsageError, match=re.escape('{"language": "el", "prompt": "Μια φορά"}')):
        generations.ComparisonSettings(prompts=(prompt,))


@pytest.mark.slow
def test_two_runs_from_different_bases_are_not_set_beside_one_another(finished_runs):
    subject = next(other for other in list_runs(finished_runs) if other.paths.has_checkpoint)
    other = copy_run(subject, "other-base", base="another")
    settings = generations.ComparisonSettings(left=other.id, right=subject.id)
    with pytest.raises(ComparisonRefusedError, match="made from another"):
        generations.start(settings, root=finished_runs)
