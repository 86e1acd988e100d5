"""Every value that readers and programs give, in pages and endpoints, is taken as it is or refused in a sentence."""

import http.client
import json
import math
from itertools import cycle
from urllib.parse import urlsplit

import pytest
from gradio import Error
from hypothesis import given
from hypothesis import strategies as st

from helpers.sample_runs import make_plan_run, make_run
from lpr_lab.dashboard import api, serve, shell
from lpr_lab.dashboard import parameters as p
from lpr_lab.dashboard.pages.compare import page as compare
from lpr_lab.dashboard.pages.plan import page as plan
from lpr_lab.dashboard.pages.plan.changes import changed
from lpr_lab.dashboard.pages.plan.costs import make_plan
from lpr_lab.dashboard.pages.routing import page as routing
from lpr_lab.dashboard.pages.routing.own_texts import trace_own
from lpr_lab.dashboard.query import Query
from lpr_lab.errors import LprError, UsageError

BAD_NUMBERS = [
    -5, 1e12, 1e300, 10**400, math.nan, math.inf, -math.inf, 2.5, None, "", "8", "x", True, False, [], [3], {"a": 1},
]  # fmt: skip
BAD_TEXTS = [None, 5, True, ["a"], {"a": 1}, "\ud83d", "x" * 100_001]
BAD_CHOICES = ["", "fair", None, 5, True, ["similarity"], "x" * 10_000]
BAD_LISTS = ["abc", 5, {"a": 1}, ["a"], [0.1, None], [0.1, -1], [math.nan], [True], [0.2] * 100_000, [[0.1]], [10**400]]
NUMBERS = {name: value for name, value in vars(p).items() if isinstance(value, p.Number)}


def name_of(value) -> str:
    return p.shown(value)[:14]


@given(
    st.sampled_from(sorted(NUMBERS)),
    st.one_of(st.integers(), st.floats(), st.none(), st.booleans(), st.text(max_size=9), st.lists(st.integers())),
)
def test_a_number_is_taken_exactly_as_it_is_or_refused_with_value_and_range(name, value):
    number = NUMBERS[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and number.low <= value <= number.high and (not number.is_whole or value == int(value)):
        read = number.read(value)
        assert read == value and isinstance(read, int if number.is_whole else float)
        return
    with pytest.raises(UsageError) as refused:
        number.read(value)
    assert p.shown(value) in str(refused.value) and number.expected in str(refused.value)


@given(st.sampled_from(sorted(NUMBERS)), st.text(max_size=12) | st.integers().map(str) | st.floats().map(str))
def test_a_number_in_an_address_is_what_it_says_or_is_left_out_with_a_word(name, text):
    number = NUMBERS[name]
    try:
        read = number.read_text(text)
    except UsageError as error:
        said = str(error)
    else:
        said = ""
        assert read == float(text)
    assert not said or (p.shown(text) in said and number.expected in said)


@pytest.mark.parametrize("value", BAD_TEXTS, ids=name_of)
def test_a_bad_text_is_refused(value):
    with pytest.raises(UsageError, match="The text"):
        p.TRACED.read(value)


def test_a_text_that_is_too_long_says_by_how_much_and_that_nothing_was_cut():
    with pytest.raises(UsageError, match=r"4,380 characters.* 2,000 .* 2,380"):
        p.PROMPT.read("x" * 4380)


# ------------------------------------------------------------------------------------------------- the page Plan


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A runs directory with the run of a plan, which pages only read."""
    path = tmp_path_factory.mktemp("planned") / "runs"
    make_plan_run(path)
    return path


HAND_MADE = {"rule": "own", "experts": ",".join(["2", "0", "5"] * 10)}


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=name_of)
@pytest.mark.parametrize("name", ["budget", "topk", "tokens"])
def test_a_bad_number_leaves_the_plan_as_it_is_and_says_the_range(planned, name, value):
    context = shell.page_context(planned, HAND_MADE)
    made = make_plan(plan.known(context), context.query)
    assert made is not None and made.rule == "own"
    if name == "tokens" and value == 1e12:
        assert changed(name, value, made) == {"tokens": "1000000000000"}
        return
    with pytest.raises(UsageError, match="whole number"):
        changed(name, value, made)


def test_a_box_that_is_left_as_it_was_keeps_a_plan_by_hand(planned):
    context = shell.page_context(planned, HAND_MADE)
    made = make_plan(plan.known(context), context.query)
    assert made is not None
    assert changed("budget", made.budget, made) is None and changed("topk", made.top_k, made) is None
    assert changed("round", "round_up", made) == {"round": "round_up"}
    assert changed("budget", made.budget + 1, made) == {"budget": str(made.budget + 1), "experts": "", "rule": ""}
    assert changed("rule", "own", made)["experts"] == HAND_MADE["experts"]


@pytest.mark.parametrize("value", BAD_CHOICES, ids=name_of)
@pytest.mark.parametrize("name", ["rule", "round"])
def test_a_bad_choice_is_refused(name, value):
    with pytest.raises(UsageError, match="; expected "):
        changed(name, value, None)


RAW = ("-5", "1e300", "nan", "inf", "2.5", "x", "9" * 400, "٣", "1_000", " ")


@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("name", sorted(p.ADDRESS))
def test_a_bad_number_in_an_address_is_left_out_with_a_notice(planned, name, raw):
    context = shell.page_context(planned, {name: raw})
    assert getattr(context.query, name) is None
    assert p.ADDRESS[name].name in context.notice and "expected a whole number" in context.notice


@pytest.mark.parametrize(("name", "raw"), list(zip(cycle(sorted(p.ADDRESS)), RAW, strict=False)))
def test_the_notice_of_a_bad_number_in_an_address_is_said_on_the_page(planned, name, raw):
    context = shell.page_context(planned, {name: raw})
    assert "expected a whole number" in plan.compose(context, planned)["top"]


@pytest.mark.parametrize(
    ("experts", "said"),
    [
        ("1,2", "has 2 numbers"),
        (",".join(["1"] * 29 + ["-2"]), "New experts of a layer is “-2”"),
        (",".join(["1"] * 29 + ["1000"]), "expected a whole number from 0 to 99"),
        (",".join(["0"] * 30), "no new expert at all"),
        (",".join(["1"] * 29 + ["x"]), "“x”"),
    ],
)
def test_a_plan_by_hand_that_cannot_be_is_said_to_be_divided_anew(planned, experts, said):
    context = shell.page_context(planned, {"rule": "own", "experts": experts})
    made = make_plan(plan.known(context), context.query)
    assert made is not None and said in made.problem and "divided anew" in made.problem


def test_a_budget_beyond_the_layers_and_a_similarity_that_does_not_fit_are_said(planned):
    context = shell.page_context(planned, {"budget": "2971", "similarity": "0.1,0.2"})
    parts = plan.compose(context, planned)
    assert "expected a whole number from 1 to 2,970" in parts["costs"] and "2 numbers" in parts["top"]


# ---------------------------------------------------------------------------------------------- the page Compare


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=name_of)
@pytest.mark.parametrize("name", ["tokens", "temperature", "seed"])
def test_a_bad_number_starts_no_generation_and_is_said(runs_dir, run, name, value):
    if name == "temperature" and value in (2.5, False, True) and not isinstance(value, bool):
        value = 2.51
    asked = {"prompt": "x", "language": "el", "tokens": 8, "temperature": 0, "seed": 0, name: value}
    ((line, *rest),) = compare.generate(runs_dir, asked, {"run": run.id})
    assert "expected a" in line and "lpr-bad-line" in line and len(rest) == 3


@pytest.mark.parametrize("value", [*BAD_TEXTS, "", "  "], ids=name_of)
def test_a_bad_prompt_starts_no_generation_and_is_said(runs_dir, run, value):
    asked = {"prompt": value, "language": "el", "tokens": 8, "temperature": 0, "seed": 0}
    ((line, *_),) = compare.generate(runs_dir, asked, {"run": run.id})
    assert "The prompt" in line and "lpr-bad-line" in line


# ---------------------------------------------------------------------------------------------- the page Routing


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=name_of)
def test_a_bad_expert_is_refused_before_a_model_is_loaded(runs_dir, run, value):
    ((line, _),) = routing.try_change(runs_dir, "force", value, "all", {"run": run.id, "text": "en"})
    assert "Expert" in line and "expected a whole number" in line


@pytest.mark.parametrize(
    "value", [None, 5, ["0"], "x", "3-1", "0-99999999999", "9" * 5000, "7" * 201, "-1"], ids=name_of
)
def test_bad_layers_are_refused_before_a_model_is_loaded(runs_dir, run, value):
    ((line, _),) = routing.try_change(runs_dir, "ban", 0, value, {"run": run.id, "text": "en"})
    assert "ayers" in line and "lpr-bad-line" in line


@pytest.mark.parametrize("value", [*BAD_TEXTS, "", " "], ids=name_of)
def test_a_bad_text_of_the_readers_own_is_refused(runs_dir, run, value):
    ((line, *_),) = trace_own(runs_dir, value, "el", {"run": run.id})
    assert "The text" in line and "lpr-bad-line" in line


# ------------------------------------------------------------------------------------------------ named endpoints

ASKED = [
    *(("plan", name, value) for name in ("budget", "top_k") for value in BAD_NUMBERS if (name, value) != ("budget", 0)),
    *(("plan", name, value) for name in ("rule", "rounding") for value in BAD_CHOICES),
    *(("plan", "similarity", value) for value in BAD_LISTS),
    *(("generate_pair", name, value) for name in ("max_new_tokens", "temperature", "seed") for value in BAD_NUMBERS),
    *(("generate_pair", "prompt", value) for value in BAD_TEXTS),
    *(("trace_text", "text", value) for value in BAD_TEXTS),
    *(("trace_text", "language", value) for value in (None, 5, ["el"], "x" * 100)),
    *(("expert_load", "layer", value) for value in [*BAD_NUMBERS, 500]),
    *(("expert_load", "language", value) for value in (None, 5, "xx", ["el"])),
    *(
        (name, "run", value)
        for name in ("plan", "retention", "expert_load")
        for value in (None, 5, True, ["a"], "x" * 999)
    ),
]
ASKED = [
    one for one in ASKED if not (one[0] == "plan" and one[1] == "budget" and one[2] is False)
    and not (one[1] == "temperature" and one[2] in (2.5,))
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "runs"
    make_plan_run(path)
    return path, make_run(path).id


def arguments(endpoint: str, of: str, **changes) -> dict:
    usual = {
        "plan": {"run": "", "budget": 0, "rule": "similarity", "rounding": "largest_remainder", "top_k": 2},
        "generate_pair": {"run": of, "prompt": "x", "max_new_tokens": 8, "temperature": 0, "seed": 0},
        "trace_text": {"run": of, "text": "x", "language": ""},
        "expert_load": {"run": of, "language": "", "layer": -1},
        "retention": {"run": of},
    }
    usual["plan"]["similarity"] = None
    return usual[endpoint] | changes


@pytest.mark.parametrize(("endpoint", "name", "value"), ASKED, ids=lambda value: str(value)[:16])
def test_an_endpoint_refuses_a_bad_value_in_a_sentence(folder, endpoint, name, value):
    runs_dir, run = folder
    with pytest.raises(LprError) as refused:
        api.endpoints(runs_dir)[endpoint](**arguments(endpoint, run, **{name: value}))
    assert "expected" in str(refused.value) or "at most" in str(refused.value) or "character" in str(refused.value)


@pytest.mark.slow
def test_over_http_a_bad_value_is_a_sentence_and_never_status_500(folder):
    runs_dir, run = folder
    address = urlsplit(serve(runs_dir, port=None, open_browser=False, block=False))
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    wrong = []
    shapes = [("plan", data) for data in ([], [1], None, {}, "x", [""] * 50)]
    calls = [(endpoint, list(arguments(endpoint, run, **{name: value}).values())) for endpoint, name, value in ASKED]
    for endpoint, data in [*calls, *shapes]:
        body = json.dumps({"data": data}).encode()
        if len(body) > 900_000:
            continue
        connection.request("POST", f"/gradio_api/run/{endpoint}", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        said = answer.read().decode()
        if answer.status >= 500 or answer.status < 400 or len(said) < 20 or '"error": null' in said:
            wrong.append((endpoint, str(data)[:80], answer.status, said[:200]))
    assert not wrong


def test_an_unforeseen_failure_of_an_endpoint_has_a_sentence_too(folder, monkeypatch):
    def broken():
        raise KeyError("surprise")

    broken.__name__ = "plan"
    with pytest.raises(Error, match="plan failed"):
        api._in_sentences(broken)()


def test_every_number_box_of_the_pages_hands_on_what_was_typed(built):
    from gradio.components import Number, Slider

    boxes = [one for one in built.blocks.values() if isinstance(one, Number | Slider)]
    assert len(boxes) >= 6
    for box in boxes:
        for value in (-5, 1e300, "x", None, math.nan, True, [1]):
            assert box.preprocess(value) is value or math.isnan(value), box.label


def test_a_choice_that_the_page_no_longer_offers_reaches_the_handler_also_after_the_choices_changed(built):
    from gradio.components import CheckboxGroup, Dropdown, Radio

    found = [one for one in built.blocks.values() if isinstance(one, CheckboxGroup | Dropdown | Radio)]
    assert len(found) > 15
    for one in found:
        renewed = type(one)(**{**one.constructor_args, "choices": ["a"]})  # as gradio does for each visitor
        value = ["z"] if isinstance(one, CheckboxGroup) else "z"
        assert one.preprocess(value) == renewed.preprocess(value) == value, one.label
        assert renewed.get_block_name() == one.get_block_name() in ("checkboxgroup", "dropdown", "radio")


def test_an_address_says_a_number_again_exactly():
    assert Query.parse({"seed": str(2**32 - 1), "tokens": "1e12"}).urlencode() == "seed=4294967295&tokens=1000000000000"
