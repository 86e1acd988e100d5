"""The notebook about claims, from first cell to last, on a tiny base."""

import io

import pytest

from helpers.tiny_corpus import write_corpus
from lpr_lab.errors import UsageError
from lpr_lab.experiments.notebooks.run import notebooks_dir, run_notebook
from lpr_lab.experiments.scorecard.plan import CARDS
from lpr_lab.experiments.studies.scorecard import ScorecardSettings


def test_what_is_empty_is_the_cards_own_and_claims_that_are_none_are_refused():
    empty = {"corpus": "", "original": [], "stage1_tokens": 0}
    assert ScorecardSettings(text=empty).card == CARDS["small-world"]
    assert ScorecardSettings(text={**empty, "original": ["es"]}).card.original == ("es",)
    assert ScorecardSettings().arms == ["moe_lpr", "no_copy"]
    assert ScorecardSettings(base="smollm2-135m", text={**empty, "stage1_tokens": 64}).card.tasks == ("choice",)
    assert ScorecardSettings(base="smollm2-135m", text={**empty, "corpus": "mine/"}).card.tasks == ()
    assert ScorecardSettings(base="smollm2-135m", text={**empty, "tasks": ["none"]}).card.tasks == ()
    for wrong in ({"claims": (23,)}, {"claims": ()}, {"seeds": 0}):
        with pytest.raises(UsageError, match="claims"):
            ScorecardSettings(**wrong)


@pytest.mark.notebook
def test_the_notebook_makes_the_runs_of_a_claim_and_says_why_it_cannot_be_decided(
    tiny_model, tiny_tokenizer, sentences, tmp_path
):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    write_corpus(tmp_path / "corpus.jsonl", sentences, ("en", "es", "el"))
    values = {"base": str(tmp_path / "base"), "corpus": str(tmp_path / "corpus.jsonl"), "seeds": 1}
    values |= {"original": ["en"], "unreviewed": ["es"], "expanded": ["el"], "stage1_tokens": 1024}
    values |= {"stage2_tokens": 1024, "eval_tokens_per_language": 200}
    notebook = notebooks_dir() / "12_scorecard.ipynb"
    run = run_notebook(notebook, runs_dir=tmp_path / "runs", values=values, output=io.StringIO()).run
    assert run.status.state == "finished" and run.kind == "scorecard" and not run.results["failed"]
    (decided,) = run.results["decided"]
    assert decided["verdict"] == "not decidable here" and "seeds" in decided["why"]
    assert len(run.results["runs"]) == 2 and run.tables.read("claims") is not None
