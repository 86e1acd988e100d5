"""Benchmarks that need no model are run here on little, so that they do not break unseen between two measurements."""

import importlib
import json

import pytest

from lpr_lab.runs.environment import CHECKOUT


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Return a function that imports a benchmark, whose results go into a folder of the test's."""
    monkeypatch.syspath_prepend(str(CHECKOUT / "tests" / "benchmarks"))
    monkeypatch.setattr(importlib.import_module("measuring"), "RESULTS", tmp_path)
    return importlib.import_module


def test_similarity_by_sums_is_measured_beside_all_pairs_and_equals_them(benchmark, monkeypatch, tmp_path):
    similarity = benchmark("similarity_speed")
    monkeypatch.setattr(similarity, "TOKENS", 700)
    similarity.main(1)
    (row,) = json.loads((tmp_path / "similarity_speed.json").read_text(encoding="utf-8"))["rows"]
    assert row["value"] > 0 and "equal to" in row["note"]


def test_every_benchmark_of_the_table_is_there_and_can_be_imported(benchmark):
    for name in benchmark("run_all").NAMES:
        assert callable(benchmark(name).main)
