"""Data sets of the hub stream into shards, with a stand-in in the place of the hub."""

import json

import datasets
import pytest

from helpers.varied_text import write_varied
from lpr_lab.errors import MissingError
from lpr_lab.text.load import load_corpus


class Served:
    """A streamed data set that knows its place, as `datasets.IterableDataset` does, and may break off."""

    breaks_at: int | None = None
    read = 0

    def __init__(self, rows):
        self.rows, self.place = rows, 0

    def __iter__(self):
        while self.place < len(self.rows):
            if self.place == Served.breaks_at:
                raise ConnectionError("gone")
            Served.read += 1
            self.place += 1
            yield self.rows[self.place - 1]

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


@pytest.fixture(params=["knows its place", "does not"])
def rows(request, tmp_path, monkeypatch):
    path = write_varied(tmp_path / "rows.jsonl", ("el",), 150)
    rows = [{"text": json.loads(line)["text"]} for line in path.read_text(encoding="utf-8").splitlines()]
    monkeypatch.setattr(Served, "breaks_at", None)
    monkeypatch.setattr(Served, "read", 0)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["ell_Grek", "eng_Latn"])
    if request.param == "does not":
        monkeypatch.delattr(Served, "state_dict")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Served(rows))
    return rows


def test_what_is_streamed_into_shards_is_what_would_be_in_memory(load, rows):
    stored = load("org/name", streaming=True, languages=["el"])
    plain = load("org/name", streaming=False, languages=["el"])
    assert stored.fingerprint() == plain.fingerprint()
    assert stored.preparation["el"]["duplicates"] == plain.preparation["el"]["duplicates"]
    assert stored.left_out == plain.left_out
    assert stored.sources[0]["config"] == "ell_Grek"


def test_a_second_start_needs_no_hub(load, rows, monkeypatch):
    first = load("org/name", streaming=True, languages=["el"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
    assert load("org/name", streaming=True, languages=["el"]).manifest == first.manifest


def test_a_stream_that_broke_off_goes_on_where_it_was(load, rows, monkeypatch):
    monkeypatch.setattr(Served, "breaks_at", 140)
    with pytest.raises(MissingError):
        load("org/name", streaming=True, languages=["el"])
    monkeypatch.setattr(Served, "breaks_at", None)
    before = Served.read
    stored = load("org/name", streaming=True, languages=["el"])
    if hasattr(Served, "state_dict"):
        assert Served.read - before < 60
    assert stored.fingerprint() == load("org/name", streaming=False, languages=["el"]).fingerprint()


def test_no_more_documents_are_taken_than_were_asked_for(load, rows):
    stored = load("org/name", streaming=True, languages=["el"], max_documents=50)
    plain = load("org/name", streaming=False, languages=["el"], max_documents=50)
    assert stored.fingerprint() == plain.fingerprint()
    assert stored.sources[0]["max_documents"] == 50


def test_the_tokens_of_a_training_decide_how_much_is_taken(rows, monkeypatch):
    from lpr_lab.text import load as module

    monkeypatch.setattr(module, "STREAMED_TOKENS", 1000)
    corpus = load_corpus("org/name", languages=["el"], tokens=1000, num_proc=1)
    taken = corpus.preparation["el"]["duplicates"]["characters_before"]
    assert 6000 < taken < 14_000 and corpus.sources[0]["tokens"] == 1000
    assert load_corpus("org/name", languages=["el"], tokens=999, streaming=None).sources[0]["max_documents"] == 20_000


def test_a_cut_that_nobody_asked_for_is_said_and_recorded(rows, monkeypatch):
    from lpr_lab.text.sources import hub

    monkeypatch.setattr(hub, "IN_MEMORY", 60)
    with pytest.warns(UserWarning, match="all but 60 documents in 'el'.*streaming=True"):
        corpus = load_corpus("org/name", languages=["el"])
    assert any("all but 60" in one["name"] for one in corpus.manifest["left_out"])
    assert corpus.sources[0]["more_on_the_hub"]
