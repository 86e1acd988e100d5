"""There are four ways to load an expanded model; each gives equal logits or refuses, and checks the base first."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lpr_lab.errors import ComparisonRefusedError, DamagedError, MissingError, UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.formats import save_load as files
from lpr_lab.model.stages import enter_stage, select_stage, set_trainable, stage_names

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

IDS = torch.arange(5, 45).view(2, 20)


def base_in(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder.parent / "base", **options)


def with_adapter(base, path):
    base.load_adapter(str(path), adapter_name="greek")
    return base


DOORS = {
    "lab.load_expansion": lambda path, dtype=torch.float32: files.load_expansion(path, dtype=dtype),
    "PeftModel": lambda path, dtype=torch.float32: PeftModel.from_pretrained(base_in(path, dtype=dtype), path),
    "PeftModel, another adapter name": lambda path, dtype=torch.float32: PeftModel.from_pretrained(
        base_in(path, dtype=dtype), path, adapter_name="greek"
    ),
    "PeftModel, low_cpu_mem_usage": lambda path, dtype=torch.float32: PeftModel.from_pretrained(
        base_in(path, dtype=dtype), path, low_cpu_mem_usage=True
    ),
    "AutoPeftModel": lambda path, dtype=torch.float32: AutoPeftModelForCausalLM.from_pretrained(path, dtype=dtype),
    "AutoModel": lambda path, dtype=torch.float32: AutoModelForCausalLM.from_pretrained(path, dtype=dtype),
    "load_adapter of a base, another adapter name": lambda path, dtype=torch.float32: with_adapter(
        base_in(path, dtype=dtype), path
    ),
}


@pytest.fixture(params=DOORS)
def door(request):
    return DOORS[request.param]


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@torch.no_grad()
def moved(model, *, experts=True):
    set_trainable(model, experts=experts, routers=True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.3 * torch.randn(parameter.shape).to(parameter.dtype)
    return model.eval()


@pytest.fixture(scope="module")
def write(tiny_model, tiny_tokenizer):
    """Write a base, put two expansions with reviews, classifiers and running means on it, and save them beside it."""

    def build(folder, *, dtype=torch.float32, dtype_saved=None, family="llama", **how_saved):
        base = folder / "base"
        tiny_model(family, num_layers=3).save_pretrained(base)
        tiny_tokenizer.save_pretrained(base)
        dense, _ = load_base(base, dtype=dtype)
        seen = {"base": logits(dense)}
        model = moved(upcycle(dense, (1, 2, 0), router_input="token_and_mean", router_bias=True))
        enter_stage(model, "review", classifiers=[1])
        seen["G1 review"] = logits(moved(model, experts=False))
        seen["G2 expand"] = logits(moved(upcycle(model, (0, 1, 1))))
        files.save_expansion(model, folder / "adapter", dtype=dtype_saved, **how_saved)
        return folder / "adapter", seen

    return build


@pytest.fixture(scope="module")
def made(write, tmp_path_factory):
    """Return a function that writes each expansion once, for tests that change no file."""
    return functools.cache(lambda **how: write(tmp_path_factory.mktemp("made"), **how))


@pytest.fixture
def make(write, tmp_path):
    """Return a function that writes an expansion for one test alone."""
    return lambda **how: write(tmp_path, **how)


@pytest.fixture
def unsealed(made, tmp_path):
    """A copy of an expansion, without its manifest, beside a copy of its base."""
    path, _ = made()
    shutil.copytree(path.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "adapter" / "MANIFEST.json").unlink()
    return tmp_path / "adapter"


def test_every_door_gives_the_same_logits_for_two_expansions_classifiers_and_running_means(made, door):
    path, seen = made()
    model = door(path)
    assert torch.equal(logits(model), seen["G2 expand"])
    assert not model.training


def test_every_door_keeps_the_earlier_stages_and_the_base(made, door):
    path, seen = made()
    model = door(path)
    assert stage_names(model) == ["G1 expand", "G1 review", "G2 expand"]
    select_stage(model, "G1 review")
    assert torch.equal(logits(model), seen["G1 review"])
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            assert torch.equal(logits(model), seen["base"])
    else:
        model.disable_adapters()
        assert torch.equal(logits(model), seen["base"])
        model.enable_adapters()
    assert torch.equal(logits(model), seen["G1 review"])


def test_every_door_generates_with_a_cache_as_without(made, door):
    path, _ = made()
    model = door(path)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    ids = IDS[:1, :7]
    with_cache = model.generate(input_ids=ids, use_cache=True, **options)
    assert torch.equal(with_cache, model.generate(input_ids=ids, use_cache=False, **options))
    assert with_cache.shape == (1, 13)


@pytest.mark.parametrize("saved", [None, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_every_door_puts_float32_experts_and_routers_on_a_bfloat16_base(made, door, saved):
    path, seen = made(dtype=torch.bfloat16, **({"dtype_saved": saved} if saved else {}))
    model = door(path, torch.bfloat16)
    new = {name: p.dtype for name, p in model.named_parameters() if "moe_lpr_" in name}
    assert set(new.values()) == {torch.float32}
    assert moe_layers(model)[0].base_layer.up_proj.weight.dtype == torch.bfloat16
    # Products are made in bfloat16, so that experts rounded to it compute the same.
    assert torch.equal(logits(model), seen["G2 expand"])


def test_every_door_takes_a_base_of_float32_rounded_to_bfloat16(made, door):
    path, seen = made()
    rounded = logits(door(path, torch.bfloat16))
    assert not torch.equal(rounded.float(), seen["G2 expand"])
    assert torch.equal(rounded, logits(files.load_expansion(path, dtype=torch.bfloat16)))


def test_every_door_refuses_the_unrounded_base_of_an_expansion_of_the_rounded_one(made, door):
    path, _ = made(dtype=torch.bfloat16)
    with pytest.raises(ComparisonRefusedError, match=r"dtype=torch\.bfloat16"):
        door(path)


def test_every_door_refuses_a_base_in_float16(made, door):
    path, _ = made()
    with pytest.raises(ComparisonRefusedError, match="float16, which rounds otherwise"):
        door(path, torch.float16)


def test_every_door_refuses_another_base(make, door):
    path, _ = make()
    file = path.parent / "base" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] += 1e-6
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ComparisonRefusedError, match="another base model"):
        door(path)


def test_every_door_refuses_an_adapter_that_lacks_a_tensor(unsealed, door):
    path = unsealed
    tensors = load_file(path / files.TENSORS)
    del tensors["base_model.model.model.layers.1.mlp.moe_lpr_experts.1.down"]
    save_file(tensors, path / files.TENSORS, metadata={"format": "pt"})
    with pytest.raises(DamagedError, match=r"moe_lpr_experts\.(\w+\.)?1\.down"):
        door(path)


def test_every_door_refuses_an_adapter_with_a_tensor_of_another_shape(unsealed, door):
    path = unsealed
    tensors = load_file(path / files.TENSORS)
    name = "base_model.model.model.layers.1.mlp.moe_lpr_router.2.weight"
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, path / files.TENSORS, metadata={"format": "pt"})
    with pytest.raises((DamagedError, RuntimeError), match=r"moe_lpr_router|mismatch"):
        door(path)


def test_every_door_refuses_or_reads_an_adapter_of_several_files(made, door):
    path, seen = made(max_shard_bytes=20_000)
    assert len(list(path.glob("adapter_model*.safetensors"))) > 2
    if door is DOORS["lab.load_expansion"]:
        assert torch.equal(logits(door(path)), seen["G2 expand"])
        return
    with pytest.raises(DamagedError, match=r"only lpr_lab\.load_expansion"):
        door(path)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma3", "phi3"])
@pytest.mark.parametrize("name", ["lab.load_expansion", "PeftModel", "AutoPeftModel", "AutoModel"])
def test_the_doors_do_not_depend_on_the_family(made, family, name):
    path, seen = made(family=family)
    assert torch.equal(logits(DOORS[name](path)), seen["G2 expand"])


def test_what_peft_saves_itself_is_what_this_library_saves(made, tmp_path):
    path, seen = made()
    model = PeftModel.from_pretrained(base_in(path), path, adapter_name="other")
    model.save_pretrained(tmp_path / "peft")
    mine, theirs = load_file(path / files.TENSORS), load_file(tmp_path / "peft" / "other" / files.TENSORS)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(logits(files.load_expansion(tmp_path / "peft" / "other")), seen["G2 expand"])


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_a_second_adapter_on_the_same_model_is_refused(made):
    path, _ = made()
    model = PeftModel.from_pretrained(base_in(path), path)
    with pytest.raises(UsageError, match="one adapter"):
        model.load_adapter(path, "second")
    model = AutoModelForCausalLM.from_pretrained(path)
    with pytest.raises(UsageError, match="one adapter"):
        model.load_adapter(str(path), "second")


def test_a_quantised_or_offloaded_base_is_refused_with_the_reason(made):
    path, _ = made()
    base = base_in(path)
    packed = torch.zeros(4, dtype=torch.uint8)
    base.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(packed, requires_grad=False)
    with pytest.raises(ComparisonRefusedError, match=r"quantised .*uint8"):
        PeftModel.from_pretrained(base, path)
    with pytest.raises(ComparisonRefusedError, match="not in memory"):
        PeftModel.from_pretrained(base_in(path).to("meta"), path)


def test_an_expansion_opens_without_the_tokenizer_of_its_base(make, door):
    path, seen = make()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path.parent / "base" / name).unlink()
    assert torch.equal(logits(door(path)), seen["G2 expand"])
    with pytest.raises(MissingError, match=r"tokenizer .*base.* loaded"):
        files.load_tokenizer(path)


def test_the_base_is_found_again_from_anywhere(make, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path, _ = make()
    relative = upcycle(AutoModelForCausalLM.from_pretrained("base"), (1, 1, 1))
    files.save_expansion(relative, path)
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == config["base_name"] == str(tmp_path / "base")


def test_an_embedded_base_is_stored_by_name_and_with_its_place_in_the_cache(make):
    from lpr_lab.model.bases.embedded import EMBEDDED

    path, _ = make()
    base = base_in(path)
    base.config._name_or_path = "smollm2-135m"
    with pytest.warns(UserWarning, match="load_expansion"):  # nothing is cached here
        model = upcycle(base, (1, 1, 1))
    files.save_expansion(model, path)
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["base_name"] == "smollm2-135m"
    assert config["base_model_name_or_path"] == str(EMBEDDED["smollm2-135m"].path)


def test_a_base_that_was_moved_is_missed_by_name_and_can_be_given(make, tmp_path):
    path, seen = make()
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(MissingError, match=r"load_expansion\(…, base=…\)"):
        files.load_expansion(path)
    assert torch.equal(logits(files.load_expansion(path, base=tmp_path / "moved")), seen["G2 expand"])
    with pytest.warns(UserWarning, match="lpr_lab.load_expansion"), pytest.raises(OSError, match="base"):
        AutoPeftModelForCausalLM.from_pretrained(path)
    with pytest.raises(OSError, match="base"):
        AutoModelForCausalLM.from_pretrained(path)


@pytest.mark.slow
def test_a_process_that_does_not_know_the_method_refuses_and_registering_is_enough(make, tmp_path):
    _, seen = make()
    script = """
import torch
from transformers import AutoModelForCausalLM
try:
    AutoModelForCausalLM.from_pretrained("adapter")
except KeyError as error:
    assert "MOE_LPR" in str(error)
    from lpr_lab.model.adapter import register
    register()
    model = AutoModelForCausalLM.from_pretrained("adapter")
    torch.save(model(torch.arange(5, 45).view(2, 20)).logits, "logits.pt")
"""
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=here, check=True, capture_output=True)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), seen["G2 expand"])
