"""Whatever family transformers knows: it is expanded exactly or refused, and what reads its states reads them exactly.

A tiny model of a family is made once for all that is asked of it, which takes longer than the answers.
"""

import copy

import pytest
import torch

from helpers.tiny_families import IDS, configs, families, tiny_of
from lpr_lab.errors import UnsupportedModelError
from lpr_lab.measure.guesses import compute
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.families import find_decoder_mlps, refuse_by_config
from lpr_lab.model.head import head_of, next_token_losses

pytestmark = pytest.mark.slow

NOT_READ_BY_LAYER = {"openai-gpt", "gemma3n_text", "gemma4_text", "gemma4_unified_text"}
"""No final norm; four states of each layer; a head that asks for the ids, which are not there."""


@pytest.fixture(scope="module", params=families())
def family(request):
    return request.param


@pytest.fixture(scope="module")
def made(family):
    return tiny_of(family)


@pytest.fixture
def model(made):
    """Return a model of one's own."""
    if made is None:
        pytest.skip("no tiny one can be made by changing sizes alone")
    return copy.deepcopy(made)


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=IDS).logits


def test_it_is_refused_by_its_configuration_or_its_layers_or_expanded_exactly(family, made):
    try:
        for config in configs(family):
            refuse_by_config(config, family)
        if made is None:
            pytest.skip("no tiny one can be made by changing sizes alone")
        expected = logits(made)
        upcycled = upcycle(copy.deepcopy(made), [2] * len(find_decoder_mlps(made)))
    except UnsupportedModelError:
        return
    assert (logits(upcycled) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_losses_from_hidden_states_are_those_of_its_own_logits(model):
    targets = IDS.roll(-1, 1).clone()
    targets[0, :4] = targets[1, 7] = -100
    with next_token_losses(model) as direct, torch.no_grad():
        ours = model(input_ids=IDS, use_cache=False, targets=targets)
    with next_token_losses(model, whole=True), torch.no_grad():
        plain = model(input_ids=IDS, use_cache=False, targets=targets)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    if direct:
        assert head_of(model)(torch.zeros(3, 32)).shape[0] == 3


def test_where_it_can_be_expanded_its_last_layer_is_read_exactly_or_refused(family, model):
    try:
        find_decoder_mlps(model)
    except UnsupportedModelError:
        pytest.skip(f"{family} is not expanded")
    ids = torch.arange(5, 17)[None]
    if family in NOT_READ_BY_LAYER:
        with pytest.raises(UnsupportedModelError, match="norm"):
            compute._states(model, ids)
        return
    with torch.no_grad():
        states = compute._states(model, ids)
        assert torch.equal(compute._head_after_norm(model)(states[-1]), model(ids).logits[0])
