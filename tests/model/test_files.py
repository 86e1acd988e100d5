"""An expansion on disk: what is saved loads to the same logits, on its own base only, and damage is refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lpr_lab.errors import ComparisonRefusedError, DamagedError, MissingError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model import files
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.fingerprint import base_fingerprint
from lpr_lab.storage import MANIFEST


@pytest.fixture
def saved(tiny_model, tiny_tokenizer, tmp_path):
    """A base on disk, an expansion trained a little (moved by hand) beside it, and its logits."""
    base = tmp_path / "base"
    tiny_model("llama").save_pretrained(base)
    tiny_tokenizer.save_pretrained(base)
    dense, _ = files.load_base(str(base))
    model = upcycle(dense, (1, 2), router_input="token_and_mean", router_bias=True)
    with torch.no_grad():
        for layer in moe_layers(model):
            for parameter in [*layer.router.parameters(), *layer.stacks[0].parameters()]:
                parameter.add_(0.3 * torch.randn_like(parameter))
        logits = model(torch.arange(5, 25)[None]).logits
    files.save_expansion(model, tmp_path / "run" / "checkpoint")
    return tmp_path / "run", logits


@torch.no_grad()
def test_a_loaded_expansion_gives_the_same_logits(saved):
    run, logits = saved
    assert torch.equal(files.load_expansion(run)(torch.arange(5, 25)[None]).logits, logits)


def test_an_adapter_holds_only_what_is_new(saved):
    run, _ = saved
    tensors = load_file(run / "checkpoint" / "adapter_model.safetensors")
    assert tensors
    assert all("moe_lpr_" in name for name in tensors)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_flipped_byte_in_any_file_is_refused_by_name(saved, name):
    run, _ = saved
    path = run / "checkpoint" / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=name):
        files.load_expansion(run)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_missing_file_is_refused_by_name(saved, name):
    run, _ = saved
    (run / "checkpoint" / name).unlink()
    with pytest.raises(MissingError, match=name):
        files.load_expansion(run)


def test_a_missing_tensor_is_refused_and_never_half_loaded(saved):
    run, _ = saved
    path = run / "checkpoint" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    del tensors[name]
    save_file(tensors, path)
    (run / "checkpoint" / MANIFEST).unlink()
    with pytest.raises(DamagedError, match="lacks the tensor"):
        files.load_expansion(run)


def test_another_base_is_refused(saved, tmp_path):
    run, _ = saved
    path = tmp_path / "base" / "model.safetensors"
    tensors = load_file(path)
    first = sorted(tensors)[0]
    tensors[first] = tensors[first] + 1e-3
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ComparisonRefusedError, match="another base model"):
        files.load_expansion(run)


def test_a_file_that_can_run_code_is_refused(saved):
    run, _ = saved
    (run / "checkpoint" / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(DamagedError, match=r"adapter_model\.bin"):
        files.load_expansion(run)


def test_a_folder_without_weights_says_how_to_make_some(tmp_path):
    with pytest.raises(MissingError, match="lpr-lab demo"):
        files.load_expansion(tmp_path)


def test_the_fingerprint_does_not_depend_on_the_dtype_a_base_is_loaded_in(tiny_model):
    model = tiny_model("llama").bfloat16()
    as_bfloat16 = base_fingerprint(model)
    assert base_fingerprint(model.float()) == as_bfloat16


def test_the_configuration_is_readable_json_with_the_allocation(saved):
    run, _ = saved
    config = json.loads((run / "checkpoint" / "adapter_config.json").read_text())
    assert config["new_experts"] == [[1, 2]]
    assert config["peft_type"] == "MOE_LPR"
