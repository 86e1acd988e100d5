"""Tables for papers and spreadsheets."""

import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.sample_runs import make_run, results
from helpers.sample_scores import finished_run
from lpr_lab.errors import ComparisonRefusedError, MissingError, UsageError
from lpr_lab.runs.run import Run
from lpr_lab.views.tables import _LATEX, escape_latex, result_tables, write_tables


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs"), title="50 % of {a_b} & \\input{c}")


def other(tmp_path, change=lambda found: found) -> Run:
    second = make_run(tmp_path, finished=False, title="Another")
    second.finish(change(results()))
    return second


def balanced(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


@given(st.text(alphabet=st.one_of(st.sampled_from(list(_LATEX)), st.characters(codec="utf-8"))))
def test_no_text_means_anything_to_latex(text):
    escaped = escape_latex(text)
    back = {value: key for key, value in _LATEX.items()}
    pieces = re.findall("|".join(map(re.escape, sorted(back, key=len, reverse=True))) + "|[\\s\\S]", escaped)
    plain = [piece for piece in pieces if piece not in back]
    assert not set("".join(plain)) & set("\\{}$&#%_^~\n\r")
    assert balanced(escaped.replace("\\{", "").replace("\\}", ""))
    readable = "".join(c if c.isprintable() or c in _LATEX or c in "\u200c\u200d" else " " for c in text)
    if not {"-", "\u2019", "'"} & set(text):  # two of these look like what a sign is written as
        assert "".join(back.get(piece, piece) for piece in pieces) == readable


def test_latex_has_rules_a_caption_and_the_better_model_in_bold(tmp_path, run):
    paths = {path.name: path.read_text() for path in write_tables([run], tmp_path, "latex")}
    text = paths["results-heldout.tex"]
    for part in (
        "\\toprule",
        "\\midrule",
        "\\bottomrule",
        "\\caption{50 \\% of \\{a\\_b\\} \\& \\textbackslash{}input",
    ):
        assert part in text
    assert "Greek & expanded & 2.119 & \\textbf{1.658} & $-$21.8 & $-$23.0, $-$20.4 & 24 \\\\" in text
    assert "English & original & \\textbf{1.494} & 1.499" in text
    for name, text in paths.items():
        body = text.split("\\begin{tabular}")[1]
        columns = len(body[1 : body.index("}")])
        lines = [line for line in body.splitlines() if line.endswith("\\\\")]
        assert all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in lines), name
        assert balanced(text.replace("\\{", "").replace("\\}", ""))


def test_csv_has_bare_numbers_that_read_back_as_they_are(tmp_path, run):
    write_tables([run], tmp_path / "new", "csv")
    table = pd.read_csv(tmp_path / "new" / "results-heldout.csv")
    wanted = pd.DataFrame([row for row in results()["change"] if row["dataset"] == "heldout"])
    assert table["expanded"].tolist() == wanted["after"].tolist()
    assert table["language"].tolist() == wanted["language"].tolist()


@pytest.mark.parametrize(("more", "bold"), [(0.0, [False, False]), (-0.05, [False, True])])
def test_of_several_runs_only_the_clearly_best_of_a_row_is_bold(tmp_path, more, bold):
    runs = [finished_run(tmp_path, "One"), finished_run(tmp_path, "Another", seed=1, more=more)]
    (table,) = (one for one in result_tables(runs) if one.name == "results-heldout")
    assert len(table.head) == 4 and table.head[3].startswith("Another (")
    for row in table.rows:
        assert [best for _, best in row[2:]] == bold, row[0]
    assert ("textbf{$-$" in write_tables(runs, tmp_path, "latex")[1].read_text()) == any(bold)


def test_without_scores_by_document_no_number_is_bold_and_a_missing_one_is_a_dash(tmp_path, run):
    def better(found):
        for row in found["change"]:
            row["change_percent"] -= 1
        found["change"] = [row for row in found["change"] if row["language"] != "tr"]
        return found

    (table,) = (one for one in result_tables([run, other(tmp_path, better)]) if one.name == "results-heldout")
    rows = {row[0][0]: row[2:] for row in table.rows}
    assert [best for _, best in rows["Greek"]] == [False, False] and "[−23.0, −20.4]" in rows["Greek"][0][0]
    assert rows["Turkish"][1] == ("–", False)


def test_runs_on_other_documents_are_refused_and_nothing_is_written(tmp_path, run):
    def moved(found):
        found["change"][0]["test_set"] = "other"
        return found

    with pytest.raises(ComparisonRefusedError, match="different documents: English"):
        write_tables([run, other(tmp_path, moved)], tmp_path / "t", "latex")
    with pytest.raises(ComparisonRefusedError, match="different models"):
        write_tables([run, other(tmp_path, lambda found: {**found, "before": "G1 expand"})], tmp_path / "t", "csv")
    assert not (tmp_path / "t").exists()


def test_the_two_models_are_called_what_they_are_and_no_interval_is_a_dash(tmp_path):
    def stages(found):
        found["change"][0] |= {"ci_low": None, "ci_high": None}
        return {**found, "before": "G1 expand", "after": "G1 review"}

    table = result_tables([other(tmp_path, stages)])[0]
    assert table.head[2:4] == ("G1 expand", "G1 review") and table.number_head[2:4] == ("G1 expand", "G1 review")
    assert table.rows[0][5] == ("–", False)


def test_what_cannot_be_written_is_refused_in_words(tmp_path, run):
    with pytest.raises(UsageError, match="Did you mean 'latex'"):
        write_tables([run], tmp_path, "latexx")
    with pytest.raises(UsageError, match="need a run"):
        write_tables([], tmp_path, "csv")
    bare = Run.create(tmp_path, kind="plan", slug="x", title="x", config={})
    with pytest.raises(MissingError, match="was not scored"):
        write_tables([bare], tmp_path, "csv")
