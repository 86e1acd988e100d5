"""Processors are counted, and asked what they have, in one way."""

import os

import pytest

from lpr_lab import processors
from lpr_lab.processors import num_cores


def test_only_those_count_that_this_process_is_bound_to(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3}, raising=False)
    assert num_cores() == 2


@pytest.mark.parametrize(("found", "count"), [(6, 6), (None, 1)])
def test_where_the_system_does_not_bind_all_count(monkeypatch, found, count):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: found)
    assert num_cores() == count


def test_name_and_instructions_are_those_that_the_system_names(monkeypatch, tmp_path):
    facts = tmp_path / "cpuinfo"
    monkeypatch.setattr(processors, "_FACTS", facts)
    assert processors.processor_flags() == {} and processors.processor_name()
    facts.write_text("model name\t: A: fast one\nflags\t\t: fpu avx2 avx512f\nmodel name\t: Another\n")
    assert processors.processor_name() == "A: fast one"
    assert [flag for flag, has in processors.processor_flags().items() if has] == ["avx2", "avx512f"]
    facts.write_text("Features\t: neon\n")
    assert not any(processors.processor_flags().values()) and processors.processor_flags()
