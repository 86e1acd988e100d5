"""The tour: six steps on the run that came with the code, whose numbers are that run's."""

import math
import shutil
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from lpr_lab.dashboard import tour
from lpr_lab.dashboard.shell import PAGES
from lpr_lab.runs import environment
from lpr_lab.runs.find import list_runs


@pytest.fixture
def example(tmp_path):
    shutil.copytree(environment.CHECKOUT / "runs" / "examples", tmp_path / "runs" / "examples")
    return next(run for run in list_runs(tmp_path / "runs") if run.is_example)


def test_six_steps_lead_to_pages_that_are_there_on_the_run_that_came_with_the_code(example):
    found = tour.steps(example)
    assert len(found) == 6 and urlsplit(found[0].link).path == "/"
    assert all(urlsplit(step.link).path in PAGES.values() for step in found)
    assert all(parse_qs(urlsplit(step.link).query)["run"] == [example.id] for step in found)
    page = tour.render_tour(example.path.parents[1])
    assert all(f'id="step-{number}"' in page for number in range(1, 7)) and "example" in str(example.path)


def test_the_last_step_is_the_word_that_gained_most(example):
    trace = example.traces.read("el")
    place, gain = tour.clearest_gain(trace)
    bits = (trace.log_prob - trace.base_log_prob) / math.log(2)
    assert gain == pytest.approx(bits[place]) and gain > 0
    whole = [i for i, token in enumerate(trace.tokens) if len(token.strip()) > 1 and "⟨" not in token]
    assert gain == pytest.approx(np.nanmax(bits[whole]))
    assert f"tok={place}" in tour.steps(example)[-1].link and f"{gain:.1f} bits" in tour.steps(example)[-1].look


def test_without_an_example_it_says_how_to_make_a_run(tmp_path):
    assert "lpr-lab demo" in tour.render_tour(tmp_path)
