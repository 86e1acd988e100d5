"""Guesses of layers on page `/routing`: computed on demand, held, told by the address, taken along."""

import io
import json

import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from helpers.cells import last_value
from helpers.small_expansion import make_expansion
from helpers.words import words
from lpr_lab.dashboard import page_data, shell
from lpr_lab.dashboard.pages.routing.compose import compose
from lpr_lab.dashboard.pages.routing.guesses import choice_of, read_layers
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.lenses import LENSES, KnownLanguages, Lenses
from lpr_lab.measure.guesses.token_languages import TokenLanguages
from lpr_lab.measure.routing import trace

TEXT = "Το πρωί άνοιξα."


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model, tiny_tokenizer, sentences):
    """Return (runs, run) of one expansion, whose languages share a script and have text at hand."""
    folder = tmp_path_factory.mktemp("guesses")
    rows = [
        {"text": text, "lang": code, "split": "dev" if text == sentences[code][-1] else "train"}
        for code in ("en", "el", "hu")
        for text in sentences[code]
    ]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = str(folder / "texts.jsonl")
    run, model = make_expansion(folder, tiny_model("llama"), tiny_tokenizer, corpus=corpus)
    run.traces.write("el", trace(model, tiny_tokenizer, TEXT, "el"))
    return folder / "runs", run


@pytest.fixture
def read(made):
    """Return the steps of reading the run's Greek text."""
    return list(read_layers(made[0], {"run": made[1].id, "text": "el"}))


def shown(made, **query):
    runs_dir, run = made
    return compose(shell.page_context(runs_dir, {"run": run.id, "text": "el", **query}), runs_dir)


def ask(made, file, **query):
    client = TestClient(Starlette(routes=[page_data.data_route(made[0])]))
    return client.get(f"/data/routing/{file}", params={"run": made[1].id, "text": "el", **query})


def test_an_address_of_guesses_that_are_not_held_says_so_and_a_run_without_weights_offers_none(made, runs_dir, run):
    LENSES.__init__()
    parts = shown(made, guess="base.1.2")
    assert "let every layer be read" in words(parts["guesses_grid"]) and parts["guesses"]["visible"]
    assert shown(made)["guesses_grid"] == ""
    without = compose(shell.page_context(runs_dir, {}), runs_dir)
    assert not without["guesses"]["visible"] and without["guesses_grid"] == ""


def test_reading_says_how_far_it_is_and_the_page_shows_it_again_by_its_address(made, read):
    lines = [words(line) for line, _ in read]
    assert "1 of 4 layers" in " ".join(lines) and "Done in" in lines[-1]
    assert 'data-query="run=' in read[-1][1] and "guess=expanded" in read[-1][1]
    assert "told apart by how often the run" in words(read[-1][1])
    parts = shown(made, guess="base.1.2")
    assert 'data-model="base" data-cell="1.2"' in parts["guesses_grid"]
    again = [words(line) for line, _ in read_layers(made[0], {"run": made[1].id, "text": "el"})]
    assert not any("layers, base" in line for line in again)


def test_what_is_taken_along_is_what_is_shown_to_the_last_digit(made, read):
    assert "guesses.csv" not in ask(made, "index.json").json()["files"]
    index = ask(made, "index.json", guess="expanded").json()
    assert index["files"][:2] == ["guesses.csv", "guesses_by_layer.csv"] and "routing.csv" in index["files"]
    table = pd.read_csv(io.StringIO(ask(made, "guesses.csv", guess="expanded").text))
    again = pd.read_csv(io.StringIO(last_value(index["cell"]).to_csv(index=False)))
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    assert ask(made, "guesses.json", guess="expanded").json()["text"] == TEXT


def test_where_the_text_of_the_languages_is_gone_scripts_are_left_and_it_is_said(made, monkeypatch):
    LENSES.__init__()
    (made[0].parent / "texts.jsonl").rename(made[0].parent / "away.jsonl")
    try:
        *_, (_, grid) = read_layers(made[0], {"run": made[1].id, "text": "el"})
    finally:
        (made[0].parent / "away.jsonl").rename(made[0].parent / "texts.jsonl")
    assert "not told apart, for want of the run’s text" in words(grid)
    assert "corpus_of" not in ask(made, "index.json", guess="expanded").json()["cell"]
    LENSES.__init__()


def test_no_text_and_a_failure_are_said_in_the_line(made, monkeypatch, tmp_path):
    (line, _) = list(read_layers(tmp_path, {}))[-1]
    assert "no text to read" in words(line)


@pytest.mark.parametrize("given", ["", "base", "expanded.3.14", "other.1.2", "base.1", "base.-1.2"])
def test_an_address_names_a_model_and_a_cell_or_nothing(given):
    query = Query.parse({"guess": given})
    assert query.guess in ("", given) and choice_of(query).model in ("base", "expanded")
    assert (choice_of(query).layer is None) == (given != "expanded.3.14")


def test_lenses_give_way_to_newer_ones(made, read):
    lens = LENSES.get(made[1], made[1].traces.read("el"))
    few = Lenses(most=1)
    few.put(made[1], lens)
    before = few.stamp()
    few.put(made[1], lens)
    few.put_languages(made[1], KnownLanguages(TokenLanguages()))
    assert few.stamp() > before and few.get(made[1], made[1].traces.read("el")) is lens
