"""The last layer's guess is the model's own, the base's is the base's, and every number is that of plain logits."""

import json

import numpy as np
import pytest
import torch

from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.measure.guesses.compute import lens_steps, logit_lens
from lpr_lab.measure.guesses.lens import finding_in_words
from lpr_lab.measure.routing import trace
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model import head
from lpr_lab.model.adapter import forward_context, moe_layers
from lpr_lab.model.bases.families import final_norm
from lpr_lab.model.forward import inference
from lpr_lab.model.stages import enter_stage, selected_stage, use_stage

TEXT = "A letter came. Το πρωί άνοιξα."


@torch.no_grad()
def expanded(base, experts, **options):
    """Return an expansion whose routers and experts all differ, at the stage `G1 review`."""
    model = upcycle(base, experts, router_bias=True, **options)
    enter_stage(model, "review")
    for layer in moe_layers(model):
        for part in (layer.router, *layer.stacks):
            for parameter in part.parameters():
                parameter.add_(0.4 * torch.randn_like(parameter))
    return model.eval()


def logits_of(model, lens, stage):
    with use_stage(model, stage), inference(model, None):  # in bfloat16 its products are rounded the same way
        return model(input_ids=torch.tensor([lens.token_ids]), use_cache=False).logits[0].float()


def assert_is_the_model_s_own(found, logits):
    """The best guess of the last layer is a token than which none is likelier, and its probability is the model's."""
    best, probs = torch.from_numpy(found.best[-1]), logits.softmax(-1)
    assert torch.equal(logits.gather(1, best[:, None])[:, 0], logits.max(-1).values)
    np.testing.assert_allclose(found.probs[-1], probs.topk(found.probs.shape[-1]).values, rtol=1e-5)
    assert (found.final_rank[-1] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_last_layer_guesses_what_the_model_says_in_every_family(family, tiny_model, tiny_tokenizer, dtype):
    model = expanded(tiny_model(family, num_layers=3).to(dtype), (2, 1, 0))
    lens = logit_lens(model, tiny_tokenizer, TEXT)
    assert lens.layers.tolist() == [0, 1, 2]
    assert_is_the_model_s_own(lens.expanded, logits_of(model, lens, "G1 review"))
    assert_is_the_model_s_own(lens.base, logits_of(model, lens, None))


@pytest.mark.parametrize(
    "made", [{"final_logit_softcapping": 2.0}, {"final_logit_softcapping": None}, {"tie_word_embeddings": True}]
)
def test_a_soft_cap_and_tied_embeddings_are_the_model_s_own(made, tiny_model, tiny_tokenizer):
    base = tiny_model("gemma2")
    for name, value in made.items():
        setattr(base.config, name, value)
    model = expanded(base, (1, 1))
    lens = logit_lens(model, tiny_tokenizer, TEXT)
    assert_is_the_model_s_own(lens.expanded, logits_of(model, lens, "G1 review"))


@pytest.fixture(scope="module")
def model(tiny_model):
    torch.manual_seed(0)
    return expanded(tiny_model("llama", num_layers=4), (1, 1, 0, 3))


@pytest.fixture(scope="module")
def lens(model, tiny_tokenizer):
    return logit_lens(model, tiny_tokenizer, TEXT, "en", languages=["en", "el"])


def plainly(model, lens, stage):
    """Return logits [L, T, V] by the library's own hidden states, norm and head."""
    inner = model.get_base_model()
    with torch.no_grad(), use_stage(model, stage):
        output = model(input_ids=torch.tensor([lens.token_ids]), use_cache=False, output_hidden_states=True)
        states = [inner.model.norm(state[0]) for state in output.hidden_states[1:-1]] + [output.hidden_states[-1][0]]
        return torch.stack([inner.lm_head(state) for state in states])


@pytest.mark.parametrize(("name", "stage"), [("base", None), ("expanded", "G1 review")])
def test_every_number_is_that_of_the_whole_logits_of_every_layer(model, lens, name, stage):
    logits, found = plainly(model, lens, stage), lens.guesses[name]
    probs = logits.softmax(-1)
    np.testing.assert_allclose(found.probs, probs.topk(5).values, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found.token_ids, probs.topk(5).indices)
    final = logits[-1].argmax(-1)
    follows = torch.tensor(lens.token_ids[1:])
    for prefix, asked, places in (("next", follows, len(follows)), ("final", final, len(final))):
        of_asked = probs[:, :places].gather(2, asked.expand(4, -1)[..., None])
        np.testing.assert_allclose(getattr(found, f"{prefix}_prob")[:, :places], of_asked[..., 0], rtol=1e-4, atol=1e-7)
        rank = 1 + (probs[:, :places] > of_asked).sum(-1)
        np.testing.assert_array_equal(getattr(found, f"{prefix}_rank")[:, :places], rank)
    assert np.isnan(found.next_prob[:, -1]).all() and (found.next_rank[:, -1] == 0).all()


def test_a_layer_before_the_first_difference_guesses_the_same_for_both_and_later_ones_differ(
    tiny_model, tiny_tokenizer
):
    torch.manual_seed(0)
    found = logit_lens(expanded(tiny_model("llama", num_layers=3), (0, 1, 1)), tiny_tokenizer, TEXT)
    np.testing.assert_array_equal(found.base.probs[0], found.expanded.probs[0])
    assert abs(found.base.probs[1] - found.expanded.probs[1]).max() > 1e-3


def test_the_routing_beside_it_is_that_of_the_trace_and_missing_where_no_router_is(model, lens, tiny_tokenizer):
    routing = trace(model, tiny_tokenizer, TEXT)
    np.testing.assert_allclose(lens.new_weight[[0, 1, 3]], 1 - routing.original_weight, atol=1e-6)
    assert np.isnan(lens.new_weight[2]).all()
    assert lens.is_for(routing)
    np.testing.assert_allclose(np.log(lens.expanded.next_prob[-1, :-1]), routing.log_prob[1:], atol=1e-4)
    np.testing.assert_allclose(np.log(lens.base.next_prob[-1, :-1]), routing.base_log_prob[1:], atol=1e-4)


def test_no_more_rows_of_logits_are_made_than_a_few_at_once(model, lens, tiny_tokenizer, monkeypatch):
    monkeypatch.setitem(head._LOGITS_AT_ONCE, "cpu", 5 * len(tiny_tokenizer))
    sizes = []
    hook = model.get_base_model().lm_head.register_forward_hook(lambda _, __, made: sizes.append(made.shape[-2]))
    try:
        again = logit_lens(model, tiny_tokenizer, TEXT)
    finally:
        hook.remove()
    probes = head._PROBE_TOKENS
    assert max(size for size in sizes if size != probes) == 5
    np.testing.assert_allclose(again.expanded.probs, lens.expanded.probs, rtol=1e-5)
    np.testing.assert_array_equal(again.base.next_rank, lens.base.next_rank)


def test_an_earlier_stage_can_be_asked_for_and_the_one_in_use_stays(model, tiny_tokenizer):
    found = logit_lens(model, tiny_tokenizer, TEXT, stage="G1 expand", top=1)
    assert found.stage == "G1 expand" and selected_stage(model) == "G1 review"
    assert_is_the_model_s_own(found.expanded, logits_of(model, found, "G1 expand"))


def test_between_two_steps_nothing_is_left_on_the_model(model, tiny_tokenizer):
    layers = model.get_base_model().model.layers
    hooks = [len(layer._forward_hooks) for layer in layers]
    model.train()
    try:
        steps = lens_steps(model, tiny_tokenizer, TEXT)
        step = next(steps)
        assert (step.done, step.total, step.result) == (1, 8, None) and model.training
        assert not forward_context(model).recorders
        assert [len(layer._forward_hooks) for layer in layers] == hooks
        *_, last = steps
        assert last.done == 8 and last.result is not None
    finally:
        model.eval()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text": " "}, "empty"),
        ({"stage": "G1 reviews"}, "G1 review"),
        ({"top": 0}, "1 to 400"),
        ({"top": 401}, "1 to 400"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(model, tiny_tokenizer, options, said):
    with pytest.raises(UsageError, match=said):
        lens_steps(model, tiny_tokenizer, **{"text": TEXT, **options})
    with pytest.raises(UsageError, match="xx"):
        logit_lens(model, tiny_tokenizer, TEXT, languages=["xx"])


def test_a_model_without_a_final_norm_is_refused_and_told_what_was_found(tiny_model, tiny_tokenizer):
    model = expanded(tiny_model("llama"), (1, 1))
    model.get_base_model().model.last = model.get_base_model().model.norm
    del model.get_base_model().model.norm
    with pytest.raises(UnsupportedModelError, match=r"ln_f.*rotary_emb, last"):
        lens_steps(model, tiny_tokenizer, TEXT)


def test_a_model_that_does_more_between_its_layers_and_its_head_is_refused(tiny_model, tiny_tokenizer):
    model = expanded(tiny_model("llama"), (1, 1))
    norm = final_norm(model.get_base_model())
    calls = []
    norm.register_forward_hook(lambda _, __, made: calls.append(1) or made + len(calls))
    with pytest.raises(UnsupportedModelError, match="more between its layers"):
        next(lens_steps(model, tiny_tokenizer, TEXT))


def test_the_table_and_the_json_hold_every_guess_with_its_language(lens):
    table = lens.to_frame()
    assert len(table) == 2 * 4 * lens.num_tokens and list(table["model"].unique()) == ["base", "expanded"]
    row = table[(table["model"] == "expanded") & (table["layer"] == 3) & (table["token"] == 2)].iloc[0]
    assert row["guess_id"] == lens.expanded.best[3, 2] and row["next_rank"] == lens.expanded.next_rank[3, 2]
    assert row["new_weight"] == pytest.approx(lens.new_weight[3, 2])
    assert row["guess_language"] == lens.language_of(int(row["guess_id"])) and row["guess"] == lens.spelled(
        row["guess_id"]
    )
    record = json.loads(json.dumps(lens.to_dict(), allow_nan=False))
    assert record["guesses"]["base"]["next_prob"][0][-1] is None and record["new_weight"][2][0] is None
    assert record["vocabulary"][str(row["guess_id"])]["language"] == row["guess_language"]
    np.testing.assert_allclose(record["guesses"]["expanded"]["probs"], lens.expanded.probs, atol=1e-6)


def test_shares_of_a_layer_s_languages_add_up_and_the_sentence_names_a_layer(lens):
    shares = lens.languages_by_layer().groupby(["model", "layer"])["share"].sum()
    assert len(shares) == 8 and shares.to_numpy() == pytest.approx(1)
    assert "The base model settles on its own best guess in layer" in finding_in_words(lens, "base")
