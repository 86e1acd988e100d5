"""Splits: stable, without leaks, in the language that they claim."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpr_lab.errors import UsageError
from lpr_lab.text.splits import (
    DEALT,
    NGRAM,
    Block,
    assign_split,
    assign_splits,
    drop_duplicates,
    min_characters,
    says_something,
)

LONG = "the miller carried one sack of flour up the hill before the bell rang and the rain began to fall"
OTHER = "a heron stood in the shallow water and waited until the last boat had left the harbour for the night"


def kept(blocks, *, within_splits=True):
    return drop_duplicates([Block(*block) for block in blocks], within_splits=within_splits)[0]


# -- assignment --------------------------------------------------------------------------------------------------------


def test_a_path_is_always_in_the_same_split():
    # Pinned: another assignment would silently make old and new runs incomparable.
    pages = ("guide/one.html", "guide/two.html", "guide/0.html")
    assert [assign_split(page) for page in pages] == ["replay", "train", "dev"]


def test_shares_are_80_15_5():
    counts = [sum(assign_split(f"page-{i}") == split for i in range(10_000)) / 10_000 for split in DEALT]
    assert counts == pytest.approx([0.80, 0.15, 0.05], abs=0.015)


@given(st.sets(st.text(min_size=1), min_size=3, max_size=30))
def test_however_few_documents_no_split_is_empty(texts):
    documents = sorted(texts)
    splits = assign_splits(documents, "this corpus")
    assert set(splits) == set(DEALT)
    assert splits[::-1] == assign_splits(documents[::-1], "this corpus")  # by content, not by place


def test_a_corpus_of_one_document_is_refused():
    with pytest.raises(UsageError, match=r"notes\.txt .*1 different .* at least 3"):
        assign_splits(["the same", "the same"], "notes.txt")


# -- duplicates --------------------------------------------------------------------------------------------------------


def test_replay_and_dev_lose_what_train_has():
    blocks = [("a", "train", LONG), ("b", "replay", LONG), ("c", "dev", LONG), ("c", "dev", OTHER)]
    assert kept(blocks) == [blocks[0], blocks[3]]


def test_dev_loses_what_replay_has():
    blocks = [("c", "dev", LONG), ("b", "replay", LONG)]
    assert kept(blocks) == [blocks[1]]


def test_case_digits_and_spaces_do_not_make_a_block_different():
    blocks = [("a", "train", LONG + " 12"), ("b", "dev", LONG.title() + "   47")]
    assert kept(blocks) == [blocks[0]]


def test_thirteen_words_in_a_row_are_a_leak_and_twelve_are_not():
    words = LONG.split()
    thirteen = "yesterday " + " ".join(words[:NGRAM]) + " slowly"
    twelve = "yesterday " + " ".join(words[: NGRAM - 1]) + " slowly"
    blocks = [("a", "train", LONG), ("b", "dev", thirteen), ("c", "dev", twelve)]
    assert kept(blocks) == [blocks[0], blocks[2]]


def test_in_scripts_without_spaces_thirteen_characters_are_a_leak():
    text = "船在黎明前离开了码头而渔夫还在补他的网"
    blocks = [("a", "train", text), ("b", "dev", "昨天" + text[:13]), ("c", "dev", "昨天" + text[:12])]
    assert kept(blocks) == [blocks[0], blocks[2]]


def test_a_ngram_never_spans_two_blocks():
    words = LONG.split()
    blocks = [("a", "train", LONG), ("b", "dev", " ".join(words[:8])), ("b", "dev", " ".join(words[8:]))]
    assert kept(blocks) == blocks


def test_repeats_inside_a_split_go_only_when_asked():
    blocks = [("a", "train", LONG), ("b", "train", LONG)]
    assert kept(blocks) == blocks[:1]
    assert kept(blocks, within_splits=False) == blocks


def test_headings_may_be_the_same_everywhere():
    blocks = [("a", "train", "Examples"), ("b", "dev", "Examples")]
    assert kept(blocks) == blocks


def test_leakage_is_reported_before_and_after():
    words = LONG.split()
    blocks = [
        Block("a", "train", LONG),
        Block("b", "dev", LONG),
        Block("c", "dev", " ".join(words[:NGRAM])),
        Block("d", "dev", OTHER),
    ]
    report = drop_duplicates(blocks, within_splits=True)[1]
    total = sum(len(block.text) for block in blocks[1:])
    before = report["leakage"]["dev"]["before"]
    assert before["characters"] == total
    assert before["exact"] == pytest.approx(len(LONG) / total)
    assert before["ngram"] == pytest.approx(len(blocks[2].text) / total)
    assert report["leakage"]["dev"]["after"] == {"characters": len(OTHER), "exact": 0, "ngram": 0}
    assert report["characters_before"] - report["characters_after"] == total - len(OTHER)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["train", "replay", "dev", "heldout"]), st.lists(st.sampled_from("abcd"), max_size=40)
        ),
        max_size=12,
    )
)
def test_after_dropping_nothing_leaks_whatever_the_blocks(drawn):
    blocks = [Block(str(i), split, " ".join(words)) for i, (split, words) in enumerate(drawn)]
    remaining, report = drop_duplicates(blocks, within_splits=False)
    for entry in report["leakage"].values():
        assert entry["after"] is None or entry["after"]["exact"] == entry["after"]["ngram"] == 0
    assert [block for block in remaining if block.split == "train"] == [b for b in blocks if b.split == "train"]


@given(st.text(st.sampled_from("a ก漢αあ\U00020000"), max_size=25))
def test_a_block_says_something_from_the_length_on_that_its_script_needs(text):
    assert says_something(text) == (len(text) >= min_characters(text))
