"""Column freezing and language-specific neurons: what is chosen, and that nothing else moves by a single bit."""

import pytest
import torch
from torch import nn

from helpers.tiny_corpus import steps_of_four_blocks
from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.method import baselines
from lpr_lab.method.baselines.calibration import linear_maps
from lpr_lab.method.baselines.lape import specific_neurons
from lpr_lab.method.baselines.ssu import importance
from lpr_lab.model.adapter import trainable_parameters
from lpr_lab.model.tuned.slices import INPUTS, learn_slices, weight_of

SETTINGS = steps_of_four_blocks(2)
TEXT = {"tokens_per_language": 256, "precision": "fp32"}


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.arange(20)[None] + 5, use_cache=False).logits


def finetune(model, tokenizer, corpus, out, **changes):
    settings = SETTINGS.__class__(**{**vars(SETTINGS), **changes})
    return baselines.finetune(model, tokenizer, corpus, original=[], expanded=["el", "tr"], out=out, settings=settings)


def moved(before: torch.Tensor, after: torch.Tensor, dim: int) -> set[int]:
    """Return the slices along a dimension that are not what they were, bit for bit."""
    return set((before != after).any(1 - dim).nonzero()[:, 0].tolist())


# ----------------------------------------------------------------------------------------------------------------- ssu


def test_importance_is_weight_times_length_of_the_input_summed_over_the_column():
    linear = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 1.0], [-3.0, 0.0]]))
    assert importance(linear, torch.tensor([10.0, 1.0]).double()).tolist() == [40.0, 3.0]


def test_the_columns_that_matter_most_to_the_originals_are_the_ones_left_out(tiny_model, tiny_tokenizer, tiny_corpus):
    model = tiny_model("llama")
    path = "model.layers.0.mlp.down_proj"
    down = model.get_submodule(path)
    seen = []
    handle = down.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    columns = baselines.least_important_columns(model, tiny_tokenizer, tiny_corpus, original=["en"], **TEXT)
    handle.remove()
    assert set(columns) == set(linear_maps(model)) and not any("head" in name for name in columns)
    assert all(len(index) == weight_of(model, name).shape[1] // 2 for name, index in columns.items())
    # Separators count for nothing, and are few: the order by all tokens is nearly the same.
    scores = importance(down, torch.cat([x.flatten(0, 1) for x in seen]).double().norm(dim=0))
    assert scores[columns[path]].mean() < 0.8 * scores.mean()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_column_freezing_trains_its_columns_and_not_a_bit_of_the_others(
    family, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    base = tiny_model(family)
    start = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    maps = linear_maps(base)
    columns = baselines.least_important_columns(
        base, tiny_tokenizer, tiny_corpus, original=["en", "es"], frozen_share=0.75, **TEXT
    )
    tuned = baselines.ssu(base, columns).eval()
    assert torch.equal(logits(tuned), logits(base))
    # Weight decay moves all that an optimizer has, gradient or not.
    finetune(tuned, tiny_tokenizer, tiny_corpus, tmp_path, weight_decay=0.1)
    inputs = 0 if family == "gpt2" else 1
    for path in maps:
        found = moved(start[f"{path}.weight"], weight_of(tuned, path).detach(), inputs)
        assert found == set(columns[path].tolist())
    learned = {name for name, _ in trainable_parameters(tuned)}
    assert any("embed" in name or "wte" in name for name in learned)
    assert not any(name.endswith("original") for name in learned)
    after = base.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in start.items())


def test_a_share_that_freezes_everything_is_refused(tiny_model, tiny_tokenizer, tiny_corpus):
    with pytest.raises(UsageError, match="frozen_share = 1"):
        baselines.least_important_columns(tiny_model(), tiny_tokenizer, tiny_corpus, original=["en"], frozen_share=1)


# ---------------------------------------------------------------------------------------------------------------- lape


def test_neurons_that_fire_for_one_language_alone_are_its_specific_ones():
    rates = torch.tensor(
        [  # languages en, el; one layer of five neurons
            [[0.9, 0.5, 0.0, 0.0, 0.4]],
            [[0.0, 0.5, 0.8, 0.1, 0.6]],
        ]
    ).double()
    assert specific_neurons(rates, [1], 1).tolist() == [[False, False, True, False, False]]
    # Never more than fire most for the language, however many are asked for.
    assert specific_neurons(rates, [1], 9).tolist() == [[False, False, True, True, True]]
    assert specific_neurons(rates, [0], 1).tolist() == [[True, False, False, False, False]]


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
def test_only_the_chosen_neurons_learn_by_their_gate_up_and_down_weights(
    family, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    base = tiny_model(family)
    start = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    neurons = baselines.language_neurons(
        base, tiny_tokenizer, tiny_corpus, original=["en", "es"], expanded=["el", "tr"], neuron_share=0.05, **TEXT
    )
    tuned = baselines.lape(base, neurons).eval()
    assert torch.equal(logits(tuned), logits(base))
    finetune(tuned, tiny_tokenizer, tiny_corpus, tmp_path, weight_decay=0.1)
    names = {
        "llama": {"gate_proj": 0, "up_proj": 0, "down_proj": 1},
        "phi3": {"gate_up_proj": 0, "down_proj": 1},
        "gpt2": {"c_fc": 1, "c_proj": 0},
    }[family]
    touched = set()
    for path, index in neurons.items():
        chosen = set(index.tolist())
        for name, dim in names.items():
            before = start[f"{path}.{name}.weight"]
            size = before.shape[dim] // 2 if name == "gate_up_proj" else 0
            expected = chosen | ({i + size for i in chosen} if size else set())
            assert moved(before, weight_of(tuned, f"{path}.{name}").detach(), dim) == expected
            touched.add(f"{path}.{name}")
    total = sum(len(index) for index in neurons.values())
    assert total == round(0.05 * sum(mlp_sizes(base)))
    for name, parameter in tuned.named_parameters():
        if not any(name.startswith(path) for path in touched):
            assert torch.equal(parameter, start[name]), name
    assert all(torch.equal(base.state_dict()[name], tensor) for name, tensor in start.items())


def mlp_sizes(model):
    config = model.config
    size = getattr(config, "intermediate_size", None) or config.n_inner or 4 * config.n_embd
    return [size] * config.num_hidden_layers


# ---------------------------------------------------------------------------------------------------------- the slices


def test_a_learned_slice_shares_its_weight_with_the_base_and_counts_alone():
    linear = nn.Linear(4, 3)
    weight = linear.weight
    holder = nn.ModuleDict({"map": linear})
    learn_slices(holder, {"map": (INPUTS, torch.tensor([2, 0]))})
    learned = dict(holder.named_parameters())["map.parametrizations.weight.0.learned"]
    assert holder["map"].parametrizations.weight.original is weight and not weight.requires_grad
    assert learned.shape == (3, 2) and torch.equal(linear.weight, weight)
    with torch.no_grad():
        learned += 1
    assert torch.equal(linear.weight - weight, torch.tensor([1.0, 0, 1, 0]).expand(3, 4))


def test_half_precision_is_refused_where_whole_columns_of_the_bases_kind_learn(tiny_model):
    model = tiny_model().bfloat16()
    columns = {path: torch.arange(2) for path in linear_maps(model)}
    with pytest.raises(UsageError, match="float32"):
        baselines.ssu(model, columns)


# --------------------------------------------------------------------------------------------------------- interpolate


def test_interpolation_ends_at_the_base_and_at_what_was_tuned_and_lies_between(tiny_model):
    base = tiny_model()

    def tuned():
        model = baselines.full(base)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1
        return model

    for weight, added in ((0.0, 0.0), (1.0, 1.0), (0.25, 0.25)):
        model, expected = tuned(), tuned()
        baselines.interpolate(model, base, weight)
        for (name, found), whole, start in zip(
            model.named_parameters(), expected.parameters(), base.parameters(), strict=True
        ):
            ends = {0.0: start, 1.0: whole}
            assert torch.equal(found, ends[weight]) if weight in ends else torch.allclose(found, start + added), name


def test_nothing_lies_between_models_of_different_form(tiny_model):
    with pytest.raises(UsageError, match="different weights"):
        baselines.interpolate(tiny_model(num_layers=3), tiny_model())
    with pytest.raises(UsageError, match="weight = 2"):
        baselines.interpolate(tiny_model(), tiny_model(), 2)


def test_a_base_in_four_bits_keeps_its_weights(tiny_model, monkeypatch):
    monkeypatch.setattr("lpr_lab.method.baselines.base.quantization_of", lambda model: "nf4")
    with pytest.raises(UnsupportedModelError, match="four bits"):
        baselines.lape(tiny_model(), {})
