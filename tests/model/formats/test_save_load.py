"""An expansion on disk: what is saved loads to the same logits, on its own base only, and damage is refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lpr_lab.errors import ComparisonRefusedError, DamagedError, MissingError, UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.fingerprint import base_fingerprint
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.formats import save_load as files
from lpr_lab.storage import MANIFEST


@pytest.fixture
def saved(tiny_model, tiny_tokenizer, tmp_path):
    """A base on disk, an expansion trained a little (moved by hand) beside it, and its logits."""
    base = tmp_path / "base"
    tiny_model("llama").save_pretrained(base)
    tiny_tokenizer.save_pretrained(base)
    dense, _ = load_base(str(base))
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


@pytest.fixture
def trained(tiny_model, tiny_tokenizer, tmp_path):
    """A base on disk and an expansion of it in memory, moved by hand."""
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    model = upcycle(load_base(tmp_path / "base")[0], (1, 2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "moe_lpr_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def test_experts_in_bfloat16_are_half_the_file_and_routers_stay_exact(trained, tmp_path):
    files.save_expansion(trained, tmp_path / "whole", dtype=torch.float32)
    files.save_expansion(trained, tmp_path / "half", dtype=torch.bfloat16)
    whole, half = (load_file(tmp_path / name / files.TENSORS) for name in ("whole", "half"))
    for name, tensor in whole.items():
        kind = torch.bfloat16 if "experts" in name else torch.float32
        assert half[name].dtype == kind
        assert torch.equal(half[name], tensor.to(kind))
    loaded = files.load_expansion(tmp_path / "half")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for layer in moe_layers(trained):
        for parameter in layer.stacks[0].parameters():
            parameter.copy_(parameter.bfloat16())
    ids = torch.arange(5, 25)[None]
    assert torch.equal(loaded(ids).logits, trained(ids).logits)


@torch.no_grad()
def test_a_large_adapter_is_divided_over_files_and_read_back_whole(trained, tmp_path):
    files.save_expansion(trained, tmp_path / "adapter", max_shard_bytes=20_000)
    index = json.loads((tmp_path / "adapter" / files.INDEX).read_text())
    shards = sorted(path.name for path in (tmp_path / "adapter").glob("*.safetensors"))
    assert shards[0] == "adapter_model-00002.safetensors"
    assert set(index["weight_map"].values()) == set(shards)
    listed = json.loads((tmp_path / "adapter" / MANIFEST).read_text())["files"]
    assert {*shards, files.INDEX, "adapter_config.json"} == set(listed)
    sizes = {name: sum(t.nbytes for t in load_file(tmp_path / "adapter" / name).values()) for name in shards}
    assert sum(sizes.values()) == index["metadata"]["total_size"]
    assert all(size <= 20_000 or list(index["weight_map"].values()).count(name) == 1 for name, size in sizes.items()), (
        "only a tensor that is larger alone may exceed the limit"
    )
    ids = torch.arange(5, 25)[None]
    expected = trained(ids).logits
    assert torch.equal(files.load_expansion(tmp_path / "adapter")(ids).logits, expected)
    for parameter in trained.parameters():
        parameter.add_(parameter.requires_grad)
    files.restore_expansion(trained, tmp_path / "adapter")
    assert torch.equal(trained(ids).logits, expected)


def test_a_flipped_byte_in_any_of_several_files_is_refused_by_name(trained, tmp_path):
    for number in range(5):
        files.save_expansion(trained, tmp_path / "adapter", max_shard_bytes=20_000)
        names = sorted(path.name for path in (tmp_path / "adapter").iterdir() if path.name != MANIFEST)
        assert len(names) == 5
        path = tmp_path / "adapter" / names[number]
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=names[number]):
            files.load_expansion(tmp_path / "adapter")


def test_a_missing_or_cut_shard_is_refused_by_name_also_without_a_manifest(trained, tmp_path):
    files.save_expansion(trained, tmp_path / "adapter", max_shard_bytes=20_000)
    (tmp_path / "adapter" / MANIFEST).unlink()
    shard = tmp_path / "adapter" / "adapter_model-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(DamagedError, match="adapter_model-00002"):
        files.load_expansion(tmp_path / "adapter")
    shard.unlink()
    with pytest.raises(DamagedError, match="adapter_model-00002"):
        files.load_expansion(tmp_path / "adapter")


def test_a_refused_file_leaves_the_model_as_it_was(trained, tmp_path):
    files.save_expansion(upcycle(load_base(tmp_path / "base")[0], (1, 1)), tmp_path / "other")
    before = {name: parameter.clone() for name, parameter in trained.named_parameters()}
    with pytest.raises(DamagedError, match=r"router\.0\.weight .*\(2, 32\), expected \(3, 32\)"):
        files.load_adapter_tensors(trained, tmp_path / "other" / files.TENSORS)
    assert all(torch.equal(parameter, before[name]) for name, parameter in trained.named_parameters())


def test_another_dtype_for_experts_is_refused_before_anything_is_replaced(trained, tmp_path):
    files.save_expansion(trained, tmp_path / "adapter")
    with pytest.raises(UsageError, match=r"torch\.bfloat16"):
        files.save_expansion(trained, tmp_path / "adapter", dtype=torch.float16)
    assert (tmp_path / "adapter" / files.TENSORS).is_file()


def test_another_kind_of_adapter_is_refused(trained, tmp_path):
    files.save_expansion(trained, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    (tmp_path / "adapter" / MANIFEST).unlink()
    path.write_text(json.dumps({**json.loads(path.read_text()), "peft_type": "LORA"}))
    with pytest.raises(DamagedError, match="LORA adapter"):
        files.load_expansion(tmp_path / "adapter")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_expansion_opens_on_its_base_as_that_was_held_when_it_was_made(tiny_model, tiny_tokenizer, tmp_path, dtype):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    model = upcycle(load_base(tmp_path / "base", dtype=dtype)[0], (1, 2))
    files.save_expansion(model, tmp_path / "adapter")
    again = files.load_expansion(tmp_path / "adapter")
    assert again.get_base_model().dtype == dtype
    ids = torch.arange(5, 25)[None]
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_an_expansion_of_an_earlier_version_opens_on_a_base_in_float32(saved):
    run, _ = saved
    file = run / "checkpoint" / "adapter_config.json"
    config = json.loads(file.read_text())
    del config["base_dtype"]
    file.write_text(json.dumps(config))
    (run / "checkpoint" / MANIFEST).unlink()
    assert files.load_expansion(run).get_base_model().dtype == torch.float32
