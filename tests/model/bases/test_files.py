"""A base is whole or refused: every kind of damage, to every file, is answered with that file's name."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lpr_lab.errors import DamagedError, MissingError
from lpr_lab.method.router_statistics import RouterStatistics
from lpr_lab.method.training.checkpoints import _load_trained
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.bases.tensor_files import open_tensors, read_tensors
from lpr_lab.model.formats import save_load as files
from lpr_lab.model.formats.import_released import import_released
from lpr_lab.storage import MANIFEST, staged_directory, verify

DAMAGE = {
    "a Git LFS pointer": lambda content: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
    ),
    "cut in the middle": lambda content: content[: len(content) // 2],
    "cut by one byte": lambda content: content.rstrip()[:-1],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "zeros from the middle on": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "a web page": lambda content: b"<!DOCTYPE html><html><body>Not found</body></html>",
    "a wrong length of the header": lambda content: b"\xff" * 8 + content[8:],
    "a header longer than the file": lambda content: (2 * len(content)).to_bytes(8, "little") + content[8:],
    "a list": lambda content: b"[]",
    "a text": lambda content: b'"config"',
    "a pickle": lambda content: b"\x80\x02}q\x00.",
    "an archive": lambda content: b"PK\x03\x04" + content[4:],
}
SAVED = {
    "whole": ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    "divided": ("model.safetensors.index.json", "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"),
}


@pytest.fixture(scope="module")
def written(tiny_model, tiny_tokenizer, tmp_path_factory):
    """A folder with two bases, one in one file of weights and one in three."""
    folder = tmp_path_factory.mktemp("written")
    for how in SAVED:
        tiny_model("llama").save_pretrained(folder / how, max_shard_size="60KB" if how == "divided" else "1GB")
        tiny_tokenizer.save_pretrained(folder / how)
    return folder


@pytest.fixture
def base(written, tmp_path):
    """Return a function that copies a base in one file of weights or three, and says where."""
    return lambda how="whole": shutil.copytree(written / how, tmp_path / how)


@pytest.fixture(scope="module")
def saved(written):
    """A base, an expansion of it, and where the expansion was saved; not to be changed."""
    dense = load_base(written / "whole")[0]
    model = upcycle(copy.deepcopy(dense), (1, 1))
    files.save_expansion(model, written / "adapter")
    return dense, model, written / "adapter"


@pytest.fixture
def adapter(saved, tmp_path):
    """A copy of a saved expansion's folder."""
    return shutil.copytree(saved[2], tmp_path / "adapter")


def change(path, damage):
    path.write_bytes(DAMAGE[damage](path.read_bytes()))


def rewrite(path, change):
    tensors = load_file(path)
    save_file(change(tensors) or tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(("how", "name"), [(how, name) for how, names in SAVED.items() for name in names])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_by_its_name(base, how, name, damage):
    folder = base(how)
    change(folder / name, damage)
    with pytest.raises(DamagedError, match=name) as caught:
        load_base(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "word"),
    [("a Git LFS pointer", "git lfs pull"), ("empty", "empty"), ("a web page", "web page"), ("a pickle", "pickle")],
)
def test_what_a_file_is_instead_is_said(base, damage, word):
    folder = base()
    change(folder / "model.safetensors", damage)
    with pytest.raises(DamagedError, match=word):
        load_base(folder)


def test_a_base_in_one_file_or_several_that_is_whole_loads(base):
    one, several = (load_base(base(how))[0] for how in SAVED)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), several.parameters(), strict=True))


def test_a_missing_shard_is_named(base):
    folder = base("divided")
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(MissingError, match="model-00002-of-00003"):
        load_base(folder)


@pytest.mark.parametrize("weight_map", [None, {}, [], {"a": 1}, {"a": "../elsewhere.safetensors"}, {"a": "/tmp/x"}])
def test_an_index_that_names_no_file_of_the_folder_is_refused(base, weight_map):
    folder = base("divided")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(DamagedError, match=r"model\.safetensors\.index\.json"):
        load_base(folder)


@pytest.mark.parametrize(("field", "value"), [("hidden_size", "wide"), ("num_hidden_layers", None), ("vocab_size", [])])
def test_a_configuration_of_other_types_is_refused_by_name(base, field, value):
    path = base() / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(DamagedError, match=r"config\.json"):
        load_base(path.parent)


# -- whole files that do not fill the model ----------------------------------------------------------------------------


def prefixed(prefix):
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def without(name):
    return lambda tensors: {other: tensor for other, tensor in tensors.items() if other != name}


def with_one_more(name):
    return lambda tensors: tensors.update({name: torch.ones(32)})


def put(name, value):
    return lambda tensors: tensors.update({name: value(tensors[name])})


NORM = "model.norm.weight"
UP = "model.layers.1.mlp.up_proj.weight"
INCOMPLETE = {
    "from torch.compile": (prefixed("_orig_mod."), r"_orig_mod\..*torch\.compile"),
    "from DistributedDataParallel": (prefixed("module."), r"module\..*DistributedDataParallel"),
    "named in another way": (prefixed("policy."), r"lacks .*model\.norm\.weight|lacks .*model\.embed"),
    "a missing matrix": (without(UP), f"lacks {UP}"),
    "a missing vector": (without(NORM), f"lacks {NORM}"),
    "a missing head": (without("lm_head.weight"), r"lacks lm_head\.weight"),
    "a bias too many": (with_one_more("model.layers.0.self_attn.o_proj.bias"), r"self_attn\.o_proj\.bias"),
    "a layer too many": (with_one_more("model.layers.2.input_layernorm.weight"), r"layers\.2\.input_layernorm"),
    "another shape": (put(UP, lambda tensor: tensor[:-1].clone()), r"up_proj\.weight \(47, 32\) instead of \(48, 32\)"),
    "more rows": (put("model.embed_tokens.weight", lambda t: torch.cat([t, t[:8]])), r"embed_tokens.*instead of"),
    "not a number": (put(NORM, lambda tensor: tensor.index_fill(0, torch.tensor([3]), torch.nan)), "not finite"),
    "infinity": (put(UP, lambda tensor: tensor.index_fill(0, torch.tensor([3]), torch.inf)), "not finite"),
}


@pytest.mark.parametrize("what", INCOMPLETE)
def test_weights_that_do_not_fill_the_model_are_refused_with_the_names(base, what):
    folder = base()
    alter, words = INCOMPLETE[what]
    rewrite(folder / "model.safetensors", alter)
    with pytest.raises(DamagedError, match=words) as caught:
        load_base(folder)
    assert str(folder) in str(caught.value)


def test_weights_that_do_not_fill_the_model_are_refused_in_four_bits_too(base):
    folder = base()
    rewrite(folder / "model.safetensors", without(UP))
    with pytest.raises(DamagedError, match="up_proj"):
        load_base(folder, quantization="nf4")


def test_numbers_too_large_for_the_dtype_are_refused(base):
    folder = base()
    rewrite(folder / "model.safetensors", put(NORM, lambda tensor: tensor * 1e6))
    load_base(folder)
    with pytest.raises(DamagedError, match=r"not finite .*torch\.float16"):
        load_base(folder, dtype=torch.float16)


def test_tied_tensors_old_masks_and_zeros_where_they_belong_are_no_damage(tiny_model, tiny_tokenizer, tmp_path):
    model = tiny_model("gpt2")
    with torch.no_grad():
        model.transformer.ln_f.bias.zero_()
        model.transformer.wte.weight[-40:] = 0
        model.transformer.h[1].mlp.c_proj.weight.zero_()  # as LLaMA-Pro starts its new blocks
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    masks = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8),
        "transformer.h.0.attn.masked_bias": torch.ones(()),
    }
    rewrite(tmp_path / "model.safetensors", lambda tensors: tensors | masks)
    loaded, _ = load_base(tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.transformer.wte.weight)


# -- the other files of tensors ----------------------------------------------------------------------------------------


READERS = {
    "an adapter": lambda path, base, model: files.load_adapter_tensors(model, path),
    "a released adapter": lambda path, base, model: import_released(path.parent, copy.deepcopy(base)),
    "trained parameters": lambda path, base, model: _load_trained(model, path),
    "moments of an optimizer": lambda path, base, model: read_tensors(path),
    "router statistics": lambda path, base, model: RouterStatistics.load(path),
}
OF_TENSORS = [damage for damage in DAMAGE if damage not in ("zeros from the middle on", "a text")]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", OF_TENSORS)
def test_every_reader_of_tensors_names_the_damaged_file(saved, adapter, reader, damage):
    dense, model, _ = saved
    if reader == "a released adapter":
        config = {"peft_type": "MOE", "num_experts": 2, "topk": 2}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
    change(adapter / files.TENSORS, damage)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DamagedError, match=files.TENSORS):
        READERS[reader](adapter / files.TENSORS, dense, model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["adapter_config.json", files.TENSORS])
@pytest.mark.parametrize("damage", OF_TENSORS)
def test_a_damaged_adapter_without_a_manifest_is_refused_by_its_file_s_name(adapter, name, damage):
    (adapter / MANIFEST).unlink()
    change(adapter / name, damage)
    with pytest.raises(DamagedError, match=name):
        files.load_expansion(adapter)


@pytest.mark.parametrize("damage", OF_TENSORS)
def test_a_damaged_manifest_is_refused_by_its_name(tmp_path, damage):
    with staged_directory(tmp_path / "sealed", sealed={}) as stage:
        (stage / "file").write_text("content")
    change(tmp_path / "sealed" / MANIFEST, damage)
    with pytest.raises(DamagedError, match=MANIFEST):
        verify(tmp_path / "sealed")


@pytest.mark.parametrize(
    "changes", [{"stages": []}, {"new_experts": [[1]]}, {"new_experts": []}, {"layer_indices": [0]}]
)
def test_an_adapter_whose_configuration_does_not_add_up_is_refused(adapter, changes):
    (adapter / MANIFEST).unlink()
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(DamagedError, match=r"adapter_config\.json"):
        files.load_expansion(adapter)


def test_a_missing_file_of_tensors_is_named(tmp_path):
    with pytest.raises(DamagedError, match=r"none\.safetensors .*missing"), open_tensors(tmp_path / "none.safetensors"):
        pass
