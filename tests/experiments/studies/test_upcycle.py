import pytest

from helpers.tiny_notebooks import write_materials
from lpr_lab.errors import UsageError
from lpr_lab.experiments.studies import plan as planning
from lpr_lab.experiments.studies import upcycle as upcycling
from lpr_lab.experiments.studies.plan import PlanSettings
from lpr_lab.experiments.studies.upcycle import UpcyclingSettings
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.rounding import logit_tolerance
from lpr_lab.model.formats.save_load import load_expansion


@pytest.fixture
def base(tiny_model, tiny_tokenizer, sentences, tmp_path):
    return write_materials(
        tmp_path, tiny_model("llama", num_layers=3), tiny_tokenizer, sentences, ("en", "el", "tr"), 12
    )


def test_copies_change_nothing_and_other_starts_do(base, tmp_path):
    run = upcycling.make(UpcyclingSettings(base=base["base"], new_experts_per_layer=2), root=tmp_path)
    assert run.status.state == "finished" and run.paths.has_checkpoint
    rows = run.documents.read("equivalence")["starts"]
    by_expert = {row["expert_init"]: row["max_difference"] for row in rows}
    assert set(by_expert) == {"copy", "noise", "random", "partial"}
    copies = [row for row in rows if row["expert_init"] == "copy"]
    assert {(row["router_init"], row["top_k"]) for row in copies} == {("xavier", 2), ("zero", 2), ("xavier", 3)}
    equivalence = run.documents.read("equivalence")
    assert equivalence["rounding"] == logit_tolerance(equivalence["largest_logit"])
    assert max(row["max_difference"] for row in copies) <= equivalence["rounding"] < by_expert["noise"]
    assert by_expert["noise"] < by_expert["random"]
    zero = next(row for row in rows if row["router_init"] == "zero")
    assert zero["lowest_layer"] == pytest.approx(0.5, abs=0.2) == zero["highest_layer"]
    assert run.results["claims"][0]["holds"]
    assert [layer.num_experts for layer in moe_layers(load_expansion(run.path))] == [3, 3, 3]


def test_a_plan_says_where_experts_and_classifiers_go(base, tmp_path):
    plan = PlanSettings(
        **base, original=("en",), expanded=("el", "tr"), budget=7, classifiers=1, tokens_per_language=200
    )
    planned = planning.start(plan, root=tmp_path)
    planning.finish(plan, planned, planning.measure(plan, planned))
    run = upcycling.make(UpcyclingSettings(base=base["base"], plan=planned.id), root=tmp_path)
    assert run.parents == (planned.id,)
    assert run.phases["plan"]["new_experts"] == list(planned.documents.plan["allocation"])
    assert run.phases["plan"]["classifier_layers"] == planned.results["classifier_layers"]
    with pytest.raises(UsageError, match=r"kind upcycle.* expected"):
        upcycling.make(UpcyclingSettings(base=base["base"], plan=run.id), root=tmp_path)
    with pytest.raises(UsageError, match="was made for"):
        upcycling.make(UpcyclingSettings(base="smollm2-135m", plan=planned.id), root=tmp_path)


def test_a_plan_and_an_allocation_of_ones_own_exclude_each_other():
    with pytest.raises(UsageError, match="leave `allocation` out"):
        UpcyclingSettings(plan="x", allocation=(1, 1))
