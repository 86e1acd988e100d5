"""What the page `/retention` says: two sides on the same documents, or a refusal and never a number."""

import math
import re

import pandas as pd
import pytest

from helpers.sample_runs import make_run
from helpers.sample_scores import STAGES, scored, write_lifelong, write_scores
from helpers.sample_tasks import write_answers
from helpers.words import words
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.retention import compose as retention
from lpr_lab.dashboard.pages.retention import render
from lpr_lab.measure.forgetting import bootstrap_draws, change_rows
from lpr_lab.runs.compare import paired_scores
from lpr_lab.runs.model_ref import ModelRef
from lpr_lab.runs.run import Run


def page(runs_dir, **query) -> dict:
    context = shell.page_context(runs_dir, query)
    return retention.compose(context, runs_dir) | retention.compose_more(context)


@pytest.fixture
def staged(run) -> Run:
    """The run of the tests, with scores by stage and document."""
    write_scores(run)
    return run


# ------------------------------------------------------------------------------------------ base and expanded


@pytest.mark.parametrize("query", [{}, {"stage2": "G1 expand"}], ids=["from the base", "from a stage"])
def test_a_fall_on_original_languages_is_a_gain_only_where_two_stages_are_compared(runs_dir, staged, query):
    change = staged.tables.read("change")
    known = change[change["role"] == "original"].assign(change_percent=-0.7, ci_low=-0.9, ci_high=-0.5)
    said = words(render.finding(known, from_base=not query) + render.change_table(known, "a", "b", from_base=not query))
    assert ("better" in said, "not a gain" in said, "not worse" in said) == (bool(query), not query, not query)
    assert ("not a gain" in words(page(runs_dir, **query)["top"])) == (not query)


def test_it_starts_with_held_out_text_and_the_address_can_ask_for_another(runs_dir, run):
    first = page(runs_dir)
    assert first["data"]["value"] == "heldout"
    assert re.search(r"Expanded languages .*14\.9% fewer .*all clearly better", words(first["top"]))
    assert "original languages 0.4% fewer, 1 not worse, 1 worse." in words(first["top"])
    dev = page(runs_dir, data="dev")
    assert dev["data"]["value"] == "dev" and "2.103" in dev["table"]


def test_an_original_language_that_is_clearly_worse_is_named_with_its_interval(runs_dir, run):
    said = words(page(runs_dir)["top"])
    assert re.search(r"English lost most.* \+0\.3%.* \+0\.1% to \+0\.6%", said)


def test_the_table_has_original_languages_first_with_interval_and_verdict(runs_dir, run):
    table = words(page(runs_dir)["table"])
    assert table.index("English") < table.index("Expanded languages") < table.index("Greek")
    assert "+0.3% +0.1% to +0.6% ▲ worse" in table and "−21.8% −23.0% to −20.4% ▼ better" in table


def test_a_run_that_was_not_measured_says_so(runs_dir):
    Run.create(runs_dir, kind="expansion", slug="x", title="Bare", config={})
    found = page(runs_dir)
    assert "Not measured yet" in words(found["table"]) and found["plot"]["visible"] is False


# ------------------------------------------------------------------------------------------------- two stages


def test_any_two_stages_are_compared_paired_as_the_evaluation_would(runs_dir, staged):
    found = paired_scores.compare(ModelRef(staged, STAGES[0]), ModelRef(staged, ""))
    sets = scored()
    wanted = change_rows(sets, [bootstrap_draws(test) for test in sets], *STAGES)
    assert found.rows["change_percent"].tolist() == pytest.approx(wanted["change_percent"].tolist())
    assert found.rows["ci_low"].tolist() == pytest.approx(wanted["ci_low"].tolist())
    assert found.rows["verdict"].tolist() == wanted["verdict"].tolist()


def test_the_pickers_offer_the_stages_and_the_address_keeps_the_choice(runs_dir, staged):
    found = page(runs_dir, stage2="G1 expand")
    assert found["before"]["value"] == "G1 expand"
    assert [value for _, value in found["before"]["choices"]] == ["base", *STAGES]
    assert [value for _, value in found["after"]["choices"]] == ["", "G1 expand"]
    assert "stage2=G1+expand" in found["top"] and "Before: G1 expand . After: expanded" in words(found["top"])
    assert "G1 expand" in str(found["plot"]["value"].data)


def test_without_scores_by_document_there_is_no_interval_and_no_verdict(runs_dir, run):
    write_scores(run, documents=False)
    found = page(runs_dir, stage2="G1 expand")
    assert "no interval" in words(found["top"])
    body = words(found["table"]).split("Verdict")[1].split("Bits per byte")[0]
    assert body.count("≈ no clear difference") == 5 and "better" not in body and "worse" not in body
    assert "fewer" not in words(found["top"]).split("Bits per byte:")[0]
    assert found["table"].count('title="not measured">–') == 5  # the interval of five languages
    assert {symbol for trace in found["plot"]["value"].data for symbol in _symbols(trace)} == {"circle", "diamond"}
    assert "were not kept for these two" in words(found["moved"])
    base = page(runs_dir)  # base and newest stage: the run itself kept that interval
    assert "▼ better" in base["table"]


def _symbols(trace) -> set[str]:
    symbol = trace.marker.symbol if trace.mode == "markers" else None
    return set() if symbol is None else {symbol} if isinstance(symbol, str) else set(symbol)


def test_a_stage_there_is_not_is_as_if_it_were_not_asked_for(runs_dir, staged):
    found = page(runs_dir, stage="G9 dream", stage2="nonsense")
    assert found["before"]["value"] == "base" and found["after"]["value"] == ""


# --------------------------------------------------------------------------------------------------- two runs


def test_two_runs_on_the_same_test_sets_are_compared(runs_dir, staged):
    other = make_run(runs_dir, title="Another")
    write_scores(other, seed=1)
    found = page(runs_dir, run=staged.id, run2=other.id)
    assert found["before"]["value"] == f"run:{other.id}"
    assert "Before: Another (expanded)" in words(found["top"]) and "English" in found["table"]


def test_different_test_sets_are_refused_with_both_hashes_and_no_number(runs_dir, staged):
    other = make_run(runs_dir, title="Other texts")
    write_scores(other, texts="other")
    found = page(runs_dir, run=staged.id, run2=other.id)
    said = words(found["table"])
    hashes = [scored(texts=texts)[0].fingerprint[:16] for texts in ("", "other")]
    assert "measured on different documents" in said and all(digest in said for digest in hashes)
    assert found["plot"]["visible"] is False and not found["moved"]
    assert "%" not in said and not re.search(r"\d\.\d", said)


def test_a_language_only_one_side_was_measured_on_is_said(runs_dir, staged):
    other = make_run(runs_dir, title="No Greek")
    write_scores(other)
    for name in ("change", "documents"):
        table = other.tables.read(name)
        other.tables.write(name, table[table["language"] != "el"])
    found = page(runs_dir, run=staged.id, run2=other.id)
    assert re.search(r"Only one .*Greek", words(found["top"]))
    assert "Greek</th>" not in found["table"] and "Turkish" in found["table"]


def test_a_run_that_was_not_evaluated_cannot_be_the_other_side(runs_dir, staged):
    bare = Run.create(runs_dir, kind="expansion", slug="x", title="Bare", config={})
    found = page(runs_dir, run=staged.id, run2=bare.id)
    assert "“Bare” was not evaluated" in words(found["table"]) and found["plot"]["visible"] is False


# -------------------------------------------------------------------------------------------------- documents


def test_documents_that_moved_most_are_listed_worst_and_best_first(runs_dir, staged):
    found = page(runs_dir)
    rows = paired_scores.compare(ModelRef(staged, "base"), ModelRef(staged, ""), "heldout").documents
    worse, better = paired_scores.most_moved(rows)
    assert len(worse) <= 10 and len(better) == 10
    assert worse["change_percent"].is_monotonic_decreasing and (worse["change_percent"] > 0).all()
    assert better["change_percent"].min() == rows["change_percent"].min()
    said = words(found["moved"])
    assert re.search(rf"\b{(rows['change_percent'] > 0).sum()} of 120 documents .*more bits", said)
    assert said.index(worse["document"].iloc[0]) < said.index(better["document"].iloc[0])
    assert f"/compare?run={staged.id}&amp;lang=" in found["moved"]


def test_documents_that_went_against_their_language_are_marked(runs_dir, staged):
    found = paired_scores.compare(ModelRef(staged, "base"), ModelRef(staged, ""), "heldout")
    spanish = found.rows[found.rows["language"] == "es"]["verdict"].iloc[0]
    assert spanish == "better" and "↯" in page(runs_dir)["moved"].split("Got better most")[0]


# --------------------------------------------------------------------------------------------------- all runs


def test_the_scatter_has_one_point_per_run_with_the_same_test_sets_and_names_the_others(runs_dir, staged):
    same, apart = make_run(runs_dir, title="Same texts"), make_run(runs_dir, title="Other texts")
    write_scores(same, seed=1)
    write_scores(apart, texts="other")
    Run.create(runs_dir, kind="expansion", slug="x", title="Bare", config={})
    found = page(runs_dir, run=staged.id)
    assert sum(len(trace.x) for trace in found["scatter"]["value"].data) == 2
    assert "Same texts" in found["points"] and "this run" in found["points"]
    digests = [scored(texts=texts)[0].fingerprint[:16] for texts in ("other", "")]
    assert re.search(rf"English test set .*{digests[0]}, not {digests[1]}", words(found["points"]))
    assert "Bare" not in found["points"] and "same test sets" in words(found["among"])


def test_two_runs_that_cannot_be_told_apart_are_not_ranked(runs_dir, staged):
    other = make_run(runs_dir, title="Same recipe")
    write_scores(other, seed=1)  # a gain that differs by a tenth of a point, by chance
    for run in (staged.id, other.id):
        found = page(runs_dir, run=run)
        assert re.search(r"No clear difference .* 1 other run", words(found["among"]))
        assert found["points"].count("no clear difference") == 2 and not re.search("[▼▲]", found["points"])
        assert found["points"].index("this run") < found["points"].index("/retention?", found["points"].index("2. "))


def test_a_run_that_clearly_gained_more_is_said_to_have_with_the_paired_interval(runs_dir, staged):
    better = make_run(runs_dir, title="Gains more, forgets less")
    write_scores(better, seed=1, more=-0.05)
    said = words(page(runs_dir, run=staged.id)["among"])
    assert re.search(r"gained clearly less than 1, .*forgot clearly more than 1", said)
    points = words(page(runs_dir, run=staged.id)["points"])
    assert re.search(r"▼ better , \+[45]\.\d\d points \(\+[345]\.\d\d to \+[56]\.\d\d\)", points)
    assert "this one gained clearly more than 1" in words(page(runs_dir, run=better.id)["among"])


def test_runs_without_scores_by_document_stand_beside_others_without_a_verdict(runs_dir, staged):
    older = make_run(runs_dir, title="An earlier version's")
    write_scores(older, seed=1, more=-0.2, documents=False)
    found = page(runs_dir, run=staged.id)
    assert "No clear difference" in words(found["among"]) and "not paired" in words(found["points"])


def test_a_run_alone_has_its_numbers_in_the_table_and_no_scatter(runs_dir, staged):
    found = page(runs_dir)
    assert found["scatter"]["visible"] is False and "No other run was measured" in words(found["among"])
    row = words(found["points"])
    assert "Mean gain" in row and "this run" in row


# --------------------------------------------------------------------------------------------------- lifelong


def test_a_lifelong_run_shows_every_language_after_every_stage(runs_dir):
    run = write_lifelong(runs_dir)
    found = page(runs_dir, run=run.id)
    assert re.search(r"known before .*\+3\.3% .*\(English\)", words(found["top"]))
    assert "G1 review" in found["table"] and "2.600" in found["table"] and "−16.1%" in found["table"]
    assert found["plot"]["visible"] and found["before"]["visible"] is False and found["points"] == ""


def test_a_missing_interval_is_a_dash_and_never_a_zero(runs_dir, run):
    write_scores(run, documents=False)
    rows = paired_scores.compare(ModelRef(run, "G1 expand"), ModelRef(run, "")).rows
    assert all(math.isnan(value) for value in rows["ci_low"])


# ---------------------------------------------------------------------------------------------------- controls


def test_controls_that_were_not_made_are_explained_with_the_command_that_makes_them(runs_dir, staged):
    said = words(page(runs_dir)["controls"])
    assert f"lpr-lab control old-only {staged.id}" in said and "self_samples" in said and "equal gain" in said


def test_controls_that_were_made_have_their_numbers_intervals_and_verdict(runs_dir, staged):
    columns = ["model", "language", "form", "kl_bits_per_byte", "ci_low", "ci_high", "kl_percent", "same_top"]
    rows = [
        ["G1 review", "en", "raw", 9.0, 8.0, 10.0, 90.0, 0.1],
        ["G1 review", "all", "all", 0.02, 0.01, 0.03, 2, 0.9],
    ]
    staged.tables.write("self_divergence", pd.DataFrame(rows, columns=columns))
    arm = Run.create(
        runs_dir, kind="expansion", slug="arm", title="Arm", config={**staged.config, "control": "old_only"}
    )
    write_scores(arm, more=-0.02)
    arm.finish({"schema_version": 1})
    said = words(page(runs_dir, run=staged.id)["controls"])
    assert "0.0200" in said and "0.0100 to 0.0300" in said and "9.0000" not in said
    assert "+2.00 points" in said and "worse" in said
    assert "old-only arm itself" in words(page(runs_dir, run=arm.id)["controls"])


# ------------------------------------------------------------------------------------------------------- tasks


def test_tasks_stand_below_with_chance_and_interval_and_only_where_both_answered(runs_dir, staged):
    assert page(runs_dir)["tasks"] == ""
    write_answers(staged)
    shown = words(page(runs_dir, stage="G1 expand")["tasks"])
    assert "continuation choice" in shown.lower() and "25%" in shown and "worse" in shown
    assert "Not asked" in shown
