"""A base model and texts small enough to run a whole notebook on in seconds."""

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpr_lab.runs.run import Run
from lpr_lab.storage import write_text
from lpr_lab.yaml_files import dump_yaml


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


def copy_run(run: Run, name: str, **settings: Any) -> Run:
    """Copy a run beside itself as one that is older, with some settings changed."""
    copy = run.path.with_name(f"20200101-000000Z-{name}")
    shutil.copytree(run.path, copy)
    facts = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**facts, "id": copy.name, "created": "2020-01-01T00:00:00Z"}))
    write_text(copy / "config.yaml", dump_yaml({**run.config, **settings}))
    return Run(copy)
