"""A stage makes no whole logits, learns what it learns with them, and makes them for a term that reads them."""

import pytest
import torch
from torch.nn import functional as F

from lpr_lab.method.expand import expand
from lpr_lab.method.training import terms, train
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model import head

SETTINGS = TrainSettings(tokens=3 * 128, block_tokens=32, blocks_per_step=4, blocks_per_forward=2, precision="fp32")


@pytest.fixture
def stage(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, monkeypatch):
    """Return a function that trains stage 1 anew, and returns the losses of its steps and the most rows of logits."""

    def run(name):
        model, seen, rows = upcycle(tiny_model("llama"), [3, 1]), [], []
        monkeypatch.setitem(head._LOGITS_AT_ONCE, "cpu", 7 * model.config.vocab_size)
        count = model.get_output_embeddings().register_forward_hook(lambda _, __, out: rows.append(out[..., 0].numel()))
        options = {"languages": ["el"], "out": tmp_path / name, "settings": SETTINGS, "log": seen.append}
        expand(model, tiny_tokenizer, tiny_corpus, **options)
        count.remove()
        return [metrics["loss"] for metrics in seen], max(rows)

    return run


def test_what_a_stage_learns_is_the_same_without_whole_logits(stage, monkeypatch):
    losses, most = stage("pieces")
    direct = train.next_token_losses
    monkeypatch.setattr(train, "next_token_losses", lambda *args: direct(*args, whole=True))
    plain, most_whole = stage("whole")
    assert most < 32 and most_whole == 2 * 32
    assert losses == pytest.approx(plain, rel=1e-5) and len(losses) == 3


def test_a_term_that_reads_logits_gets_them_whole(stage, monkeypatch):
    def likeliest(model, num_original):
        def total(forward):
            return F.log_softmax(forward.logits, -1).amax(-1).sum()

        return terms.Term("likeliest", 0.0, count=lambda batch: batch["language_id"].numel(), total=total)

    without, _ = stage("without")
    monkeypatch.setitem(terms.EXTRA_TERMS, "expand", [likeliest])
    with_it, most = stage("with")
    assert most == 2 * 32
    assert with_it == pytest.approx(without, rel=1e-5)


def test_documents_have_the_same_scores_without_whole_logits(tiny_model, tiny_tokenizer, tiny_corpus, monkeypatch):
    from lpr_lab.measure.bits import document_nats
    from lpr_lab.text.packing import pack

    model = tiny_model("llama")
    monkeypatch.setitem(head._LOGITS_AT_ONCE, "cpu", 7 * model.config.vocab_size)
    blocks = pack(list(tiny_corpus.documents("heldout", "el"))[:6], tiny_tokenizer, 32, languages=["el"])
    ours = document_nats(model, blocks, precision="fp32")
    plain = document_nats(model, blocks, precision="fp32", whole_logits=True)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(plain), rtol=1e-5, atol=1e-6)
