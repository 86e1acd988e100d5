"""A tiny corpus for tests: sentences we wrote, repeated in groups until there is enough to pack; all splits alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lpr_lab.experiments.config import StageBudget
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.text.corpus import Document


class TinyCorpus:
    """What `load_corpus` returns, as far as the verbs use it."""

    name = "tiny"
    manifest: dict = {}  # noqa: RUF012

    def __init__(
        self,
        sentences: dict[str, list[str]],
        languages: tuple[str, ...],
        splits: tuple[str, ...] = ("train", "replay", "dev", "heldout"),
    ) -> None:
        self.languages, self.splits = languages, splits
        self._documents = {
            language: tuple(
                Document(f"{start}", language, " ".join(sentences[language][(start + i) % 6] for i in range(3)), "tiny")
                for start in range(24)
            )
            for language in languages
        }

    def documents(self, split: str, language: str) -> tuple[Document, ...]:
        """Return the documents of one language; every split has the same."""
        assert split in self.splits
        return self._documents[language]


def write_corpus(path: Path, sentences: dict[str, list[str]], languages: tuple[str, ...]) -> None:
    """Write documents of words in random order, for all splits, as `load_corpus` reads them from a file."""
    generator = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for language in languages:
            for number in range(80):
                words = " ".join(sentences[language]).split()
                text = " ".join(generator.choice(words, size=30))
                split = ("train", "train", "train", "replay", "dev", "heldout")[number % 6]
                record = {"id": f"{number}", "language": language, "text": text, "split": split}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def steps_of_four_blocks(steps: int) -> TrainSettings:
    """Return the settings of a short training at rates high enough to see what moved."""
    return TrainSettings(
        tokens=steps * 4 * 32,
        block_tokens=32,
        blocks_per_step=4,
        blocks_per_forward=4,
        learning_rate=1e-2,
        router_learning_rate=1e-2,
        precision="fp32",
    )


def small_settings(folder: Path, budget: StageBudget) -> dict[str, Any]:
    """Return settings of a whole run on `base` and `corpus.jsonl` in a folder, for every recipe."""
    return {
        "base": str(folder / "base"),
        "corpus": str(folder / "corpus.jsonl"),
        "original": ("en", "es"),
        "expanded": ("el", "tr"),
        "fit_tokens_per_language": 512,
        "similarity_tokens": 512,
        "stage1": budget,
        "stage2": budget,
        "eval_tokens_per_language": 300,
        "bootstrap": 50,
        "precision": "fp32",
    }
