"""A run with weights that was measured on a corpus on the disk: scores by document and by slice, and texts to read."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from helpers.sentences import SENTENCES
from helpers.small_expansion import make_expansion
from lpr_lab.runs.run import Run

LANGUAGES = ("en", "el", "ar", "th")
_MORE = {
    "en": "We saw Maria in 1984 — at 7.",
    "el": "Είδα τη Μαρία το 1984 με Windows.",
    "ar": "عام ١٩٨٤ مع Linux.",
    "th": "ปี ๒๕๒๗ Linux",
}
TOKENS = 500


def make_measured(folder: Path, model: Any, tokenizer: Any) -> tuple[Run, Any, Any]:
    """Return a run, its model and what its evaluation reported.

    Args:
        folder: for the base, the corpus and `runs`.
        model: the base.
        tokenizer: its.
    """
    from lpr_lab.experiments.measuring import _by_stage
    from lpr_lab.measure.bits import evaluate
    from lpr_lab.model.stages import stage_names
    from lpr_lab.text.load import load_corpus

    path = folder / "corpus.jsonl"
    _write_corpus(path)
    settings = {"corpus": str(path), "expanded": ["el", "ar", "th"], "eval_tokens_per_language": TOKENS}
    run, expanded = make_expansion(folder, model, tokenizer, new_experts=(1, 1, 1), **settings)
    stages = stage_names(expanded)
    report = evaluate(
        expanded,
        tokenizer,
        load_corpus(str(path), languages=list(LANGUAGES)),
        languages=LANGUAGES,
        original=["en"],
        splits=["heldout"],
        stages=stages[:-1],
        tokens_per_language=TOKENS,
        precision="fp32",
    )
    run.tables.write("change", report.changes())
    run.tables.write("stages", _by_stage(report.to_frame(), stages))
    run.tables.write("documents", _by_stage(report.documents(), stages))
    run.tables.write("slices", _by_stage(report.slice_scores, stages))
    return run, expanded, report


def _write_corpus(path: Path) -> None:
    generator = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for language in LANGUAGES:
            for number in range(60):
                known = f"{SENTENCES[language]} {_MORE[language]}"
                words = known.split() if language != "th" else [known[at : at + 3] for at in range(0, len(known), 3)]
                text = " ".join(generator.choice(words, size=9))
                split = ("train", "train", "train", "replay", "dev", "heldout")[number % 6]
                record = {"id": f"{language}/{number}", "language": language, "text": text, "split": split}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
