"""The load of the experts that were added last is that of a loop over tokens, and expert 0 never counts as unused."""

from types import SimpleNamespace

import torch

from lpr_lab.method.expand import expand
from lpr_lab.method.training.load import choices, least_load
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.router import Routing, route

SETTINGS = TrainSettings(tokens=2 * 128, block_tokens=32, blocks_per_step=4, blocks_per_forward=2, precision="fp32")


def layer(index, newest):
    stack = SimpleNamespace(num_experts=newest) if newest else None
    return SimpleNamespace(layer=index, expansion=1, stack_of={0: None, 1: stack}.get)


def test_choices_are_those_of_a_loop_over_tokens_without_padding_and_without_weight_0():
    generator = torch.Generator().manual_seed(0)
    routing, is_text = route(torch.randn(40, 5, generator=generator), 2), torch.rand(40, generator=generator) > 0.3
    weights = routing.expert_weights.clone()
    weights[:10, 1] = 0  # as behind a routing classifier
    expected = [0] * 5
    for token in range(40):
        for place in range(2):
            if is_text[token] and weights[token, place] > 0:
                expected[int(routing.expert_ids[token, place])] += 1
    seen = Routing(routing.router_logits, routing.expert_ids, weights)
    assert choices({3: seen}, is_text)[3].tolist() == expected


def test_the_lowest_load_is_looked_for_among_the_experts_that_were_added_last():
    counts = {0: [0, 0, 30, 10], 4: [20, 20, 20, 20]}
    found = least_load(counts, [layer(0, 2), layer(4, 2)])
    assert found == {"least_load": 1.0, "least_load_layer": 0.0, "least_load_expert": 3.0}
    assert least_load({0: [0, 0, 40]}, [layer(0, 0)]) == {}  # given none by the last group
    assert least_load({}, [layer(0, 2)]) == {} and least_load({0: [0, 0]}, [layer(0, 1)]) == {}


def test_a_training_says_the_load_of_every_step(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    model, seen = upcycle(tiny_model("llama"), [3, 1]), []
    options = {"languages": ["el"], "out": tmp_path / "out", "settings": SETTINGS, "log": seen.append}
    expand(model, tiny_tokenizer, tiny_corpus, **options)
    assert len(seen) == 2
    for metrics in seen:
        assert 0 <= metrics["least_load"] <= 1 and metrics["least_load_layer"] in (0, 1)
        assert metrics["least_load_expert"] >= 1
