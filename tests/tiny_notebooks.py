"""A base model and texts small enough to run a whole notebook on in seconds."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_materials(
    folder: Path,
    model: Any,
    tokenizer: Any,
    sentences: Mapping[str, list[str]],
    languages: Sequence[str],
    per_split: int,
) -> dict[str, str]:
    """Write a base model and shuffled sentences into a folder; returns the parameters `base` and `corpus` for them."""
    base = folder / "base"
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    texts = folder / "texts.jsonl"
    rng = random.Random(0)
    with texts.open("w", encoding="utf-8") as file:
        for language in languages:
            for split in ("train", "replay", "dev", "heldout"):
                for number in range(per_split):
                    words = " ".join(rng.sample(sentences[language], 3)).split()
                    rng.shuffle(words)
                    record = {"id": f"{split}-{number}", "language": language, "split": split}
                    file.write(json.dumps(record | {"text": " ".join(words)}, ensure_ascii=False) + "\n")
    return {"base": str(base), "corpus": str(texts)}
