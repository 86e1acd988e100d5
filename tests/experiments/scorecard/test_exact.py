"""The exact claims, checked in seconds: the equations, and a few steps on a base in a run of its own."""

import pytest

from helpers.sample_scorecard import tiny_card
from lpr_lab.experiments.scorecard import build, exact


def test_the_equations_hold():
    checks = exact.of_equations()
    assert {check["claim"] for check in checks} == {3, 4, 5} and all(check["holds"] for check in checks)


@pytest.mark.slow
def test_a_base_is_checked_once_and_its_scorecard_names_the_run(materials, tmp_path):
    card = tiny_card(materials)
    run = exact.exact_run(card, tmp_path)
    checks = run.results["checks"]
    assert {check["claim"] for check in checks} == {2, 3, 4, 5, 6, 7} and all(check["holds"] for check in checks)
    assert exact.exact_run(card, tmp_path).id == run.id
    rows = {row["number"]: row for row in build.build(card, tmp_path)["claims"]}
    assert rows[7]["verdict"] == "holds" and rows[7]["checks"][0]["runs"] == [run.id]
