"""Tasks of a run as a table: chance, both models, their difference with its interval, and each task in words."""

from typing import Any

from markupsafe import Markup

from lpr_lab.measure.significance import BETTER, NOT_WORSE, UNCLEAR, WORSE, Difference
from lpr_lab.measure.tasks.kinds import TASKS
from lpr_lab.text.languages import language_name
from lpr_lab.views import Table
from lpr_lab.views.html.templates import render
from lpr_lab.views.names import ROLES
from lpr_lab.views.numbers import NOT_MEASURED, count, percent, points_with_interval, signed

_VERDICTS = {BETTER: "▲ better", NOT_WORSE: f"▲ {NOT_WORSE}", WORSE: "▼ worse", UNCLEAR: f"≈ {UNCLEAR}"}
"""More right answers are better, so the triangles point the other way than those of bits per byte."""


def render_tasks(changes: Table | None, before: str, after: str, left_out: Table | None = None) -> Markup:
    """Return what two models made of the same items, task by task; empty where nothing was asked.

    Args:
        changes: as `measure.tasks.scores.change_rows`.
        before: what one model is called.
        after: what the other is called.
        left_out: columns task, language, reason.
    """
    if changes is None or changes.empty:
        return Markup()
    known = [name for name in TASKS if name in set(changes["task"])]
    others = [name for name in dict.fromkeys(changes["task"]) if name not in TASKS]
    return render(
        "views/html/tasks.html.j2",
        heads=["Items", "Chance", before, after, "Difference, points", "Margin, difference"],
        tasks=[(_title(name), _meaning(name), _rows(changes[changes["task"] == name])) for name in [*known, *others]],
        left_out=[] if left_out is None else [_left_out(row) for row in left_out.to_dict("records")],
    )


def tasks_finding(changes: Table) -> str:
    """Return in a sentence how many differences are clear, and which way."""
    verdicts = changes["verdict"].tolist()
    words = [f"{verdicts.count(word)} {word}" for word in (BETTER, NOT_WORSE, WORSE) if word in verdicts]
    clear = f"{', '.join(words)}; " if words else ""
    return f"Of {len(verdicts)} differences by task and language: {clear}{verdicts.count(UNCLEAR)} not clear"


def _title(name: str) -> str:
    title = TASKS[name].title if name in TASKS else name
    return title[:1].upper() + title[1:]


def _meaning(name: str) -> str:
    task = TASKS.get(name)
    if task is None:
        return ""
    return task.meaning + (f" Margin: {task.margin}." if task.margin else "")


def _rows(changes: Table) -> list[dict[str, Any]]:
    found = []
    for role in ROLES:
        found += [_row(row) for row in changes[changes["role"] == role].to_dict("records")]
    return found


def _row(row: dict[str, Any]) -> dict[str, Any]:
    points = Difference(*(float(row[name]) for name in ("change_points", "ci_low", "ci_high")))
    margin = Difference(*(float(row[f"margin_{name}"]) for name in ("change", "ci_low", "ci_high")))
    cells = [
        count(row["n_items"]),
        percent(row["chance"]) if row["chance"] == row["chance"] else NOT_MEASURED,
        percent(row["before"]),
        percent(row["after"]),
        points_with_interval(points).replace(" points", ""),
        f"{signed(margin.value, 2)} ({signed(margin.low, 2)} to {signed(margin.high, 2)})"
        if margin.has_interval
        else NOT_MEASURED,
    ]
    verdict = str(row["verdict"])
    return {
        "name": language_name(str(row["language"])),
        "role": ROLES.get(str(row["role"]), str(row["role"])),
        "cells": cells,
        "kind": verdict.partition(" ")[0],
        "verdict": _VERDICTS.get(verdict, verdict),
    }


def _left_out(row: dict[str, Any]) -> str:
    return f"{_title(str(row['task']))}, {language_name(str(row['language']))}: {row['reason']}"
