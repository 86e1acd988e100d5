"""A tokenizer with more tokens than the model has embeddings is refused, at load and by every verb it is given to."""

import copy
import json

import pytest
import torch
from tokenizers import AddedToken

from lpr_lab.errors import UsageError
from lpr_lab.measure.bits import evaluate
from lpr_lab.measure.classifiers import classifier_accuracy
from lpr_lab.measure.generation import generate_pair
from lpr_lab.measure.routing import trace
from lpr_lab.method.baselines import finetune, full
from lpr_lab.method.closed_form import fit_routers, local_review
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.similarity import measure_similarity
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.load import load_base, load_tokenizer
from lpr_lab.model.formats.save_load import load_expansion, save_expansion
from lpr_lab.model.stages import enter_stage
from lpr_lab.text.packing import pack
from lpr_lab.text.vocabulary import require_embeddings


def add_a_word(tokenizer):
    tokenizer.add_tokens(["ağaç"])


def add_an_end(tokenizer):
    tokenizer.add_special_tokens({"eos_token": "<end>"})


def add_a_beginning(tokenizer):
    tokenizer.add_special_tokens({"bos_token": "<begin>"})


def add_a_role(tokenizer):
    tokenizer.add_tokens([AddedToken("<|user|>", special=True)], special_tokens=True)


def add_padding(tokenizer):
    tokenizer.add_special_tokens({"pad_token": "<pad>"})


def add_padding_that_divides_documents(tokenizer):
    tokenizer.add_special_tokens({"pad_token": "<pad>", "eos_token": "<pad>"})
    vocabulary = tokenizer.get_vocab()
    tokenizer.get_vocab = lambda: {token: number for token, number in vocabulary.items() if token != "<|endoftext|>"}


def add_an_image(tokenizer):
    tokenizer.add_tokens([AddedToken("<image>", special=True)], special_tokens=True)
    tokenizer.image_token = "<image>"


REFUSED = [add_a_word, add_an_end, add_a_beginning, add_a_role]
HARMLESS = [add_padding, add_an_image]


@pytest.fixture
def tokenizer(tiny_tokenizer):
    return copy.deepcopy(tiny_tokenizer)


@pytest.fixture
def folder(tiny_model, tokenizer, tmp_path):
    """Return a function that saves a base beside a tokenizer with one token more."""

    def write(add):
        tiny_model("llama").save_pretrained(tmp_path / "base")
        add(tokenizer)
        tokenizer.save_pretrained(tmp_path / "base")
        if add is add_an_image:
            described = tmp_path / "base" / "tokenizer_config.json"
            described.write_text(json.dumps(json.loads(described.read_text()) | {"image_token": "<image>"}))
        return tmp_path / "base"

    return write


@pytest.mark.parametrize("load", [load_base, load_tokenizer])
@pytest.mark.parametrize("add", REFUSED)
def test_a_base_with_a_usable_token_beyond_its_rows_is_refused_at_load(folder, add, load):
    with pytest.raises(UsageError, match=r"400\).*400 rows"):
        load(folder(add))


@pytest.mark.parametrize("add", HARMLESS)
def test_padding_and_what_is_no_text_may_be_beyond_the_rows_and_is_never_fed(folder, add, tiny_corpus):
    model, tokenizer = load_base(folder(add))
    blocks = pack(tiny_corpus.documents("train", "el"), tokenizer, 50, languages=["el"])
    assert (blocks.language_id < 0).any()  # the last block is padded
    assert int(blocks.input_ids.max()) < model.config.vocab_size
    model(input_ids=blocks.input_ids, position_ids=blocks.position_ids, use_cache=False)


def test_padding_that_divides_documents_is_refused(tiny_model, tokenizer):
    add_padding_that_divides_documents(tokenizer)
    with pytest.raises(UsageError, match="<pad>"):
        require_embeddings(tiny_model("llama"), tokenizer)


def test_more_rows_than_tokens_are_fine_and_the_advice_followed_literally_works(folder, tmp_path):
    path = folder(add_a_word)
    with pytest.raises(UsageError, match=r"model\.resize_token_embeddings\(401\)"):
        load_base(path)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    model.resize_token_embeddings(401)
    for piece in (model, tokenizer):
        piece.save_pretrained(tmp_path / "resized")
    model, tokenizer = load_base(tmp_path / "resized")
    ids = tokenizer("ağaç")["input_ids"]
    assert ids == [400]
    assert model(torch.tensor([ids])).logits.shape[-1] == 401
    model.resize_token_embeddings(448)
    require_embeddings(model, tokenizer)


TEXT = {"original": ["en"], "expanded": ["el"]}
VERBS = {
    "expand": lambda m, t, c, out: expand(m, t, c, languages=["el"], out=out),
    "review": lambda m, t, c, out: review(m, t, c, **TEXT, out=out),
    "fit_routers": lambda m, t, c, out: fit_routers(m, t, c, **TEXT),
    "local_review": lambda m, t, c, out: local_review(m, t, c, **TEXT),
    "measure_similarity": lambda m, t, c, out: measure_similarity(m.get_base_model(), t, c, **TEXT),
    "evaluate": lambda m, t, c, out: evaluate(m, t, c, languages=["en", "el"], original=["en"]),
    "trace": lambda m, t, c, out: trace(m, t, "Καλημέρα"),
    "generate_pair": lambda m, t, c, out: generate_pair(m, t, "Καλημέρα"),
    "classifier_accuracy": lambda m, t, c, out: classifier_accuracy(
        m, t, c, languages=["en", "el"], original=["en"], splits=["train"], tokens_per_language=100
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_such_a_tokenizer_before_it_begins(tiny_model, tokenizer, tiny_corpus, tmp_path, verb):
    add_a_word(tokenizer)
    model = upcycle(tiny_model("llama"), (1, 1), router_bias=True)
    enter_stage(model, "review", classifiers=[0])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UsageError, match="ağaç"):
        VERBS[verb](model, tokenizer, tiny_corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_baselines_refuse_such_a_tokenizer_too(tiny_model, tokenizer, tiny_corpus, tmp_path):
    add_a_word(tokenizer)
    with pytest.raises(UsageError, match="ağaç"):
        finetune(full(tiny_model("llama")), tokenizer, tiny_corpus, **TEXT, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", [trace, lambda m, t, text: generate_pair(m, t, text)])
def test_a_text_with_the_sign_of_an_image_is_refused_by_its_name(tiny_model, tokenizer, verb):
    add_an_image(tokenizer)
    model = upcycle(tiny_model("llama"), (1, 1))
    with pytest.raises(UsageError, match="<image>"):
        verb(model, tokenizer, "Look: <image>")


def test_an_expansion_opens_although_the_tokenizer_of_its_base_has_too_many_tokens(folder, tmp_path, tokenizer):
    path = folder(lambda tokenizer: None)
    model, _ = load_base(path)
    save_expansion(upcycle(model, (1, 1)), tmp_path / "adapter")
    add_a_word(tokenizer)
    tokenizer.save_pretrained(path)
    model = load_expansion(tmp_path / "adapter")
    with pytest.raises(UsageError, match="ağaç"):
        trace(model, tokenizer, "Καλημέρα")
