"""Sides of page `/compare` whose experts are forced, banned or scaled: what is asked, written, kept and traced."""

import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from helpers.cells import last_value
from helpers.small_expansion import make_expansion
from helpers.words import words
from lpr_lab.dashboard import page_data
from lpr_lab.dashboard.pages.compare import generate as compare
from lpr_lab.dashboard.pages.compare import steering
from lpr_lab.dashboard.pages.compare.steering import Wish, wish_of
from lpr_lab.errors import UsageError
from lpr_lab.runs.people.continuations import pairs

AS_IS = {f"{side}_{part}": value for side in ("left", "right") for part, value in zip(
    ("way", "expert", "strength", "layers", "after"), ("", 0, 4, "all", 0), strict=True
)}  # fmt: skip


def ask(**changes):
    asked = {"prompt": "The baker", "language": "en", "tokens": 6, "temperature": 0, "seed": 0, "blind": False}
    return asked | {"left": "base", "right": "expanded"} | AS_IS | changes


@pytest.mark.parametrize(
    ("wish", "told", "said"),
    [
        (Wish("force", 1, 4, "all"), {"force": {0: 1, 3: 1}}, "expert 1 forced in all layers"),
        (Wish("ban", 2, 4, "3"), {"ban": {3: 2}}, "expert 2 banned in layers 3"),
        (Wish("scale", 2, 0.5, ""), {"scale": {3: (2, 0.5)}}, "expert 2 × 0.5 in all layers"),
        (
            Wish("force", 1, 4, "all", 8),
            {"force": {0: 1, 3: 1}, "after": 8},
            "expert 1 forced in all layers after 8 tokens",
        ),
    ],
)
def test_a_wish_is_told_to_the_layers_that_have_the_expert(wish, told, said):
    assert wish.told({0: 2, 3: 4}) == told and wish.words == said


@pytest.mark.parametrize(("changes", "said"), [({"expert": 9}, "No layer has expert 9"), ({"layers": "5"}, "Layer 5")])
def test_an_expert_or_a_layer_that_is_not_there_is_refused(changes, said):
    wish = wish_of(ask(right_way="force", **{f"right_{key}": value for key, value in changes.items()}), "right")
    assert wish is not None
    with pytest.raises(UsageError, match=said):
        wish.told({0: 2, 3: 4})


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model, tiny_tokenizer):
    made, _ = make_expansion(tmp_path_factory.mktemp("steered"), tiny_model(), tiny_tokenizer, new_experts=(1, 2))
    return made


def last_of(run, **changes):
    steps = list(compare.generate(run.path.parent, ask(**changes), {"run": run.id}))
    return words(steps[-1][0]), steps[-1][3]


def test_a_side_with_all_on_the_original_expert_writes_as_the_base_is_kept_and_traced_beside_it(run):
    said, latest = last_of(run, right_way="force")
    assert "Done in" in said and latest.pair.left.text == latest.pair.right.text
    assert latest.pair.names == ("base", "expanded · expert 0 forced in all layers")
    (record,) = pairs(run).values()
    assert record["right_steering"] == {"force": {"0": 0, "1": 0}} and record["right"] == latest.pair.names[1]
    *_, (line, strips) = steering.trace_written(latest.pair, latest.written)
    assert "stands under each" in words(line) and strips.count('class="lpr-strip') == 2
    assert re.search("Base model .*Expanded model · expert 0 forced in all layers", words(strips))


@pytest.mark.parametrize(
    "changes", [{"right_way": "force", "right_after": 3}, {"right_way": "scale", "right_strength": 2.5}]
)
def test_a_steered_pair_taken_along_as_python_writes_the_same_again(run, changes):
    last_of(run, **changes)
    (*_, (name, record)) = pairs(run).items()
    client = TestClient(Starlette(routes=[page_data.data_route(run.path.parent)]))
    view = client.get("/data/compare/index.json", params={"run": run.id, "text": name}).json()
    assert "right_steering={" in view["cell"]
    found = last_value(view["cell"])
    assert found["continuation"].tolist() == [record["left_text"], record["right_text"]]
    assert found["model"].tolist() == [record["left"], record["right"]]


def test_scaling_changes_what_is_written_and_the_other_side_stays(run):
    _, free = last_of(run, left="expanded", right="expanded")
    _, scaled = last_of(run, left="expanded", right_way="scale", right_strength=10)
    assert scaled.pair.left.text == free.pair.left.text
    assert scaled.written[1].steering == {"scale": {0: (0, 10.0), 1: (0, 10.0)}}


def test_a_switch_in_the_middle_leaves_what_was_written_before_it_and_is_traced_where_it_is(run):
    _, latest = last_of(run, left="expanded", right_way="force", right_after=3)
    left, right = latest.written
    assert left.ids[:3] == right.ids[:3] and len(right.ids) == 6
    assert latest.pair.names[1].endswith("after 3 tokens")
    *_, (_, strips) = steering.trace_written(latest.pair, latest.written)
    assert strips.count('class="lpr-strip') == 2
    traced = steering._trace(latest.pair, right)
    # The pass over a token chooses the next: the first steered one is the last before the switch.
    of_text = traced.original_weight[:, -len(right.ids) :].min(axis=0)
    assert (of_text[2:] == 1).all() and (of_text[:2] < 1).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"left_way": "ban"}, "no experts to steer"),
        ({"right_way": "push"}, "“push”"),
        ({"right_way": "scale", "right_strength": 0}, "Strength is 0"),
        ({"right_way": "force", "right_layers": "7"}, "Layer 7"),
        ({"right_way": "force", "right_after": -1}, "-1"),
    ],
)
def test_what_cannot_be_steered_is_said_and_nothing_is_written(run, changes, said):
    before = len(pairs(run))
    line, _ = last_of(run, **changes)
    assert said in line and len(pairs(run)) == before
