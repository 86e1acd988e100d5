"""A corpus in shards is the corpus that would be in memory."""

import json

import pytest
import torch

from helpers.varied_text import write_varied
from lpr_lab.errors import DamagedError, UsageError
from lpr_lab.storage import cache_dir
from lpr_lab.text.load import load_corpus
from lpr_lab.text.shards import blocks, documents, prepare


def same(load, source, **options):
    plain = load(source, streaming=False, **options)
    stored = load(source, streaming=True, **options)
    assert stored.manifest == plain.manifest
    assert stored.fingerprint() == plain.fingerprint()
    for split in plain.splits:
        for code in plain.languages:
            assert [*stored.documents(split, code)] == [*plain.documents(split, code)]
    return stored


def test_repeats_splits_and_reports_are_those_of_the_corpus_in_memory(load, tmp_path):
    path = write_varied(tmp_path / "mixed.jsonl", ("el", "en", "th"), 150)
    stored = same(load, path)
    leaks = stored.preparation["el"]["duplicates"]["leakage"]
    assert leaks["replay"]["before"]["exact"] > 0 and leaks["dev"]["before"]["ngram"] > 0
    assert stored.preparation["el"]["repeated_documents_left_out"] > 0


@pytest.mark.parametrize("languages", [["el"], ["en", "el"], None])
def test_only_the_languages_asked_for_are_taken(load, tmp_path, languages):
    same(load, write_varied(tmp_path / "mixed.jsonl", ("el", "en"), 60), languages=languages)


def test_splits_that_records_give_are_kept(load, tmp_path):
    path = write_varied(tmp_path / "a.jsonl", ("el",), 120)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    names = ("dev", "train", "heldout", "train", "replay")
    lines = [json.dumps({**row, "split": names[i % 5], "id": f"n{i}"}) for i, row in enumerate(rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert same(load, path).splits == ("train", "replay", "dev", "heldout")


@pytest.mark.parametrize("count", [4, 9, 15])
def test_few_documents_are_divided_by_rank(load, tmp_path, count):
    path = tmp_path / "el.jsonl"
    texts = [f"Κείμενο {chr(945 + i) * 9}, που δεν μοιάζει με άλλο." for i in range(count)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    same(load, path)


def test_folders_of_every_format_give_the_same_ids_and_sources(load, tmp_path):
    folder = tmp_path / "texts"
    (folder / "el").mkdir(parents=True)
    write_varied(folder / "mixed.jsonl", ("el", "en"), 80)
    blocks = write_varied(tmp_path / "other.jsonl", ("el",), 40, seed=1).read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] or "" for line in blocks]
    (folder / "el" / "plain.txt").write_text("\n\n".join(texts), encoding="utf-8")
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": [text + " ένα τέλος" for text in texts]})
    pyarrow.parquet.write_table(table, folder / "el" / "rows.parquet", row_group_size=7)
    (folder / "README.md").write_text("about")
    same(load, folder)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "ένα"}, {"text": "ένα "}], "cannot be divided"),
        ([{"text": "ένα", "split": "train"}, {"text": "δύο"}], "for some records"),
        ([{"text": "ένα", "split": "test"}], "whose split"),
        ([{"text": " "}], "no text"),
        ([{"text": 7}], "Record 1"),
    ],
)
def test_what_is_refused_in_memory_is_refused_in_shards(load, tmp_path, rows, words):
    path = tmp_path / "el.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for streaming in (False, True):
        with pytest.raises(UsageError, match=words):
            load(path, streaming=streaming)


def test_a_second_start_reads_nothing_anew(load, tmp_path, monkeypatch):
    path = write_varied(tmp_path / "el.jsonl", ("el",), 60)
    first = load(path, streaming=True)
    for name in ("read_unit", "write_index", "cut_json_lines"):
        monkeypatch.setattr(prepare, name, lambda *_, **__: pytest.fail("done again"))
    again = load(path, streaming=True)
    assert again.manifest == first.manifest


def test_other_content_under_the_same_name_is_another_corpus(load, tmp_path):
    path = write_varied(tmp_path / "el.jsonl", ("el",), 60)
    first = load(path, streaming=True)
    write_varied(path, ("el",), 60, seed=3)
    assert load(path, streaming=True).fingerprint() != first.fingerprint()


def test_what_a_kill_left_is_used_and_the_rest_is_made(load, tmp_path, monkeypatch):
    path = write_varied(tmp_path / "el.jsonl", ("el",), 120)
    whole, did, read = prepare.read_unit, [], []

    def some(*arguments):
        if len(did) == 1:
            raise KeyboardInterrupt
        did.append(arguments)
        whole(*arguments)

    monkeypatch.setattr(prepare, "read_unit", some)
    with pytest.raises(KeyboardInterrupt):
        load(path, streaming=True)
    monkeypatch.setattr(prepare, "read_unit", lambda *arguments: (read.append(arguments), whole(*arguments)))
    same(load, path)
    assert len(did) == 1 and read and not {one[-1] for one in did} & {one[-1] for one in read}


def test_a_damaged_shard_is_named_and_made_anew_alone(load, tmp_path):
    path = write_varied(tmp_path / "el.jsonl", ("el",), 120)
    first = load(path, streaming=True)
    shard = sorted(cache_dir().glob("corpora/shards-files-*/documents/*/*.arrow"))[1]
    content = shard.read_bytes()
    documents.open_shard.cache_clear()
    documents.check_shard.cache_clear()
    shard.write_bytes(content[:-9] + b"123456789")
    with pytest.raises(DamagedError, match=f"{shard.parent.name}/{shard.name}"):
        [*load(path, streaming=True).documents("train", "el")]
    for file in shard.parent.iterdir():
        file.unlink()
    shard.parent.rmdir()
    assert [*load(path, streaming=True).documents("train", "el")] == [*first.documents("train", "el")]
    assert shard.read_bytes() == content


@pytest.mark.slow
def test_several_processes_make_what_one_makes(tmp_path, monkeypatch, tiny_tokenizer):
    monkeypatch.undo()
    files = [write_varied(tmp_path / f"{n}.jsonl", ("el", "en"), 300, seed=n) for n in range(3)]
    made, packed = [], []
    for num_proc in (1, 2):
        monkeypatch.setenv("LPR_LAB_CACHE", str(tmp_path / f"cache{num_proc}"))
        monkeypatch.setattr(blocks, "PACKED_IN_MEMORY", 0)
        corpus = load_corpus(files, streaming=True, num_proc=num_proc, languages=["el", "en"])
        made.append(corpus.manifest)
        packed.append(blocks.pack_documents(corpus.documents("train", "el"), tiny_tokenizer, 32, languages=["el"]))
    assert made[0] == made[1]
    assert len(packed[0]) == len(packed[1]) > 20
    for one, other in zip(*packed, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
