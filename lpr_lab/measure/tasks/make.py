"""Makes the items of tasks from a corpus: cheap, and the same for every model, so it is done before any work starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lpr_lab.errors import UsageError, one_of
from lpr_lab.measure.tasks.choice import make_choices
from lpr_lab.measure.tasks.inflection import make_pairs
from lpr_lab.measure.tasks.items import Item
from lpr_lab.measure.tasks.kinds import NAMES
from lpr_lab.text.corpus import Corpus, main_split
from lpr_lab.text.languages import language_name
from lpr_lab.text.lemmas import has_lemmas

FEWEST_ITEMS = 20
"""Of inflection, unless fewer are asked for; so few say nothing of a language."""


@dataclass(frozen=True)
class MadeItems:
    """What is asked.

    Attributes:
        split: what the items are made from.
        items: (task, language) -> items, as `kinds.NAMES` has the tasks.
        left_out: (task, language, reason) where there are none.
    """

    split: str
    items: Mapping[tuple[str, str], Sequence[Item]]
    left_out: Sequence[tuple[str, str, str]] = ()


def make_items(
    corpus: Corpus,
    tasks: Sequence[str],
    languages: Sequence[str],
    *,
    split: str = "",
    items_per_language: int = 100,
    prompts_per_language: int = 10,
    seed: int = 0,
) -> MadeItems:
    """Return the items of some tasks in some languages.

    Args:
        corpus: the text.
        tasks: any of `kinds.NAMES`.
        languages: ISO 639-1 codes.
        split: of the corpus; held-out text, or else dev text, where nothing is said.
        items_per_language: at most, of each task.
        prompts_per_language: at most, of what a model goes on from.
        seed: which ones.

    Raises:
        UsageError: an unknown task, a split that the corpus doesn't have, or too little text in common.
        MissingError: the package that inflection needs isn't installed.
    """
    for task in tasks:
        one_of("task", task, NAMES)
    if items_per_language < 1 or prompts_per_language < 1:
        raise UsageError(
            f"Expected at least 1 item and 1 prompt per language, got {items_per_language} and {prompts_per_language}."
        )
    split = split or main_split(corpus, languages)
    there = [code for code in languages if corpus.documents(split, code)]
    left_out = [
        (task, code, f"no {split} text in {language_name(code)}")
        for task in tasks
        for code in languages
        if code not in there
    ]
    items: dict[tuple[str, str], Sequence[Item]] = {}
    aligned = {"choice": items_per_language, "generation": prompts_per_language}
    for task in tasks:
        if task in aligned:
            made = make_choices(corpus, split, there, aligned[task], seed)
            items |= {(task, code): made[code] for code in there}
            continue
        for code in there:
            if not has_lemmas(code):
                left_out.append((task, code, "there is no table of lemmas"))
                continue
            pairs = make_pairs(corpus.documents(split, code), code, items_per_language, seed)
            if len(pairs) >= min(FEWEST_ITEMS, items_per_language - items_per_language % 2):
                items[task, code] = pairs
            else:
                left_out.append((task, code, f"only {len(pairs)} items can be made of its text"))
    return MadeItems(split, items, left_out)
