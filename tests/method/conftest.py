"""A tiny corpus in three languages whose texts we wrote, for the stages to train on."""

import pytest

from lpr_lab.text.corpus import Document


class TinyCorpus:
    """Sentences of the fixture, repeated in shuffled groups until there is enough to pack; every split has the same."""

    name = "tiny"
    splits = ("train", "replay", "dev", "heldout")

    def __init__(self, sentences: dict[str, list[str]], languages: tuple[str, ...]) -> None:
        self.languages = languages
        self._documents = {
            language: tuple(
                Document(f"{start}", language, " ".join(sentences[language][(start + i) % 6] for i in range(3)), "tiny")
                for start in range(24)
            )
            for language in languages
        }

    def documents(self, split: str, language: str) -> tuple[Document, ...]:
        assert split in self.splits
        return self._documents[language]


@pytest.fixture(scope="session")
def tiny_corpus(sentences) -> TinyCorpus:
    return TinyCorpus(sentences, ("en", "es", "el", "tr"))
