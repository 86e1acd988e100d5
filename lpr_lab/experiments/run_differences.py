"""In what runs differ: settings, text, environment, and what came of each. One logic for command line and dashboard.

Results are put side by side only where they were measured on the same documents.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpr_lab.experiments.run_formats import dotted
from lpr_lab.experiments.runs import Run

_NOT_SAID = ("schema_version",)


@dataclass(frozen=True)
class Row:
    """One line of a comparison.

    Attributes:
        name: what it is about; settings are dotted names.
        texts: one per run; None where a run has no such thing.
        values: numbers instead of texts, for results; the smallest is the best.
    """

    name: str
    texts: tuple[str | None, ...]
    values: tuple[float | None, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether two runs say different things."""
        return len(set(self.values or self.texts)) > 1

    @property
    def best(self) -> float | None:
        """The smallest number, where there are two that differ."""
        measured = {value for value in self.values if value is not None}
        return min(measured) if len(measured) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side, all rows, also those that are the same.

    Attributes:
        runs: their ids.
        results: mean change of bits per byte by data set and role, in per cent.
        languages: the change language by language.
        settings, data, environment: what they were made with and from.
        unlike: (data set, language) pairs whose test sets are not the same documents; they are left out of both.
        refusal: why no results are put side by side at all, in a sentence; empty where some may be.
    """

    runs: tuple[str, ...]
    results: tuple[Row, ...]
    languages: tuple[Row, ...]
    settings: tuple[Row, ...]
    data: tuple[Row, ...]
    environment: tuple[Row, ...]
    unlike: tuple[tuple[str, str], ...] = ()
    refusal: str = ""

    @property
    def groups(self) -> dict[str, tuple[Row, ...]]:
        """All rows by what they are about."""
        names = ("results", "languages", "settings", "data", "environment")
        return {name: getattr(self, name) for name in names}

    def to_json(self, every: bool = False) -> dict[str, Any]:
        """Return the rows that differ, or every one, JSON-able."""
        rows = {
            name: [{"name": row.name, "values": list(row.values or row.texts)} for row in rows if every or row.differs]
            for name, rows in self.groups.items()
        }
        unlike = [{"dataset": dataset, "language": language} for dataset, language in self.unlike]
        return {"runs": list(self.runs), **rows, "unlike_test_sets": unlike, "refusal": self.refusal}


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Put runs side by side.

    Raises:
        LprError: a file of one of them cannot be read.
    """
    return Comparison(
        tuple(run.id for run in runs),
        tuple(result_rows(runs)),
        tuple(language_rows(runs)),
        tuple(setting_rows(runs)),
        tuple(_rows([_data_facts(run) for run in runs])),
        tuple(_rows([dict(flatten(run.env or {})) for run in runs])),
        tuple(unlike_test_sets(runs)),
        refusal(runs),
    )


def changed_between(run: Run) -> tuple[str, str]:
    """Return the two models that a run's changes are between; `base` and `expanded` unless it says otherwise."""
    results = run.results or {}
    return str(results.get("before") or "base"), str(results.get("after") or "expanded")


def refusal(runs: Sequence[Run]) -> str:
    """Return why no results of these runs must be put side by side, in a sentence; empty where some may be."""
    models = sorted({changed_between(run)[0] for run in runs if _changes(run)})
    if len(models) < 2:
        return ""
    return f"Their changes are from different models ({', '.join(models)}), so they are not put side by side."


def setting_rows(runs: Sequence[Run]) -> list[Row]:
    """Return every setting of the runs, in the order in which they first appear."""
    return _rows([dict(flatten(run.config)) for run in runs])


def result_rows(runs: Sequence[Run]) -> list[Row]:
    """Return the mean change of bits per byte, in per cent, by data set and role, on test sets that are the same."""
    if refusal(runs):
        return []
    summaries = [(run.results or {}).get("summary") or {} for run in runs]
    unlike = {dataset for dataset, _ in unlike_test_sets(runs)}
    keys = dict.fromkeys(
        (dataset, role) for summary in summaries for dataset, by_role in summary.items() for role in by_role
    )
    rows = []
    for dataset, role in keys:
        if dataset in unlike:
            continue
        numbers = [(summary.get(dataset) or {}).get(role) or {} for summary in summaries]
        rows.append(_numbers(f"{role} languages, {dataset}", [one.get("mean_change_percent") for one in numbers]))
    return rows


def language_rows(runs: Sequence[Run]) -> list[Row]:
    """Return the change of bits per byte, in per cent, by data set and language, on test sets that are the same."""
    if refusal(runs):
        return []
    scores = [_changes(run) for run in runs]
    unlike = unlike_test_sets(runs)
    keys = dict.fromkeys(key for one in scores for key in one if key not in unlike)
    rows = []
    for dataset, language in keys:
        found = [one.get((dataset, language), {}).get("change_percent") for one in scores]
        rows.append(_numbers(f"{language}, {dataset}", found))
    return rows


def unlike_test_sets(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return the (data set, language) pairs that runs were measured on with different documents."""
    scores = [_changes(run) for run in runs]
    unlike = []
    for key in dict.fromkeys(key for one in scores for key in one):
        hashes = {str(one[key]["test_set"]) for one in scores if key in one and one[key].get("test_set")}
        if len(hashes) > 1:
            unlike.append(key)
    return unlike


def flatten(settings: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return settings as (dotted name, text) pairs, lists joined by commas; None stays None.

    >>> flatten({"stage1": {"tokens": 5, "max_minutes": None}, "expanded": ["el", "tr"]})
    [('stage1.tokens', '5'), ('stage1.max_minutes', None), ('expanded', 'el, tr')]
    """
    return [(name, _said(value)) for name, value in dotted(settings) if name.rpartition(".")[2] not in _NOT_SAID]


def _said(value: Any) -> str | None:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return None if value is None else str(value)


def source_name(source: Mapping[str, Any]) -> str:
    """Return what one of the sources in `data.json` is called; empty where it has no name."""
    return next((str(source[key]) for key in ("package", "file", "dataset", "name", "path") if source.get(key)), "")


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else str(value)


def _rows(facts: Sequence[Mapping[str, str | None]]) -> list[Row]:
    names = dict.fromkeys(name for one in facts for name in one)
    return [Row(name, tuple(one.get(name) for one in facts)) for name in names]


def _numbers(name: str, values: Sequence[Any]) -> Row:
    numbers = tuple(float(value) if isinstance(value, int | float) else None for value in values)
    return Row(name, tuple(None if value is None else f"{value:+.2f} %" for value in numbers), numbers)


def _data_facts(run: Run) -> dict[str, str | None]:
    """Return sources by name and hashes by language and split; what follows from these is left out."""
    data = {key: value for key, value in (run.data or {}).items() if key != "preparation"}
    facts: dict[str, str | None] = {}
    for number, source in enumerate(data.pop("sources", None) or []):
        name = source_name(source) or str(number)
        facts[f"sources.{name}"] = ", ".join(f"{key} {_text(value)}" for key, value in source.items())
    texts = data.pop("texts", None) or {}
    return {**dict(flatten(data)), **facts, **dict(flatten({"texts": texts}))}


def _changes(run: Run) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows of `change` by data set and language."""
    rows = (run.results or {}).get("change") or []
    return {(str(row["dataset"]), str(row["language"])): row for row in rows if isinstance(row, dict)}
