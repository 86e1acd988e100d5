"""What counts as computing the same follows the size of the logits."""

import pytest
import torch

from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.rounding import logit_tolerance
from lpr_lab.runs.people.continuations import Exactness


def differences(model, scale, **options):
    """Return how far an upcycled model is from its base whose logits are `scale` times as large, and their largest."""
    model.get_output_embeddings().weight.data *= scale
    ids = torch.arange(24)[None] * 7 % 300
    with torch.no_grad():
        before = model(ids).logits
        after = upcycle(model, [2] * model.config.num_hidden_layers, **options)(ids).logits
    return float((after - before).abs().max()), float(before.abs().max())


@pytest.mark.parametrize(
    ("family", "scale"),
    [*((family, scale) for family in ("llama", "gpt_neox") for scale in (1e-2, 1.0, 1e2, 1e4)), ("gemma3", 1.0)],
)
def test_an_upcycled_model_equals_its_base_and_a_changed_one_does_not_at_any_size_of_logits(tiny_model, family, scale):
    difference, largest = differences(tiny_model(family), scale)
    assert difference <= logit_tolerance(largest)
    difference, largest = differences(tiny_model(family), scale, expert_init="noise")
    assert difference > logit_tolerance(largest)


def test_gemmas_rounding_is_rounding_and_a_run_that_recorded_no_size_is_judged_as_it_was():
    assert Exactness(1.4e-4, 46.0).is_exact and not Exactness(1.4e-4).is_exact
    assert Exactness(5e-5).is_exact and not Exactness(5e-5, 1.0).is_exact
