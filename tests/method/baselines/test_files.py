"""A saved baseline is the one that is loaded, beside the very base it was made of; anything else is refused."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from lpr_lab.errors import ComparisonRefusedError, DamagedError, UsageError
from lpr_lab.measure.generation import generate_pair
from lpr_lab.method.baselines import kinds
from lpr_lab.method.baselines.files import is_baseline, load_trained, load_tuned, restore_trained, save_trained
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.formats.save_load import load_expansion, load_tokenizer
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import stage_names, use_stage
from lpr_lab.model.tuned.pair import Tuned
from lpr_lab.runs.model_ref import stages_of
from lpr_lab.runs.run import Run

SETTINGS = {
    "lora": {"rank": 2},
    "lora_moe": {"num_experts": 2, "rank": 2},
    "llama_pro": {"num_blocks": 1},
    "sparse_moe": {"allocation": [1, 2]},
}
SELECTIONS = {
    "ssu": {"model.layers.0.mlp.down_proj": torch.tensor([1, 5])},
    "lape": {"model.layers.1.mlp": torch.tensor([0, 7, 9])},
}
IDS = torch.arange(20)[None] + 5


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS, use_cache=False).logits


@pytest.fixture(scope="module")
def folder(tiny_model, tiny_tokenizer, tmp_path_factory):
    """A base on disk."""
    made = tmp_path_factory.mktemp("base")
    tiny_model("llama").save_pretrained(made)
    tiny_tokenizer.save_pretrained(made)
    return made


def made(kind, folder, shift=0.05):
    """Return a baseline of which all that learns was moved."""
    base, _ = load_base(folder, dtype=torch.float32)
    model = kinds.make(kind, base, SETTINGS.get(kind, {}), SELECTIONS.get(kind)).eval()
    with torch.no_grad():
        for parameter in model.tuned.parameters():
            if parameter.requires_grad:
                parameter += shift
    return model


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_saved_baseline_opens_as_it_was_beside_its_base(kind, folder, tmp_path):
    model = made(kind, folder)
    save_trained(model, tmp_path / "checkpoint", {"run": "mine"})
    again = load_trained(tmp_path)
    assert isinstance(again, Tuned) and again.kind == kind and again.settings == model.settings
    assert torch.equal(logits(again), logits(model))
    base, _ = load_base(folder, dtype=torch.float32)
    with again.disable_adapter():
        assert torch.equal(logits(again), logits(base))
    with use_stage(again, None):
        assert torch.equal(logits(again), logits(base))
    assert stage_names(again) == ["finetune"]
    assert load_tokenizer(tmp_path).vocab_size == load_tokenizer(tmp_path / "checkpoint").vocab_size
    assert kinds.count_tuned(again) == kinds.count_tuned(model)


@pytest.mark.parametrize("kind", ["full", "llama_pro"])
def test_a_whole_model_opens_with_transformers_alone(kind, folder, tiny_tokenizer, tmp_path):
    model = made(kind, folder)
    save_trained(model, tmp_path / "checkpoint", tokenizer=tiny_tokenizer)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    assert torch.allclose(logits(plain), logits(model), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks under the old name
def test_low_rank_updates_open_with_peft_alone(folder, tmp_path):
    model = made("lora", folder)
    save_trained(model, tmp_path / "checkpoint")
    base, _ = load_base(folder, dtype=torch.float32)
    assert torch.equal(logits(PeftModel.from_pretrained(base, tmp_path / "checkpoint").eval()), logits(model))


def test_parts_that_learned_are_a_small_file(folder, tmp_path):
    sizes = {}
    for kind in ("full", "lape"):
        save_trained(made(kind, folder), tmp_path / kind)
        sizes[kind] = (tmp_path / kind / kinds.KINDS[kind].tensors).stat().st_size
    assert sizes["lape"] < sizes["full"] / 10


def test_another_base_is_refused_and_so_are_altered_files(folder, tiny_model, tmp_path):
    save_trained(made("lora", folder), tmp_path / "checkpoint")
    about = tmp_path / "checkpoint" / "baseline.json"
    known = json.loads(about.read_text())
    other = tmp_path / "other"
    tiny_model("llama", seed=1).save_pretrained(other)
    with pytest.raises(ComparisonRefusedError, match="another base"):
        load_tuned(tmp_path, base=other)
    about.write_text(json.dumps(known | {"kind": "lape"}))
    with pytest.raises(DamagedError, match=r"baseline\.json"):
        load_trained(tmp_path)


def test_weights_of_another_choice_are_not_put_in(folder, tmp_path):
    save_trained(made("ssu", folder), tmp_path / "checkpoint")
    base, _ = load_base(folder, dtype=torch.float32)
    other = kinds.make("ssu", base, {}, {"model.layers.0.mlp.down_proj": torch.tensor([1, 6])})
    with pytest.raises(DamagedError, match="other rows and columns"):
        restore_trained(other, tmp_path / "checkpoint")


def test_a_baseline_is_no_expansion_and_an_expansion_no_baseline(folder, tmp_path):
    save_trained(made("full", folder), tmp_path / "a" / "checkpoint")
    with pytest.raises(UsageError, match="load_trained"):
        load_expansion(tmp_path / "a")
    base, _ = load_base(folder, dtype=torch.float32)
    expansion = upcycle(base, [1, 1])
    save_trained(expansion, tmp_path / "b" / "checkpoint")
    assert [is_baseline(tmp_path / name) for name in "ab"] == [True, False]
    assert torch.equal(logits(load_trained(tmp_path / "b")), logits(expansion.eval()))


@pytest.mark.parametrize("kind", ["full", "lora", "llama_pro", "sparse_moe"])
def test_base_and_baseline_write_side_by_side(kind, folder, tiny_tokenizer):
    model = made(kind, folder, shift=0.5)
    *_, last = generate_pair(model, tiny_tokenizer, "the cat", 8)
    assert len(last.left.ids) <= 8 and last.left.ids != last.right.ids
    plain, _ = load_base(folder, dtype=torch.float32)
    ids = torch.tensor([[tiny_tokenizer.eos_token_id, *tiny_tokenizer("the cat")["input_ids"]]])
    expected = plain.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    assert list(last.left.ids) == expected[: len(last.left.ids)]


def test_a_run_with_a_baseline_has_one_stage(folder, tmp_path):
    run = Run.create(tmp_path, kind="baseline", slug="a", title="a", config={})
    save_trained(made("lora", folder), run.paths.checkpoint)
    assert stages_of(run) == ["finetune"]
