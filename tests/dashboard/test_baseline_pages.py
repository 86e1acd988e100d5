"""A baseline on the pages: base and tuned side by side, and words instead of routing that a dense model has not."""

import re

import pytest

from helpers.sample_runs import change_table, log_training
from helpers.words import words
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.api import Endpoints
from lpr_lab.dashboard.pages.compare.compose import compose as compare
from lpr_lab.dashboard.pages.compare.sides import comparable
from lpr_lab.dashboard.pages.experts import page as experts
from lpr_lab.dashboard.pages.retention import compose as retention
from lpr_lab.dashboard.pages.routing.compose import compose as routing
from lpr_lab.dashboard.pages.runs import page as runs
from lpr_lab.dashboard.pages.runs.detail import render_detail
from lpr_lab.errors import UsageError
from lpr_lab.experiments import recipes
from lpr_lab.experiments.results import summarise
from lpr_lab.runs import claims
from lpr_lab.runs.compare.costs import costs_of
from lpr_lab.runs.model_ref import why_no_routing
from lpr_lab.runs.run import Run
from lpr_lab.storage import staged_directory, write_json
from lpr_lab.views.report.page import render_report


def make_baseline(root, recipe="full_replay") -> Run:
    """Make a finished run of a baseline with made-up numbers and weights that are only named."""
    experiment = recipes.named(recipe)
    run = Run.create(root, kind="expansion", slug=recipe, title=f"tiny: {recipe}", config=experiment.to_config())
    log_training(run, "finetune")
    change = change_table()
    run.tables.write("change", change)
    run.phases.record("finetune", {"tokens": 81_920, "seconds": 640.0, "peak_memory_bytes": 2_100_000_000})
    pair = {"left": "base", "right": "finetune", "left_text": ", ήταν ένα ένα", "right_text": ", ήταν ένα χωριό"}
    run.generations.append({"language": "el", "prompt": "Μια φορά", **pair, "diverged_at": 3, "max_new_tokens": 8})
    with staged_directory(run.paths.checkpoint, sealed={"kind": "baseline"}) as folder:
        write_json(folder / "baseline.json", {"kind": experiment.finetune.kind, "stages": [{"name": "finetune"}]})
    exactness = {"start_difference": 0.0, "base_difference": 0.0, "largest_logit": 31.2}
    run.finish(
        {
            "schema_version": 1,
            "recipe": recipe,
            "base": experiment.base,
            "baseline": experiment.finetune.kind,
            **{role: list(getattr(experiment, role)) for role in ("original", "earlier", "expanded")},
            "summary": summarise(change, None),
            "claims": claims.as_records(claims.check(change, None, exactness)),
            "change": change.to_dict("records"),
            "exactness": exactness,
            "parameters": {"base": 7_000_000, "tuned": 7_000_000, "trained": 7_000_000, "active_per_token": 7_000_000},
            "cost": {"trained_parameters": 7_000_000, "active_parameters": 7_000_000, "file_bytes": 28_000_000},
        }
    )
    return run


@pytest.fixture
def baseline(runs_dir) -> Run:
    return make_baseline(runs_dir)


def context_of(runs_dir, run):
    return shell.page_context(runs_dir, {"run": run.id})


def test_routing_says_that_a_dense_model_has_none_and_where_to_look_instead(runs_dir, baseline):
    shown = routing(context_of(runs_dir, baseline), runs_dir)
    assert "dense model (full)" in words(shown.values()) and "lpr-lab demo" not in words(shown.values())
    assert re.findall(r'href="(/\w+)', str(shown["strip"])) == ["/retention", "/compare"]
    assert shown["overview"] == "" and not shown["picker"]["visible"]


def test_experts_say_so_too_and_offer_no_counting(runs_dir, baseline):
    shown = experts.compose(context_of(runs_dir, baseline), runs_dir)
    assert "dense model (full)" in words(shown.values()) and not shown["count"]["visible"]


def test_a_mixture_without_an_original_expert_says_why_it_is_not_traced(runs_dir):
    made = make_baseline(runs_dir, "sparse_moe")
    shown = routing(context_of(runs_dir, made), runs_dir)
    assert "as a whole" in words(shown.values())


def test_a_trace_is_refused_before_a_model_is_loaded(runs_dir, baseline):
    with pytest.raises(UsageError, match="dense model"):
        Endpoints(runs_dir).trace_text(baseline.id, "Καλημέρα")


def test_base_and_tuned_model_stand_side_by_side(runs_dir, baseline):
    shown = compare(context_of(runs_dir, baseline), runs_dir)
    said = words([shown["pair"]])
    assert "Base model" in said and "Tuned model" in said and "xpan" not in said
    choices = dict(shown["right"]["choices"])
    assert "tuned model (full)" in choices and shown["go"]["interactive"]


def test_an_expansion_and_a_baseline_of_one_base_can_write_beside_one_another(runs_dir, run, baseline):
    found = comparable(run, shell.page_context(runs_dir, {}).runs)
    assert [other.id for other in found] == [baseline.id]


def test_retention_compares_it_with_its_base_and_with_an_expansion(runs_dir, run, baseline):
    shown = retention.compose(context_of(runs_dir, baseline), runs_dir)
    assert "Not measured" not in words(shown.values()) and shown["plot"]["visible"]
    more = retention.compose_more(context_of(runs_dir, baseline))
    assert run.title in words(more.values()) and baseline.title in words(more.values())


def test_the_list_and_the_details_say_which_baseline_it_was_and_what_it_cost(runs_dir, baseline):
    context = context_of(runs_dir, baseline)
    assert "full_replay" in words(runs.render_list(context)).replace(" ", "_")
    detail = render_detail(baseline, context.runs)
    said = words(detail)
    assert "asked of a baseline" in said and "28 MB" in said and "2.1 GB" in said and "128 tokens/s" in said
    links = re.findall(r'class="lpr-button" href="(/\w+)[^"]*">', str(detail))
    assert links == ["/retention", "/compare"]
    assert costs_of(baseline)["training_seconds"] == 640


def test_nothing_of_the_method_stands_in_its_report(runs_dir, baseline):
    said = words(re.sub(r"<(script|style)\b.*?</\1>", "", render_report([baseline]), flags=re.DOTALL))
    assert "Greek" in said and "Original expert" not in said and "NaN" not in said and "nan" not in said.split()


def test_an_expansion_has_routing(run):
    assert why_no_routing(run) == ""
