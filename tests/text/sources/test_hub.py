"""Corpora from the hub, with a stand-in in the place of `datasets`: the hub itself cannot be reached from tests."""

import datasets
import httpx
import pyarrow
import pytest
from datasets.exceptions import DatasetNotFoundError

from lpr_lab.errors import MissingError, UsageError
from lpr_lab.storage import cache_dir
from lpr_lab.text.languages import get_language
from lpr_lab.text.load import load_corpus
from lpr_lab.text.sources.hub import choose_config

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
    with pytest.raises(UsageError, match=r"Greek; .*greek-web, greek-news.* configs=.'el'"):
        load_corpus("org/name", languages=["el"])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DatasetNotFoundError("no such"), "no data set 'org/name'"),
        (ConnectionError("offline"), "hub cannot be reached"),
        (httpx.ConnectError("offline"), "hub cannot be reached"),
        (ValueError("Bad split: trian\nmore"), r"deliver org/name .Bad split: trian"),
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


def test_records_of_other_languages_and_of_none_are_not_taken(hub):
    _, state = hub
    state["configs"] = ["default"]
    others = [{"text": "κάτι άλλο", "language": label} for label in ("en", None, "", "zxx-Qaaa", "grc")]
    state["rows"] = [
        *others,
        *({**row, "language": label} for row, label in zip(ROWS, ["el", "ell_Grek", "el-GR"] * 20, strict=True)),
    ]
    corpus = load_corpus("org/name", languages=["ell"])
    assert {document.text for document in everything(corpus)} == {row["text"] for row in ROWS}


def test_null_texts_are_counted_in_what_is_kept(hub):
    _, state = hub
    state["rows"] = [{"id": None, "text": None}, *ROWS, {"id": 99, "text": None}]
    for _ in range(2):  # streamed, then from the cache
        with pytest.warns(UserWarning, match=r"2 record.*null"):
            corpus = load_corpus("org/name", languages=["el"])
        assert corpus.manifest["sources"][0]["null_records_left_out"] == 2
        assert corpus.manifest["left_out"][0]["reason"] == "without text (null)"


def test_configurations_are_named_by_any_label_of_a_language(hub):
    asked, _ = hub
    load_corpus("org/name", languages=["el"], configs={"ell_Grek": "own"})
    assert asked == [("org/name", "own", "train")]


@pytest.mark.parametrize(
    "error", [datasets.exceptions.DatasetGenerationError("An error"), pyarrow.ArrowInvalid("Page")]
)
def test_what_breaks_while_streaming_is_one_sentence_and_leaves_nothing(hub, error):
    _, state = hub

    def rows():
        yield from ROWS[:3]
        raise error

    state["rows"] = rows()
    with pytest.raises(MissingError, match=r"deliver org/name"):
        load_corpus("org/name", languages=["el"])
    assert [path.name for path in (cache_dir() / "corpora").iterdir()] == [".lock"]
