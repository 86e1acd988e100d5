"""What is remembered is what would be drawn: it is drawn anew when the address or any file is another."""

import threading
import time

import pytest

from helpers.sample_runs import make_run, make_trace
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.cache import MOST, _entries, cached
from lpr_lab.storage import write_text


@pytest.fixture
def drawing(runs_dir, run):
    """A function that counts how often it draws, as pages call it."""
    drawn = []

    def draw(context, folder):
        drawn.append(context.query)
        return {"text": context.run.title, "update": {"visible": True, "choices": [1, 2]}}

    kept = cached(draw)

    def look(**query):
        return kept(shell.page_context(runs_dir, {"run": run.id, **query}), runs_dir)

    return look, drawn


def test_the_same_view_of_the_same_files_is_drawn_once(drawing):
    look, drawn = drawing
    assert look() == look() == look() and len(drawn) == 1


def test_another_view_is_drawn(drawing):
    look, drawn = drawing
    look()
    look(layer="3")
    assert len(drawn) == 2


@pytest.mark.parametrize("change", ["trace", "generation", "results", "table", "notes", "another run", "broken"])
def test_any_change_of_a_file_is_seen(drawing, runs_dir, run, change):
    look, drawn = drawing
    look()
    match change:
        case "trace":
            run.traces.write("new", make_trace("Hello there."))
        case "generation":
            run.generations.append({"prompt": "x"})
        case "results":
            run.documents.write("results", {"schema_version": 1})
        case "table":
            run.tables.write("load", run.tables.read("load").head(3))
        case "notes":
            write_text(run.path / "notes.md", "Seen.")
        case "another run":
            make_run(runs_dir)
        case "broken":
            write_text(make_run(runs_dir).path / "run.json", "{")
    look()
    assert len(drawn) == 2


def test_what_the_caller_does_to_it_is_not_remembered(drawing):
    look, _ = drawing
    first = look()
    first["update"]["choices"].clear()
    first["update"].pop("visible")
    assert look()["update"] == {"visible": True, "choices": [1, 2]}


def test_what_tells_the_time_is_drawn_again_after_a_while(runs_dir, run):
    drawn = []
    kept = cached(lambda context, folder: drawn.append(1), seconds=0.05)
    for _ in range(3):
        kept(shell.page_context(runs_dir, {}), runs_dir)
    time.sleep(0.06)
    kept(shell.page_context(runs_dir, {}), runs_dir)
    assert len(drawn) == 2


def test_many_who_ask_at_once_wait_for_one_drawing(runs_dir, run):
    drawn = []

    def slow(context, folder):
        time.sleep(0.05)
        drawn.append(1)
        return context.run.id

    kept, found = cached(slow), []
    context = shell.page_context(runs_dir, {})
    threads = [threading.Thread(target=lambda: found.append(kept(context, runs_dir))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 1 and found == [run.id] * 8


def test_a_failure_is_not_remembered_and_blocks_nobody(runs_dir, run):
    tries = []

    def fails_once(context, folder):
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("no")
        return "drawn"

    kept, context = cached(fails_once), shell.page_context(runs_dir, {})
    with pytest.raises(ValueError, match="no"):
        kept(context, runs_dir)
    assert kept(context, runs_dir) == "drawn"


def test_only_so_many_are_kept(drawing):
    look, _ = drawing
    for number in range(MOST + 5):
        look(layer=str(number))
    assert len(_entries) <= MOST
