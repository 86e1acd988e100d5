"""The server's side of a sitting: what is begun, what is written ahead, what the page must not know."""

from dataclasses import replace

import pytest

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.page_data import data_of
from lpr_lab.dashboard.pages.compare import sitting, sitting_render
from lpr_lab.dashboard.pages.compare.steering import ASKED as STEERING
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.sittings import SITTINGS, Sittings
from lpr_lab.errors import MissingError, UsageError
from lpr_lab.runs.people.continuations import Continuation
from lpr_lab.runs.people.own_texts import add_texts
from lpr_lab.runs.people.sittings import keep_sitting, kept_sitting

ASKED = {"left": "base", "right": "expanded", "tokens": 8, "temperature": 0, "seed": 0, **dict.fromkeys(STEERING, "")}
HOSTILE = '<script>boom()</script>"'


@pytest.fixture
def texts(run):
    return add_texts(run, ["Μια μέρα", HOSTILE, "One day", "في يوم"], "Days")


@pytest.fixture
def written(monkeypatch):
    """Note what is written, with texts that differ."""
    seen: list[str] = []

    def write(pair, told, run):
        seen.append(pair.prompt)
        yield replace(pair, left=Continuation("one"), right=Continuation("two"), is_running=False), ()

    monkeypatch.setattr(sitting, "write", write)
    return seen


@pytest.fixture
def begun(runs_dir, run, texts):
    now = sitting.begin_sitting(runs_dir, [text.id for text in texts], ASKED, {"run": run.id})
    yield now
    SITTINGS.drop(run, now.id)


def test_sets_of_prompts_are_groups_all_texts_and_samples(run, texts):
    labels = [label for label, _ in sitting.sources(run)]
    assert labels[:2] == ["Days (4)", "All texts kept with this run (4)"] and labels[2].startswith("Samples")
    assert {label for label, _ in sitting.prompts_in(run, "group:Days")} == {text.name for text in texts}
    assert len(sitting.prompts_in(run, "all")) == 4 and sitting.prompts_in(run, "group:gone") == []
    assert all(label.partition(": ")[2] for label, _ in sitting.prompts_in(run, "samples"))


@pytest.mark.parametrize(
    ("chosen", "asked", "said"),
    [
        ([], {}, "No prompt was chosen"),
        (None, {}, "No prompt was chosen"),
        (["own-" + "0" * 32], {}, "not there any more"),
        (["el"], {"tokens": 1000}, "New tokens"),
        (["el"], {"right": "base"}, "two that differ"),
    ],
)
def test_what_cannot_be_begun_is_refused_in_words(runs_dir, run, chosen, asked, said):
    with pytest.raises(UsageError, match=said):
        sitting.begin_sitting(runs_dir, chosen, ASKED | asked, {"run": run.id})


def test_two_prompts_are_written_at_most_and_the_next_while_one_reads(runs_dir, run, begun, written):
    params = {"run": run.id}
    list(sitting.write_on(runs_dir, begun.id, params))
    assert written == [one.text for one in begun.prompts[:2]]
    list(sitting.write_on(runs_dir, begun.id, params))
    assert len(written) == 2, "nothing is written twice, and no further ahead"
    said, now = sitting.judge(runs_dir, begun.id, 0, "left", params)
    assert "lpr-bad-line" not in said and now.current == 1
    said, now = sitting.judge(runs_dir, begun.id, 0, "right", params)
    assert "judged already" in said and now.prompts[0].choice == "left", "a double click judges once"
    *_, (line, shown) = sitting.write_on(runs_dir, begun.id, params)
    assert len(written) == 3 and shown.current == 1 and "lpr-busy" not in line


def test_one_that_waited_for_what_another_wrote_draws_it(runs_dir, run, begun, written):
    list(sitting.write_on(runs_dir, begun.id, {"run": run.id}))
    drawn = list(sitting.write_on(runs_dir, begun.id, {"run": run.id}))
    assert drawn[-1][1].prompts[0].is_written and len(drawn) == 1


def test_a_failure_is_said_and_the_sitting_goes_on_from_there(runs_dir, run, begun, monkeypatch):
    def write(*given):
        raise RuntimeError("out of luck")
        yield

    monkeypatch.setattr(sitting, "write", write)
    *_, (line, now) = sitting.write_on(runs_dir, begun.id, {"run": run.id})
    assert "out of luck" in line and "Go on" in line and now.current == 0


def test_what_the_page_shows_tells_nothing_and_is_escaped_and_the_end_tells_all(runs_dir, run, begun, written):
    params = {"run": run.id, "sitting": begun.id}
    now = begun
    while not now.is_over:
        list(sitting.write_on(runs_dir, begun.id, params))
        now = SITTINGS.get(run, begun.id)
        html = sitting_render.sitting(run, now, Query.parse(params))
        for told in ("base", "expanded", "Base model", "Expanded", "swapped", str(begun.seed), "<script>"):
            assert told not in html
        with pytest.raises(MissingError, match="goes on"):
            data_of("compare", runs_dir, params)
        _, now = sitting.judge(runs_dir, begun.id, now.current, "left", params)
    html = sitting_render.sitting(run, now, Query.parse(params))
    assert "Base model 2, Expanded model 2 (n = 4, p = 1.00)" in html and str(begun.seed) in html
    assert "<script>boom" not in html and "&lt;script&gt;" in html
    scope: dict = {}
    lines = data_of("compare", runs_dir, params).cell.strip().splitlines()
    exec("\n".join(lines[:-1]), scope)
    assert eval(lines[-1], scope).equals(now.to_frame())


def test_it_is_on_no_disk_until_it_is_kept_and_then_follows_every_judgement(runs_dir, run, begun, written):
    params = {"run": run.id}
    list(sitting.write_on(runs_dir, begun.id, params))
    sitting.judge(runs_dir, begun.id, 0, "same", params)
    assert kept_sitting(run, begun.id) is None
    assert "Kept" in sitting.keep(runs_dir, begun.id, params)[0]
    sitting.judge(runs_dir, begun.id, 1, "left", params)
    kept = kept_sitting(run, begun.id)
    assert [one.choice for one in kept.prompts[:2]] == ["same", "left"]
    SITTINGS.drop(run, begun.id)  # as after a restart
    assert sitting.find(shell.page_context(runs_dir, params), begun.id) == kept
    assert "Deleted" in sitting.forget(runs_dir, begun.id, params)[0]
    assert sitting.find(shell.page_context(runs_dir, params), begun.id) is None


def test_the_list_of_kept_sittings_names_no_models_of_one_that_goes_on(run, begun):
    keep_sitting(run, begun)
    html = sitting_render.kept(run, Query(run=run.id))
    assert "0 of 4 prompts judged" in html and "Base" not in html and f"sitting={begun.id}" in html


def test_the_oldest_sitting_gives_way_and_one_that_is_gone_is_refused(run, begun):
    held = Sittings(most=2)
    for number in range(3):
        held.put(run, replace(begun, id=f"{number:032x}"))
    assert held.get(run, f"{0:032x}") is None and held.get(run, f"{2:032x}") is not None
    with pytest.raises(MissingError, match="no longer held"):
        held.change(run, f"{0:032x}", lambda now: now)
