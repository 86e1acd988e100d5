"""Tasks of lm-evaluation-harness in files of our own: a choice, whole texts, and a continuation; nothing is fetched."""

import json
from pathlib import Path
from typing import Any

import yaml

CHOICES = [
    {"question": "The baker opens the", "choices": ["shop", "tide", "clock"], "answer": 0},
    {"question": "When the tide goes out, children look for", "choices": ["honey", "shells", "a letter"], "answer": 1},
    {"question": "Το παλιό ρολόι του σταθμού πάει", "choices": ["πίσω", "κοχύλια"], "answer": 0},
    {"question": "Három almafát ültetett az", "choices": ["óra", "iskola mögé"], "answer": 1},
]
_READS_A_FILE = {"dataset_path": "json", "test_split": "test", "num_fewshot": 0, "metadata": {"version": 1.0}}


def _write(folder: Path, name: str, rows: list[dict], task: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    told = {"task": name, **_READS_A_FILE, "dataset_kwargs": {"data_files": {"test": str(data)}}, **task}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(told, allow_unicode=True), encoding="utf-8")
    return path


def write_choice(folder: Path) -> Path:
    """Write a task of multiple choice by likelihood."""
    asked = {"doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}", "doc_to_target": "answer"}
    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
    return _write(folder, "our_choice", CHOICES, {"output_type": "multiple_choice", **asked, "metric_list": metrics})


def write_texts(folder: Path, texts: list[str]) -> Path:
    """Write a task of whole texts: bits per byte and perplexity per byte."""
    asked = {"doc_to_text": "", "doc_to_target": "{{text}}"}
    metrics = [{"metric": name} for name in ("bits_per_byte", "byte_perplexity")]
    task = {"output_type": "loglikelihood_rolling", **asked, "metric_list": metrics}
    return _write(folder, "our_texts", [{"text": text} for text in texts], task)


def write_continuation(folder: Path, asked: list[tuple[str, str]], tokens: int) -> Path:
    """Write a task of greedy continuations, compared letter by letter with what is expected."""
    metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    task = {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{expected}}",
        "target_delimiter": "",
        "generation_kwargs": {"until": ["<never>"], "max_gen_toks": tokens, "do_sample": False},
        "metric_list": [metric],
    }
    rows = [{"prompt": prompt, "expected": expected} for prompt, expected in asked]
    return _write(folder, "our_continuation", rows, task)
