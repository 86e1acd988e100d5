import io
import json
import re
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from lpr_lab.errors import UsageError
from lpr_lab.progress import progress
from lpr_lab.runs.files import PRINTED_TO
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch.live import Follower, Snapshot
from lpr_lab.views import terminal
from lpr_lab.views.html import live


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "runs", kind="expansion", slug="el", title="el <b>beside</b> en", config={})
    run.start("expand")
    run.phases.expect(num_steps=40)
    for step in range(1, 11):
        numbers = {"loss": 3 / step, "lm_loss": 2 / step, "lr": 3e-4}
        run.metrics.log({"step": step, "tokens": 1000 * step, "t": 0.5 * step, **numbers}, stage="expand")
    run.paths.log.parent.mkdir()
    run.paths.log.write_text("a line <script>\n")
    yield run
    if not run.status.recorded_state == "finished":
        run.stop("interrupted")


def drawn(snapshot: Snapshot, **options) -> str:
    console = Console(file=io.StringIO(), width=100, **options)
    console.print(terminal.draw(snapshot, console))
    return console.file.getvalue()


def test_terminal_html_and_text_say_the_same(run):
    seen = Follower(run).snapshot()
    for said in (drawn(seen), live.to_html(seen), live.to_text(seen)):
        for part in ("Running: expand", "10 of 40", "10\u202f000", "2\u202f000", "15 s", "3.00e-04", "0.3", "lm_loss"):
            assert part in said
    assert "a line <script>" in drawn(seen) and "█" in drawn(seen)
    page = live.to_html(seen)
    assert "a line &lt;script&gt;" in page and 'aria-valuenow="10"' in page and page.count("<polyline") == 2


def test_a_stalled_run_says_so_with_a_question_mark_and_no_bar_is_lost():
    seen = Snapshot(run="r", title="t", state="stalled", stage="expand", heartbeat_seconds=75, trained="expand", step=1)
    for said in (drawn(seen), live.to_html(seen), live.to_text(seen)):
        assert re.search(r"Stalled\? .*1 min 15 s, at expand", said)


def test_a_run_that_ended_says_how_and_shows_its_error():
    ended = {"run": "r", "title": "t", "stage": "fit_routers"}
    assert live.status_line(Snapshot(**ended, state="interrupted")) == "Interrupted at fit routers"
    assert live.status_line(Snapshot(**ended, state="queued")) == "Not started yet"
    failed = Snapshot(**ended, state="failed", error="Traceback\nValueError: <no room>")
    assert "ValueError: <no room>" in drawn(failed) and "&lt;no room&gt;" in live.to_html(failed)


def test_a_loss_that_is_not_finite_is_a_dash():
    seen = Snapshot(run="r", title="t", state="running", stage="s", trained="s", step=1, numbers={"loss": None})
    assert (
        "loss –" in live.to_text(seen)
        and live.sparkline([]) == ""
        and live.sparkline([1, 1]) == live.sparkline([1, 1 + 1e-9]) == "▁▁"
    )


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("failed", 1), ("interrupted", 130)])
def test_lines_are_printed_where_there_is_no_terminal_and_the_exit_code_says_how_it_ended(run, capsys, state, code):
    run.stop(state)
    assert terminal.watch(run) == code
    assert "step 10" in capsys.readouterr().out
    assert terminal.watch(run, as_json=True) == code
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["state"] == state and "curves" not in json.loads(line)


def test_a_terminal_without_colours_gets_none(run, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    seen = Follower(run).snapshot()
    assert "\x1b[3" not in drawn(seen, force_terminal=True)
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[3" in drawn(seen, force_terminal=True, color_system="standard")


def test_a_terminal_that_knows_no_unicode_gets_no_blocks(run, monkeypatch):
    monkeypatch.setattr(Console, "encoding", "ascii")
    assert "█" not in drawn(Follower(run).snapshot())


def test_outside_a_notebook_work_goes_on_unwatched_and_a_display_is_refused(run):
    with live.watching(run):
        done = True
    assert done
    with pytest.raises(UsageError, match="lpr-lab watch"):
        live.watch(run)


class Handle:
    def __init__(self):
        self.shown = []

    def update(self, bundle, raw):
        self.shown.append(bundle)


@pytest.fixture
def notebook(monkeypatch):
    """IPython as it is in a kernel, as far as displays go."""
    import IPython.display

    shell = type("ZMQInteractiveShell", (), {})()
    handle = Handle()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shell)
    monkeypatch.setattr(IPython.display, "display", lambda *args, **options: handle)
    return handle


def test_a_block_is_watched_until_it_ends(notebook, run):
    with live.watching(run, every=0.01):
        while not notebook.shown:
            pass
    assert "Running: expand" in notebook.shown[0]["text/plain"] and "time left" in notebook.shown[0]["text/plain"]
    assert "10 of 40" in notebook.shown[-1]["text/html"] and "10 of 40" in notebook.shown[-1]["text/plain"]
    assert "Trained: expand" in notebook.shown[-1]["text/plain"] and "time left" not in notebook.shown[-1]["text/plain"]
    assert len(notebook.shown[-1]["text/html"]) < 10_000


def test_a_display_that_breaks_leaves_the_work_alone(notebook, run, monkeypatch):
    monkeypatch.setattr(notebook, "update", None)
    with live.watching(run, every=0.01):
        done = True
    assert done


def test_another_processes_run_is_watched_until_it_ends(notebook, run):
    run.stop("interrupted")
    live.watch(run)
    assert "Interrupted at expand" in notebook.shown[-1]["text/plain"]


def test_while_a_display_follows_a_run_no_bar_is_drawn_beside_it(notebook, run, capsys):
    with live.watching(run, every=0.01), progress(2, "beside") as bar:
        bar.update(2)
    assert "beside" not in "".join(capsys.readouterr())
    with progress(2, "afterwards") as bar:
        bar.update(2)
    out, error = capsys.readouterr()
    assert "afterwards" in out and not error, "a notebook shows what comes on stderr as an error"


def test_under_lpr_lab_run_the_bars_go_on_to_its_terminal(notebook, run, capsys, monkeypatch):
    monkeypatch.setenv(PRINTED_TO, str(run.paths.log))
    with live.watching(run, every=0.01), progress(2, "beside") as bar:
        bar.update(2)
    assert "beside" in capsys.readouterr().out


def test_what_was_printed_is_not_repeated_below_a_training_that_is_over(run):
    run.paths.log.write_text("expand: 100%|██| 40/40 [00:10<00:00]\n")
    seen = Follower(run).snapshot()
    assert "40/40" in live.to_html(seen)
    assert "40/40" not in live.to_html(replace(seen, state=live.DONE_HERE))


def test_a_training_that_diverges_is_said_everywhere_until_it_comes_back(run):
    assert "diverges" not in live.to_text(Follower(run).snapshot())
    run.metrics.log({"step": 11, "tokens": 11000, "t": 5.5, "loss": 4.5, "diverged": 1.0}, stage="expand")
    seen = Follower(run).snapshot()
    assert seen.is_diverging
    for said in (drawn(seen), live.to_html(seen), live.to_text(seen)):
        assert re.search(r"diverges.* loss .*\b3 .*\b4\.5", " ".join(said.split()))
    assert 'role="alert"' in live.to_html(seen)
    run.metrics.log({"step": 12, "tokens": 12000, "t": 6.0, "loss": 0.5, "diverged": 0.0}, stage="expand")
    assert "diverges" not in live.to_text(Follower(run).snapshot())
