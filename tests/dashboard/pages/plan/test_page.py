"""The plan says what it comes to and costs, only from what runs have told, and is carried out by one command."""

import html
import re
import shlex
from dataclasses import replace

import pytest

from helpers.sample_runs import make_plan_run, make_run, similarity_table
from helpers.words import words
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.plan import page as plan
from lpr_lab.dashboard.pages.plan.costs import costs, make_plan
from lpr_lab.dashboard.pages.plan.facts import BaseFacts, Similarity, Speed, facts_of, parse_similarity
from lpr_lab.dashboard.pages.plan.render import as_yaml, render_export, warnings
from lpr_lab.dashboard.query import Query
from lpr_lab.experiments.notebooks.parameters import read_notebook, resolve
from lpr_lab.experiments.notebooks.run import notebooks_dir
from lpr_lab.method.allocation import allocate
from lpr_lab.method.scores.table import LayerScores
from lpr_lab.model.bases.embedded import learning_rates
from lpr_lab.runs.run import Run


def trained(root, **create) -> Run:
    """Make a finished expansion that tells sizes and speed, as the pipeline does."""
    run = make_run(root, **create)
    numbers = {"base": 134_515_008, "new_experts": 79_626_240, "routers": 69_180, "active_per_token": 214_210_428}
    run.phases.record("expand", {"tokens_per_second": 200.0, "tokens": 61_440})
    run.documents.write("results", {**run.results, "parameters": numbers})
    return run


FACTS = BaseFacts("b", 4, (10, 10, 10, 10), 1000, 2.0, Similarity((0.2, 0.4, 0.4, 0.2)), None)


# ----------------------------------------------------------------------------------------------- what is known


def test_a_planning_run_tells_layers_sizes_and_similarity(runs_dir):
    run = make_plan_run(runs_dir)
    facts, table = facts_of(run, [run]), similarity_table()
    assert facts.num_layers == 30 and facts.expert_parameters == table.expert_parameters
    assert facts.similarity is not None and facts.similarity.values == pytest.approx(table.similarity)
    assert facts.similarity.between_expanded == pytest.approx(table.between_expanded)
    assert facts.similarity.num_tokens == 20_000 and facts.similarity.run == run.id
    assert facts.base_parameters is None and facts.speed is None


def test_what_one_run_does_not_tell_others_on_the_same_base_do(runs_dir):
    planned, expanded = make_plan_run(runs_dir), trained(runs_dir)
    other = trained(runs_dir, config={"base": "another", "new_experts_per_layer": 1})
    other.documents.write("results", {**other.results, "base": "another"})
    facts = facts_of(planned, [other, expanded, planned])
    assert facts.base_parameters == 134_515_008 and facts.router_row == pytest.approx(1153)
    assert facts.speed is not None and facts.speed.run == expanded.id
    assert facts_of(other, [planned, expanded, other]).similarity is None


def test_a_finished_expansion_alone_tells_the_size_of_an_expert(runs_dir):
    run = trained(runs_dir)
    facts = facts_of(run, [run])
    assert facts.num_layers == 30 and facts.expert_parameters == (2_654_208,) * 30
    assert facts.similarity is None


def test_a_damaged_run_tells_nothing_and_stops_nothing(runs_dir):
    good, bad = make_plan_run(runs_dir), trained(runs_dir)
    (bad.path / "results.json").write_text("{", encoding="utf-8")
    (bad.path / "phases.json").write_text("[]", encoding="utf-8")
    assert facts_of(good, [bad, good]).num_layers == 30


@pytest.mark.parametrize("text", ["0.2 0.4", "0.2, 0.4", "0.2;0.4\n", " 2e-1\t.4 "])
def test_a_typed_similarity_is_read_however_it_is_written(text):
    assert parse_similarity(text) == (0.2, 0.4)


@pytest.mark.parametrize(("text", "said"), [("0.2 x", "“x” is no number"), ("0.2 0", "Layer 1 has 0"), ("nan", "nan")])
def test_a_typed_similarity_that_cannot_be_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        parse_similarity(text)


# ------------------------------------------------------------------------------------------------ division, costs


@pytest.mark.parametrize("rule", ["similarity", "inverse", "first", "last"])
def test_a_rule_divides_as_the_library_does(rule):
    made = make_plan(FACTS, Query(rule=rule, budget=7))
    assert made is not None and made.experts == allocate((0.2, 0.4, 0.4, 0.2), 7, by=rule).new_experts


def test_a_score_that_a_run_was_planned_by_divides_as_the_library_does_and_is_offered():
    scores = LayerScores(kind="gradient", values=(1.0, 1.0, 4.0, 2.0))
    for facts in (replace(FACTS, scores={"gradient": scores}), BaseFacts("b", 4, scores={"gradient": scores})):
        made = make_plan(facts, Query(rule="gradient", budget=8))
        assert made is not None and made.experts == (1, 1, 4, 2) and made.rule == "gradient" and not made.problem
    unmeasured = make_plan(FACTS, Query(rule="neurons", budget=8))
    assert unmeasured is not None and unmeasured.rule == "similarity" and "allocation=neurons" in unmeasured.problem


def test_scores_are_found_in_the_runs_that_were_planned_by_them(runs_dir):
    made = make_plan_run(runs_dir)
    scores = LayerScores(kind="gradient", values=(1.0,) * 30)
    run = Run.create(runs_dir, kind="plan", slug="x", title="x", config={**made.config, "allocation": "gradient"})
    run.phases.record("scores", scores.to_json())
    assert facts_of(made, [made, run]).scores == {"gradient": scores}


def test_evenly_the_paper_s_rounding_and_by_hand():
    made = make_plan(FACTS, Query(rule="uniform", budget=8))
    assert made is not None and made.experts == (2, 2, 2, 2)
    paper = make_plan(FACTS, Query(round="round_up", budget=8))
    assert paper is not None and paper.experts == allocate((0.2, 0.4, 0.4, 0.2), 8, "round_up").new_experts
    own = make_plan(FACTS, Query(rule="own", experts="0,3,0,1", budget=99))
    assert own is not None and own.experts == (0, 3, 0, 1) and own.budget == 4


@pytest.mark.parametrize("experts", ["1,2", "1,2,3,x", "0,0,0,0", "-1,1,1,1", ",,,"])
def test_counts_that_do_not_fit_are_as_if_they_were_not_there(experts):
    made = make_plan(FACTS, Query(rule="own", experts=experts))
    assert made is not None and made.rule == "similarity" and sum(made.experts) == 8


def test_without_similarity_only_even_division_is_left_and_another_wish_is_answered():
    facts = BaseFacts("b", 4)
    assert (made := make_plan(facts, Query())) is not None and made.rule == "uniform" and not made.problem
    asked = make_plan(facts, Query(rule="similarity"))
    assert asked is not None and asked.rule == "uniform" and "no run on this base has measured" in asked.problem
    assert make_plan(BaseFacts("b"), Query(budget=4)) is None


@pytest.mark.parametrize(
    "view", [Query(budget=10**9 - 1), Query(budget=1), Query(topk=10**9 - 1), Query(round="round_up", budget=1)]
)
def test_any_numbers_in_an_address_give_a_plan(view):
    made = make_plan(FACTS, view)
    assert made is not None and sum(made.experts) <= 4 * 99


def test_costs_are_those_of_the_model_that_would_be_made():
    cost = costs(FACTS, (0, 1, 2, 5), top_k=2, tokens=100)
    routers = 2 * (2 + 3 + 6)
    assert cost.new_experts == 8 and cost.dense_layers == 1 and cost.without_choice == 1
    assert cost.added == 80 + routers and cost.adapter_bytes == {"float32": 4 * cost.added, "bfloat16": 2 * cost.added}
    assert cost.active == 1000 + 3 * 10 + routers  # top-2 of two or more experts: one beside what the base has
    assert cost.use_bytes == 4 * (1000 + cost.added) and cost.train_bytes == 4 * 1000 + 16 * cost.added
    assert cost.seconds is None


def test_costs_agree_with_what_a_finished_run_counted(runs_dir):
    run = trained(runs_dir)
    facts = facts_of(run, [run])
    cost = costs(facts, (1,) * 30, top_k=2, tokens=61_440)
    assert cost.added == 79_626_240 + 69_180
    assert cost.active == 214_210_428
    assert cost.seconds == pytest.approx(61_440 / 200)


def test_time_is_measured_or_said_not_to_be(runs_dir):
    page = words(plan.compose(shell.page_context(runs_dir, {"run": make_plan_run(runs_dir).id}), runs_dir)["costs"])
    assert "Time of stage 1 not measured" in page
    trained(runs_dir)
    page = words(plan.compose(shell.page_context(runs_dir, {"tokens": "12000"}), runs_dir)["costs"])
    assert "≈ 1 min" in page and re.search(r"200 a second.* measured in this run", page)


# ------------------------------------------------------------------------------------------------------- warnings


def said(facts: BaseFacts, view: Query) -> str:
    made = make_plan(facts, view)
    assert made is not None
    return words(" ".join(warnings(facts, made, costs(facts, made.experts, made.top_k, made.tokens))))


def test_a_budget_below_the_number_of_layers_is_warned_of():
    assert re.search(r"smaller .*1 of 4 layers .*no new expert", said(FACTS, Query(budget=3)))
    assert "smaller" not in said(FACTS, Query(budget=8))


def test_similarity_of_few_tokens_is_warned_of():
    few = BaseFacts("b", 4, None, None, None, Similarity((0.2, 0.4, 0.4, 0.2), num_tokens=2000))
    assert "measured on 2 000 tokens" in said(few, Query(budget=8)).replace("\u202f", " ")
    assert "tokens per language" not in said(few, Query(budget=8, rule="uniform"))
    assert "tokens per language" not in said(FACTS, Query(budget=8))


def test_the_paper_s_budget_is_explained():
    assert re.search(r"δ = 8 comes to \d new experts", said(FACTS, Query(budget=8, round="round_up")))


# ----------------------------------------------------------------------------------------------------- page, export


def test_the_page_says_what_the_plan_comes_to(runs_dir):
    trained(runs_dir)
    run = make_plan_run(runs_dir)
    parts = plan.compose(shell.page_context(runs_dir, {"run": run.id, "budget": "60"}), runs_dir)
    top = words(parts["top"])
    assert re.search(r"60 new experts .*\d to \d per layer.* 159 million parameters.* 118% of smollm2-135m", top)
    assert re.search(r"least alike .*first third", top)
    assert parts["editor"].count('role="spinbutton"') == 30 and parts["editor"].count('tabindex="0" data-layer') == 1
    assert f"run={run.id}&amp;rule=similarity&amp;budget=60&amp;topk=2" in parts["top"]


def test_every_number_of_the_picture_is_in_the_table(runs_dir):
    run = make_plan_run(runs_dir)
    table = plan.compose(shell.page_context(runs_dir, {"run": run.id, "budget": "60"}), runs_dir)["export"]
    assert len(re.findall(r'<th scope="row">\d+</th>(<td>[\d.]+</td>){4}', table)) == 30


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("gemma3-270m", "what suits gemma3-270m"),
        ("small-world-3", "what suits small-world-3"),
        ("my models/one", "a guess"),
    ],
)
def test_every_command_of_a_plan_names_its_base_and_the_page_says_its_rates(base, said):
    facts = replace(FACTS, base=base)
    page = html.unescape(render_export(facts, make_plan(facts, Query(rule="uniform")), None))
    quoted = shlex.quote(f"base={base}")
    assert f"-p {quoted} -p 'allocation=" in page and said in page
    assert f"{learning_rates(base)[0]:g}" in page
    assert plan.measure_command(base).endswith(quoted)


def test_the_export_is_what_the_notebook_takes(runs_dir, tmp_path):
    run = make_plan_run(runs_dir)
    facts = facts_of(run, [run])
    made = make_plan(facts, Query(budget=45, topk=3))
    assert made is not None
    file = tmp_path / "plan.yaml"
    file.write_text(as_yaml(facts, made, run), encoding="utf-8")
    parameters = resolve(read_notebook(notebooks_dir() / "00_quickstart.ipynb").parameters, (), file)
    assert parameters["allocation"] == list(made.experts) and parameters["top_k"] == 3
    assert parameters["base"] == "smollm2-135m" and parameters["expanded"] == ["el", "hu", "tr"]


def test_no_runs_and_no_known_layers_say_what_to_do(runs_dir):
    assert "No runs yet" in words(plan.compose(shell.page_context(runs_dir, {}), runs_dir)["editor"])
    Run.create(runs_dir, kind="expansion", slug="x", title="Bare", config={"base": "b"})
    bare = words(plan.compose(shell.page_context(runs_dir, {}), runs_dir)["editor"])
    assert re.search(r"layers b .*not known", bare) and "lpr-lab run 02_plan_experts -p base=b" in bare
    typed = plan.compose(shell.page_context(runs_dir, {"similarity": "0.2,0.4,0.3", "budget": "6"}), runs_dir)
    assert typed["editor"].count('role="spinbutton"') == 3


def test_a_typed_similarity_of_another_length_is_not_taken(runs_dir):
    run = make_plan_run(runs_dir)
    facts = plan.known(shell.page_context(runs_dir, {"run": run.id, "similarity": "0.2,0.4"}))
    assert facts.similarity is not None and facts.similarity.run == run.id


def test_a_base_with_a_hostile_name_stays_text(runs_dir):
    run = make_plan_run(runs_dir)
    (run.path / "results.json").write_text('{"base": "<script>boom()</script>"}', encoding="utf-8")
    parts = plan.compose(shell.page_context(runs_dir, {"run": run.id}), runs_dir)
    assert all("<script" not in str(value) for value in parts.values())


def test_speed_is_a_fact_of_a_run():
    facts = BaseFacts("b", 2, speed=Speed(100.0, "run", "title", "2 threads"))
    assert costs(facts, (1, 1), 2, 1000).seconds == 10
