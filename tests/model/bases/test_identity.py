"""A model that is no longer what its files hold is refused while it can be saved, and the advice given works."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lpr_lab.errors import ComparisonRefusedError, MissingError, UnsupportedModelError, UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.bases.embedded import EMBEDDED
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.formats.import_released import import_released
from lpr_lab.model.formats.save_load import load_expansion, save_expansion

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

IDS = torch.arange(5, 29).view(2, 12)


def lora_config():
    return LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False, task_type="CAUSAL_LM")


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=IDS).logits.float()


@pytest.fixture
def folder(tiny_model, tiny_tokenizer, tmp_path):
    """Return a function that writes a base of one family and says where."""

    def write(family="llama", dtype=torch.float32):
        tiny_model(family).to(dtype).save_pretrained(tmp_path / "base")
        tiny_tokenizer.save_pretrained(tmp_path / "base")
        return tmp_path / "base"

    return write


def resized(model):
    model.resize_token_embeddings(448)
    return model


def merged(model):
    return get_peft_model(model, lora_config()).merge_and_unload()


def edited(parameter_name, change):
    def edit(model):
        with torch.no_grad():
            change(model.get_parameter(parameter_name))
        return model

    return edit


def with_a_part_more(model):
    model.model.extra = torch.nn.Linear(4, 4)
    return model


def without_ties(model):
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() + 1)
    return model


CHANGES = {
    "resized": (resized, "embed_tokens"),
    "a merged LoRA": (merged, "other numbers"),
    "one number in a matrix": (edited("model.layers.1.mlp.up_proj.weight", lambda p: p[3, 3].add_(1e-4)), "up_proj"),
    "one number in a norm": (edited("model.norm.weight", lambda p: p[0].add_(1e-4)), "model.norm"),
    "the sign of a zero row": (edited("model.embed_tokens.weight", lambda p: p[-1].neg_()), "embed_tokens"),
}


@pytest.mark.slow
@pytest.mark.parametrize("load", [lambda path: load_base(path)[0], AutoModelForCausalLM.from_pretrained])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_base_is_refused_at_upcycling_and_the_advice_works(folder, tmp_path, monkeypatch, change, load):
    path = folder()
    alter, word = CHANGES[change]
    model, tokenizer = alter(load(path)), AutoTokenizer.from_pretrained(path)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UsageError, match=word) as caught:
        upcycle(model, (1, 1))
    assert str(path) in str(caught.value)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    monkeypatch.chdir(tmp_path)
    assert "model.save_pretrained('my-base')" in str(caught.value)
    assert "tokenizer.save_pretrained('my-base')" in str(caught.value)
    model.save_pretrained("my-base")
    tokenizer.save_pretrained("my-base")
    saved, _ = load_base("my-base")
    assert torch.equal(logits(saved), logits(model))
    save_expansion(upcycle(saved, (1, 1)), tmp_path / "adapter")
    with torch.no_grad():
        opened = load_expansion(tmp_path / "adapter")
        with opened.disable_adapter():
            assert torch.equal(logits(opened), logits(model))


def test_a_part_that_no_file_has_is_refused(folder):
    with pytest.raises(UsageError, match=r"model\.extra\.\w+ .*not in"):
        upcycle(with_a_part_more(load_base(folder())[0]), (1, 1))


FAMILIES = ("llama", "gpt2", "gpt_neox", "gemma3", "phi3", "qwen2")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PRECISIONS = [(family, DTYPES[j], DTYPES[(i + j) % 3]) for i, family in enumerate(FAMILIES) for j in range(3)]
"""Every family stored in every precision, every family loaded in every precision, every precision from every other."""


@pytest.mark.parametrize(("family", "stored", "dtype"), PRECISIONS)
def test_an_unchanged_base_is_taken_in_every_precision(folder, family, stored, dtype):
    model, _ = load_base(folder(family, stored), dtype=dtype)
    upcycle(model, (1, 1))


def test_a_base_in_several_files_or_without_the_decoder_s_prefix_is_taken(folder, tiny_model):
    path = folder()
    tiny_model("llama").save_pretrained(path, max_shard_size="60KB")
    (path / "model.safetensors").unlink()
    upcycle(load_base(path)[0], (1, 1))
    path = folder()
    tensors = load_file(path / "model.safetensors")
    tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    upcycle(load_base(path)[0], (1, 1))


def test_a_base_that_was_rounded_and_is_kept_in_float32_is_taken(folder, tmp_path):
    model = load_base(folder(), dtype=torch.bfloat16)[0].float()
    save_expansion(upcycle(model, (1, 1)), tmp_path / "adapter")
    load_expansion(tmp_path / "adapter", dtype=torch.bfloat16)


def test_a_base_without_a_folder_is_taken_and_said_at_loading(tiny_model, tmp_path):
    save_expansion(upcycle(tiny_model("llama"), (1, 1)), tmp_path / "adapter")
    with pytest.raises(MissingError, match=r"load_expansion\(…, base=folder\)"):
        load_expansion(tmp_path / "adapter")
    tiny_model("llama").save_pretrained(tmp_path / "folder")
    load_expansion(tmp_path / "adapter", base=tmp_path / "folder")


def test_a_folder_that_load_base_cannot_open_is_said_at_upcycling(folder):
    path = folder()
    model, _ = load_base(path)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"model\.safetensors.*my-base"):
        upcycle(model, (1, 1))


def test_an_embedded_base_that_was_changed_is_refused(folder, monkeypatch):
    base = EMBEDDED["smollm2-135m"]
    base.path.parent.mkdir(parents=True)
    path = folder()
    path.rename(base.path)
    model = AutoModelForCausalLM.from_pretrained(base.path)
    model.config._name_or_path = "smollm2-135m"
    assert expansion_config(upcycle(copy.deepcopy(model), (1, 1))).base_name == "smollm2-135m"
    with pytest.raises(UsageError, match="smollm2-135m"):
        upcycle(resized(model), (1, 1))


# -- four bits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_an_unchanged_base_in_four_bits_is_taken(folder, dtype, stored, family):
    upcycle(load_base(folder(family, stored), dtype=dtype, quantization="nf4")[0], (1, 1))


def test_a_packed_matrix_that_was_changed_is_seen(folder):
    model, _ = load_base(folder(), quantization="nf4")
    model.model.layers[1].mlp.up_proj.weight.data[3] ^= 0x70
    with pytest.raises(UsageError, match=r"layers\.1\.mlp\.up_proj"):
        upcycle(model, (1, 1))


def test_the_advice_works_on_four_bits_too(folder, tmp_path, monkeypatch):
    model, tokenizer = load_base(folder(), quantization="nf4")
    model = edited("model.norm.weight", lambda p: p[0].add_(0.5))(model)
    with pytest.raises(UsageError, match=r"model\.norm.*my-base"):
        upcycle(model, (1, 1))
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("my-base")
    tokenizer.save_pretrained("my-base")
    saved, _ = load_base("my-base")
    assert torch.equal(logits(saved), logits(model))
    save_expansion(upcycle(saved, (1, 1)), tmp_path / "adapter")
    opened = load_expansion(tmp_path / "adapter")
    with opened.disable_adapter():
        assert torch.equal(logits(opened), logits(model))


# -- adapters inside ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lora(folder, tmp_path):
    """A base with a trained LoRA beside it, in a folder."""
    path = folder()
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(path), lora_config())
    model.save_pretrained(tmp_path / "lora")
    return path, tmp_path / "lora", logits(model)


def added(base, lora):
    model = load_base(base)[0]
    model.add_adapter(lora_config())
    return model


def loaded(base, lora):
    model = load_base(base)[0]
    model.load_adapter(str(lora))
    return model


INSIDE = {
    "AutoModel of the LoRA's folder": lambda base, lora: AutoModelForCausalLM.from_pretrained(lora),
    "load_adapter": loaded,
    "add_adapter": added,
    "inject_adapter_in_model": lambda base, lora: inject_adapter_in_model(lora_config(), load_base(base)[0]),
    "inside a PeftModel": lambda base, lora: PeftModel.from_pretrained(load_base(base)[0], lora).get_base_model(),
}


@pytest.mark.parametrize("way", INSIDE)
def test_a_base_with_an_adapter_inside_is_refused_by_the_adapter_s_place(lora, way):
    model = INSIDE[way](*lora[:2])
    with pytest.raises(UnsupportedModelError, match=r"adapter .*Linear .*model\.layers\.0\.\w+\.\w+.*merge"):
        upcycle(model, (1, 1))


def test_the_advice_to_merge_works_to_the_letter(lora, tmp_path, monkeypatch):
    path, adapter, expected = lora
    model = AutoModelForCausalLM.from_pretrained(adapter)
    with pytest.raises(UnsupportedModelError) as caught:
        upcycle(model, (1, 1))
    assert "PeftModel.from_pretrained(base, 'my-adapter').merge_and_unload()" in str(caught.value)
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("my-adapter")
    base, tokenizer = load_base(path)
    PeftModel.from_pretrained(base, "my-adapter").merge_and_unload().save_pretrained("my-base")
    tokenizer.save_pretrained("my-base")
    save_expansion(upcycle(load_base("my-base")[0], (1, 1)), tmp_path / "adapter")
    opened = load_expansion(tmp_path / "adapter")
    torch.testing.assert_close(logits(opened), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("wrap", "word"),
    [
        (torch.compile, "_orig_mod"),
        (lambda model: torch.nn.DataParallel(model), r"model\.module"),
        (lambda model: model.model.layers, "ModuleList"),
        (lambda model: "smollm2-135m", "str"),
    ],
)
def test_what_is_no_model_of_transformers_is_refused_with_the_one_inside(tiny_model, wrap, word):
    with pytest.raises(UsageError, match=word):
        upcycle(wrap(tiny_model("llama")), (1, 1))


def test_a_released_adapter_is_put_on_no_changed_base_either(folder, lora, tmp_path):
    (tmp_path / "released").mkdir()
    (tmp_path / "released" / "adapter_config.json").write_text(
        json.dumps({"peft_type": "MOE", "num_experts": 2, "topk": 2})
    )
    with pytest.raises(UnsupportedModelError, match="adapter inside"):
        import_released(tmp_path / "released", INSIDE["add_adapter"](*lora[:2]))


# -- after upcycling ---------------------------------------------------------------------------------------------------


def adapted(model):
    model.add_adapter(lora_config())
    return model


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (resized, "Nothing was saved"),
        (edited("model.norm.weight", lambda p: p[0].add_(1e-4)), "Nothing was saved"),
        (with_a_part_more, "Nothing was saved"),
        (adapted, "Another adapter"),
    ],
)
def test_a_base_that_was_changed_inside_an_expansion_is_refused_before_anything_is_written(
    folder, tmp_path, change, word
):
    model = upcycle(load_base(folder())[0], (1, 1))
    save_expansion(model, tmp_path / "adapter")
    change(model.get_base_model())
    for target in ("adapter", "new"):
        with pytest.raises((ComparisonRefusedError, UsageError), match=word):
            save_expansion(model, tmp_path / target)
    assert not (tmp_path / "new").exists()
    load_expansion(tmp_path / "adapter")


def test_a_further_expansion_is_refused_with_another_adapter_inside(folder):
    model = upcycle(load_base(folder())[0], (1, 1))
    adapted(model.get_base_model())
    with pytest.raises(UnsupportedModelError, match="carries an adapter"):
        upcycle(model, (1, 1))
