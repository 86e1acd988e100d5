"""The continuation choice: a passage of held-out text breaks off, and its true continuation stands among others.

The passages are those that every language evaluated has (messages with the same id are translations of one another),
and so are the wrong continuations: item for item, all languages are asked the same. Which ones is decided by the ids
and the seed, never by a tokenizer. Wrong continuations are second parts of other passages and about as long as the true
one, so neither length nor the place where a text was cut gives it away.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lpr_lab.errors import UsageError
from lpr_lab.measure.segments.aligned import aligned_texts
from lpr_lab.measure.tasks.items import Item, break_before, in_seeded_order, last_words, one_line
from lpr_lab.measure.tasks.kinds import NUM_CHOICES
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.splits import is_unspaced

MOST_CONTEXT, MOST_CONTINUATION = 90, 45
"""Characters: enough to follow a passage, few enough for a processor."""
_LEAST, _LEAST_UNSPACED = 15, 4
"""Characters of either part."""
_NEIGHBOURS = 24
"""Passages of the most similar length that wrong continuations are drawn from."""


@dataclass(frozen=True)
class Passage:
    """A passage, broken in two.

    Attributes:
        context: its first part, or the end of it.
        continuation: what comes then, with the space before it.
    """

    context: str
    continuation: str


def break_passage(text: str) -> Passage | None:
    """Break a text in the middle, or return None where it is too short for that.

    >>> break_passage("When the tide goes out, children look for shells.")
    Passage(context='When the tide goes out,', continuation=' children look for shells.')
    """
    text = one_line(text)
    least = _LEAST_UNSPACED if is_unspaced(text) else _LEAST
    place = break_before(text, min(len(text) // 2, MOST_CONTEXT))
    rest = text[place:]
    context, continuation = last_words(text[:place], MOST_CONTEXT), rest[: break_before(rest, MOST_CONTINUATION)]
    if len(context) < least or len(continuation.strip()) < least:
        return None
    return Passage(context, continuation)


def make_choices(
    corpus: Corpus, split: str, languages: Sequence[str], count: int, seed: int, num_choices: int = NUM_CHOICES
) -> dict[str, list[Item]]:
    """Return the items of every language, the same ones in all, at most `count`.

    Args:
        corpus: documents with the same id are translations of one another.
        split: which of its text.
        languages: ISO 639-1 codes.
        count: how many items to make.
        seed: which ones, and which wrong continuations.
        num_choices: how many continuations to choose from, the true one among them.

    Raises:
        UsageError: the languages have too few passages in common.
    """
    passages = common_passages(corpus, split, languages)
    if len(passages) < 2 * num_choices:
        raise UsageError(
            f"The languages {', '.join(languages)} have {len(passages)} passages of {split} text in common; choice of "
            f"{num_choices} needs {2 * num_choices}, translations with the same `id` in every language, as the "
            "demo's held-out messages are. Evaluate fewer languages, or leave out the tasks choice and generation."
        )
    items: dict[str, list[Item]] = {code: [] for code in languages}
    by_length = sorted(passages, key=lambda name: (_length(passages[name]), name))
    places = {name: place for place, name in enumerate(by_length)}
    for name in in_seeded_order(passages, seed)[:count]:
        first = max(0, min(places[name] - _NEIGHBOURS // 2, len(by_length) - _NEIGHBOURS))
        near = by_length[first : first + _NEIGHBOURS + 1]
        chosen = [name]
        for other in random.Random(f"{seed} {name}").sample(near, len(near)):
            if len(chosen) < num_choices and all(_differ(passages[one], passages[other]) for one in chosen):
                chosen.append(other)
        if len(chosen) < num_choices:
            continue
        for code in languages:
            choices = tuple(passages[one][code].continuation for one in chosen)
            items[code].append(Item(name, code, passages[name][code].context, choices))
    return items


def common_passages(corpus: Corpus, split: str, languages: Sequence[str]) -> dict[str, Mapping[str, Passage]]:
    """Return id -> language -> passage, of those that are long enough in every one of the languages."""
    found: dict[str, Mapping[str, Passage]] = {}
    for name, texts in aligned_texts(corpus, split, languages).items():
        own = {code: passage for code, text in texts.items() if (passage := break_passage(text)) is not None}
        if len(own) == len(languages):
            found[name] = own
    return found


def _length(own: Mapping[str, Passage]) -> float:
    """Return the mean length of a passage's continuation over the languages, in characters."""
    return sum(len(passage.continuation) for passage in own.values()) / len(own)


def _differ(one: Mapping[str, Passage], other: Mapping[str, Passage]) -> bool:
    """Whether two passages go on differently in every language."""
    return all(one[code].continuation != other[code].continuation for code in one)
