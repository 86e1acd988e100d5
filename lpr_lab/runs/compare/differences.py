"""How runs differ in settings, text, environment and results: one logic for command line, dashboard and reports.

Results are put side by side only where they were measured on the same documents, and one is called better only where
the interval of the paired difference is clear. A setting that a run did not record does not count as a difference.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpr_lab.measure.significance import UNCLEAR, Difference, clear_best
from lpr_lab.runs.compare.paired_changes import difference
from lpr_lab.runs.compare.paired_scores import Key
from lpr_lab.runs.formats import dotted
from lpr_lab.runs.run import Run

_LEFT_OUT = ("schema_version",)


@dataclass(frozen=True)
class Row:
    """One line of a comparison.

    Attributes:
        name: what it is about; settings are dotted names.
        texts: one per run; None where a run did not record it. What it recorded as nothing is `none`.
        values: numbers instead of texts, for results; less is better.
        best: which run is clearly better than every other (by the intervals of the paired differences), or None.
        difference: of two runs, how far the second is above the first, in points.
    """

    name: str
    texts: tuple[str | None, ...]
    values: tuple[float | None, ...] = ()
    best: int | None = None
    difference: Difference | None = None

    @property
    def differs(self) -> bool:
        """Whether two runs recorded different values; what only some of them recorded is no difference."""
        return len({value for value in self.values or self.texts if value is not None}) > 1

    @property
    def is_partial(self) -> bool:
        """Whether some runs recorded it and others did not."""
        values = self.values or self.texts
        return None in values and any(value is not None for value in values)

    @property
    def verdict(self) -> str:
        """`no clear difference` where two runs or more have results and none is clearly the best; else empty."""
        measured = [value for value in self.values if value is not None]
        return UNCLEAR if len(measured) > 1 and self.best is None else ""

    def to_json(self, runs: Sequence[str]) -> dict[str, Any]:
        """Return the row, JSON-able; of results also which run is clearly best, and the difference of two runs."""
        found: dict[str, Any] = {"name": self.name, "values": list(self.values or self.texts)}
        if not self.values:
            return found
        found |= {"best": None if self.best is None else runs[self.best], "verdict": self.verdict or None}
        if self.difference is not None and self.difference.has_interval:
            ends = {"ci_low": self.difference.low, "ci_high": self.difference.high}
            found["second_minus_first"] = {"points": self.difference.value, **ends}
        return found


@dataclass(frozen=True)
class RunDifferences:
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
            name: [row.to_json(self.runs) for row in rows if every or row.differs] for name, rows in self.groups.items()
        }
        partial = {name: [row.name for row in rows if row.is_partial] for name, rows in self.groups.items()}
        unlike = [{"dataset": dataset, "language": language} for dataset, language in self.unlike]
        facts = {"not_recorded_by_all": partial, "unlike_test_sets": unlike, "refusal": self.refusal}
        return {"runs": list(self.runs), **rows, **facts}


def compare_runs(runs: Sequence[Run]) -> RunDifferences:
    """Put runs side by side.

    Raises:
        LprError: a file of one of them cannot be read.
    """
    return RunDifferences(
        tuple(run.id for run in runs),
        tuple(result_rows(runs)),
        tuple(language_rows(runs)),
        tuple(setting_rows(runs)),
        tuple(_rows([_data_facts(run) for run in runs])),
        tuple(_rows([dict(flatten(run.documents.read("env"))) for run in runs])),
        tuple(unlike_test_sets(runs)),
        refusal(runs),
    )


def changed_between(run: Run) -> tuple[str, str]:
    """Return the two models that a run's changes are between; `base` and `expanded` unless its results name others."""
    results = run.results
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
    summaries = [run.results.get("summary") or {} for run in runs]
    unlike = {dataset for dataset, _ in unlike_test_sets(runs)}
    keys = dict.fromkeys(
        (dataset, role) for summary in summaries for dataset, by_role in summary.items() for role in by_role
    )
    languages = [_languages(run) for run in runs]
    rows = []
    for dataset, role in keys:
        if dataset in unlike:
            continue
        numbers = [((summary.get(dataset) or {}).get(role) or {}).get("mean_change_percent") for summary in summaries]
        over = [one.get((dataset, role), ()) for one in languages]
        # Means over other languages are not comparable, whatever the numbers.
        same = {codes for codes, number in zip(over, numbers, strict=True) if number is not None}
        pairs = [(code, dataset) for code in same.pop()] if len(same) == 1 else []
        rows.append(_numbers(f"{role} languages, {dataset}", numbers, runs, pairs))
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
        rows.append(_numbers(f"{language}, {dataset}", found, runs, [(language, dataset)]))
    return rows


def _languages(run: Run) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the languages that a mean is over, by data set and role."""
    found: dict[tuple[str, str], list[str]] = {}
    for (dataset, language), row in _changes(run).items():
        found.setdefault((dataset, str(row.get("role"))), []).append(language)
    return {key: tuple(sorted(codes)) for key, codes in found.items()}


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
    return [(name, _as_text(value)) for name, value in dotted(settings) if name.rpartition(".")[2] not in _LEFT_OUT]


def _as_text(value: Any) -> str | None:
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
    return [Row(name, tuple((one[name] or "none") if name in one else None for one in facts)) for name in names]


def _numbers(name: str, values: Sequence[Any], runs: Sequence[Run], keys: Sequence[Key]) -> Row:
    """Return a row of results, with the run that is clearly best of those that were measured.

    Args:
        name: of the row.
        values: one per run.
        runs: the same.
        keys: (language, data set) of what the numbers are means over; empty where they cannot be paired.
    """
    numbers = tuple(float(value) if isinstance(value, int | float) else None for value in values)
    texts = tuple(None if value is None else f"{value:+.2f} %" for value in numbers)
    measured = [place for place, value in enumerate(numbers) if value is not None]

    def apart(one: int, other: int) -> Difference:
        return difference(runs[measured[one]], runs[measured[other]], keys)

    best = clear_best(len(measured), apart)
    two = apart(1, 0) if len(measured) == len(runs) == 2 else None
    return Row(name, texts, numbers, None if best is None else measured[best], two)


def _data_facts(run: Run) -> dict[str, str | None]:
    """Return sources by name and hashes by language and split; what follows from these is left out."""
    data = {key: value for key, value in run.documents.read("data").items() if key != "preparation"}
    facts: dict[str, str | None] = {}
    for number, source in enumerate(data.pop("sources", None) or []):
        name = source_name(source) or str(number)
        facts[f"sources.{name}"] = ", ".join(f"{key} {_text(value)}" for key, value in source.items())
    texts = data.pop("texts", None) or {}
    return {**dict(flatten(data)), **facts, **dict(flatten({"texts": texts}))}


def _changes(run: Run) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows of `change` by data set and language."""
    rows = run.results.get("change") or []
    return {(str(row["dataset"]), str(row["language"])): row for row in rows if isinstance(row, dict)}
