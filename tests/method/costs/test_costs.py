"""The arithmetic of operations and memory is what real tensors and a real step say."""

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.method.costs.estimate import Speed, device_hours, step_operations, step_ratio, tokens_per_second
from lpr_lab.method.costs.memory import Setup, layer_activations, training_memory
from lpr_lab.method.costs.operations import expand_step, review_step
from lpr_lab.method.costs.shape import BASES, BaseShape, Expansion
from lpr_lab.method.training.optimizer import make_optimizer
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import trainable_parameters
from lpr_lab.model.stages import set_trainable

PUBLISHED = {
    "SmolLM2-135M": 134_515_008,
    "Qwen1.5-1.8B": 1_836_828_672,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
}
LAYERS, TOKENS = 12, 64


@pytest.fixture(scope="module")
def expanded(tiny_model):
    dense = tiny_model("llama", num_layers=LAYERS)
    dense.set_attn_implementation("eager")  # whose products the counter of operations knows on a processor
    shape = BaseShape.of(dense.config)
    expansion = Expansion(shape, (1,) * LAYERS)
    model = upcycle(dense, expansion.new_experts)
    set_trainable(model, experts=True, routers=True)
    return expansion, model


def ids_of(model):
    import torch

    return torch.arange(4 * TOKENS).view(4, TOKENS) % model.config.vocab_size


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_of_known_bases_add_up_to_their_published_parameters(name):
    assert BASES[name].parameters == PUBLISHED[name]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_sizes_that_a_configuration_says_are_those_of_the_model(tiny_model, family):
    dense = tiny_model(family)
    assert BaseShape.of(dense.config).parameters == sum(parameter.numel() for parameter in dense.parameters())


def test_weights_gradients_and_moments_take_the_bytes_that_real_tensors_take(expanded):
    expansion, model = expanded
    learnt = list(trainable_parameters(model))
    settings = TrainSettings(tokens=1024, learning_rate=1e-4, router_learning_rate=1e-4)
    optimizer = make_optimizer(learnt, settings)
    model(input_ids=ids_of(model)).logits.square().mean().backward()
    optimizer.step()
    found = training_memory(expansion, Setup(base_in="float32", computes_in="float32", tokens=4 * TOKENS))
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    assert found.base == sum(parameter.nbytes for parameter in frozen)
    assert found.experts == sum(parameter.nbytes for _, parameter in learnt)
    assert found.gradients == sum(parameter.grad.nbytes for _, parameter in learnt if parameter.grad is not None)
    states = optimizer.state.values()
    assert found.moments == sum(state[name].nbytes for state in states for name in ("exp_avg", "exp_avg_sq"))


def test_the_operations_of_both_stages_are_those_that_torch_counts(expanded):
    from torch.utils.flop_counter import FlopCounterMode

    expansion, model = expanded
    sizes = expansion.base.sizes(TOKENS)
    assert expansion.visited == 2 and expansion.visited_new == 1
    expected = {
        True: expand_step(sizes, expansion.visited, expansion.visited_new),
        False: review_step(sizes, expansion.visited),
    }
    for experts, operations in expected.items():
        set_trainable(model, experts=experts, routers=True)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=ids_of(model), use_cache=False).logits.square().mean().backward()
        model.zero_grad()
        # The lowest layer has nothing below it that a gradient would go to: a twelfth of a third here.
        assert counter.get_total_flops() / (4 * TOKENS) == pytest.approx(operations, rel=0.05)
    set_trainable(model, experts=True, routers=True)


def test_what_autograd_keeps_of_a_layer_is_near_what_is_reckoned(tiny_model):
    import torch

    kept = []
    for layers in (2, 6):
        dense = tiny_model("llama", num_layers=layers)
        model = upcycle(dense, (1,) * layers)
        set_trainable(model, experts=True, routers=True)
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        storages = {}

        def keep(tensor, weights=weights, storages=storages):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = model(input_ids=ids_of(model), use_cache=False).logits
        kept.append(sum(storages.values()))
        del output
    shape = BaseShape.of(dense.config)
    found = (kept[1] - kept[0]) / 4 / (4 * TOKENS)
    assert layer_activations(shape, 2, 1, 4) == pytest.approx(found, rel=0.15)


def test_devices_share_what_stays_under_fsdp_and_nothing_under_ddp():
    expansion = Expansion(BASES["Llama-3.1-8B"], (2,) * 32)
    one, ddp, fsdp = (
        training_memory(expansion, Setup(devices=n, sharding=how)) for n, how in ((1, "none"), (8, "ddp"), (8, "fsdp2"))
    )
    for part in ("base", "experts", "gradients", "moments"):
        assert getattr(ddp, part) == getattr(one, part) == 8 * getattr(fsdp, part)
    assert ddp.total > one.total > fsdp.total and ddp.activations == fsdp.activations


def test_each_saving_saves_what_it_is_for():
    expansion = Expansion(BASES["Qwen1.5-1.8B"], (2,) * 24)
    plain = training_memory(expansion, Setup(base_in="float32", checkpointing=False, logits=True))
    thrifty = training_memory(expansion, Setup())
    assert thrifty.base == plain.base / 2
    assert thrifty.activations < plain.activations / 4 and thrifty.logits < plain.logits / 4
    assert thrifty.moments == plain.moments


def test_time_falls_with_devices_and_hours_of_devices_do_not():
    expansion = Expansion(BASES["Llama-3.1-70B"], (2,) * 80)
    one, many = Speed(), Speed(devices=64)
    assert tokens_per_second(expansion, many) == pytest.approx(64 * tokens_per_second(expansion, one))
    assert device_hours(expansion, 10**9, many) == pytest.approx(device_hours(expansion, 10**9, one))
    assert device_hours(expansion, 10**9, Speed(share=0.15)) == pytest.approx(2 * device_hours(expansion, 10**9, one))
    assert step_operations(expansion) > step_operations(expansion, checkpointing=False)
    assert 1 < step_ratio(expansion) < 2


@pytest.mark.parametrize(
    ("make", "term"),
    [
        (lambda: Setup(devices=8), "ddp"),
        (lambda: Setup(sharding="fsdp2"), "none"),
        (lambda: Setup(sharding="zero"), "fsdp2"),
        (lambda: Speed(share=1.5), "1.5"),
        (lambda: Expansion(BASES["Qwen1.5-1.8B"], (1, 2)), "24"),
    ],
)
def test_what_makes_no_sense_is_refused(make, term):
    with pytest.raises(UsageError, match=term):
        make()
