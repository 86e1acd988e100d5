"""Every notebook on every embedded base, as short as it can be: `make test-bases`, some minutes for each base."""

import io
import shutil

import pytest

from lpr_lab.experiments.notebooks.run import notebooks_dir, run_notebook
from lpr_lab.model.bases.embedded import EMBEDDED

TEXT = {"original": ["en"], "expanded": ["el"]}
TRAINING = {"stage1_tokens": 1024, "eval_tokens_per_language": 256}
SHORT = {"fit_tokens_per_language": 512, "bootstrap": 20}
"""Settings that the notebooks have no parameters for."""
NOTEBOOKS = {
    "00_quickstart": {**TEXT, **TRAINING, "settings": SHORT},
    "01_data_and_tokenizer": {**TEXT, "documents_per_split": 20},
    "02_plan_experts": {**TEXT, "tokens_per_language": 512},
    "03_upcycle": {},
    "04_stage1_post_pretrain": {**TEXT, **TRAINING, "settings": SHORT},
    "05_stage2_review_lpr": {**TEXT, **TRAINING, "stage2_tokens": 1024, "settings": SHORT},
    "06_eval_retention": {"eval_tokens_per_language": 256, "bootstrap": 20},
    "07_routing_analysis": {"tokens_per_language": 256, "n_sentences": 1},
    "08_compare_generations": {"max_new_tokens": 4},
    "09_ablation_sweep": {"grid": {"seed": [0, 1]}, "fixed": {**TEXT, **TRAINING, "settings": SHORT}},
    "10_report": {},
    "11_lifelong": {
        "original": ["en"],
        "groups": [["hu"], ["el"]],
        "stage1_tokens_per_language": 1024,
        "eval_tokens_per_language": 256,
        "settings": SHORT,
    },
    "12_scorecard": {**TEXT, **TRAINING, "claims": [15], "seeds": 1, "stage2_tokens": 1024, "corpus": "demo"},
}
OF_A_RUN = ("06_eval_retention", "07_routing_analysis", "08_compare_generations", "10_report")
"""Look at the newest run, which is a quickstart here."""


def test_every_notebook_is_among_them():
    assert set(NOTEBOOKS) == {path.stem for path in notebooks_dir().glob("*.ipynb")}


def run_on(base, name, root):
    values = dict(NOTEBOOKS[name])
    if name == "09_ablation_sweep":
        values["fixed"] = {**values["fixed"], "base": base}
    elif name not in OF_A_RUN:
        values["base"] = base
    return run_notebook(notebooks_dir() / f"{name}.ipynb", runs_dir=root, values=values, output=io.StringIO()).run


@pytest.fixture(scope="module", params=EMBEDDED)
def quickstart(request, tmp_path_factory):
    """A base, and a folder with a quickstart on it."""
    root = tmp_path_factory.mktemp(request.param)
    yield request.param, run_on(request.param, "00_quickstart", root)
    shutil.rmtree(root)


def holds_what_is_exact(run) -> bool:
    """Whether every claim that holds however short a run is does hold, and there are such claims."""
    exact = [claim for claim in run.results["claims"] if claim["is_exact"]]
    return bool(exact) and all(claim["holds"] for claim in exact)


@pytest.mark.real
@pytest.mark.notebook
def test_the_quickstart_computes_what_the_base_computes_and_records_its_rates(quickstart):
    base, run = quickstart
    assert run.status.state == "finished" and holds_what_is_exact(run)
    assert run.config["base"] == base
    assert run.config["stage1"]["learning_rate"] == EMBEDDED[base].learning_rate
    assert run.results["exactness"]["largest_logit"] > 10
    losses = run.metrics.read().query("name == 'lm_loss'")["value"]
    assert losses.between(0, 12).all()


@pytest.mark.real
@pytest.mark.notebook
@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name != "00_quickstart"])
def test_a_notebook_runs_on_an_embedded_base(quickstart, name):
    base, before = quickstart
    run = run_on(base, name, before.path.parent)
    assert run.status.state == "finished"
    assert name in ("09_ablation_sweep", "01_data_and_tokenizer", "10_report") or holds_what_is_exact(run)
    assert str(run.config.get("base", base)) == base
