"""Processors are counted in one way."""

import os

import pytest

from lpr_lab.processors import num_cores


def test_only_those_count_that_this_process_is_bound_to(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3}, raising=False)
    assert num_cores() == 2


@pytest.mark.parametrize(("found", "count"), [(6, 6), (None, 1)])
def test_where_the_system_does_not_bind_all_count(monkeypatch, found, count):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: found)
    assert num_cores() == count
