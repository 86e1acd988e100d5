"""The routing notebook from first cell to last, on a tiny run: every table, trace and figure, and some layers only."""

import io

import pytest

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.experts import page as experts
from lpr_lab.dashboard.pages.routing import page as routing
from lpr_lab.errors import UsageError
from lpr_lab.experiments.notebooks.run import notebooks_dir, run_notebook
from lpr_lab.experiments.studies import routing as routing_analysis
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run


@pytest.mark.notebook
def test_load_and_traces_are_kept_and_the_dashboard_shows_them(finished_runs):
    done = run_notebook(
        notebooks_dir() / "07_routing_analysis.ipynb",
        runs_dir=finished_runs,
        values={"tokens_per_language": 300, "n_sentences": 1, "layers": "1", "causal_tokens": 24, "precision": "fp32"},
        output=io.StringIO(),
    )
    run = Run.open(finished_runs, done.run.id)
    subject = next(other for other in list_runs(finished_runs) if other.paths.has_checkpoint)
    assert (run.kind, run.status.state, run.parents) == ("routing", "finished", (subject.id,))
    assert {
        "load",
        "original_weight",
        "balance",
        "expert_load",
        "expert_pairs",
        "original_probability",
        "causal",
        "guesses",
        "segment",
    } <= set(run.tables.names())
    assert set(run.tables.read("load")["layer"]) == set(run.tables.read("causal")["layer"]) == {1}
    assert run.traces.names() == ("ar", "ar-1", "el", "el-1", "en", "en-1")
    trace = run.traces.read("el-1")
    assert trace.layers.tolist() == [1] and trace.at("G1 expand").layers.tolist() == [1]
    drawn = {"load_by_layer", "load", "layers", "languages", "original_probability", "information", "causal", "guesses"}
    drawn |= {"segment_divergence", "segment_similarity"}
    assert set(run.tables.read("segment")["language"]) >= {"en", "el"}
    assert set(run.figures.read()) == drawn
    assert all(claim["holds"] for claim in run.results["claims"] if claim["is_exact"])
    assert len(run.paths.notebook.read_text()) < 1_000_000

    look = shell.page_context(finished_runs, {"run": run.id})
    assert "lpr-ex-panels" in experts.compose(look, finished_runs)["panels"]
    assert "lpr-strip" in routing.compose(look, finished_runs)["strip"]


def test_a_layer_without_a_router_is_refused(finished_runs):
    work = routing_analysis.start(routing_analysis.RoutingSettings(layers="7"), root=finished_runs)
    with pytest.raises(UsageError, match=r"layers = '7'.* Layer 7 .*router"):
        routing_analysis.measure(work)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One day. Another.", "One day."),
        ("第一。第二。", "第一。"),
        ("Pi is 3.14 here", "Pi is 3.14 here"),
        ("a" * 400, "a" * 300),
    ],
)
def test_a_sentence_ends_where_it_ends(text, first):
    assert routing_analysis.beginning(text) == first
