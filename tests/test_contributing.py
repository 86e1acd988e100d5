"""CONTRIBUTING.md says where to change what: its paths exist, and what it names is all that a change needs."""

import re
from types import SimpleNamespace

import pytest

from helpers.cli_calls import call
from lpr_lab.experiments import recipes
from lpr_lab.experiments.tracking import trackers
from lpr_lab.experiments.tracking.log import tracking
from lpr_lab.method import allocation
from lpr_lab.method.allocation import allocate
from lpr_lab.method.review import review
from lpr_lab.method.training import terms
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.runs.environment import CHECKOUT
from lpr_lab.runs.run import Run
from lpr_lab.text.load import load_corpus
from lpr_lab.text.sources import formats

ROWS = re.findall(
    r"^\| (?!a new)([\w ]+) \| (.+) \| (.+) \|$", (CHECKOUT / "CONTRIBUTING.md").read_text(), re.MULTILINE
)
PATH = re.compile(r"`((?:[\w<>]+/)*[\w<>]+\.(?:py|ipynb|toml))`")


@pytest.mark.parametrize(("what", "where", "tests"), ROWS, ids=[what for what, *_ in ROWS])
def test_every_file_and_every_name_of_the_table_is_there(what, where, tests):
    files = PATH.findall(where)
    assert 1 <= len(files) <= 2 and PATH.findall(tests)
    for file in [*files, *PATH.findall(tests)]:
        path = CHECKOUT / file
        if "<name>" in file:
            path = next(parent for parent in path.parents if "<name>" not in str(parent))
        assert path.exists(), file
    text = "".join((CHECKOUT / file).read_text() for file in files if "<name>" not in file)
    for name in re.findall(r"`([A-Z_]+|summarise)`", where):
        assert re.search(rf"^(def )?{name}\b", text, re.MULTILINE), name


def test_the_table_answers_for_twelve_changes():
    assert len(ROWS) == 12


def test_a_new_loss_is_a_term_of_a_stage_once_it_is_listed(
    monkeypatch, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    def confidence(model, num_original):
        def total(forward):
            return sum(of_layer.router_logits.softmax(-1).amax(-1).sum() for of_layer in forward.routing.values())

        return terms.Term("confidence", 0.01, count=lambda batch: batch["language_id"].numel(), total=total)

    monkeypatch.setitem(terms.EXTRA_TERMS, "review", [confidence])
    settings = TrainSettings(tokens=128, block_tokens=32, blocks_per_step=4, precision="fp32")
    seen = []
    review(
        upcycle(tiny_model("llama"), [1, 1]),
        tiny_tokenizer,
        tiny_corpus,
        original=["en"],
        expanded=["el"],
        out=tmp_path,
        settings=settings,
        log=seen.append,
    )
    assert seen and all(0 < metrics["confidence"] <= 2 for metrics in seen)


def test_a_new_allocation_rule_divides_a_budget_once_it_is_listed(monkeypatch):
    monkeypatch.setitem(
        allocation.ORDERS,
        "odd_first",
        lambda similarity, seed: sorted(range(len(similarity)), key=lambda i: i % 2 == 0),
    )
    assert allocate([0.1, 0.4, 0.4, 0.4], 7, by="odd_first").new_experts == (1, 4, 1, 1)


def test_a_new_format_is_read_as_a_corpus_once_it_is_listed(monkeypatch, tmp_path):
    monkeypatch.setitem(
        formats.RECORD_FORMATS,
        ".lines",
        lambda path, text_column: ({"text": line, "language": "el"} for line in path.read_text().splitlines()),
    )
    (tmp_path / "greek.lines").write_text(
        "\n".join(f"Η βάρκα {'α' * number} λύθηκε πριν ξημερώσει." for number in range(40))
    )
    corpus = load_corpus(tmp_path, languages=["el"])
    assert sum(len(corpus.documents(split, "el")) for split in corpus.splits) == 40


def test_a_new_tracker_is_handed_every_step_once_it_is_listed(monkeypatch, tmp_path):
    seen = []
    tracker = SimpleNamespace(
        start=lambda: None,
        store_init_configuration=lambda settings: None,
        log=lambda values, step: seen.append(step),
        finish=lambda: None,
    )
    monkeypatch.setitem(trackers.OPENERS, "json", lambda run, stage, folder, state: tracker)
    run = Run.create(tmp_path, kind="x", slug="x", title="x", config={})
    with tracking(run, "expand", trackers.selected(["json"])) as log:
        for step in (1, 2, 3):
            log({"step": step, "loss": 1.0})
    assert seen == [1, 2, 3]


def test_a_new_recipe_is_found_by_name_once_it_is_listed(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "mine", lambda **changes: recipes.moe_lpr(**changes))
    assert recipes.named("mine", seed=3) == recipes.moe_lpr(seed=3)
    assert "mine" in recipes.RECIPES and call("run", "00_quickstart", "-p", "recipe=mine", "--dry-run").exit_code == 0
