"""Gain and forgetting of several runs on the same test sets, with paired differences from one of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lpr_lab.errors import LprError
from lpr_lab.runs.compare.paired_changes import difference
from lpr_lab.runs.compare.paired_scores import Key, Table
from lpr_lab.runs.model_ref import BASE, analysed_run, baseline_of
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name


@dataclass(frozen=True)
class TradeOff:
    """What runs gained and forgot on the same test sets.

    Attributes:
        points: columns number, run, title, gain (mean fall of bits per byte on expanded languages, %), forgetting
            (mean rise on original ones, %), worst (largest rise of one of them, %), chosen; the chosen run first, then
            as they were given: no order of merit. Of every other run the paired difference from the chosen one, in
            points: gain_difference, gain_low, gain_high, gain_verdict, and the same of forgetting; a verdict is what
            the other run is: `better`, `worse` or `no clear difference`.
        refused: (run, why it cannot be compared with the others).
    """

    points: Table
    refused: tuple[tuple[Run, str], ...]


def trade_off(chosen: Run, runs: Iterable[Run], dataset: str) -> TradeOff | None:
    """Return one point per run with the test sets of the chosen one; None when that was not measured on both roles."""
    import pandas as pd

    wanted = _test_sets(chosen, dataset) if baseline_of(chosen) == BASE else None
    if wanted is None or {role for role, _ in wanted.values()} != {"original", "expanded"}:
        return None
    points, refused = [], []
    for run in runs:
        try:
            # One point per model: an evaluation analyses one that has its own point.
            if run.id != chosen.id and (run.problem or analysed_run(run) or run.id == analysed_run(chosen)):
                continue
            own = _test_sets(run, dataset)
            if own is None:
                continue
            why = "" if run.id == chosen.id else _why_apart(wanted, own)
            if why:
                refused.append((run, why))
            else:
                points.append(_point(run, dataset, chosen, wanted))
        except (LprError, KeyError, ValueError):
            continue  # the page Runs shows what is wrong with it
    points.sort(key=lambda point: not point["chosen"])
    numbered = [{**point, "number": number} for number, point in enumerate(points, 1)]
    return TradeOff(pd.DataFrame(numbered), tuple(refused))


def _test_sets(run: Run, dataset: str) -> dict[str, tuple[str, str]] | None:
    """Return (role, hash) by language."""
    table = run.tables.read("change")
    if table is None:
        return None
    rows = table[table["dataset"] == dataset].to_dict("records")
    return {str(row["language"]): (str(row["role"]), str(row["test_set"])) for row in rows} or None


def _why_apart(wanted: dict[str, tuple[str, str]], own: dict[str, tuple[str, str]]) -> str:
    for language, (role, test_set) in wanted.items():
        name = language_name(language)
        if language not in own:
            return f"it was not measured on {name}"
        if own[language][0] != role:
            return f"{name} is an {own[language][0]} language there"
        if own[language][1] != test_set:
            return f"its {name} test set is {own[language][1]}, not {test_set}"
    more = [language_name(code) for code in own if code not in wanted]
    return f"its means are over {', '.join(more)} too" if more else ""


def _point(run: Run, dataset: str, chosen: Run, test_sets: dict[str, tuple[str, str]]) -> dict[str, Any]:
    table = run.tables.read("change")
    assert table is not None
    rows = table[table["dataset"] == dataset]
    by_role = {role: part["change_percent"] for role, part in rows.groupby("role")}
    facts = {"run": run.id, "title": run.title, "chosen": run.id == chosen.id}
    numbers = {"gain": -float(by_role["expanded"].mean()), "forgetting": float(by_role["original"].mean())}
    found = {**facts, **numbers, "worst": float(by_role["original"].max())}
    for name, role, sign in (("gain", "expanded", -1), ("forgetting", "original", 1)):
        keys: list[Key] = [(language, dataset) for language, (of, _) in test_sets.items() if of == role]
        apart = difference(run, chosen, keys)
        ends = sorted((sign * apart.low, sign * apart.high))
        found |= {f"{name}_difference": sign * apart.value, f"{name}_low": ends[0], f"{name}_high": ends[1]}
        found |= {f"{name}_verdict": apart.verdict()}
    return found
