"""What /experts shows of one expert: its shares and contexts, what leaving it out costs, the ways from and to it."""

import re
from types import SimpleNamespace

import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from helpers.cells import run_cell
from helpers.sample_contexts import sample_contexts
from helpers.sample_experts import HOSTILE_TOKEN, write_expert_tables
from helpers.words import words
from lpr_lab.dashboard import page_data, shell
from lpr_lab.dashboard.pages.experts import expert
from lpr_lab.dashboard.pages.experts import page as experts
from lpr_lab.dashboard.server.context_tokens import CONTEXT_TOKENS
from lpr_lab.errors import UsageError
from lpr_lab.measure.contexts.compute import ContextStep
from lpr_lab.runs.expert_contexts import read_contexts, write_contexts
from lpr_lab.runs.run import Run
from lpr_lab.views.numbers import percent

HERE = {"layer": "2", "expert": "1"}


def compose(runs_dir, **query: str):
    return experts.compose(shell.page_context(runs_dir, query), runs_dir)


@pytest.fixture
def counted(run) -> Run:
    write_expert_tables(run)
    return run


@pytest.fixture
def kept(counted) -> Run:
    """A run that keeps contexts of one expert, left out, too; their sentences are held."""
    found = sample_contexts()
    write_contexts(counted, found)
    CONTEXT_TOKENS.put(counted, "heldout", found.tokens)
    return counted


@pytest.fixture
def weights(monkeypatch):
    monkeypatch.setattr(expert, "why_no_model", lambda run: None)


def test_its_share_of_every_language_stands_at_every_stage(runs_dir, counted):
    load = counted.tables.read("expert_load")
    text = words(compose(runs_dir, **HERE)["expert"])
    assert "Layer 2, expert 1" in text and "G1 expand G1 review" in text
    mine = load[(load["layer"] == 2) & (load["expert"] == 1)].set_index(["language", "stage"])["mass"]
    assert f"Greek {percent(mine['el', 'G1 expand'])} {percent(mine['el', 'G1 review'])}" in text
    only = words(compose(runs_dir, langs="en", view="first", **HERE)["expert"])
    assert "First choices by language" in only and "Greek" not in only


def test_a_run_without_weights_says_why_there_are_no_contexts(runs_dir, counted):
    shown = compose(runs_dir, **HERE)
    assert "no weights" in words(shown["contexts"]) and "Finding contexts needs" in words(shown["contexts"])
    assert not shown["find"]["visible"] and not shown["leave_out"]["visible"]


def test_a_run_that_does_not_say_its_text_says_so(runs_dir, counted, weights, monkeypatch):
    monkeypatch.setattr(Run, "config", {"top_k": 2})
    assert "does not say which text" in words(compose(runs_dir, **HERE)["contexts"])


def test_with_weights_it_says_what_finding_them_takes(runs_dir, counted, weights):
    shown = compose(runs_dir, **HERE)
    assert shown["find"]["visible"] and shown["find"]["value"] == "Find its contexts" and shown["leave_out"]["visible"]
    assert re.search(r"one pass .* a second", words(shown["contexts"]))


def test_tokens_stand_in_their_sentence_with_their_numbers_and_bytes_as_bytes(runs_dir, kept, weights):
    shown = compose(runs_dir, **HERE)
    text = words(shown["contexts"])
    assert "T h e sea was calm." in text and "weight 90%" in text and "costs 3.25 bits" in text
    assert "−0.50 bits without it" in text and "token 3 of document d" in text
    assert "⟨CE⟩" in text or "⟨97⟩" in text
    assert 'dir="auto" lang="el"' in shown["contexts"] and "<mark>" in shown["contexts"]
    assert not shown["find"]["visible"] and not shown["leave_out"]["visible"]
    assert HOSTILE_TOKEN.decode() not in shown["contexts"] and "&lt;img" in shown["contexts"]
    assert "None in Spanish, Turkish" in text


def test_what_leaving_it_out_costs_is_a_sentence_and_a_table(runs_dir, kept):
    text = words(compose(runs_dir, **HERE)["contexts"])
    assert "Without it a token of Greek costs 0.42 bits more, and one of Hungarian costs 0.07 bits less" in text
    assert "Greek +0.420 +0.320 to +0.520 80 4" in text and "Where leaving it out changes most" in text


def test_what_a_run_keeps_is_shown_without_weights_and_without_sentences(runs_dir, kept):
    CONTEXT_TOKENS.put(kept, "heldout", {})
    shown = compose(runs_dir, **HERE)
    text = words(shown["contexts"])
    assert "weight 90%" in text and "<mark>" not in shown["contexts"] and "no weights" in text


def test_with_weights_sentences_are_offered_again(runs_dir, kept, weights):
    CONTEXT_TOKENS.put(kept, "heldout", {})
    shown = compose(runs_dir, **HERE)
    assert shown["find"]["visible"] and "in their sentences" in shown["find"]["value"]


def test_an_expert_without_contexts_says_so(runs_dir, kept, weights):
    shown = compose(runs_dir, layer="2", expert="3")
    assert "gave it any weight" in words(shown["contexts"]) and shown["leave_out"]["visible"]


def test_another_stage_has_contexts_of_its_own(runs_dir, kept, weights):
    assert compose(runs_dir, stage="G1 expand", **HERE)["find"]["value"] == "Find its contexts"


def test_neighbours_lead_to_their_own_addresses(runs_dir, kept):
    shown = compose(runs_dir, **HERE)["contexts"]
    params = f"run={kept.id}&amp;layer=3&amp;expert=1"
    assert f'href="/experts?{params}#lpr-expert" data-pick="{params}" data-goto="lpr-expert"' in shown
    assert "Layer 3, expert 1 +0.87" in words(shown) and "−0.20" not in words(shown), "an opposite is not alike"


def test_who_came_from_a_token_finds_the_way_back_and_others_are_offered_none(runs_dir, counted):
    shown = compose(runs_dir, text="el", tok="4", mode="tokens", stage="G1 expand", **HERE)["expert"]
    back = f"/routing?run={counted.id}&amp;stage=G1+expand&amp;text=el&amp;layer=2&amp;tok=4&amp;mode=tokens"
    assert f'href="{back}"' in shown and "Back to token 5" in words(shown)
    assert "Back to" not in words(compose(runs_dir, **HERE)["expert"])


def test_own_text_is_tried_with_layer_and_expert_picked(runs_dir, counted):
    shown = compose(runs_dir, **HERE)["expert"]
    assert f'href="/routing?run={counted.id}&amp;text=own&amp;layer=2&amp;expert=1"' in shown


# ---------------------------------------------------------------------------------------------------- found now


@pytest.fixture
def finding(monkeypatch, weights):
    """Let the model find made-up contexts in three steps; returns what it was asked."""
    from lpr_lab.experiments import expert_contexts

    asked = []

    def steps(run, use, **options):
        asked.append(options)
        found = sample_contexts(*(options["without"] or (2, 1)), left_out=options["without"] is not None)
        yield ContextStep(1, 3, None)
        yield ContextStep(2, 3, None)
        write_contexts(run, found)
        yield ContextStep(3, 3, found)

    monkeypatch.setattr(expert_contexts, "find_contexts", steps)
    monkeypatch.setattr(expert_contexts, "find_tokens", lambda run, use, dataset: sample_contexts().tokens)
    return asked


def find(runs_dir, *, leave_out: bool = False, **query: str) -> list[str]:
    return [words(line) for line in expert.find_now(runs_dir, query, leave_out=leave_out)]


def test_finding_reports_steps_and_keeps_tables_with_the_run_and_sentences_in_memory(runs_dir, counted, finding):
    said = find(runs_dir, run=counted.id, **HERE)
    assert "1 of 3 parts" in said[1] and re.search(r"2 of 3 parts of the text, \d+ s left", said[2])
    assert "All experts: done in" in said[-1] and "without the sentences" in said[-1]
    assert finding == [{"dataset": "heldout", "stage": "G1 review", "without": None}]
    shown = compose(runs_dir, **HERE)
    assert "<mark>" in shown["contexts"] and not shown["find"]["visible"] and shown["leave_out"]["visible"]


def test_leaving_out_asks_for_the_expert_of_the_address(runs_dir, counted, finding):
    said = find(runs_dir, leave_out=True, run=counted.id, stage="G1 expand", layer="2", expert="3")
    assert "Layer 2, expert 3: done in" in said[-1]
    assert finding == [{"dataset": "heldout", "stage": "G1 expand", "without": (2, 3)}]


def test_sentences_alone_are_found_without_a_pass(runs_dir, kept, finding):
    CONTEXT_TOKENS.put(kept, "heldout", {})
    assert "Sentences found" in find(runs_dir, run=kept.id, **HERE)[-1] and not finding
    assert "<mark>" in compose(runs_dir, **HERE)["contexts"]


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (UsageError("No such text."), "No such text."),
        (OSError(30, "Read-only file system"), "could not be written"),
        (ValueError("x"), "ValueError"),
    ],
)
def test_what_goes_wrong_is_said(runs_dir, counted, finding, monkeypatch, error, named):
    from lpr_lab.experiments import expert_contexts

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(expert_contexts, "find_contexts", fail)
    assert named in find(runs_dir, run=counted.id, **HERE)[-1]


def test_without_weights_it_is_refused_in_a_sentence(runs_dir, counted):
    assert "no weights" in find(runs_dir, run=counted.id, **HERE)[-1]


# ------------------------------------------------------------------------------------------------- taken along


def test_the_cell_gives_the_contexts_and_files_hold_what_is_shown(runs_dir, kept):
    client = TestClient(Starlette(routes=[page_data.data_route(runs_dir)]))
    index = client.get("/data/experts/index.json", params=HERE).json()
    _, names = run_cell(index["cell"])
    stored = read_contexts(kept)
    pd.testing.assert_frame_equal(names["contexts"], stored.of(2, 1))
    assert {"expert_share.csv", "expert_contexts.csv", "expert_effects.csv", "expert_neighbours.csv"} <= {
        *index["files"]
    }
    document = client.get("/data/experts/expert.json", params=HERE).json()
    assert (document["layer"], document["expert"]) == (2, 1)
    assert [row["change_bits"] for row in document["expert_effects"]] == stored.effects["change_bits"].tolist()
    assert document["expert_share"][2]["language"] == "el" and set(document["expert_share"][2]) >= {
        "G1 expand",
        "G1 review",
    }


def test_without_contexts_only_shares_can_be_taken(runs_dir, counted):
    data = page_data.data_of("experts", runs_dir, HERE)
    assert "expert_share" in data.tables and "expert_contexts" not in data.tables and "read_contexts" not in data.cell


def test_tokens_of_one_model_are_not_shown_for_another(tmp_path):
    runs = [SimpleNamespace(path=tmp_path / name, paths=SimpleNamespace(checkpoint=tmp_path / name)) for name in "ab"]
    CONTEXT_TOKENS.put(runs[0], "heldout", {("en", "d"): [None]})
    assert CONTEXT_TOKENS.get(runs[0], "heldout") and not CONTEXT_TOKENS.get(runs[1], "heldout")
