"""The papers' baselines: what learns in each, that it starts as the base, resumes, and is scored beside the base."""

import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.tiny_corpus import steps_of_four_blocks
from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.measure.bits import evaluate
from lpr_lab.method import baselines
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import trainable_parameters
from lpr_lab.model.formats.save_load import save_expansion

SETTINGS = steps_of_four_blocks(3)
ROWS = {
    "full": baselines.full,
    "lora": lambda model: baselines.lora(model, rank=2),
    "sparse_moe": lambda model: baselines.sparse_moe(model, [1, 2]),
    "lora_moe": lambda model: baselines.lora_moe(model, num_experts=3, rank=2),
    "llama_pro": lambda model: baselines.llama_pro(model, num_blocks=1),
}
LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3", "phi3", "smollm3")
IDS = torch.arange(20)[None] + 5


def finetune(model, tokenizer, corpus, out, settings=SETTINGS, **options):
    options = {"original": ["en"], "expanded": ["el", "tr"], "replay_share": 0.25, **options}
    return baselines.finetune(model, tokenizer, corpus, out=out, settings=settings, **options)


@torch.no_grad()
def logits(model, ids=IDS):
    return model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("row", ROWS)
def test_a_baseline_starts_as_the_base(row, tiny_model):
    dense = tiny_model()
    expected = logits(dense)
    tuned = ROWS[row](dense).eval()
    # The mixture adds equal experts by weights that sum to 1; all others add exactly nothing.
    assert torch.allclose(logits(tuned), expected, atol=1e-4 if row == "sparse_moe" else 0)


@pytest.mark.parametrize(
    ("row", "learns"),
    [
        ("full", lambda name: True),
        ("lora", lambda name: ".lora_" in name),
        ("sparse_moe", lambda name: True),
        ("lora_moe", lambda name: name.rpartition(".")[2] in ("gate", "down", "up")),
        ("llama_pro", lambda name: ".layers.2." in name),
    ],
)
def test_a_baseline_changes_what_its_row_says_and_leaves_the_base_it_was_made_of_alone(
    row, learns, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    dense = tiny_model()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    tuned = ROWS[row](dense)
    start = {name: parameter.detach().clone() for name, parameter in tuned.named_parameters()}
    assert {name for name, _ in trainable_parameters(tuned)} == {name for name in start if learns(name)}
    finetune(tuned, tiny_tokenizer, tiny_corpus, tmp_path)
    changed = {name for name, parameter in tuned.named_parameters() if not torch.equal(parameter, start[name])}
    assert changed == {name for name in start if learns(name)}
    after = dense.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_lora_stands_on_every_linear_map_but_the_head_with_rank_8(tiny_model):
    dense = tiny_model()
    maps = {name for name, module in dense.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"}
    tuned = baselines.lora(dense)
    ranks = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight"): parameter.shape[0]
        for name, parameter in tuned.named_parameters()
        if ".lora_A." in name
    }
    assert ranks == dict.fromkeys(maps, 8) and len(maps) == 2 * 7


def test_only_the_mixture_has_a_balance_loss(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    terms = {
        row: list(finetune(ROWS[row](tiny_model()), tiny_tokenizer, tiny_corpus, tmp_path / row)["terms"])
        for row in ("full", "sparse_moe")
    }
    assert terms == {"full": ["lm_loss"], "sparse_moe": ["lm_loss", "load_balancing_loss"]}


def test_baselines_see_replay_in_its_share_and_the_expanded_languages_equally(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, monkeypatch
):
    seen = []
    batch = BlockSchedule.batch
    monkeypatch.setattr(BlockSchedule, "batch", lambda self, step: seen.extend(self.at(step)) or batch(self, step))
    settings = dataclasses.replace(SETTINGS, tokens=10 * 4 * 32)
    finetune(baselines.lora(tiny_model(), 1), tiny_tokenizer, tiny_corpus, tmp_path, settings)
    languages = [language for language, _ in seen]
    assert {code: languages.count(code) for code in ("en", "el", "tr")} == {"en": 10, "el": 15, "tr": 15}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("row", ROWS)
def test_a_baseline_that_was_cut_and_resumed_ends_bit_identical(
    row, precision, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    settings = dataclasses.replace(SETTINGS, precision=precision)
    whole = ROWS[row](tiny_model())
    expected = finetune(whole, tiny_tokenizer, tiny_corpus, tmp_path / "whole", settings)
    cut = dataclasses.replace(settings, max_minutes=1e-9)
    assert finetune(ROWS[row](tiny_model()), tiny_tokenizer, tiny_corpus, tmp_path / "cut", cut)["steps"] == 1
    resumed = ROWS[row](tiny_model())
    result = finetune(resumed, tiny_tokenizer, tiny_corpus, tmp_path / "cut", settings)
    assert result["terms"] == expected["terms"]
    other = dict(resumed.named_parameters())
    assert all(torch.equal(parameter, other[name]) for name, parameter in whole.named_parameters())


@pytest.mark.parametrize("row", ROWS)
def test_a_step_in_bf16_computes_with_what_the_step_before_made_of_the_weights(
    row, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    """Autocast keeps weights that it rounded until its outermost block ends, which may be that of a whole stage."""
    lost = {}
    for precision in ("fp32", "bf16"):
        rows = []
        settings = dataclasses.replace(SETTINGS, tokens=12 * 4 * 32, precision=precision)
        model = ROWS[row](tiny_model())
        finetune(model, tiny_tokenizer, tiny_corpus, tmp_path / precision, settings, log=rows.append)
        lost[precision] = [metrics["loss"] for metrics in rows]
    fell = lost["fp32"][0] - min(lost["fp32"])
    assert fell > 0.01
    assert lost["bf16"] == pytest.approx(lost["fp32"], abs=0.25 * fell)


def test_resume_refuses_another_start(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    finetune(baselines.full(tiny_model()), tiny_tokenizer, tiny_corpus, tmp_path)
    with pytest.raises(UsageError, match="base"):
        finetune(baselines.full(tiny_model(seed=1)), tiny_tokenizer, tiny_corpus, tmp_path)


@pytest.mark.parametrize("row", ROWS)
def test_a_baseline_is_scored_beside_the_base_on_the_same_documents(
    row, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    dense = tiny_model()
    options = {"languages": ["en", "el"], "original": ["en"], "splits": ["dev"], "bootstrap": 20, "precision": "fp32"}
    options |= {"tokens_per_language": 200}
    expected = evaluate(dense, tiny_tokenizer, tiny_corpus, **options).to_frame()
    tuned = ROWS[row](dense)
    finetune(tuned, tiny_tokenizer, tiny_corpus, tmp_path)
    if row != "lora":  # which has its base inside
        options["base"] = dense
    report = evaluate(tuned, tiny_tokenizer, tiny_corpus, **options)
    scores = report.to_frame().set_index(["model", "language"])["bits_per_byte"]
    for language, score in zip(expected["language"], expected["bits_per_byte"], strict=True):
        assert scores["base", language] == pytest.approx(score, abs=1e-6)
        assert scores["expanded", language] != pytest.approx(score, abs=1e-4)
    assert set(report.changes()["language"]) == {"en", "el"}
    assert len(report.load) == (0 if row != "sparse_moe" else 2 * 5)  # two languages, 2 + 3 experts


def test_a_model_with_its_base_inside_is_not_compared_with_another(tiny_model, tiny_tokenizer, tiny_corpus):
    with pytest.raises(UsageError, match="has its base inside"):
        evaluate(baselines.lora(tiny_model()), tiny_tokenizer, tiny_corpus, languages=["en"], base=tiny_model())


@pytest.mark.parametrize("family", LLAMA_LIKE)
def test_new_blocks_add_nothing_at_first_in_every_llama_like_family(family, tiny_model, tmp_path):
    dense = tiny_model(family, num_layers=4)
    deeper = baselines.llama_pro(dense, num_blocks=2)
    assert deeper.config.num_hidden_layers == 6
    assert torch.equal(logits(deeper), logits(dense))
    new = {name.split(".")[2] for name, _ in trainable_parameters(deeper)}
    assert new == {"2", "5"}  # after the second block and after the fourth
    generate = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(deeper.generate(IDS, **generate), dense.generate(IDS, **generate))  # also from a cache
    with torch.no_grad():
        for _, parameter in trainable_parameters(deeper):
            parameter += 0.1
    deeper.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.allclose(logits(again), logits(deeper), atol=1e-5)
    assert not torch.allclose(logits(again), logits(dense), atol=1e-2)


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "gpt_neox", "gpt2"])
def test_new_blocks_are_refused_where_they_would_not_be_silent(family, tiny_model):
    with pytest.raises(UnsupportedModelError, match="not built like Llama's"):
        baselines.llama_pro(tiny_model(family), num_blocks=1)


def test_new_blocks_stand_behind_groups_of_equally_many(tiny_model):
    with pytest.raises(UsageError, match=r"num_blocks = 2 .* 3 layers"):
        baselines.llama_pro(tiny_model(num_layers=3), num_blocks=2)


def test_lora_experts_are_all_at_work_on_every_token_by_a_softmax_gate():
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(6, 4)
    mixture = baselines.LoraMixture(linear, num_experts=3, rank=2, generator=generator)
    with torch.no_grad():
        mixture.up.normal_()
    x = torch.randn(5, 6)
    gate = (x @ mixture.gate.T).softmax(-1)
    expected = linear(x)
    for expert in range(3):
        channels = slice(2 * expert, 2 * expert + 2)
        update = x @ mixture.down[channels].T @ mixture.up[:, channels].T
        expected = expected + 2 * gate[:, expert : expert + 1] * update
    assert torch.allclose(mixture(x), expected, atol=1e-5)


def test_lora_experts_need_linear_maps(tiny_model):
    with pytest.raises(UnsupportedModelError, match=r"no nn\.Linear"):
        baselines.lora_moe(tiny_model("gpt2"))


def test_a_mixture_that_learned_as_a_whole_is_no_expansion(tiny_model, tmp_path):
    mixture = baselines.sparse_moe(tiny_model(), [1, 1])
    with pytest.raises(UsageError, match="not an expanded model"):
        save_expansion(mixture, tmp_path / "adapter")  # its base would be lost


@pytest.mark.parametrize("row", ROWS)
def test_a_baseline_starts_from_a_dense_base_only(row, tiny_model):
    with pytest.raises(UsageError, match="dense base"):
        ROWS[row](upcycle(tiny_model(), [1, 1]))


def test_an_expansion_is_not_trained_as_a_baseline(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    with pytest.raises(UsageError, match=r"lpr_lab\.expand"):
        finetune(upcycle(tiny_model(), [1, 1]), tiny_tokenizer, tiny_corpus, tmp_path)
