"""What is read of a folder, and that whatever is not read is named."""

import gzip
import json
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpr_lab.errors import MissingError
from lpr_lab.text.load import load_corpus
from lpr_lab.text.sources.folders import list_folder

LINES = [f"Κείμενο {'α' * i}, που γράφτηκε εδώ με το χέρι." for i in range(1, 31)]
JSONL = "".join(json.dumps({"text": line, "language": "el"}, ensure_ascii=False) + "\n" for line in LINES)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "el.jsonl").write_text(JSONL, encoding="utf-8")
    return tmp_path / "texts"


def names(folder):
    kept, left_out = list_folder(folder)
    return [path.relative_to(folder).as_posix() for path in kept], {one.name: one.reason for one in left_out}


LEFT_OUT = {
    "._el.jsonl": "hidden",
    ".DS_Store": "hidden",
    ".git/config.json": "hidden",
    "el/.ipynb_checkpoints/a-checkpoint.txt": "hidden",
    "el.jsonl~": "editor",
    "~$el.csv": "editor",
    "Thumbs.db": "kind",
    "el.docx": "kind",
    "script.py": "kind",
    "el.jsonl.zip": "archive",
    "old.tar.gz": "archive",
    "old.tar": "archive",
    "README": "about the data",
    "README.md": "about the data",
    "el/readme.txt": "about the data",
    "el/README.en.txt": "about the data",
    "LICENSE.txt": "about the data",
    "licence": "about the data",
    "el/COPYING.txt.gz": "about the data",
    "CHANGELOG.txt": "about the data",
    "dataset_infos.json": "about the data",
    "state.json": "about the data",
    "el.jsonl.gz": "same name as el.jsonl",
    "el.JSONL.zst": "same name as el.jsonl",
    "el.json": "same name as el.jsonl",
    "el.csv": "same name as el.jsonl",
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_no_text_is_left_out_by_name_and_reason(folder, name):
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"\x00\x05\x16\x07 This is English and not a record.")
    kept, left_out = names(folder)
    assert kept == ["el.jsonl"]
    [(named, reason)] = left_out.items()
    assert LEFT_OUT[name] in reason and name.startswith(named)
    with pytest.warns(UserWarning, match="Left out") as warned:
        corpus = load_corpus(folder, languages=["el"])
    assert len(warned) == 1 and named in str(warned[0].message)
    assert corpus.manifest["left_out"] == [{"name": named, "reason": reason}]
    assert sorted(d.text for split in corpus.splits for d in corpus.documents(split)) == sorted(LINES)


def test_a_folder_that_is_read_whole_has_the_manifest_that_it_always_had(folder, recwarn):
    manifest = load_corpus(folder, languages=["el"]).manifest
    assert set(manifest) == {"schema_version", "name", "languages", "sources", "texts", "preparation"}
    assert set(manifest["preparation"]["el"]) == {"duplicates", "repeated_documents_left_out", "empty_records_left_out"}
    assert not [one for one in recwarn if one.category is UserWarning]


@pytest.mark.parametrize(
    "name", ["EL.JSONL", "el.Txt", "El.TXT.GZ", "deeper/el/news.txt", "news.el.txt", "ell_Grek.txt"]
)
def test_the_case_of_an_ending_and_the_depth_do_not_matter(tmp_path, name):
    path = tmp_path / "texts" / name
    path.parent.mkdir(parents=True)
    content = (JSONL if "json" in name.lower() else "\n\n".join(LINES)).encode()
    path.write_bytes(gzip.compress(content) if name.endswith("GZ") else content)
    corpus = load_corpus(tmp_path / "texts")
    assert corpus.languages == ("el",)
    assert sum(len(corpus.documents(split)) for split in corpus.splits) == 30


@pytest.mark.parametrize(
    "name", ["readme.jsonl", "no.notice.jsonl", "changes_of_heart.jsonl", "reader.txt", "noticed.txt"]
)
def test_only_text_files_of_those_very_names_are_about_the_data(folder, name):
    (folder / name).write_text(JSONL)
    assert name in names(folder)[0]


def test_links_are_followed_and_what_two_ways_lead_to_is_read_once(folder, tmp_path):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "el.txt").write_text("\n\n".join(LINES), encoding="utf-8")
    (other / "blob").write_text(JSONL)
    (folder / "more").symlink_to(other)
    (folder / "again").symlink_to(other)
    (folder / "news.jsonl").symlink_to(other / "blob")
    (folder / "twice.jsonl").symlink_to(folder / "el.jsonl")
    (folder / "gone.jsonl").symlink_to(tmp_path / "nothing")
    kept, left_out = names(folder)
    assert kept == ["again/el.txt", "el.jsonl", "news.jsonl"]
    assert left_out == {
        "again/blob": "of a kind that is not read",
        "gone.jsonl": "a link that leads nowhere",
        "more": "a link to what is read anyway",
        "twice.jsonl": "a link to what is read anyway",
    }


def test_links_in_a_circle_come_to_an_end(folder):
    (folder / "a").mkdir()
    (folder / "a" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "b").symlink_to(folder / "a")
    kept, left_out = names(folder)
    assert kept == ["el.jsonl"]
    assert set(left_out) == {"a/up", "self", "b"}


def test_a_folder_without_text_says_what_is_in_it(tmp_path):
    (tmp_path / "README.txt").write_text("text")
    (tmp_path / "a.docx").write_text("text")
    with pytest.raises(MissingError, match=r"README\.txt \(about .*a\.docx \(.*kind"):
        load_corpus(tmp_path, languages=["el"])


def test_a_pipe_is_not_waited_for_and_an_empty_file_is_named(folder):
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "nothing.txt").touch()
    assert names(folder) == (["el.jsonl"], {"pipe.jsonl": "not a file", "nothing.txt": "empty"})


def test_a_file_that_is_named_itself_is_read_whatever_its_name(tmp_path):
    path = tmp_path / "README.txt"
    path.write_text("\n\n".join(LINES), encoding="utf-8")
    assert load_corpus(path, languages=["el"]).languages == ("el",)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "el/", "a/b/", ".hidden/", "el/.x/"]),
            st.sampled_from(["el", "part-1", "README", "._el", "license", "~$el", ".el"]),
            st.sampled_from(["", ".txt", ".jsonl", ".json", ".csv", ".JSONL", ".parquet", ".md", ".jsonl~"]),
            st.sampled_from(["", ".gz", ".zst", ".zip"]),
        ),
        max_size=12,
    )
)
def test_every_file_is_read_or_named_never_both_never_neither(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("any") / "texts"
    folder.mkdir()
    files = sorted({"".join(part) for part in parts})
    files = [name for name in files if not any(other.startswith(f"{name}/") for other in files)]  # a name is one thing
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    kept, left_out = names(folder)
    for name in files:
        ways = [*(name == one for one in kept), *(name == one or name.startswith(one + "/") for one in left_out)]
        assert sum(ways) == 1, name
    stems = [(os.path.dirname(one), os.path.basename(one).split(".")[0], ".txt" in one) for one in kept]  # noqa: PTH119, PTH120
    assert len(set(stems)) == len(stems)
    shutil.rmtree(folder)
