"""The claims on several bases side by side, and over bases that differ by the seed they were trained from."""

import pytest

from lpr_lab.runs.scorecard import bases
from lpr_lab.runs.scorecard.claims import CLAIMS
from lpr_lab.runs.scorecard.verdict import FAILS, HOLDS, UNDECIDED

LPR_HELPS = "Better than without it on reviewed originals."
STAGE1_FORGETS = "Original languages get worse in stage 1."
HALF_BACK = "More than half comes back with it."
MIDDLE = "Similarity in the middle third is above that of the other layers."


def scorecard(base, values, layers=5, seeds=3, verdict=UNDECIDED):
    """Return a scorecard that has numbers of some parts."""
    claims = []
    for claim in CLAIMS:
        parts = [
            {
                "text": part.text,
                "above": part.above,
                "below": part.below,
                "arms": list(part.arms),
                "why": "",
                "value": values.get(part.text),
                "low": None,
                "high": None,
                "seeds": seeds,
                "by_seed": {},
                "verdict": verdict,
            }
            for part in claim.parts
        ]
        facts = {"number": claim.number, "claim": claim.text, "kind": claim.kind, "why": ""}
        claims.append({**facts, "verdict": HOLDS if not parts else verdict, "parts": parts})
    return {"base": base, "claims": claims, "layers": layers}


def compared(*values, layers=5, seeds=3):
    cards = {f"world-{n}": scorecard(f"world-{n}", of, layers, seeds) for n, of in enumerate(values)}
    return bases.compare_bases(cards, tuple(cards))


def part_of(found, text):
    return next(part for row in found["claims"] for part in row["parts"] if part["text"] == text)


def test_every_claim_stands_there_with_the_verdict_of_every_base():
    cards = {"a": scorecard("a", {}, verdict=FAILS), "b": scorecard("b", {LPR_HELPS: -0.3})}
    found = bases.compare_bases(cards)
    assert found["bases"] == ["a", "b"] and [row["number"] for row in found["claims"]] == list(range(1, 23))
    row = found["claims"][9]
    assert row["bases"] == {"a": FAILS, "b": UNDECIDED}
    assert part_of(found, LPR_HELPS)["bases"]["b"]["value"] == -0.3
    assert row["over_worlds"] is None and part_of(found, LPR_HELPS)["over_worlds"] is None, "none were named"


def test_over_worlds_a_number_has_students_interval_over_their_means():
    values = (-0.5, -0.3, -0.2, -0.4)
    of = part_of(compared(*({LPR_HELPS: value} for value in values)), LPR_HELPS)["over_worlds"]
    half = 3.182446 * (0.0166666667 / 4) ** 0.5  # t of 3 degrees of freedom times the standard error
    assert of["value"] == pytest.approx(-0.35) and of["low"] == pytest.approx(-0.35 - half, abs=1e-4)
    assert of["high"] == pytest.approx(-0.35 + half, abs=1e-4) and of["worlds"] == 4 and of["verdict"] == HOLDS


def test_worlds_that_do_not_agree_decide_nothing_however_sure_each_is():
    found = compared({LPR_HELPS: -2.0}, {LPR_HELPS: -0.1}, {LPR_HELPS: 1.5})
    assert part_of(found, LPR_HELPS)["over_worlds"]["verdict"] == UNDECIDED


def test_two_worlds_decide_nothing():
    of = part_of(compared({LPR_HELPS: -0.3}, {LPR_HELPS: -0.3}), LPR_HELPS)["over_worlds"]
    assert of["verdict"] == UNDECIDED and "2 of at least 3 worlds" in of["why"]


def test_a_world_with_too_few_seeds_is_not_counted():
    cards = {f"w{n}": scorecard(f"w{n}", {LPR_HELPS: -0.3 - n / 10}, seeds=1 if n == 0 else 3) for n in range(4)}
    of = part_of(bases.compare_bases(cards, tuple(cards)), LPR_HELPS)["over_worlds"]
    assert of["worlds"] == 3 and of["value"] == pytest.approx(-0.5)


def test_what_presupposes_a_loss_is_decided_only_where_the_worlds_together_show_one():
    spread = (0.0, 0.1, 0.2)
    lost = compared(*({STAGE1_FORGETS: 4 + s, HALF_BACK: -1 - s} for s in spread))
    gained = compared(*({STAGE1_FORGETS: -4 - s, HALF_BACK: -1 - s} for s in spread))
    assert part_of(lost, HALF_BACK)["over_worlds"]["verdict"] == HOLDS
    of = part_of(gained, HALF_BACK)["over_worlds"]
    assert of["verdict"] == UNDECIDED and STAGE1_FORGETS in of["why"]


def test_a_claim_about_layers_wants_worlds_with_enough_of_them():
    values = [{MIDDLE: 0.1 + n / 100} for n in range(3)]
    assert part_of(compared(*values), MIDDLE)["over_worlds"]["verdict"] == UNDECIDED
    assert part_of(compared(*values, layers=12), MIDDLE)["over_worlds"]["verdict"] == HOLDS


def test_a_claim_fails_over_worlds_where_a_part_fails_and_exact_ones_hold_where_they_hold_in_all():
    found = compared(*({LPR_HELPS: 0.3 + n / 100} for n in range(3)))
    assert found["claims"][9]["over_worlds"] == FAILS and found["claims"][0]["over_worlds"] == HOLDS


def test_parts_of_two_claims_with_the_same_text_keep_their_own_numbers():
    card = scorecard("a", {"The same on new languages.": 0.1})
    card["claims"][20]["parts"][1]["value"] = 0.7
    rows = bases.compare_bases({"a": card})["claims"]
    assert [rows[n]["parts"][place]["bases"]["a"]["value"] for n, place in ((17, 0), (20, 1))] == [0.1, 0.7]


def test_a_scorecard_of_another_version_of_the_claims_has_no_number_where_they_differ():
    card = scorecard("a", {LPR_HELPS: -0.3})
    card["claims"][9]["parts"] = []
    part = part_of(bases.compare_bases({"a": card}), LPR_HELPS)
    assert part["bases"]["a"]["value"] is None and part["bases"]["a"]["verdict"] == UNDECIDED
