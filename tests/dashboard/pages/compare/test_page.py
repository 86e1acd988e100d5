"""What the page `/compare` says, shows and keeps, without a model."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from helpers.sample_runs import HOSTILE, MIXED, make_run
from helpers.sample_scores import write_scores
from helpers.words import words
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.compare import page as compare
from lpr_lab.dashboard.pages.compare import render
from lpr_lab.dashboard.pages.compare import sides as pairs
from lpr_lab.dashboard.pages.compare.state import Latest, halted, judge
from lpr_lab.dashboard.query import Query
from lpr_lab.runs.people.continuations import Continuation, Exactness, Pair, exactness, pair_id, split_at_fork
from lpr_lab.runs.run import Run
from lpr_lab.views.html.continuations import finding, render_pair

LOOP = " a big house a big house a big house"
GREEK = Pair("Μια φορά", "el", Continuation(LOOP, 9, 3.0), Continuation(" κι έναν καιρό", 8, 4.0), 2, seconds=8.0)


def latest_of(run: Run, pair: Pair = GREEK, **changes) -> Latest:
    settings = {"max_new_tokens": 16, "temperature": 0.0, "seed": 0}
    return Latest(run.id, pair, settings, **changes)


# --------------------------------------------------------------------------------------------------- kept pairs


def test_a_kept_pair_is_shown_and_the_place_where_they_part_is_marked(runs_dir, run):
    found = compare.compose(shell.page_context(runs_dir, {"lang": "el"}), runs_dir)
    assert "agree for 9 tokens, then part" in words(found["top"])
    assert found["pair"].count("they part here, at token 10") == 4  # title and words, in both panes
    assert "<b> χωριό" in found["pair"] or "<b>χωριό" in found["pair"]
    assert found["prompt"]["value"] == "Μια φορά κι έναν καιρό"


def test_each_kept_pair_has_an_address_and_is_listed_under_it(runs_dir, run):
    listed = compare.compose(shell.page_context(runs_dir, {}), runs_dir)["kept"]
    for record in run.generations.read():
        found = compare.compose(shell.page_context(runs_dir, {"text": pair_id(record)}), runs_dir)
        assert found["prompt"]["value"] == record["prompt"]
        assert f"text={pair_id(record)}" in found["top"] and f"text={pair_id(record)}" in listed


def test_a_pair_that_is_not_there_is_said_whatever_is_shown_instead(runs_dir, run):
    top = compare.compose(shell.page_context(runs_dir, {"text": "0badc0de"}), runs_dir)["top"]
    assert "Notice." in words(top) and "0badc0de" in words(top) and "text=0badc0de" not in top


def test_a_generation_that_wrote_nothing_claims_nothing_and_cannot_be_judged(run):
    said, top, panes, latest = halted(latest_of(run, Pair("Hi", "en", is_running=True)), run)
    assert (said, panes, latest) == ("", "", None) and "the same" not in words(top)


def test_the_same_text_is_said_to_be_the_same(runs_dir, run):
    top = compare.compose(shell.page_context(runs_dir, {"lang": "en"}), runs_dir)["top"]
    assert "say the same, token for token" in words(top)


def test_pairs_written_by_an_earlier_form_still_show(runs_dir, run):
    path = run.path / "generations" / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "Hi", "base": None, "diverged_at": "x"}) + "\n", encoding="utf-8")
    assert "Hi" in compare.compose(shell.page_context(runs_dir, {}), runs_dir)["pair"]


@pytest.mark.parametrize("names", [("base", "expanded"), ("G1 expand", "expanded")])
def test_a_pair_is_read_as_it_was_kept(names):
    pair = replace(GREEK, names=names)
    record = pair.to_record({"max_new_tokens": 16, "temperature": 0.0, "seed": 0})
    assert Pair.from_record(json.loads(json.dumps(record))) == pair
    assert ("base" in record) == (names[0] == "base")


def test_pairs_of_other_sides_have_another_address():
    settings = {"max_new_tokens": 16, "temperature": 0.0, "seed": 0}
    plain, staged = (replace(GREEK, names=names).to_record(settings) for names in (GREEK.names, ("base", "G1 expand")))
    assert pair_id(plain) != pair_id(staged)


# -------------------------------------------------------------------------------------------------------- panes


def test_the_fork_lies_between_whole_characters():
    assert split_at_fork("a 👨‍👩‍👧", "a 👨‍👩‍👦") == ("a ", "👨‍👩‍👧")
    assert split_at_fork("নি", "না") == ("", "নি")
    assert split_at_fork("", "x") == ("", "")


def test_panes_carry_language_and_direction_and_escape_everything():
    pane = render_pair(Pair(HOSTILE, "ar", Continuation(MIXED), Continuation("<b>x</b>"), 0))
    assert pane.count('dir="rtl" lang="ar"') == 2
    assert "<script" not in pane and "&lt;b&gt;x" in pane


def test_under_each_pane_stands_length_speed_script_and_loop():
    left, right = words(render_pair(GREEK)).split("Expanded model")
    assert "9 tokens · 3.0 tokens/s" in left and "100% of output is not Greek script" in left
    assert "⟳ repeats “a big house” 3 times" in left
    assert "8 tokens · 2.0 tokens/s" in right and "all in Greek script" in right and "repeats" not in right


def test_the_finding_counts_the_tokens_that_agree():
    assert re.search(r"^Base and expanded .*2 of 9 tokens \(22%\)", finding(GREEK))
    assert finding(replace(GREEK, names=("G1 expand", "expanded"), diverged_at=0)).startswith("G1 expand and Exp")


@pytest.mark.parametrize(
    ("checked", "badge"),
    [
        (Exactness(0.0), ">exact<"),
        (Exactness(5e-5), ">exact<"),
        (Exactness(2e-4), ">not exact<"),
        (Exactness(2e-4, largest_logit=46.0), ">exact<"),
        (Exactness(5e-5, largest_logit=2.0), ">not exact<"),
        (None, ">not checked<"),
    ],
)
def test_the_base_is_called_exact_only_where_the_run_checked_it(checked, badge):
    assert badge in render_pair(GREEK, checked)


def test_the_check_is_read_from_the_results(runs_dir, run):
    assert exactness(run).difference == 0.0 and exactness(run).is_exact
    bare = Run.create(runs_dir, kind="expansion", slug="x", title="Bare", config={})
    assert exactness(bare) is None


# -------------------------------------------------------------------------------------------------------- blind


@pytest.mark.parametrize("swapped", [False, True])
def test_nothing_in_a_blind_pane_tells_who_is_who(swapped):
    hidden = replace(GREEK, hidden=True, swapped=swapped)
    panes, said = render_pair(hidden, 0.0), finding(hidden)
    for word in ("ase", "xpanded", "exact", "tokens/s", "lpr-new", "experts"):
        assert word not in panes and word not in said
    left, right = panes.split("</section>")[:2]
    assert ("κι έναν" in left) == swapped and ("κι έναν" in right) != swapped
    assert said.startswith("A and B agree")


def test_revealing_leaves_the_sides_where_they_were_and_keeps_the_pair(runs_dir, run):
    before = len(run.generations.read())
    hidden = latest_of(run, replace(GREEK, hidden=True, swapped=True), was_blind=True)
    found = judge(runs_dir, hidden, "", {"run": run.id})
    assert found["pair"].index("Expanded model") < found["pair"].index("Base model")
    assert found["latest"].is_kept and len(run.generations.read()) == before + 1
    assert f"text={pair_id(hidden.record)}" in found["top"] and "Revealed." in words(found["line"])


def test_a_blind_vote_counts_for_the_side_that_stood_there(runs_dir, run):
    hidden = latest_of(run, replace(GREEK, hidden=True, swapped=True), was_blind=True)
    found = judge(runs_dir, hidden, "left", {"run": run.id})
    assert "you preferred “Expanded model”" in words(found["line"])
    assert "Base model 0, Expanded model 1 (n = 1, p = 1.00)" in words(found["tally"])
    assert "1 of 1 blind" in words(found["tally"])
    (kept,) = run.generations.read("preferences")
    assert (kept["left"], kept["right"], kept["choice"], kept["blind"]) == ("expanded", "base", "left", True)
    assert found["votes"]["visible"] is False


def test_six_of_six_is_a_clear_preference_and_five_of_five_is_not(run):
    votes = [{"pair": str(n), "left": "base", "right": "expanded", "choice": "right", "blind": True} for n in range(6)]
    said = words(render.preferences(run, votes[:5]))
    assert re.search(r"no clear .*Base model 0, Expanded model 5 \(n = 5, p = 0\.062\)", said)
    assert "Expanded model wins 100% of them, 95% interval 48% to 100%" in said
    assert "Expanded model is preferred" in words(render.preferences(run, votes))


def _blind(run) -> Latest:
    return latest_of(run, replace(GREEK, hidden=True, swapped=True), was_blind=True)


@pytest.mark.parametrize(
    "then",
    ["left", "tie", pytest.param("right", marks=pytest.mark.slow), pytest.param("both bad", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("first", ["left", "tie", "both bad", ""], ids=lambda choice: choice or "revealed")
@pytest.mark.parametrize("where", ["same window", "another window", "after a reload", "turned round", "again, blind"])
def test_a_pair_is_judged_once_and_not_after_it_was_revealed(runs_dir, run, first, then, where):
    elsewhere = _blind(run)
    found = judge(runs_dir, _blind(run), first, {"run": run.id})
    assert found["votes"]["visible"] is False
    before = run.generations.read("preferences")
    reloaded = {"text": pair_id(elsewhere.record)}
    turned = replace(GREEK, names=("expanded", "base"), left=GREEK.right, right=GREEK.left)
    now = {
        "same window": found["latest"],
        "another window": elsewhere,
        "turned round": latest_of(run, turned),
        "again, blind": _blind(run),
        "after a reload": compare.compose(shell.page_context(runs_dir, reloaded), runs_dir)["latest"],
    }[where]
    again = judge(runs_dir, now, then, {"run": run.id})
    said = words(again["line"])
    assert "Not kept" in said and ("revealed" if first == "" else "judged already") in said
    assert run.generations.read("preferences") == before and again["votes"]["visible"] is False
    assert compare.compose(shell.page_context(runs_dir, reloaded), runs_dir)["votes"]["visible"] is False


def test_two_windows_that_judge_at_once_leave_one_judgement(runs_dir, run):
    with ThreadPoolExecutor(8) as many:
        list(many.map(lambda choice: judge(runs_dir, _blind(run), choice, {"run": run.id}), ["left", "right"] * 4))
    assert len(run.generations.read("preferences")) == 1


def test_texts_that_are_the_same_cannot_win(runs_dir, run):
    same = replace(GREEK, right=replace(GREEK.left, seconds=9.0), diverged_at=None)
    found = judge(runs_dir, latest_of(run, replace(same, hidden=True), was_blind=True), "left", {"run": run.id})
    assert "same text" in words(found["line"]) and not run.generations.read("preferences")
    assert found["votes"]["visible"] is False and found["tally"] == ""
    old = {"left": "base", "right": "expanded", "choice": "left", "blind": True}  # as earlier versions kept it
    run.generations.append({**old, "pair": pair_id(latest_of(run, same).record)}, "preferences")
    assert "Base model 0, Expanded model 0" in words(render.preferences(run, run.generations.read("preferences")))


def test_who_saw_the_pair_in_the_open_does_not_judge_blind(runs_dir, run):
    run.generations.append(latest_of(run).record)
    found = judge(runs_dir, _blind(run), "left", {"run": run.id})
    assert "0 of 1 blind" in words(found["tally"])


def test_an_example_keeps_no_vote(runs_dir):
    run = make_run(runs_dir / "examples")
    judge(runs_dir, latest_of(run), "left", {"run": run.id})
    assert not run.generations.read("preferences")


def test_a_pair_of_another_run_or_still_running_is_not_judged(runs_dir, run):
    assert judge(runs_dir, replace(latest_of(run), run="other"), "left", {"run": run.id}) == {}
    assert judge(runs_dir, latest_of(run, replace(GREEK, is_running=True)), "left", {"run": run.id}) == {}
    assert judge(runs_dir, None, "left", {"run": run.id}) == {}


# ------------------------------------------------------------------------------------------------------ asking


def ask(**changes) -> dict:
    asked = {"prompt": "Γεια", "language": "el", "tokens": 8, "temperature": 0, "seed": 0}
    return asked | {"left": "base", "right": "expanded", "blind": False} | changes


@pytest.mark.parametrize(("prompt", "said"), [("  ", "The prompt is empty"), ("x" * 2001, "2,001 characters")])
def test_a_prompt_that_cannot_be_continued_is_refused(runs_dir, run, prompt, said):
    ((line, *_),) = compare.generate(runs_dir, ask(prompt=prompt), {"run": run.id})
    assert said in words(line)


def test_a_run_without_weights_is_refused_in_a_sentence(runs_dir, run):
    *_, (line, *_) = compare.generate(runs_dir, ask(), {"run": run.id})
    assert "no weights" in words(line)


def test_what_stops_halfway_is_shown_as_stopped(run):
    said, head, panes, now = halted(latest_of(run, replace(GREEK, is_running=True)), run)
    assert said == "What was written stays." and 'aria-busy="true"' not in panes and "lpr-caret" not in panes
    assert not now.pair.is_running and "agree for 2" in head


@pytest.mark.parametrize(
    ("rate", "tokens", "said"),
    [
        (None, 48, "Not measured yet"),
        (4.0, 48, r"About 12 s for 48 tokens .*after loading.* 4\.0 tokens/s"),
        (1.0, 200, r"24 tokens .*about 24 s"),
    ],
)
def test_how_long_it_takes_is_said_before(rate, tokens, said):
    speed = None if rate is None else pairs.Speed(1 / rate, 0.0, 20)
    assert re.search(said, render.estimate(speed, tokens, is_loaded=False, characters=20))


def test_the_speed_is_that_of_the_newest_measured_pair():
    slow, fast = (replace(GREEK, seconds=seconds).to_record({}) for seconds in (9.0, 3.0))
    assert pairs.speed_of([slow, fast, {"prompt": "no seconds"}]).per_token == pytest.approx(1 / 3)
    assert pairs.speed_of([]) is None


def timed(characters: int, tokens: int) -> dict:
    """A pair as a machine makes it that takes 0.25 s for a token and 0.01 s for a character of the prompt."""
    side = Continuation("x" * tokens, tokens, 1.0)
    pair = replace(GREEK, prompt="x" * characters, left=side, right=side)
    return replace(pair, seconds=0.25 * tokens + 0.01 * characters).to_record({})


def test_one_long_prompt_is_no_measure_for_a_short_one():
    speed = pairs.speed_of([timed(1900, 8)])
    assert "for one of 10 it is not known" in render.estimate(speed, 48, is_loaded=True, characters=10)
    assert "About" in render.estimate(speed, 48, is_loaded=True, characters=1000)


@pytest.mark.parametrize("records", [[timed(1900, 8), timed(20, 48)], [timed(20, 48), timed(1900, 8)]])
@pytest.mark.parametrize(("characters", "tokens"), [(10, 48), (2000, 8), (500, 100)])
def test_with_a_long_and_a_short_prompt_measured_the_time_of_both_parts_is_told(records, characters, tokens):
    expected = 0.25 * tokens + 0.01 * characters
    assert pairs.speed_of(records).seconds(tokens, characters) == pytest.approx(expected)


def test_a_prompt_of_the_readers_own_is_told_from_ours_and_from_kept_ones(run):
    kept = run.generations.read()[0]["prompt"]
    assert [pairs.is_typed(text, run) for text in ("My own words", kept, pairs.FIRST, " ", None)] == [
        True, False, False, False, False,
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------- sides


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("base", "expanded"),
        ("G1 expand", "expanded"),
        ("expanded", "base"),
        ("run:20260101-000000Z-x-0000", "expanded"),
        ("base", "run:20260101-000000Z-x-0000"),
        ("run:20260101-000000Z-x-0000", "G1 expand"),
    ],
)
def test_the_address_holds_who_is_on_either_side(left, right):
    query = pairs.address_of(left, right)
    view = Query.parse(query)
    assert pairs.choices_in(view) == (left, right)
    assert (not any(query.values())) == (left == "base" and right == "expanded")


def test_a_language_without_a_prompt_of_ours_starts_empty_and_not_in_another_language():
    assert pairs.choose_prompt(["th", "km"], "km") == ("km", "")
    assert pairs.choose_prompt(["km", "th"], "")[0] == "th"
    assert pairs.choose_prompt([], "") == ("", pairs.FIRST)


def test_what_there_is_not_is_the_base_and_the_expanded_model(run):
    write_scores(run)
    assert pairs.speaker("G1 expand", run, [], "base").stage == "G1 expand"
    assert pairs.speaker("G9 dream", run, [], "base").stage == "base"
    assert pairs.speaker("run:gone", run, [], "expanded").run is run
