"""Two generations in lockstep are what each side writes on its own, from one copy of the weights."""

import pytest
import torch

from lpr_lab.errors import UsageError
from lpr_lab.measure.generation import generate_pair, trace_continuation
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import forward_context, moe_layers
from lpr_lab.model.capture import record_routing
from lpr_lab.model.stages import enter_stage, select_stage, selected_stage, stage_names, use_stage
from lpr_lab.model.steering import steer


@pytest.fixture(scope="module")
def expanded(tiny_model):
    """A random expansion with two stages whose routers read the running mean, which the cache must carry."""
    torch.manual_seed(0)
    model = upcycle(tiny_model("llama", num_layers=3), (1, 0, 3), router_input="token_and_mean", router_bias=True)
    _shake(model)
    enter_stage(model, "review")
    _shake(model)
    return model


@torch.no_grad()
def _shake(model):
    for layer in moe_layers(model):
        for parameter in [*layer.router.parameters(), *layer.stacks[0].parameters()]:
            parameter.add_(0.3 * torch.randn_like(parameter))


@torch.no_grad()
def alone(model, tokenizer, prompt, tokens):
    ids = torch.tensor([[0, *tokenizer(prompt)["input_ids"]]])
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": tokens, "do_sample": False}
    return model.generate(ids, **options)[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize(("left", "right"), [("base", "expanded"), ("G1 expand", "G1 review"), ("expanded", "base")])
def test_each_side_is_what_its_model_generates_on_its_own(expanded, tiny_tokenizer, left, right):
    *_, last = generate_pair(expanded, tiny_tokenizer, "The baker", 8, left=left, right=right)
    for side, name in ((last.left, left), (last.right, right)):
        stage = None if name == "base" else stage_names(expanded)[-1] if name == "expanded" else name
        with use_stage(expanded, stage):
            assert list(side.ids) == alone(expanded, tiny_tokenizer, "The baker", 8)[: len(side.ids)]
    pairs = enumerate(zip(last.left.ids, last.right.ids, strict=False))
    first = next((index for index, (one, two) in pairs if one != two), None)
    assert first is None or last.diverged_at == first


def test_another_model_can_write_on_one_side(expanded, tiny_model, tiny_tokenizer):
    other = upcycle(tiny_model("llama", num_layers=3), (1, 1, 1))
    *_, last = generate_pair(expanded, tiny_tokenizer, "The baker", 8, left="base", right_model=other)
    assert last.left.ids == last.right.ids and last.diverged_at is None  # untrained: the same base


def test_between_two_steps_the_model_stands_where_it_stood(expanded, tiny_tokenizer):
    select_stage(expanded, "G1 expand")
    try:
        steps = generate_pair(expanded, tiny_tokenizer, "The baker", 4, left="base", right="G1 review")
        next(steps)
        assert selected_stage(expanded) == "G1 expand"
        assert not any(layer.disable_adapters for layer in moe_layers(expanded))
    finally:
        select_stage(expanded, "G1 review")


def test_a_step_computes_one_token_and_the_head_of_one_position(expanded, tiny_tokenizer):
    seen = []
    inner = expanded.get_base_model()
    handles = [
        inner.model.register_forward_pre_hook(
            lambda *given: seen.append(given[2]["input_ids"].shape[1]), with_kwargs=True
        ),
        inner.lm_head.register_forward_pre_hook(lambda _, given: seen.append(-given[0].shape[1])),
    ]
    try:
        list(generate_pair(expanded, tiny_tokenizer, "The baker", 3))
    finally:
        for handle in handles:
            handle.remove()
    prompt = 1 + len(tiny_tokenizer("The baker")["input_ids"])
    assert seen == [prompt, -1, prompt, -1, *[1, -1] * 4]


def test_sampling_with_one_seed_repeats_itself(expanded, tiny_tokenizer):
    runs = [list(generate_pair(expanded, tiny_tokenizer, "The", 6, temperature=1.0, seed=3))[-1] for _ in range(2)]
    assert (runs[0].left.ids, runs[0].right.ids) == (runs[1].left.ids, runs[1].right.ids)


def test_shown_text_only_grows_and_never_holds_a_replacement_character(expanded, tiny_tokenizer):
    before = ""
    for step in generate_pair(expanded, tiny_tokenizer, "สวัสดี", 24, temperature=1.0, seed=1):
        assert step.right.text.startswith(before)
        assert "\ufffd" not in step.right.text
        before = step.right.text
    assert step.finished and step.right.seconds <= step.seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": " "}, "empty"),
        ({"left": "G1 reviev"}, "mean 'G1 review'"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_what_cannot_be_generated_is_refused_before_the_first_step(expanded, tiny_tokenizer, options, message):
    with pytest.raises(UsageError, match=message):
        generate_pair(expanded, tiny_tokenizer, **{"prompt": "The", **options})


def test_a_prompt_with_half_of_a_character_is_refused_with_its_place(expanded, tiny_tokenizer):
    with pytest.raises(UsageError, match=r"prompt .*position 5 .*U\+D83D"):
        generate_pair(expanded, tiny_tokenizer, "Γεια\ud83d")


# ------------------------------------------------------------------------------------------------------- steered

STEERING = {"forced": {"force": {0: 1}}, "banned": {"ban": {2: [1, 3]}}, "scaled": {"scale": (0, 5.0)}}


@pytest.mark.parametrize("told", STEERING.values(), ids=STEERING)
def test_a_steered_side_is_what_the_steered_model_generates_on_its_own_and_the_other_side_is_free(
    expanded, tiny_tokenizer, told
):
    *_, last = generate_pair(expanded, tiny_tokenizer, "The baker", 8, left="expanded", right_steering=told)
    assert list(last.left.ids) == alone(expanded, tiny_tokenizer, "The baker", 8)[: len(last.left.ids)]
    with steer(expanded, **told):
        assert list(last.right.ids) == alone(expanded, tiny_tokenizer, "The baker", 8)[: len(last.right.ids)]
    assert forward_context(expanded).steering is None


def test_all_on_the_original_expert_writes_what_the_base_writes(expanded, tiny_tokenizer):
    *_, last = generate_pair(expanded, tiny_tokenizer, "The baker", 8, right_steering={"force": 0})
    assert last.left.ids == last.right.ids


SWITCH = {"force": {0: 0, 2: 0}, "after": 3}


def test_a_side_can_be_steered_in_the_middle_and_is_what_it_was_until_there(expanded, tiny_tokenizer):
    prompt = "The baker"
    *_, last = generate_pair(expanded, tiny_tokenizer, prompt, 8, left="expanded", right_steering=SWITCH)
    assert last.left.ids[:3] == last.right.ids[:3] and last.left.ids != last.right.ids
    # What follows is what the steered model writes after a prompt that it read as it is: here, one pass a token.
    ids = torch.tensor([[0, *tiny_tokenizer(prompt)["input_ids"]]])
    prompt_tokens = ids.shape[1]
    with steer(expanded, force=SWITCH["force"], start=prompt_tokens + 2), torch.no_grad():
        for _ in range(len(last.right.ids)):
            following = expanded(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, following], dim=1)
    assert ids[0, prompt_tokens:].tolist() == list(last.right.ids)


@pytest.mark.parametrize(
    ("stage", "told"), [("expanded", STEERING["scaled"]), ("G1 expand", None), ("expanded", SWITCH)]
)
def test_the_trace_of_a_continuation_is_the_routing_while_it_was_written(expanded, tiny_tokenizer, stage, told):
    prompt = "The baker"
    with record_routing(expanded) as record:
        seen, written = [], None
        for step in generate_pair(expanded, tiny_tokenizer, prompt, 6, right=stage, right_steering=told):
            written = step.right
            seen.append({layer: routing.expert_weights[-1] for layer, routing in record.routing.items()})
    assert written is not None
    traced = trace_continuation(expanded, tiny_tokenizer, prompt, written, "en", stage=stage, steering=told)
    assert traced.token_ids[-len(written.ids) :] == list(written.ids)
    start = traced.num_tokens - len(written.ids) - 1
    for place, weights in enumerate(seen[: len(written.ids)]):
        for row, layer in enumerate(traced.layers.tolist()):
            found = traced.expert_weights[row, start + place, : len(weights[layer])]
            assert found == pytest.approx(weights[layer].numpy(), abs=1e-5)
    base = trace_continuation(expanded, tiny_tokenizer, prompt, written, stage="base")
    assert base.log_prob is not None and traced.base_log_prob is not None
    assert base.log_prob[1:] == pytest.approx(traced.base_log_prob[1:], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"left_steering": {"force": 0}}, "no experts to steer"),
        ({"right_steering": {"push": 0}}, "expected force, ban, scale or after"),
        ({"right_steering": {"force": {1: 0}}}, "Layer 1 has no router"),
        ({"right_steering": {"force": 0, "after": -1}}, "after -1 tokens"),
    ],
)
def test_steering_that_cannot_be_is_refused_before_the_first_step(expanded, tiny_tokenizer, options, said):
    with pytest.raises(UsageError, match=said):
        generate_pair(expanded, tiny_tokenizer, "The", **options)
