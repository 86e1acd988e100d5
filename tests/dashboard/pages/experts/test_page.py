"""What /experts says of a run that has everything, of one that has its load only, and of one that has nothing."""

import re
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.sample_experts import HOSTILE_TOKEN, write_expert_tables
from helpers.sample_runs import load_table, make_run
from helpers.words import words
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.experts import counting
from lpr_lab.dashboard.pages.experts import page as experts
from lpr_lab.dashboard.pages.experts.data import ALONE, read
from lpr_lab.dashboard.query import Query
from lpr_lab.measure.expert_counts import TABLES
from lpr_lab.runs.run import Run
from lpr_lab.storage import write_text


def compose(runs_dir: Path, **query: str):
    return experts.compose(shell.page_context(runs_dir, query), runs_dir)


@pytest.fixture
def counted(run) -> Run:
    write_expert_tables(run)
    return run


# ------------------------------------------------------------------------------------------------ everything there


def test_the_answer_names_idle_experts_and_what_the_original_carries_for_whom(runs_dir, counted):
    top = words(compose(runs_dir)["top"])
    assert re.search(r"1 of 10 experts .*idle \(layer 2\)", top)
    assert re.search(r"\d+% on original .*\d+% on expanded", top)
    assert "stage G1 review" in top and "300 tokens in 5 languages" in top


def test_the_newest_stage_is_compared_with_the_one_before_unless_the_address_says_otherwise(runs_dir, counted):
    shown = compose(runs_dir)
    assert (shown["stage"]["value"], shown["stage2"]["value"]) == ("G1 review", "G1 expand")
    assert "at G1 expand it was" in words(shown["panels"])
    alone = compose(runs_dir, stage2=ALONE)
    assert alone["stage2"]["value"] == ALONE and "it was" not in words(alone["panels"])
    first = compose(runs_dir, stage="G1 expand")
    assert (first["stage"]["value"], first["stage2"]["value"]) == ("G1 expand", ALONE)


def test_stages_stand_beside_one_another(runs_dir, counted):
    table = words(compose(runs_dir)["stages"])
    assert table.index("G1 expand") < table.index("G1 review") and table.count("1 of 10") == 2


def test_tiles_say_idle_evenness_busiest_and_language_with_chance(runs_dir, counted):
    tiles = words(compose(runs_dir)["tiles"])
    for part in ("Idle experts 1 of 10", "1 is even, 0 all on one expert", "its even share", "chance alone gives 0."):
        assert part in tiles
    filtered = words(compose(runs_dir, langs="en,el")["tiles"])
    assert "is known for all languages together" in filtered
    assert "one language alone" in words(compose(runs_dir, langs="el")["tiles"])


def test_the_address_is_restored_and_written_back(runs_dir, counted):
    query = {
        "run": counted.id, "stage": "G1 expand", "stage2": "G1 review", "langs": "el,tr", "layer": "2", "expert": "3",
        "view": "first",
    }  # fmt: skip
    shown = compose(runs_dir, **query)
    assert shown["languages"]["value"] == ["el", "tr"] and shown["layer"]["value"] == 2
    assert shown["number"]["value"] == "first"
    written = re.search(r'data-query="([^"]*)"', shown["top"])
    assert written is not None
    from html import unescape
    from urllib.parse import parse_qs

    assert {key: value[0] for key, value in parse_qs(unescape(written[1])).items()} == query


@pytest.mark.parametrize(
    "query", [{"layer": "99"}, {"expert": "77"}, {"stage": "G9 expand"}, {"langs": "xx"}, {"view": "nonsense"}]
)
def test_what_the_run_does_not_have_becomes_the_closest_there_is(runs_dir, counted, query):
    assert "experts is idle" in words(compose(runs_dir, **query)["top"])


def test_cells_lead_to_the_text_of_that_language_at_that_layer_and_expert(runs_dir, counted):
    shown = compose(runs_dir, layer="2", stage="G1 expand")
    link = f'href="/routing?run={counted.id}&amp;stage=G1+expand&amp;lang=el&amp;text=el&amp;layer=2&amp;expert=3"'
    assert link in shown["one"]


def test_every_number_of_the_table_by_layer_leads_to_the_address_of_its_expert(runs_dir, counted):
    shown = compose(runs_dir, layer="2", stage="G1 expand")
    there = f"run={counted.id}&amp;stage=G1+expand&amp;layer=2&amp;expert=3"
    assert f'href="/experts?{there}#lpr-expert" data-pick="{there}" data-goto="lpr-expert"' in shown["panels"]


def test_panels_choose_the_layer_on_this_page(runs_dir, counted):
    panels = compose(runs_dir, langs="el")["panels"].partition("<table")[0]
    picks = re.findall(r'data-pick="([^"]*)"', panels)
    assert len(picks) == 4 and all("langs=el" in pick for pick in picks)
    assert [re.findall(r"layer=(\d)", pick) for pick in picks] == [["0"], ["1"], ["2"], ["3"]]


def test_words_of_an_expert_are_escaped_and_only_of_the_newest_stage(runs_dir, counted):
    one = compose(runs_dir)["one"]
    assert "What expert 1 speaks for" in one and HOSTILE_TOKEN.decode() not in one and "&lt;img" in one
    assert re.search(r"newest .*G1 review", words(compose(runs_dir, stage="G1 expand")["one"]))


def test_company_is_shown_where_there_is_a_choice_and_explained_where_there_is_none(runs_dir, counted):
    assert "With expert 3" in compose(runs_dir, layer="2")["one"]
    assert "they are always together" in words(compose(runs_dir, layer="0")["one"])


def test_figures_carry_their_finding_as_a_heading_and_a_table(runs_dir, counted):
    shown = compose(runs_dir)
    assert "bits about its language" in shown["told"] and "are the same at G1 expand" in shown["kept"]
    assert shown["told_plot"]["visible"] and shown["kept_plot"]["visible"]
    assert words(shown["told_table"]).count("0.") > 8 and "original languages" in shown["kept_table"]
    assert shown["count"]["visible"] is False and shown["missing"] == ""


# ------------------------------------------------------------------------------------------- less than everything


def test_a_run_with_its_load_only_shows_that_and_says_what_was_not_measured(runs_dir, run):
    shown = compose(runs_dir)
    assert "None of the 60 experts is idle" in words(shown["top"])
    assert shown["stage"]["visible"] is False and shown["stages"] == "" and shown["kept"] == ""
    assert [name for _, name in shown["number"]["choices"]] == ["mass", "chosen"]
    assert "what chance alone gives was not measured" in words(shown["told"])
    assert "not counted" in words(shown["missing"])
    assert "lpr-lab demo" in shown["missing"] and shown["count"]["visible"] is False


def test_where_every_token_takes_every_expert_the_number_of_tokens_is_said_to_be_no_use(runs_dir, run):
    assert "Every token takes all experts here (k = 2)" in words(compose(runs_dir, view="chosen")["panels"])


def test_the_example_that_came_with_the_code_is_shown_from_its_load_alone():
    runs = Path(__file__).parents[4] / "runs"
    shown = compose(runs, run="smollm2-135m-el-hu-tr")
    assert re.search(r"None of the 60 experts .*idle.* 94% on original", words(shown["top"]))
    assert "came without weights" in words(shown["missing"])


def test_a_run_with_weights_can_be_counted_now(runs_dir, run, monkeypatch):
    monkeypatch.setattr(counting, "why_no_model", lambda run: None)
    shown = compose(runs_dir)
    assert shown["count"]["visible"] and shown["stop"]["visible"]
    assert re.search(r" now, .*48 s ", words(shown["missing"]))


def test_a_run_without_load_says_so_and_one_still_working_says_when(runs_dir):
    bare = Run.create(runs_dir, kind="expansion", slug="x", title="Bare", config={})
    assert re.search(r"still working.* near its end", words(compose(runs_dir)["panels"]))
    bare.finish({})
    shown = compose(runs_dir)
    assert "Not measured" in words(shown["panels"]) and "does not say which text" in words(shown["panels"])


def test_no_run_teaches_how_to_make_one(runs_dir):
    assert "No runs yet" in words(compose(runs_dir)["panels"])


@pytest.mark.parametrize(
    "table", ["load", "expert_load", "expert_tokens", "expert_pairs", "expert_information", "original_probability"]
)
def test_a_damaged_or_foreign_table_is_a_sentence_and_not_a_crash(runs_dir, counted, table):
    if table == "load":
        (counted.path / "tables" / "expert_load.csv").unlink()
    path = counted.path / "tables" / f"{table}.csv"
    for content in ('"a","b"\n"\x00{{', '"other","columns"\n"x",1\n'):
        write_text(path, content)
        shown = compose(runs_dir)
        assert "<h1>" in shown["top"] and "Failed." in words(shown["top"])


def test_drawing_a_model_of_sixty_layers_is_quick(runs_dir, run):
    run.tables.write("load", load_table(num_layers=60))
    compose(runs_dir)
    started = time.process_time()
    compose(runs_dir, layer="40")
    assert time.process_time() - started < 1.0


def test_the_routers_probability_of_expert_0_is_drawn_with_its_numbers(runs_dir, counted):
    shown = compose(runs_dir)
    said = words(shown["prob"])
    assert re.search(r"expert 0 .*\d+% on original .*\(\d+% at G1 expand\) and \d+%", said)
    assert "fig. 3" in said and shown["prob_plot"]["visible"] and len(shown["prob_plot"]["value"].data) == 4
    table = words(shown["prob_table"])
    assert "original languages, G1 review" in table and table.count(" 0.") == 4 * 4
    assert len(compose(runs_dir, langs="el")["prob_plot"]["value"].data) == 2


def test_a_run_made_before_it_was_measured_says_so_and_shows_the_rest(runs_dir, counted):
    (counted.path / "tables" / "original_probability.csv").unlink()
    shown = compose(runs_dir)
    assert "Not measured in this run" in words(shown["prob"]) and not shown["prob_plot"]["visible"]
    assert shown["kept_plot"]["visible"] and "Idle experts" in words(shown["tiles"])
    assert not shown["count"]["visible"] and "Count now" not in words(shown["prob"])


def test_where_there_are_weights_it_can_be_counted_later(runs_dir, counted, monkeypatch):
    monkeypatch.setattr(counting, "why_no_model", lambda run: None)
    assert not compose(runs_dir)["count"]["visible"]
    (counted.path / "tables" / "original_probability.csv").unlink()
    shown = compose(runs_dir)
    assert shown["count"]["visible"] and "Count now adds it" in words(shown["prob"])


# -------------------------------------------------------------------------------------------------- counting now


def test_counting_reports_steps_and_ends_with_the_page_drawn_again(runs_dir, run, monkeypatch):
    from lpr_lab.experiments import expert_tables
    from lpr_lab.experiments.expert_tables import Progress

    def steps(run, use):
        for done in range(3):
            yield Progress(done, 3, f"el, dev text, stage {done}")
        write_expert_tables(run)

    monkeypatch.setattr(counting, "why_no_model", lambda run: None)
    monkeypatch.setattr(expert_tables, "measure_experts", steps)
    said = list(counting.count_now(runs_dir, {"run": run.id}))
    assert "Counting 2 of 3: el, dev text, stage 2" in words(said[3][0])
    assert said[-1][1] and "Counted in 0 s; kept with the run." in words(said[-1][0])
    assert not any(again for _, again in said[:-1])
    assert read(run, Query(run=run.id)).is_counted


def test_counting_without_weights_is_refused_in_a_sentence(runs_dir, run):
    ((line, again),) = counting.count_now(runs_dir, {"run": run.id})
    assert "no weights" in words(line) and "Nothing was counted" in words(line) and not again


def test_what_goes_wrong_while_counting_is_said(runs_dir, monkeypatch):
    run = make_run(runs_dir, config={"recipe": "x"})
    monkeypatch.setattr(counting, "why_no_model", lambda run: None)
    *_, (line, _) = counting.count_now(runs_dir, {"run": run.id})
    assert "which text" in words(line)


def test_counting_later_writes_what_measuring_writes(runs_dir, tiny_model, tiny_tokenizer, tiny_corpus, monkeypatch):
    from lpr_lab.experiments import expert_tables
    from lpr_lab.method.upcycle import upcycle
    from lpr_lab.model.stages import enter_stage

    model = upcycle(tiny_model("llama"), (2, 2))
    enter_stage(model, "review")
    held = type("Held", (), {"model": model, "tokenizer": tiny_tokenizer})()
    monkeypatch.setattr(expert_tables, "corpus_of", lambda *_, **__: tiny_corpus)

    @contextmanager
    def use():
        yield held

    config = {"corpus": "demo", "original": ["en"], "expanded": ["el"], "eval_tokens_per_language": 200}
    run = Run.create(runs_dir, kind="expansion", slug="x", title="Later", config=config)
    steps = expert_tables.measure_experts(run, use)
    next(steps)
    assert not run.tables.names()
    *_, last = steps
    assert last.done == last.total > 0
    assert set(TABLES) <= set(run.tables.names())
    assert "Greek" in words(compose(runs_dir, run=run.id)["one"])
