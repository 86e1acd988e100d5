"""What each language of the demo has after filtering, as rows of a table: `python -m lpr_lab.text.demo.survey de fr`.

`docs/languages.md` was made by it. Packages are fetched and prepared where they are not in the cache.
"""

import sys
from collections.abc import Sequence

from lpr_lab.errors import UsageError
from lpr_lab.storage import read_jsonl
from lpr_lab.text.demo.corpus import (
    MIN_TRAINING_CHARACTERS,
    TRAINED_LANGUAGES,
    prepare_fiction,
    prepare_interface,
    prepare_training,
    training_packages,
)
from lpr_lab.text.languages import get_languages

HEAD = (
    "| code | language | script | training text from | train, characters | dev, characters | left in English | "
    "campaign, messages | interface, messages | offered |\n|---|---|---|---|---|---|---|---|---|---|"
)


def survey(codes: Sequence[str]) -> list[str]:
    """Return a row of Markdown for each of some languages.

    Raises:
        UsageError: a language that Debian has no training text in.
        MissingError: packages that cannot be fetched.
    """
    languages = get_languages(codes)
    if unknown := [language.code for language in languages if language.code not in TRAINED_LANGUAGES]:
        raise UsageError(f"Debian has no training text in {', '.join(unknown)}; it has {', '.join(TRAINED_LANGUAGES)}.")
    heldout = {}
    for prepare in (prepare_fiction, prepare_interface):
        folder, facts = prepare()
        heldout[prepare] = {code: len(read_jsonl(folder / f"{code}.jsonl")) for code in facts["languages"]}
    rows = []
    for language in languages:
        code = language.code
        folder, facts = prepare_training([code])[code]
        characters = dict.fromkeys(("train", "replay", "dev"), 0)
        for record in read_jsonl(folder / "documents.jsonl"):
            characters[record["split"]] += len(record["text"])
        dropped = sum(number for reason, number in facts["filter"].items() if reason != "kept")
        share = dropped / max(dropped + facts["filter"].get("kept", 0), 1)
        tested = [heldout[prepare].get(code, 0) for prepare in heldout]
        reason = _why_not(characters["train"], tested)
        cells = [code, language.name, language.script, _kinds(training_packages(code))]
        cells += [_thousands(characters["train"]), _thousands(characters["dev"]), f"{share:.0%}", *map(str, tested)]
        rows.append(f"| {' | '.join([*cells, reason or 'yes'])} |")
    return rows


def _why_not(train: int, tested: Sequence[int]) -> str:
    if train < MIN_TRAINING_CHARACTERS:
        return f"no: {_thousands(train)} characters remain"
    return "" if any(tested) else "no: no aligned held-out text"


def _kinds(packages: Sequence[str]) -> str:
    helps = sum(name.startswith("libreoffice-help-") for name in packages)
    parts = (["help pages"] if helps else []) + (["messages"] if len(packages) > helps else [])
    return " and ".join(parts)


def _thousands(number: int) -> str:
    return f"{number:,}"


if __name__ == "__main__":
    print(HEAD)
    for row in survey(sys.argv[1:] or TRAINED_LANGUAGES):
        print(row)
