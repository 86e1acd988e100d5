"""Verdicts of the scorecard on made-up runs: intervals decide, and what cannot be decided says why."""

import pytest

from helpers.sample_scorecard import FULL, MOE, arm_run
from lpr_lab.runs.scorecard import instrument
from lpr_lab.runs.scorecard.claims import CLAIMS
from lpr_lab.runs.scorecard.effects import effect_of
from lpr_lab.runs.scorecard.parts import EXACT, ORDER, Claim, Part, Term
from lpr_lab.runs.scorecard.verdict import FAILS, HOLDS, UNDECIDED, decide, row_of

PLAN = {"plan": {"new_experts": [1] * 5, "similarity": [0.1, 0.2, 0.4, 0.2, 0.1]}}


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {
        "one": {seed: arm_run(root, seed, MOE, **PLAN) for seed in range(5)},
        "again": {seed: arm_run(root, 50 + seed, MOE, **PLAN) for seed in range(5)},
        "other": {seed: arm_run(root, 100 + seed, FULL) for seed in range(5)},
        "few": {seed: arm_run(root, 150 + seed, FULL) for seed in range(2)},
    }


def less(one, other, role, **limits):
    return Part("less", (Term(one, role), Term(other, role, -1.0)), **({"below": 0.0} | limits))


@pytest.mark.parametrize(
    ("part", "verdict"),
    [
        (less("one", "other", "reviewed"), HOLDS),
        (less("other", "one", "reviewed"), FAILS),
        (less("one", "other", "expanded"), FAILS),  # a gain is a fall: the other gained more
        (less("one", "again", "original"), UNDECIDED),  # the same arm twice: the interval covers 0
        (less("one", "again", "original", above=-1.0, below=1.0), HOLDS),  # and so they are about equal
        (less("one", "other", "expanded", above=-1.0, below=1.0), FAILS),
    ],
)
def test_a_part_is_decided_by_where_its_interval_lies(part, verdict, arms):
    decided = decide(part, effect_of(part, arms))
    assert decided.verdict == verdict and decided.effect.seeds == 5 and decided.effect.low < decided.effect.high


def test_the_number_is_in_points_and_its_runs_are_named(arms):
    effect = effect_of(less("one", "other", "reviewed"), arms)
    assert effect.value == pytest.approx(-2.5, abs=0.4) and set(effect.by_seed) == set(range(5))
    assert set(effect.runs) == {run.id for name in ("one", "other") for run in arms[name].values()}


def test_what_comes_back_is_measured_between_the_stages_of_one_run(arms):
    part = Part("half", (Term("one", "reviewed"), Term("one", "reviewed", -0.5, "G1 expand")), below=0.0)
    assert decide(part, effect_of(part, arms)).verdict == HOLDS


def test_where_nothing_was_lost_nothing_can_come_back(arms):
    gave_back = {"terms": (Term("one", "reviewed"), Term("one", "reviewed", -0.5, "G1 expand")), "below": 0.0}
    stage1 = (Term("one", "original", 1.0, "G1 expand"),)
    forgot, gained = Part("It forgets.", stage1, above=0.0), Part("It does not forget.", stage1, below=0.0)
    holds, presupposes = row_of(
        Claim(
            9, "a", "", ORDER, (Part("half", **gave_back, premise=forgot), Part("half", **gave_back, premise=gained))
        ),
        arms,
    ).parts
    assert holds.verdict == HOLDS and presupposes.verdict == UNDECIDED
    assert "presupposes" in presupposes.why and "It does not forget." in presupposes.why
    assert presupposes.effect.value == holds.effect.value, "the number stays"


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (less("few", "one", "expanded"), "2 of at least 3 seeds"),
        (less("one", "nobody", "expanded"), "not run: nobody"),
        (less("one", "other", "earlier"), "no earlier languages"),
        (Part("hump", (Term("one", "", measure="hump"),), above=0.0, min_layers=12), "5 layers"),
        (Part("weights", (Term("other", "original", measure="weight"),), above=0.0), "counted no experts"),
    ],
)
def test_what_cannot_be_decided_says_why(part, why, arms):
    decided = decide(part, effect_of(part, arms), layers=5)
    assert decided.verdict == UNDECIDED and why in decided.why


def test_the_similarity_of_middle_layers_is_compared_with_that_of_the_others(arms):
    part = Part("hump", (Term("one", "", measure="hump"),), above=0.0)
    assert effect_of(part, arms).value == pytest.approx((0.2 + 0.4 + 0.2) / 3 - 0.1)


@pytest.mark.parametrize(
    ("parts", "verdict", "why"),
    [
        ((less("one", "other", "reviewed"),), HOLDS, ""),
        ((less("one", "other", "reviewed"), less("one", "other", "expanded")), FAILS, "1 of 2 parts"),
        ((less("one", "other", "reviewed"), less("one", "again", "expanded")), UNDECIDED, "reaches over"),
        ((less("one", "nobody", "reviewed"), less("one", "other", "expanded")), FAILS, "1 of 2 parts"),
    ],
)
def test_a_claim_fails_where_a_part_fails_and_holds_where_all_do(parts, verdict, why, arms):
    row = row_of(Claim(8, "text", "paper", parts=parts), arms)
    assert (
        row.verdict == verdict
        and why in row.why
        and set(row.runs) <= {run.id for own in arms.values() for run in own.values()}
    )


def test_an_exact_claim_is_decided_by_its_checks():
    claim = Claim(3, "text", "paper", EXACT)
    assert row_of(claim, {}).verdict == UNDECIDED and "--only 3" in row_of(claim, {}).why
    check = {"claim": 3, "text": "the balance", "measured": 0.0, "holds": True, "runs": ["r"]}
    assert row_of(claim, {}, [check]).verdict == HOLDS
    failed = row_of(claim, {}, [check, {**check, "holds": False}])
    assert failed.verdict == FAILS and "balance" in failed.why and failed.runs == ("r",)


def test_forgetting_is_compared_at_equal_gain(tmp_path):
    def arm(gain, forgetting, first):
        stages = {"finetune": {"hu": -gain, "en": forgetting, "es": forgetting}}
        return {seed: arm_run(tmp_path, first + seed, stages, noise=0.001) for seed in range(3)}

    # The first forgets 1 % at a gain of 5 % and 3 % at 9 %, the second 4 % and 6 %.
    arms = {"a": arm(0.05, 0.01, 0), "b": arm(0.09, 0.03, 10), "c": arm(0.05, 0.04, 20), "d": arm(0.09, 0.06, 30)}
    part = Part("at equal gain", curves=(("a", "b"), ("c", "d")), below=0.0)
    decided = decide(part, effect_of(part, arms))
    assert decided.verdict == HOLDS and decided.effect.value == pytest.approx(-3, abs=0.4)
    apart = Part("no common gain", curves=(("a",), ("d",)), below=0.0)
    assert decide(apart, effect_of(apart, arms)).verdict == UNDECIDED


def test_all_22_claims_are_there_and_each_order_has_arms_that_the_plan_knows():
    from lpr_lab.experiments.scorecard.plan import ARMS

    assert [claim.number for claim in CLAIMS] == list(range(1, 23))
    assert all(claim.parts for claim in CLAIMS if claim.kind == ORDER)
    assert {arm for claim in CLAIMS for arm in claim.arms} <= set(ARMS)


def test_the_instrument_covers_zero_on_itself_finds_what_was_planted_and_nothing_in_shuffled_labels(arms):
    named = {"moe_lpr": arms["one"], "moe_lpr again": arms["again"], "full_replay": arms["other"]}
    checks = instrument.check_instrument(named)
    assert len(checks) == 5 and all(check.passes for check in checks)
    planted = next(check for check in checks if "planted" in check.name)
    assert planted.effect.value == pytest.approx(1.0, abs=0.5)


def test_an_instrument_that_finds_a_difference_where_there_is_none_does_not_pass(arms):
    checks = instrument.check_instrument({"moe_lpr": arms["one"], "moe_lpr again": arms["other"]})
    again = next(check for check in checks if check.name.startswith("A/A"))
    shuffled = next(check for check in checks if check.name.startswith("shuffled"))
    assert again.passes is False and shuffled.passes is None and "full_replay" in shuffled.why
