"""llama.cpp reads what we write: the same logits, the same continuations, the same tokens.

Needs the extra `serving` (llama-cpp-python, built from source); skipped without it, loudly. LPR_LAB_REQUIRE_LLAMA_CPP=1
makes its absence a failure.
"""

import os

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from helpers.expansions import changed, moved
from helpers.sentences import SENTENCES
from helpers.tokenizer_kinds import byte_fallback, byte_level, byte_level_with_words
from lpr_lab.errors import DamagedError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.formats import gguf_tokenizer
from lpr_lab.model.formats.export import export
from lpr_lab.model.formats.gguf_file import FILE
from lpr_lab.model.formats.llama_cpp import INSTALL, ask, is_installed
from lpr_lab.storage import verify

pytestmark = pytest.mark.slow
IDS = torch.arange(5, 85).view(2, 40)
MODELS = {
    "mixtral": ("llama", {}, (2, 2, 2), 2),
    "mixtral, a dense layer": ("mistral", {}, (3, 0, 3), 2),
    "mixtral, linear positions": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
        (1, 1, 1),
        2,
    ),
    "mixtral, positions of Llama 3": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
        (1, 1, 1),
        2,
    ),
    "mixtral, heads of another width and tied": ("llama", {"head_dim": 16, "tie_word_embeddings": True}, (2, 2, 2), 3),
    "qwen3": ("qwen3", {}, (2, 2, 2), 2),
    "qwen3, a dense layer": ("qwen3", {}, (0, 3, 3), 2),
    "qwen2": ("qwen2", {}, (2, 2, 2), 2),
    "llama, other numbers of experts": ("llama", {}, (1, 4, 0), 2),
    "llama, other numbers, three of them chosen": ("llama", {}, (0, 2, 4), 3),
    "qwen2, other numbers of experts": ("qwen2", {"tie_word_embeddings": True}, (1, 4, 0), 2),
}


@pytest.fixture(autouse=True)
def _llama_cpp():
    if not is_installed():
        reason = f"NO LLAMA.CPP: {INSTALL} Files were read again by transformers only."
        if os.environ.get("LPR_LAB_REQUIRE_LLAMA_CPP") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def continuations(model, length=12):
    options = {"max_new_tokens": length, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    return model.generate(input_ids=IDS[:, :9], **options)[:, 9:].tolist()


@pytest.mark.parametrize("what", MODELS)
def test_logits_and_continuations_are_the_same(tiny_model, tiny_tokenizer, tmp_path, what):
    family, settings, counts, top_k = MODELS[what]
    dense = tiny_model(family, num_layers=3)
    model = moved(upcycle(changed(dense, **settings) if settings else dense, counts, top_k=top_k))
    export(model, tmp_path / "gguf", "gguf", tokenizer=tiny_tokenizer)
    facts = verify(tmp_path / "gguf")
    assert facts["llama_cpp"] and facts["llama_cpp_difference"] < 1e-3
    expected, found = logits(model), ask(tmp_path / "gguf" / FILE, IDS.tolist())
    assert torch.allclose(torch.tensor(found.logits), expected, atol=1e-4 * max(1, float(expected.abs().max())))
    assert ask(tmp_path / "gguf" / FILE, IDS[:, :9].tolist(), length=12).continuations == continuations(model)


@pytest.mark.parametrize("weights", ["f16", "bf16", "q8_0"])
def test_rounded_weights_differ_by_what_was_rounded(tiny_model, tiny_tokenizer, tmp_path, weights):
    """All experts are chosen, so that rounding sends no token elsewhere."""
    model = moved(upcycle(changed(tiny_model("llama"), intermediate_size=64), (1, 1)))
    export(model, tmp_path / "gguf", "gguf", tokenizer=tiny_tokenizer, weights=weights)
    facts = verify(tmp_path / "gguf")
    assert 0 < facts["difference"] and 0 < facts["llama_cpp_difference"] < 3 * facts["difference"]


def test_a_file_that_llama_cpp_does_not_open_is_not_kept(tiny_model, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("gguf.GGUFWriter.add_expert_used_count", lambda self, count: None)
    with pytest.raises(DamagedError, match=r"llama\.cpp does not open"):
        export(upcycle(tiny_model("llama"), (1, 1)), tmp_path / "gguf", "gguf", tokenizer=tiny_tokenizer)
    assert not list(tmp_path.iterdir())


def digits_one_by_one():
    tokenizer = byte_level.__wrapped__()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def split_by(name, ignore_merges=False):
    """Train on words cut by the pattern of a family, so that tokens differ where the pattern does."""
    pattern = next(pattern for pattern, known in gguf_tokenizer._PATTERNS.items() if known == name)
    inner = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator([*SENTENCES.values(), "12 123 1234 12345 12,345 we've don't 'tis"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")


def sentencepiece(prefix):
    """BPE over characters with byte fallback, and every way to merge a token, as SentencePiece merges."""
    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"])
    inner.train_from_iterator([f" {text}" for text in SENTENCES.values()], trainer)
    names = [name for name in sorted(inner.get_vocab(), key=inner.get_vocab().get) if "\0" not in name]
    names = [*names[:3], *(f"<0x{byte:02X}>" for byte in range(256)), *names[3:]]
    known = set(names)
    merges = [
        (name[:cut], name[cut:])
        for name in names[259:]
        for cut in range(1, len(name))
        if {name[:cut], name[cut:]} <= known
    ]
    vocabulary = {name: number for number, name in enumerate(names)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    spaces = normalizers.Replace(" ", "▁")
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {
    "gpt-2": byte_level,
    "added words": byte_level_with_words,
    "smollm": digits_one_by_one,
    "qwen2": lambda: split_by("qwen2"),
    "llama-bpe": lambda: split_by("llama-bpe", ignore_merges=True),
    "byte fallback": byte_fallback,
    "sentencepiece with a space in front": lambda: sentencepiece(True),
    "sentencepiece without": lambda: sentencepiece(False),
}


@pytest.mark.parametrize("what", TOKENIZERS)
def test_texts_in_many_scripts_get_the_same_tokens(tiny_model, tmp_path, what):
    tokenizer = TOKENIZERS[what]()
    model = upcycle(changed(tiny_model("llama"), vocab_size=len(tokenizer) + 3), (1, 1))
    export(model, tmp_path / "gguf", "gguf", tokenizer=tokenizer)
    assert verify(tmp_path / "gguf")["llama_cpp"], "texts in seventeen languages are compared while exporting"
    texts = list(SENTENCES.values())
    found = ask(tmp_path / "gguf" / FILE, [[0]], texts).tokens
    assert found == [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


@pytest.mark.real
def test_the_tokenizer_of_smollm2_cuts_the_same(tiny_model, tmp_path):
    from lpr_lab.model.bases.load import load_tokenizer

    tokenizer = load_tokenizer("smollm2-135m")
    model = upcycle(changed(tiny_model("llama"), vocab_size=len(tokenizer)), (1, 1))
    export(model, tmp_path / "gguf", "gguf", tokenizer=tokenizer)
    assert verify(tmp_path / "gguf")["llama_cpp"]


@pytest.mark.real
@pytest.mark.parametrize("counts", [[1] * 30, [2, 0, 1] * 10])
def test_an_expansion_of_smollm2_is_the_same(tmp_path, counts):
    base, tokenizer = load_base("smollm2-135m")
    model = upcycle(base, tuple(counts))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "moe_lpr" in name:
                parameter += parameter.std() * 0.2 * torch.randn_like(parameter)
    model.eval()
    export(model, tmp_path / "gguf", "gguf", tokenizer=tokenizer)
    prompt = tokenizer("Once upon a time, in a small village", return_tensors="pt")["input_ids"]
    options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(input_ids=prompt, **options)[0, prompt.shape[1] :].tolist()
    assert ask(tmp_path / "gguf" / FILE, prompt.tolist(), length=24).continuations == [expected]
