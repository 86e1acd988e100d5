"""The demo corpus, made end to end from a toy archive."""

import json
import random

import pytest

from helpers.toy_archive import help_page, mo_file
from lpr_lab.errors import DamagedError, MissingError, UsageError
from lpr_lab.storage import cache_dir
from lpr_lab.text.demo import corpus as demo
from lpr_lab.text.load import load_corpus
from lpr_lab.text.splits import assign_split

PAGES = [f"guide/page{i}.html" for i in range(60)]
FOLDERS = {"en": "en-US", "es": "es", "el": "el"}


@pytest.fixture
def packages(archive, sentences, monkeypatch):
    """Help in three languages and a campaign in two: every page has text of its own, and one paragraph of all."""
    monkeypatch.setattr(demo, "_MIN_FICTION_MESSAGES", 2)
    monkeypatch.setattr(demo, "MIN_TRAINING_CHARACTERS", 1)
    for code, folder in FOLDERS.items():
        members = {}
        for number, path in enumerate(PAGES):
            lines = [
                f"{sentences[code][number % 6]} {'abcdefghij'[number // 6] * (number % 6 + 3)}",
                sentences[code][0],
            ]
            left_in_english = f"{sentences['en'][number % 6]} This was never translated."
            paragraphs = dict(zip("abc", [*lines, left_in_english], strict=True))
            members[f"usr/share/libreoffice/help/{folder}/text/{path}"] = help_page(paragraphs)
        archive.add(f"libreoffice-help-{folder.lower()}", members)
    # Spanish has one message less, and one that is short in English.
    english = [f"{text} So it goes on the island." for text in sentences["en"]] + ["Short one."]
    locale = "usr/share/games/wesnoth/1.2/locale"
    members = {
        f"{locale}/{code}/LC_MESSAGES/toy.mo": mo_file(
            dict(zip(english, [*sentences[code][: 6 - (code == "es")], *[""] * (code == "es"), "·"], strict=True))
        )
        for code in ("el", "es")
    }
    archive.add("wesnoth-1.2-utbs", members)
    return archive


def load(*codes):
    return load_corpus("demo", languages=list(codes))


def test_a_page_is_in_the_same_split_in_every_language(packages):
    corpus = load("en", "es", "el")
    for split in ("train", "replay", "dev"):
        for code in corpus.languages:
            assert {document.id for document in corpus.documents(split, code)} <= {
                path for path in PAGES if assign_split(path) == split
            }
        assert corpus.documents(split, "el")


def test_text_left_in_english_is_not_in_a_translation(packages):
    corpus = load("en", "es", "el")
    for code in ("es", "el"):
        text = "\n".join(document.text for split in corpus.splits for document in corpus.documents(split, code))
        assert "never translated" not in text
        assert corpus.manifest["preparation"][code]["filter"]["same_as_english"] > 0
    assert "never translated" in "\n".join(document.text for document in corpus.documents("train", "en"))


def test_the_paragraph_that_every_page_has_stays_in_train_once(packages, sentences):
    corpus = load("el")
    found = [
        document.text.split("\n").count(sentences["el"][0])
        for split in ("train", "replay", "dev")
        for document in corpus.documents(split, "el")
    ]
    assert sum(found) == 1
    leakage = corpus.manifest["preparation"]["el"]["duplicates"]["leakage"]["dev"]
    assert leakage["before"]["exact"] > 0.3
    assert leakage["after"]["exact"] == leakage["after"]["ngram"] == 0


def test_heldout_messages_are_the_same_in_all_languages_asked_for(packages):
    assert len(load("en", "el").documents("heldout", "el")) == 6
    corpus = load("en", "el", "es")
    ids = {code: [document.id for document in corpus.documents("heldout", code)] for code in corpus.languages}
    assert ids["en"] == ids["el"] == ids["es"]
    assert len(ids["en"]) == 5
    assert corpus.documents("heldout", "el")[0].source == "wesnoth-1.2-utbs"


def test_the_manifest_says_what_it_was_made_from(packages):
    manifest = json.loads(json.dumps(load("el", "en").manifest))
    assert [(source["package"], source["version"], source["licence"]) for source in manifest["sources"]] == [
        ("libreoffice-help-el", "1:2.0-1", "MPL-2.0"),
        ("libreoffice-help-en-us", "1:2.0-1", "MPL-2.0"),
        ("wesnoth-1.2-utbs", "1:2.0-1", "GPL-2.0-or-later"),
    ]
    assert all(len(source["sha256"]) == 64 for source in manifest["sources"])
    documents = load("el", "en").documents("dev", "el")
    entry = manifest["texts"]["el"]["dev"]
    assert entry["n_documents"] == len(documents)
    assert entry["characters"] == sum(len(document.text) for document in documents)


def test_only_the_packages_of_the_languages_asked_for_are_fetched(packages):
    load("el")
    assert packages.requests[-1].split()[1:] == ["libreoffice-help-el", "libreoffice-help-en-us", "wesnoth-1.2-utbs"]
    load("el", "es")
    assert packages.requests[-1].split()[1:] == ["libreoffice-help-es"]


def test_a_second_load_needs_neither_apt_nor_packages(packages, monkeypatch, tmp_path):
    first = load("en", "el")
    monkeypatch.setenv("PATH", str(tmp_path))
    second = load("en", "el")
    assert second.fingerprint() == first.fingerprint()
    assert load("el").fingerprint() != first.fingerprint()


def test_a_changed_preparation_is_made_anew(packages, monkeypatch):
    load("el")
    before = {path.name for path in (cache_dir() / "corpora").glob("help-*")}
    monkeypatch.setattr(demo, "_PREPARATION_VERSION", 999)
    load("el")
    assert len({path.name for path in (cache_dir() / "corpora").glob("help-*")} - before) == 1


def test_an_altered_cached_text_is_refused_by_name(packages):
    load("el")
    (path,) = (cache_dir() / "corpora").glob("help-el-*/documents.jsonl")
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(DamagedError, match=r"documents\.jsonl .* Delete "):
        load("el")


def test_a_failure_half_way_leaves_nothing_half_written(packages, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "drop_duplicates", fail)
    with pytest.raises(KeyboardInterrupt):
        load("el")
    assert [path.name for path in (cache_dir() / "corpora").iterdir()] == [".lock"]


def test_a_language_that_the_demo_does_not_have_is_refused_before_anything_is_fetched(archive):
    with pytest.raises(UsageError, match=r"no text .*th; .*el.*hub dataset"):
        load("el", "th")
    assert archive.requests == []


def test_a_folder_that_was_never_translated_is_refused(packages, sentences):
    pages = {
        f"usr/share/libreoffice/help/hu/text/{path}": help_page(
            {"c": f"{sentences['en'][1]} Never translated, {path}."}
        )
        for path in PAGES
    }
    packages.add("libreoffice-help-hu", pages)
    with pytest.raises(UsageError, match=r"Hungarian .*English"):
        load("en", "hu")


def test_without_apt_the_hub_and_files_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"no apt-get.*hub dataset"):
        load("el")


@pytest.fixture
def with_messages(packages, sentences, monkeypatch):
    """Besides: Bengali as messages of programs, which the campaign lacks, and an interface in all four."""
    monkeypatch.setitem(demo.MESSAGE_PACKAGES, "bn", ("toy-messages",))
    words = sorted({word for text in sentences["bn"] for word in text.split()})

    def in_bengali(number):
        return " ".join(random.Random(number).sample(words, 8))

    messages = {f"Message {number}": in_bengali(number) for number in range(600)}
    packages.add("toy-messages", {"usr/share/locale/bn/LC_MESSAGES/toy.mo": mo_file(messages)})
    interface = {
        f"usr/share/mediawiki/i18n/{code}.json": json.dumps(
            {f"toy-{number}": f"{text} {text}" for number, text in enumerate(sentences[code])}
        ).encode()
        for code in ("en", "es", "el", "bn")
    }
    packages.add("mediawiki", interface)
    return packages


def test_a_language_without_help_is_trained_on_messages_and_all_are_tested_on_the_same_interface(with_messages):
    corpus = load("en", "el", "bn")
    assert all(corpus.documents(split, "bn") for split in ("train", "replay", "dev"))
    ids = {code: [document.id for document in corpus.documents("heldout", code)] for code in corpus.languages}
    assert len(ids["en"]) == 6 and ids["en"] == ids["el"] == ids["bn"]
    assert {source["package"]: source["used_for"] for source in corpus.manifest["sources"]} == {
        "libreoffice-help-en-us": "train, replay, dev",
        "libreoffice-help-el": "train, replay, dev",
        "toy-messages": "train, replay, dev",
        "mediawiki": "heldout",
    }


def test_the_interface_is_fetched_only_where_a_language_needs_it(with_messages):
    before = load("en", "el").fingerprint()
    assert not any("mediawiki" in request for request in with_messages.requests)
    load("en", "bn")
    assert with_messages.requests[-1].split()[-1] == "mediawiki"
    assert load("en", "el").fingerprint() == before


@pytest.mark.real
@pytest.mark.slow
def test_the_real_demo_has_the_sizes_that_it_is_known_for():
    corpus = load("en", "es", "el", "hu", "tr")
    texts = corpus.manifest["texts"]
    for code, millions in {"en": 2.36, "es": 2.20, "el": 2.86, "hu": 1.73, "tr": 1.46}.items():
        assert texts[code]["train"]["characters"] == pytest.approx(millions * 1e6, rel=0.05)
        assert texts[code]["heldout"]["n_documents"] == pytest.approx(1079, rel=0.05)
