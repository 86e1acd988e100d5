"""What is drawn of experts: every panel names its numbers, every figure its finding, and the unreadable is refused."""

import re

import numpy as np
import pytest

from helpers.sample_experts import HOSTILE_TOKEN, ROLES, STAGES, expert_tables
from lpr_lab.errors import UsageError
from lpr_lab.measure.experts import profiles
from lpr_lab.views.figures import experts
from lpr_lab.views.html import expert_panels


@pytest.fixture(scope="module")
def tables():
    return expert_tables()


def at(table, stage=STAGES[1]):
    return table[table["stage"] == stage].reset_index(drop=True)


def words(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", markup))


def test_every_layer_is_a_panel_that_says_its_numbers_and_the_even_share(tables):
    drawn = expert_panels.render_load_panels(at(tables["expert_load"]))
    labels = re.findall(r'aria-label="(Layer [^"]*)"', drawn)
    assert len(labels) == 4
    assert re.fullmatch(r"Layer 0: expert 0.* \S+%, expert 1 \S+%; even .*50%", labels[0])
    assert "even is 25%" in labels[2] and labels[2].count("expert") == 4


def test_the_even_share_of_tokens_is_k_over_e(tables):
    drawn = expert_panels.render_load_panels(at(tables["expert_load"]), "chosen")
    assert "even is 100%" in drawn and "even is 50%" in drawn  # 2 of 2, and 2 of 4


def test_bars_share_one_scale_and_expert_0_alone_is_hatched(tables):
    drawn = expert_panels.render_load_panels(at(tables["expert_load"]))
    assert drawn.count('<i class="lpr-ex-zero" style="height') == 4
    heights = [float(value) for value in re.findall(r"height:([0-9.]+)%", drawn)]
    assert 0 <= min(heights) and max(heights) <= 100.01


def test_another_stage_is_marked_across_the_bars_and_named(tables):
    drawn = expert_panels.render_load_panels(
        at(tables["expert_load"]), compared=at(tables["expert_load"], STAGES[0]), names=(STAGES[1], STAGES[0])
    )
    assert drawn.count("<u style=") == 10 and STAGES[0] in drawn
    assert "<u " not in expert_panels.render_load_panels(at(tables["expert_load"]))


def test_idle_experts_are_counted_in_their_panel(tables):
    drawn = expert_panels.render_load_panels(at(tables["expert_load"]))
    assert drawn.count(">1 idle<") == 1


def test_a_layer_without_new_experts_says_there_is_no_choice():
    load = at(expert_tables()["expert_load"])
    drawn = expert_panels.render_load_panels(load[load["layer"] != 1])
    assert re.search(r"Layer 1: .*no choice", drawn)


def test_more_experts_than_can_be_told_apart_are_refused_in_words():
    tables = expert_tables(sizes=(20,))
    assert "20 experts: too many for bars" in expert_panels.render_load_panels(at(tables["expert_load"]))
    pairs = expert_panels.render_pairs(at(tables["expert_pairs"]))
    assert "190 pairs" in pairs and "<table" not in pairs


def test_the_table_of_the_panels_has_every_layer_and_no_number_for_experts_a_layer_lacks(tables):
    table = expert_panels.render_load_table(at(tables["expert_load"]))
    assert table.count("<tr>") == 5 and table.count('<td class="lpr-number"></td>') == 6


def test_languages_by_experts_has_a_number_in_every_cell_and_the_change_beside_it(tables):
    load = tables["expert_load"]
    codes, now = profiles(at(load))
    _, before = profiles(at(load, STAGES[0]))
    drawn = expert_panels.render_languages(
        codes, ROLES, now[2], compared=before[2], links=expert_panels.LanguageLinks(selected=1)
    )
    assert codes == list(ROLES)
    assert drawn.count('class="lpr-ex-cell') == 20 and len(re.findall(r"<small>[+−]?\d+\.\d</small>", drawn)) == 20
    assert 'lpr-original">English' in drawn and 'lpr-expanded">Greek' in drawn


def test_tokens_are_text_never_markup_and_silent_languages_share_a_line(tables):
    tokens = tables["expert_tokens"]
    drawn = expert_panels.render_vocabulary(tokens[(tokens["layer"] == 0) & (tokens["expert"] == 1)], ROLES)
    assert HOSTILE_TOKEN.decode() not in drawn and "&lt;img" in drawn
    assert re.search(r"·w\d+ \d+ of \d+", words(drawn))
    nothing = expert_panels.render_vocabulary(tokens[tokens["layer"] > 90], ROLES)
    assert re.search(r"^No token .*English, Spanish, Greek, Hungarian, Turkish\.$", words(nothing).strip())


def test_co_activation_covers_all_pairs(tables):
    pairs = at(tables["expert_pairs"])
    drawn = expert_panels.render_pairs(pairs)
    assert drawn.count("lpr-ex-tint") == 12 and "–" in drawn  # the idle expert has no company to measure


def test_the_figure_of_information_has_ceiling_chance_and_finding(tables):
    figure = experts.information(at(tables["expert_information"]))
    assert [trace.name for trace in figure.data] == [
        "the most there can be", "documents shuffled: 95 of 100 lie below", "measured",
    ]  # fmt: skip
    assert re.search(r"tells 0\.\d+ of 1\.25 bits .* chance alone gives 0\.\d+", figure.layout.title.text)
    assert (np.array(figure.data[2].y) <= np.array(figure.data[0].y)).all()


def test_without_shuffles_the_finding_says_that_chance_was_not_measured(tables):
    table = at(tables["expert_information"]).drop(columns=["null_bits", "null_high_bits"])
    figure = experts.information(table)
    assert len(figure.data) == 2 and "what chance alone gives was not measured" in figure.layout.title.text


def test_the_routers_probability_of_expert_0_has_a_line_per_stage_and_kind_of_language(tables):
    table = tables["original_probability"]
    figure = experts.original_probability(table)
    assert [(trace.name, trace.line.dash) for trace in figure.data] == [
        ("Original languages, G1 expand", "dot"), ("Original languages, G1 review", "solid"),
        ("Expanded languages, G1 expand", "dot"), ("Expanded languages, G1 review", "solid"),
    ]  # fmt: skip
    mine = table[(table["role"] == "original") & (table["stage"] == "G1 review")]
    assert list(figure.data[1].y) == pytest.approx(list(100 * mine.groupby("layer")["probability"].mean()))
    assert f"is {100 * mine['probability'].mean():.0f}% on original languages (" in figure.layout.title.text
    with pytest.raises(UsageError, match="one dataset"):
        experts.original_probability(table.assign(dataset=["a", "b"] * (len(table) // 2)))


def test_saturation_is_a_line_per_language_and_a_range_when_there_are_many(tables):
    table = tables["expert_agreement"]
    table = table.assign(role=table["language"].map(ROLES))
    figure = experts.agreement(table)
    assert [trace.name for trace in figure.data] == ["English", "Spanish", "Greek", "Hungarian", "Turkish"]
    assert {trace.line.dash for trace in figure.data} == {"solid", "dash"}
    many = experts.agreement(table.assign(language=table["language"] + table["layer"].astype(str)))
    assert len(many.data) == 2 and many.data[0].error_y.array is not None
    assert re.search(r"same at G1 expand and at G1 review", figure.layout.title.text)


@pytest.mark.parametrize("name", ["information", "agreement"])
def test_rows_that_must_not_share_an_axis_are_refused(tables, name):
    table = tables[f"expert_{name}"].assign(role="original")
    with pytest.raises(UsageError, match=r"one (dataset|stage)"):
        getattr(experts, name)(table if name == "information" else table.assign(dataset=["a", "b"] * (len(table) // 2)))


def test_standing_alone_the_panels_bring_their_style(tables):
    drawn = expert_panels.render_load_panels(at(tables["expert_load"]), standalone=True)
    assert "--lpr-expert-0" in drawn and ".lpr-ex-panel" in drawn
