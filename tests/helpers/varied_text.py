"""Texts that repeat themselves as real ones do: menus, shared paragraphs, quotations, documents given twice."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

SYLLABLES = {
    "el": "κα λο πε ρι τη σου με νε φως θα λα σσα δρο μος ύψ".split(),
    "en": "lo ri den ta mer sha ko fi wen du al est in gor by".split(),
    "th": "ก ข ค ง จ ฉ ช ซ ญ ฎ ด ต ถ ท น".split(),
}


@cache
def varied_documents(language: str, count: int, seed: int = 0) -> tuple[str, ...]:
    """Return documents of a few lines of made-up words, of which a third are shared in whole or in part."""
    return tuple(_varied_documents(language, count, seed))


def _varied_documents(language: str, count: int, seed: int) -> Iterator[str]:
    generator = np.random.default_rng([seed, len(language), ord(language[0])])
    syllables, space = SYLLABLES[language], "" if language == "th" else " "

    def words(number: int) -> str:
        return space.join("".join(generator.choice(syllables, size=generator.integers(1, 4))) for _ in range(number))

    shared = [words(30) for _ in range(6)]
    before = ""
    for number in range(count):
        lines = [words(generator.integers(2, 25)) for _ in range(generator.integers(1, 5))]
        kind = generator.integers(9)
        if kind == 0:
            lines.append(shared[generator.integers(6)])  # a paragraph that others have as well
        elif kind == 1:
            quoted = shared[generator.integers(6)]
            lines.append(f"{words(3)} {quoted[: len(quoted) * 3 // 4]} {words(2)}{number}")
        elif kind == 2:
            lines = [words(1), f"  {shared[generator.integers(6)]}\t"]  # nothing else than a heading
        elif kind == 3:
            lines.insert(1, "   ")
        text = "\n".join(lines)
        yield before if kind == 4 and before else text
        before = text


def write_varied(path: Path, languages: tuple[str, ...], count: int, seed: int = 0) -> Path:
    """Write documents of several languages in turn, as JSON Lines, some of them empty or without text."""
    with path.open("w", encoding="utf-8") as file:
        for texts in zip(*(varied_documents(code, count, seed) for code in languages), strict=True):
            for code, text in zip(languages, texts, strict=True):
                file.write(json.dumps({"text": text, "language": code}, ensure_ascii=False) + "\n")
        for text in ("", None, "  \n"):
            file.write(json.dumps({"text": text, "language": languages[0]}) + "\n")
    return path
