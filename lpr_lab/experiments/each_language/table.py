"""The table of languages from the runs in a folder: what each gained and cost, beside what the base makes of it.

Torch-free.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpr_lab import storage
from lpr_lab.errors import MissingError
from lpr_lab.experiments.config import completed
from lpr_lab.experiments.each_language.plan import ARM, PHASE, card_of
from lpr_lab.experiments.scorecard.build import environment_of, finished_of, settings_key
from lpr_lab.experiments.scorecard.plan import card_for, experiment_of
from lpr_lab.measure.significance import bootstrap_interval, rank_correlation_interval
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.effects import Effect, NotMeasuredError, combined, sample_of
from lpr_lab.runs.scorecard.kept_runs import source_of_saved
from lpr_lab.runs.scorecard.parts import Term
from lpr_lab.runs.scorecard.table import effect_json, file_name
from lpr_lab.text.languages import get_language
from lpr_lab.text.splits import main_test_set

RESULTS = Path(__file__).parent / "results"
"""Committed tables, one file per base, and the runs behind it."""
SCHEMA_VERSION = 1
_NUMBERS = {
    "gain": Term("", "expanded"),
    "cost": Term("", "original"),
    "weight": Term("", "expanded", measure="weight"),
    "weight_original": Term("", "original", measure="weight"),
}
FACTS = {
    "tokens_per_byte": "tokens per byte",
    "similarity": "similarity to the original languages",
    "base_bits_per_byte": "bits per byte before",
}
"""What a language is to the base before it is taught, by column, in words."""


def find_languages(base: str, runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Return the finished runs of each language by seed; the newest of a seed.

    Args:
        base: whose.
        runs: newest first.
    """
    found: dict[str, dict[int, Run]] = defaultdict(dict)
    keys: dict[str, str] = {}
    for run in finished_of(base, runs):
        codes = run.config.get("expanded") or ()
        if run.config.get("recipe") != ARM or len(codes) != 1:
            continue
        (code,) = codes
        if code not in keys:
            keys[code] = settings_key(completed(experiment_of(card_of(base, code), ARM, 0).to_config()))
        if settings_key(completed(run.config)) == keys[code]:
            found[code].setdefault(int(run.config["seed"]), run)
    return {code: dict(sorted(own.items())) for code, own in sorted(found.items())}


def build_table(base: str, root: str | Path) -> dict[str, Any]:
    """Return the table of the runs in a folder, JSON-able.

    `rows` has one per language: code, name, script, seeds, runs by seed, `gain` (change of its bits per byte in per
    cent of the base's; below 0 is a gain), `cost` (the same of the original languages, their mean), `weight` and
    `weight_original` (of expert 0), each with its interval, and `FACTS`. With several seeds an interval is over seeds
    and documents, with one over documents alone. `relations` has the rank correlation over languages of `gain` and of
    `cost` with each fact, `scripts` the means by script.
    """
    found = find_languages(base, list_runs(root))
    card = card_of(base, next(iter(found), card_for(base).expanded[0]))
    rows = [_row(code, own) for code, own in found.items()]
    newest = max((run for own in found.values() for run in own.values()), key=lambda run: run.created, default=None)
    return {
        "schema_version": SCHEMA_VERSION,
        "base": base,
        "corpus": card.corpus,
        "original": [*card.original, *card.unreviewed],
        "recipe": ARM,
        "tokens": card.stage1_tokens,
        "precision": card.precision,
        "environment": {} if newest is None else environment_of(newest),
        "rows": rows,
        "relations": relations(rows),
        "scripts": by_script(rows),
        "hours": round(
            sum(sum(run.phases.seconds.values()) for own in found.values() for run in own.values()) / 3600, 2
        ),
    }


def language_table(base: str, root: str | Path, folder: Path | None = None) -> tuple[dict[str, Any], str]:
    """Return the table of a base, and where it is from: runs in a folder, else what came with the code.

    Raises:
        MissingError: neither.
    """
    table = build_table(base, root)
    if table["rows"]:
        return table, f"the runs in {root}"
    path = (folder or RESULTS) / f"{file_name(base)}.json"
    if not path.is_file():
        raise MissingError(
            f"No language was taught to {base!r} by itself. Make the runs: lpr-lab languages run --base {base}"
        )
    return storage.read_json_object(path), source_of_saved(base, path.parent, verb="languages")


def save_table(table: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Write a table as the committed one of its base; returns the file."""
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file_name(str(table['base']))}.json"
    storage.write_json(path, dict(table))
    return path


def relations(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rank correlation of gain and of cost with each fact, over the languages that have both."""
    found = []
    for number in ("gain", "cost"):
        for fact in FACTS:
            pairs = [(row[fact], row[number]["value"]) for row in rows if row[fact] is not None and number in row]
            if len(pairs) < 2:
                continue
            one = rank_correlation_interval(*zip(*pairs, strict=True))
            numbers = {"value": one.value, "low": one.low, "high": one.high}
            found.append({"of": number, "with": fact, "languages": len(pairs)} | _finite(numbers))
    return found


def by_script(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each script how many languages there are, and the mean of what they gained and cost."""
    of_script = defaultdict(list)
    for row in rows:
        of_script[row["script"]].append(row)
    return [
        {"script": script, "languages": len(own)}
        | {name: sum(row[name]["value"] for row in own) / len(own) for name in ("gain", "cost")}
        for script, own in sorted(of_script.items())
        if all("gain" in row and "cost" in row for row in own)
    ]


def _row(code: str, own: Mapping[int, Run]) -> dict[str, Any]:
    language, newest = get_language(code), next(iter(own.values()))
    facts = newest.phases.get(PHASE) or {}
    retention = newest.results.get("retention") or ()
    test_set = main_test_set(row["dataset"] for row in retention)
    of_base = [
        row["bits_per_byte"]
        for row in retention
        if (row["language"], row["model"], row["dataset"]) == (code, "base", test_set)
    ]
    row: dict[str, Any] = {
        "language": code,
        "name": language.name,
        "script": language.script,
        "seeds": len(own),
        "runs": {str(seed): run.id for seed, run in own.items()},
        "base_bits_per_byte": of_base[0] if of_base else None,
        **{fact: facts.get(fact) for fact in ("tokens_per_byte", "tokens_per_character", "similarity")},
    }
    for number, term in _NUMBERS.items():
        try:
            effect = _over_seeds(own, term)
        except NotMeasuredError:
            continue
        row[number] = {name: value for name, value in effect_json(effect).items() if name in ("value", "low", "high")}
    return row


def _over_seeds(own: Mapping[int, Run], term: Term) -> Effect:
    samples = {seed: sample_of(term, run) for seed, run in own.items()}
    one = next(iter(samples.values()))
    if len(samples) > 1 or one.resamples is None:
        return combined(samples)
    low, high = bootstrap_interval(one.resamples, one.documents)
    return Effect(one.value, low, high, {seed: sample.value for seed, sample in samples.items()})


def _finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in numbers.items()}
