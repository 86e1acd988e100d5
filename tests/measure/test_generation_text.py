"""What a stream shows is always whole characters, as soon as they are; what is said about texts and votes is exact."""

import random
import unicodedata

import pytest
import regex

from lpr_lab.measure.preference import sign_test, tally
from lpr_lab.measure.streaming import CharacterStream
from lpr_lab.measure.text_checks import foreign_share, repetition

TEXTS = {
    "th": "ตอนเช้าฉันเปิดหน้าต่างแล้วได้ยินเสียงทะเล ฉันรักเมืองนี้มาก",
    "km": "ពេលព្រឹកខ្ញុំបើកបង្អួច ហើយឮសំឡេងសមុទ្រ។",
    "hi": "सुबह खिड़की खोली तो समुद्र की आवाज़",
    "emoji": "a 👨‍👩‍👧‍👦 family 🇬🇷🇹🇷!",
    "accents": "ne\u0301e\u0301 cafe\u0301",
}


def pieces(text: str, seed: int) -> list[bytes]:
    chance, data, cut = random.Random(seed), text.encode(), []
    while data:
        size = chance.choice((1, 1, 2, 3, 5))
        cut.append(data[:size])
        data = data[size:]
    return cut


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("seed", range(5))
def test_only_whole_characters_are_shown_and_in_the_end_all_of_them(text, seed):
    ends, at = {0}, 0
    for cluster in regex.findall(r"\X", text):
        at += len(cluster)
        ends.add(at)
    stream = CharacterStream()
    for piece in pieces(text, seed):
        stream.feed(piece)
        assert text.startswith(stream.text) and len(stream.text) in ends
        assert not stream.text or unicodedata.combining(stream.text[-1]) != 9  # a coeng waits for its letter
    stream.end()
    assert stream.text == text


@pytest.mark.parametrize("code", ["th", "km"])
def test_nothing_waits_longer_than_until_the_next_character_begins(code):
    stream, clusters, done = CharacterStream(), regex.findall(r"\X", TEXTS[code]), ""
    increments = 0
    for cluster in clusters:
        begun = cluster[0].encode()
        stream.feed(begun)
        if not done or unicodedata.combining(done[-1]) != 9:
            assert stream.text == done
        increments += bool(stream.text)
        stream.feed(cluster.encode()[len(begun) :])
        done += cluster
    assert increments > 5


def test_bytes_that_are_no_character_are_shown_as_such_and_a_cut_one_is_left_out():
    stream = CharacterStream()
    stream.feed(b"\xffa\xc3")
    stream.end()
    assert stream.text == "⟨FF⟩a"


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("Μια φορά κι έναν καιρό", "el", 0.0),
        ("Once upon a time", "el", 1.0),
        ("昔々、小さな村に猫がいた。", "ja", 0.0),
        ("ค่ำคืนหนึ่ง 2024", "th", 0.0),
        ("a1 b2", "el", None),
        ("whatever it says", "xx", None),
    ],
)
def test_the_share_of_letters_in_another_script(text, language, share):
    assert foreign_share(text, language) == share


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the cat sat on the mat", None),
        ("bir kabul, bir kabul, bir kabul, bir kabul, bir kabul, bir kabul,", ("bir kabul,", 6)),
        ("小さな村の朝に小さな村の朝に小さな村の朝に", None),
        ("猫がいた。" * 8, ("猫がいた。猫がい", 4)),
        ("ha " * 5, ("ha", 5)),
        ("kabulmış, kabulmış, kabulmış, kabul", ("kabulmış,", 3)),
    ],
)
def test_a_text_that_goes_round_in_circles_is_noticed(text, found):
    assert repetition(text) == found


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 5, 1.0), (6, 0, 0.03125), (8, 2, 0.109375)]
)
def test_the_sign_test_is_exact(first, second, p):
    assert sign_test(first, second) == sign_test(second, first) == pytest.approx(p, abs=1e-12)


def vote(pair, choice, left="base", right="expanded", blind=True):
    return {"pair": pair, "choice": choice, "left": left, "right": right, "blind": blind}


def test_votes_are_counted_by_what_was_preferred_wherever_it_stood():
    votes = [vote(str(n), "right") for n in range(5)] + [
        vote("a", "left", "expanded", "base"),
        vote("b", "tie", blind=False),
    ]
    (count,) = tally(votes)
    assert count.sides == ("base", "expanded") and count.wins == (0, 6)
    assert (count.ties, count.both_bad, count.blind, count.decided) == (1, 0, 6, 6)
    assert count.preferred == "expanded" and count.p == pytest.approx(0.03125)


def test_identical_texts_are_a_tie_whatever_was_chosen():
    (count,) = tally([vote(str(n), "right") for n in range(9)], same_text={str(n) for n in range(8)})
    assert count.wins == (0, 1) and count.ties == 8 and count.preferred is None


def test_of_several_votes_on_one_pair_the_first_counts_and_nonsense_does_not():
    votes = [
        vote("a", "right"),
        vote("a", "left"),
        vote("e", "revealed"),
        vote("b", "up"),
        {"pair": "c"},
        vote("d", "left", right="base"),
    ]
    (count,) = tally(votes)
    assert count.wins == (0, 1) and count.preferred is None
