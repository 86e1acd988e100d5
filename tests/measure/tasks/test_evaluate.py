"""Tasks asked of models: one that knows the text is right, a random one is at chance, and a model is itself."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.small_expansion import shake
from lpr_lab.errors import UsageError
from lpr_lab.measure.bits import document_nats
from lpr_lab.measure.significance import UNCLEAR, share_interval
from lpr_lab.measure.tasks import make
from lpr_lab.measure.tasks.evaluate import choice_scores, evaluate_tasks, pack_items
from lpr_lab.measure.tasks.items import Item
from lpr_lab.measure.tasks.make import make_items
from lpr_lab.method.upcycle import upcycle
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.packing import NO_TARGET

CODES = ("en", "el")
OPTIONS = {"languages": CODES, "original": ("en",), "block_tokens": 128, "precision": "fp32", "bootstrap": 100}


@pytest.fixture(scope="module")
def corpus(sentences):
    """Messages of words in random order: what follows what can be known by heart and in no other way."""
    texts = {}
    for code in CODES:
        draw, words = np.random.default_rng(1), sorted(set(" ".join(sentences[code]).split()))
        messages = [" ".join(draw.choice(words, size=12)) for _ in range(60)]
        texts["heldout", code] = tuple(Document(f"m{n}", code, text, "toy") for n, text in enumerate(messages))
        texts["train", code] = tuple(Document(f"t{n}", code, text, "toy") for n, text in enumerate(sentences[code]))
    return Corpus("toy", CODES, texts)


class ByHeart(nn.Module):
    """Knows how some texts go on, from their beginning to any place in them, and has no idea of others."""

    def __init__(self, model, tokenizer, documents):
        super().__init__()
        self.model = model
        texts = [tokenizer(document.text, add_special_tokens=False)["input_ids"] for document in documents]
        self.known = {tuple(ids[:place]): ids[place] for ids in texts for place in range(len(ids))}

    def forward(self, input_ids, position_ids, **inputs):
        out = self.model(input_ids=input_ids, position_ids=position_ids, **inputs)
        for row, ids in enumerate(input_ids.tolist()):
            for place, position in enumerate(position_ids[row].tolist()):
                follows = self.known.get(tuple(ids[place - position + 1 : place + 1]))
                if follows is not None:
                    out.logits[row, place, follows] += 50
        return out


def nats_of(model, blocks):
    """Return the nats of every document, from whole logits and without any of the shorter ways."""
    out = model(input_ids=blocks.input_ids, position_ids=blocks.position_ids, use_cache=False).logits.log_softmax(-1)
    targets, totals = blocks.targets, np.zeros(blocks.num_documents)
    scored = (targets != NO_TARGET) & (targets != blocks.separator_id)
    found = -out.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    np.add.at(totals, blocks.document_index[scored].numpy(), found[scored].double().numpy())
    return totals


@torch.no_grad()
def test_who_knows_the_text_chooses_right_and_who_does_not_is_at_chance(tiny_model, tiny_tokenizer, corpus):
    items = make_items(corpus, ["choice"], CODES, items_per_language=40).items["choice", "el"]
    blocks = pack_items(items, tiny_tokenizer, 128)
    random = tiny_model("llama")
    knowing = ByHeart(random, tiny_tokenizer, corpus.documents("heldout", "el"))
    right = {}
    for name, model in (("random", random), ("knowing", knowing)):
        scores = choice_scores(items, nats_of(model, blocks), by_length=True)
        right[name] = int((scores.argmax(1) == 0).sum())
    assert right["knowing"] == len(items)
    low, high = share_interval(right["random"], len(items))
    assert low < 0.25 < high


@torch.no_grad()
def test_the_packed_pass_scores_what_comes_after_a_context_and_nothing_else(tiny_model, tiny_tokenizer):
    model = tiny_model("llama")
    items = [
        Item("a", "en", "The baker opens", (" the shop.", " a door that is old.")),
        Item("b", "en", "My grandmother keeps 14 jars", (" of honey.", " in the sun.")),
    ]
    blocks = pack_items(items, tiny_tokenizer, 32)
    found = document_nats(model, blocks, precision="fp32")
    for (context, text), nats in zip(
        ((i.context, i.context + c) for i in items for c in i.choices), found, strict=True
    ):
        ids = tiny_tokenizer(text)["input_ids"]
        log_probs = model(torch.tensor([[blocks.separator_id, *ids]])).logits[0, :-1].log_softmax(-1)
        each = -log_probs.gather(1, torch.tensor(ids)[:, None])[:, 0]
        assert nats == pytest.approx(float(each[len(tiny_tokenizer(context)["input_ids"]) :].sum()), rel=1e-4)


def test_no_question_is_divided_between_two_blocks(tiny_tokenizer, corpus):
    items = make_items(corpus, ["choice"], CODES, items_per_language=8).items["choice", "el"]
    blocks = pack_items(items, tiny_tokenizer, 64)
    assert blocks.num_documents == 4 * len(items)
    for number in range(blocks.num_documents):
        assert (blocks.document_index == number).any(1).sum() == 1


def test_base_and_expansion_answer_the_same_items_in_every_language(tiny_model, tiny_tokenizer, corpus):
    model = shake(upcycle(tiny_model("llama"), (1, 1)))
    report = evaluate_tasks(model, tiny_tokenizer, corpus, tasks=("choice",), items_per_language=12, **OPTIONS)
    frame = report.to_frame()
    assert set(frame["model"]) == {"base", "expanded"}
    assert set(frame["n_items"]) == {12}
    assert {test.language: test.role for test in report.sets} == {"en": "original", "el": "expanded"}
    assert len({test.ids for test in report.sets}) == 1
    assert set(report.changes()["task"]) == {"choice"}


def test_an_expansion_that_was_not_trained_answers_as_its_base(tiny_model, tiny_tokenizer, corpus):
    model = upcycle(tiny_model("llama"), (1, 1))
    options = {**OPTIONS, "items_per_language": 20, "prompts_per_language": 2, "max_new_tokens": 4}
    report = evaluate_tasks(model, tiny_tokenizer, corpus, tasks=("choice", "generation"), **options)
    changes = report.changes()
    assert set(changes["task"]) == {"choice", "script", "language", "no_repetition"}
    assert set(changes["verdict"]) == {UNCLEAR}
    assert changes["change_points"].abs().max() == 0
    assert ((changes["ci_low"] <= 0) & (0 <= changes["ci_high"])).all()
    people = report.to_frame().query("model == 'people' and task == 'language'")
    assert people["accuracy"].tolist() == [1.0, 1.0]


def test_a_language_without_a_table_of_lemmas_is_left_out_with_the_reason(monkeypatch, corpus):
    monkeypatch.setattr(make, "has_lemmas", lambda code: code != "el")
    monkeypatch.setattr(
        make, "make_pairs", lambda documents, code, count, seed: [Item("a/b", code, "x", ("a", "b"))] * count
    )
    made = make_items(corpus, ["inflection"], CODES, items_per_language=30)
    assert list(made.items) == [("inflection", "en")]
    assert [row[:2] for row in made.left_out] == [("inflection", "el")]


@pytest.mark.parametrize("wrong", [{"tasks": ["chioce"]}, {"items_per_language": 0}])
def test_what_cannot_be_asked_is_refused_before_any_model_reads(tiny_tokenizer, corpus, wrong):
    asked = {"tasks": ["choice"], "languages": CODES, **wrong}
    with pytest.raises(UsageError, match=r"choice|1 item"):
        make_items(corpus, **asked)
