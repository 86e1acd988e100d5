"""Where the change of one language comes from: its slices, and its documents by what each adds to the change."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lpr_lab.dashboard.pages.retention.render import VERDICTS
from lpr_lab.dashboard.query import Query
from lpr_lab.measure.significance import change_of, change_verdict
from lpr_lab.measure.slices.rules import BY_NAME, SLICES
from lpr_lab.runs.compare.paired_scores import PairedChange
from lpr_lab.runs.compare.paired_slices import compare_slices
from lpr_lab.runs.model_ref import BASE, analysed_run
from lpr_lab.text.languages import find_language, language_name
from lpr_lab.views import Table
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import NOT_MEASURED, change, count, interval, points

NUM_SHOWN = 20
"""Documents in the table; the list to choose from has all."""
TEMPLATE = "dashboard/pages/retention/causes.html.j2"


@dataclass(frozen=True)
class Causes:
    """The change of one language on one data set, taken apart.

    Attributes:
        language, dataset: which.
        row: of the table of changes.
        documents: as `PairedChange.documents`, with `number`, the place in the test set; what adds most to the change
            in its own direction comes first. None where scores by document were not kept.
        slices: as `compare_slices`, or None where scores of slices were not kept.
        from_base: whether the change is from the base.
    """

    language: str
    dataset: str
    row: dict[str, Any]
    documents: Table | None
    slices: Table | None
    from_base: bool

    def document(self, number: int | None) -> dict[str, Any] | None:
        """Return a document by its place in the test set, or None."""
        if self.documents is None or number is None:
            return None
        found = self.documents[self.documents["number"] == number]
        return None if found.empty else found.iloc[0].to_dict()


def causes_of(found: PairedChange, dataset: str, query: Query) -> Causes | None:
    """Return what is behind the change of the language that an address asks for, else of the one that rose most.

    Args:
        found: the comparison, with rows.
        dataset: the one that is shown.
        query: of the page.
    """
    if found.rows is None:
        return None
    rows = found.rows[found.rows["dataset"] == dataset].reset_index(drop=True)
    language = shown_language(rows, query)
    row = rows[rows["language"] == language].iloc[0].to_dict()
    documents = found.documents
    if documents is not None:
        of_language = (documents["language"] == language) & (documents["dataset"] == dataset)
        documents = documents[of_language].reset_index(drop=True)
        documents["number"] = range(len(documents))
        documents = documents.sort_values("points", ascending=row["change_percent"] < 0, kind="stable")
    slices = compare_slices(found.before, found.after, dataset, language)
    if slices is not None and slices.empty:
        slices = None
    from_base = found.before.run.id == found.after.run.id and found.before.stage == BASE
    return Causes(language, dataset, row, documents, slices, from_base)


def shown_language(rows: Table, query: Query) -> str:
    """Return the language that an address asks for, else the original one of the highest change, else the first."""
    known = [str(code) for code in rows["language"]]
    if query.lang in known:
        return query.lang
    original = rows[rows["role"] == "original"]
    return str(original.loc[original["change_percent"].idxmax(), "language"]) if len(original) else known[0]


def language_choices(rows: Table) -> list[tuple[str, str]]:
    """Return (name, code) of the languages of a table of changes."""
    return [(language_name(code), code) for code in dict.fromkeys(map(str, rows["language"]))]


def document_choices(causes: Causes) -> list[tuple[str, int | str]]:
    """Return (label, number) of the documents, in the order of the table, after an empty choice."""
    if causes.documents is None:
        return []
    rows = causes.documents.to_dict("records")
    named = [(f"{points(row['points'])} points · {row['document']}", int(row["number"])) for row in rows]
    return [("None chosen", ""), *named]


def render_causes(causes: Causes, found: PairedChange, query: Query) -> Markup:
    """Return the section: the answer in words, the table of slices, and the documents."""
    name = language_name(causes.language)
    whole = change_of(causes.row)
    verdict = change_verdict(causes.row, from_base=causes.from_base)
    ends = f"95% interval {interval(whole.low, whole.high)}" if whole.has_interval else "without an interval"
    documents = None if causes.documents is None else causes.documents.to_dict("records")
    rose = sum(row["change_percent"] > 0 for row in documents or ())
    of_documents = f" {count(rose)} of {count(len(documents))} documents need more bits." if documents else ""
    return render(
        TEMPLATE,
        name=name,
        finding=f"{name}: {change(whole.value)} ({ends}), {verdict}.{of_documents}",
        slices=None if causes.slices is None else [_slice(row, causes.from_base) for row in _records(causes.slices)],
        slice_heads=_SLICE_HEADS,
        rules=[(one.title, one.rule) for one in SLICES] + [(BY_NAME["rest"].title, BY_NAME["rest"].rule)],
        absent=_absent(causes),
        again=f"lpr-lab run 06_eval_retention -p after={analysed_run(found.after.run) or found.after.run.id}",
        documents=None if documents is None else [_document(row, query) for row in documents[:NUM_SHOWN]],
        document_heads=_DOCUMENT_HEADS,
        num_documents=len(documents or ()),
        whole=points(whole.value),
    )


_SLICE_HEADS = ["Tokens", "Documents", "Before", "After", "Change", "95% interval", "Adds, in points"]
_DOCUMENT_HEADS = ["Bytes", "Before", "After", "Change", "Adds, in points"]


def _records(table: Table) -> list[dict[str, Any]]:
    return table.to_dict("records")


def _absent(causes: Causes) -> list[str]:
    """Return, in sentences, which slices are not in the table and why."""
    language = find_language(causes.language)
    if causes.slices is None or language is None:
        return []
    there = set(causes.slices["slice"])
    missing = [one for one in SLICES if one.name not in there]
    said = [f"{one.title}: {one.absent(language)}" for one in missing if one.absent(language)]
    none = [one.title.lower() for one in missing if not one.absent(language)]
    return said + ([f"None in this test set: {', '.join(none)}."] if none else [])


def _slice(row: dict[str, Any], from_base: bool) -> dict[str, Any]:
    found = change_of(row)
    verdict = change_verdict(row, from_base=from_base)
    cells = [
        count(row["n_tokens"]),
        count(row["n_documents"]),
        f"{row['before']:.3f}",
        f"{row['after']:.3f}",
        change(row["change_percent"]),
        interval(found.low, found.high) if found.has_interval else NOT_MEASURED,
        points(row["points"]),
    ]
    kind = verdict.partition(" ")[0]
    return {"title": BY_NAME[row["slice"]].title, "cells": cells, "kind": kind, "verdict": VERDICTS[verdict]}


def _document(row: dict[str, Any], query: Query) -> dict[str, Any]:
    number = int(row["number"])
    cells = [
        count(row["bytes"]),
        f"{row['before']:.3f}",
        f"{row['after']:.3f}",
        change(row["change_percent"]),
        points(row["points"]),
    ]
    link = query.link("/retention", lang=str(row["language"]), doc=number)
    return {"id": row["document"], "link": link, "cells": cells, "is_chosen": query.doc == number}
