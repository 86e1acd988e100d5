"""A GGUF file holds every number of the native model that it was written from, and says what llama.cpp asks for."""

import gguf
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers.expansions import changed, moved
from helpers.tokenizer_kinds import LOSING, byte_fallback, byte_level, prefix_space, unigram_with_bytes
from lpr_lab.errors import DamagedError, UnsupportedModelError, UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.formats import gguf_file
from lpr_lab.model.formats.export import export
from lpr_lab.model.formats.gguf_tokenizer import Vocabulary
from lpr_lab.storage import verify

ARCHITECTURES = {
    ("llama", (2, 2, 2)): "llama",
    ("mistral", (2, 0, 2)): "llama",
    ("llama", (1, 3, 2)): "ernie4_5-moe",
    ("qwen2", (2, 2, 2)): "ernie4_5-moe",
    ("qwen3", (0, 2, 2)): "qwen3moe",
}


def fields(path):
    return {key: field.contents() for key, field in gguf.GGUFReader(path / gguf_file.FILE).fields.items()}


@pytest.mark.parametrize(("family", "counts"), ARCHITECTURES)
def test_a_file_in_float32_holds_the_same_model(tiny_model, tiny_tokenizer, tmp_path, family, counts):
    model = moved(upcycle(tiny_model(family, num_layers=3), counts))
    export(model, tmp_path / "gguf", "gguf", tokenizer=tiny_tokenizer)
    facts, said = verify(tmp_path / "gguf"), fields(tmp_path / "gguf")
    architecture = ARCHITECTURES[family, counts]
    assert facts["weights"] == "f32" and facts["difference"] < 1e-4
    assert said["general.architecture"] == architecture
    assert said[f"{architecture}.expert_count"] == 1 + max(counts)
    assert said[f"{architecture}.expert_used_count"] == 2
    assert said["tokenizer.ggml.model"] == "gpt2" and said["tokenizer.ggml.pre"] == "gpt-2"
    assert len(said["tokenizer.ggml.tokens"]) == 400


@pytest.mark.parametrize("weights", ["f16", "bf16", "q8_0"])
def test_matrices_are_rounded_and_all_else_is_whole(tiny_model, tiny_tokenizer, tmp_path, weights):
    dense = changed(tiny_model("llama"), intermediate_size=64)
    export(moved(upcycle(dense, (1, 2))), tmp_path / "gguf", "gguf", tokenizer=tiny_tokenizer, weights=weights)
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "gguf" / gguf_file.FILE).tensors}
    whole = {name for name, kind in kinds.items() if kind == "F32"}
    assert {kind for name, kind in kinds.items() if name not in whole} == {weights.upper()}
    for name in kinds:
        is_small = any(part in name for part in ("norm", "ffn_gate_inp", "exp_probs_b"))
        assert (name in whole) == is_small, name


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
        {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ],
)
def test_stretched_positions_are_written(tiny_model, tiny_tokenizer, tmp_path, rope):
    model = moved(upcycle(changed(tiny_model("llama"), rope_parameters=rope), (1, 1)))
    export(model, tmp_path / "gguf", "gguf", tokenizer=tiny_tokenizer)
    said = fields(tmp_path / "gguf")
    assert said["llama.rope.freq_base"] == 500.0
    if rope["rope_type"] == "linear":
        assert said["llama.rope.scaling.factor"] == 4.0
    else:
        tensors = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "gguf" / gguf_file.FILE).tensors}
        assert tensors["rope_freqs.weight"].tolist()[-1] == pytest.approx(8.0)
        assert tensors["rope_freqs.weight"].tolist()[0] == pytest.approx(1.0)


def test_a_file_with_another_number_is_not_kept(tiny_model, tiny_tokenizer, tmp_path, monkeypatch):
    model = moved(upcycle(tiny_model("llama"), (1, 1)))
    monkeypatch.setattr(gguf_file, "interleave", lambda rows, num_heads: rows)
    with pytest.raises(DamagedError, match="q_proj"):
        export(model, tmp_path / "gguf", "gguf", tokenizer=tiny_tokenizer)
    assert not list(tmp_path.iterdir())


REFUSED = {
    "another family": ("gemma3", {}, (1, 1), {}, "gemma3"),
    "qwen3 with other numbers of experts": ("qwen3", {}, (1, 2), {}, "Layers have 2, 3 experts"),
    "a sliding window": ("mistral", {"sliding_window": 8}, (1, 1), {}, "sliding window of 8"),
    "another activation": ("llama", {"hidden_act": "gelu"}, (1, 1), {}, "gelu"),
    "yarn": (
        "llama",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0}},
        (1, 1),
        {},
        "yarn",
    ),
    "a bias after attention": ("qwen3", {"attention_bias": True}, (1, 1), {}, "o_proj.bias"),
    "rows that do not divide into blocks": ("llama", {}, (1, 1), {"weights": "q8_0"}, "blocks of 32"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_llama_cpp_has_no_place_for_is_refused(tiny_model, tiny_tokenizer, tmp_path, what):
    family, settings, counts, options, message = REFUSED[what]
    dense = tiny_model(family)
    model = upcycle(changed(dense, **settings) if settings else dense, counts)
    with pytest.raises(UnsupportedModelError, match=message):
        export(model, tmp_path / "gguf", "gguf", tokenizer=tiny_tokenizer, **options)
    assert not list(tmp_path.iterdir())


def test_a_file_needs_a_tokenizer_and_only_a_file_takes_other_weights(tiny_model, tiny_tokenizer, tmp_path):
    model = upcycle(tiny_model("llama"), (1, 1))
    with pytest.raises(UsageError, match="tokenizer="):
        export(model, tmp_path / "gguf", "gguf")
    with pytest.raises(UsageError, match="q4_k"):
        export(model, tmp_path / "gguf", "gguf", tokenizer=tiny_tokenizer, weights="q4_k")
    with pytest.raises(UsageError, match="format='gguf'"):
        export(model, tmp_path / "native", "mixtral", weights="f16")


def test_rows_beyond_the_tokenizer_get_names_that_no_text_has(tiny_tokenizer):
    vocabulary = Vocabulary.of(tiny_tokenizer, 410)
    assert len(vocabulary.tokens) == 410 and len(set(vocabulary.tokens)) == 410
    assert vocabulary.types[400:] == [int(gguf.TokenType.UNUSED)] * 10
    assert vocabulary.types[0] == int(gguf.TokenType.CONTROL)


def test_byte_fallback_is_sentencepiece_with_scores(sentences):
    vocabulary = Vocabulary.of(byte_fallback(), 400)
    assert vocabulary.model == "llama" and vocabulary.adds_space and len(vocabulary.scores) == 400
    assert vocabulary.types.count(int(gguf.TokenType.BYTE)) == 256


@pytest.mark.parametrize("make", [*LOSING.values(), prefix_space, unigram_with_bytes])
def test_tokenizers_that_llama_cpp_cannot_be_shown_to_equal_are_refused(make):
    with pytest.raises(UnsupportedModelError, match=r"llama\.cpp"):
        Vocabulary.of(make(), 500)


def test_a_token_that_llama_cpp_would_cut_short_is_refused():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0, "\0": 1}, merges=[], byte_fallback=True))
    )
    with pytest.raises(UnsupportedModelError, match="NUL"):
        Vocabulary.of(tokenizer, 2)


def test_an_unknown_pattern_of_words_is_refused():
    tokenizer = byte_level.__wrapped__()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    with pytest.raises(UnsupportedModelError, match="cutting text into words"):
        Vocabulary.of(tokenizer, 400)


def test_digits_one_by_one_are_the_way_of_smollm():
    tokenizer = byte_level.__wrapped__()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert Vocabulary.of(tokenizer, 400).pre == "smollm"


def test_the_order_of_rotated_rows_is_undone():
    rows = torch.randn(24, 5)
    assert torch.equal(gguf_file.in_halves(gguf_file.interleave(rows, 3), 3), rows)
