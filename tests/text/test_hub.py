"""Corpora from the hub, with a stand-in in the place of `datasets`: the hub itself cannot be reached from tests."""

import datasets
import httpx
import pytest
from datasets.exceptions import DatasetNotFoundError

from lpr_lab.errors import MissingError, UsageError
from lpr_lab.storage import cache_dir
from lpr_lab.text.corpus import load_corpus
from lpr_lab.text.hub import choose_config
from lpr_lab.text.languages import get_language

ROWS = [{"id": i, "text": f"Κείμενο {'α' * i}, που γράφτηκε εδώ.", "language": "ell"} for i in range(60)]


@pytest.fixture
def hub(monkeypatch):
    """Serve `ROWS` for any name; what was asked for is appended to the list."""
    asked = []
    state = {"configs": ["ell_Grek", "eng_Latn"], "rows": ROWS}

    def load_dataset(name, config, *, split, streaming):
        assert streaming
        asked.append((name, config, split))
        return iter(state["rows"])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: state["configs"])
    return asked, state


def everything(corpus):
    return [document for split in corpus.splits for document in corpus.documents(split)]


def test_the_first_documents_of_the_language_are_streamed_once_and_kept(hub):
    asked, _ = hub
    corpus = load_corpus("org/name", languages=["el"], max_documents=40)
    assert asked == [("org/name", "ell_Grek", "train")]
    assert {document.id for document in everything(corpus)} == {str(i) for i in range(40)}
    again = load_corpus("org/name", languages=["el"], max_documents=40)
    assert len(asked) == 1
    assert again.fingerprint() == corpus.fingerprint()
    source = corpus.manifest["sources"][0]
    assert (source["dataset"], source["config"], source["split"]) == ("org/name", "ell_Grek", "train")


def test_a_configuration_split_and_column_can_be_named(hub):
    asked, state = hub
    state["rows"] = [{"body": row["text"]} for row in ROWS]
    load_corpus("org/name", languages=["el"], configs={"el": "own"}, hub_split="test", text_column="body")
    assert asked == [("org/name", "own", "test")]


def test_one_configuration_for_all_is_filtered_by_its_language_column(hub):
    _, state = hub
    state["configs"] = ["default"]
    state["rows"] = [*ROWS, *({**row, "language": "en", "text": "English " + row["text"]} for row in ROWS)]
    corpus = load_corpus("org/name", languages=["el"])
    assert len(everything(corpus)) == 60


@pytest.mark.parametrize(
    ("code", "available", "chosen"),
    [
        ("el", ["el", "en"], ("el", False)),
        ("el", ["ell_Grek", "eng_Latn"], ("ell_Grek", False)),
        ("el", ["20220301.el", "20231101.el", "20231101.en"], ("20231101.el", False)),
        ("zh", ["zho_Hans", "zho_Hant"], ("zho_Hans", False)),
        ("el", ["default"], ("default", True)),
    ],
)
def test_the_configuration_of_a_language_is_found(code, available, chosen):
    assert choose_config("org/name", get_language(code), available) == chosen


def test_an_unclear_configuration_is_asked_for(hub):
    _, state = hub
    state["configs"] = ["greek-web", "greek-news"]
    with pytest.raises(UsageError, match=r"plainly Greek; it has greek-web, greek-news\. Name it with configs=.'el'"):
        load_corpus("org/name", languages=["el"])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DatasetNotFoundError("no such"), "There is no data set 'org/name'"),
        (ConnectionError("offline"), "hub cannot be reached"),
        (httpx.ConnectError("offline"), "hub cannot be reached"),
        (ValueError("Bad split: trian\nmore"), r"did not deliver org/name .Bad split: trian"),
    ],
)
def test_each_failure_of_the_hub_is_one_sentence_and_leaves_nothing(hub, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(MissingError, match=words) as caught:
        load_corpus("org/name", languages=["el"])
    assert "\n" not in str(caught.value)
    assert [path.name for path in (cache_dir() / "corpora").iterdir()] == [".lock"]


def test_languages_and_a_sensible_number_must_be_given(hub):
    with pytest.raises(UsageError, match="Which languages to take"):
        load_corpus("org/name")
    with pytest.raises(UsageError, match="max_documents=0"):
        load_corpus("org/name", languages=["el"], max_documents=0)
