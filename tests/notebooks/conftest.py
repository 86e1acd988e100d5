"""A model and texts small enough to run a whole notebook on in seconds."""

import json
import random

import pytest


@pytest.fixture
def tiny_materials(tmp_path, tiny_model, tiny_tokenizer, sentences):
    """Return a function that writes a tiny base and shuffled sentences: `tiny_materials(languages, num_layers=2)`.

    It gives back the parameters `base` and `corpus` that lead to them.
    """

    def write(languages, *, num_layers=2, per_split=12):
        base = tmp_path / "base"
        tiny_model("llama", num_layers=num_layers).save_pretrained(base)
        tiny_tokenizer.save_pretrained(base)
        texts = tmp_path / "texts.jsonl"
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

    return write
