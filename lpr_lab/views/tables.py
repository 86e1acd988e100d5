r"""Results of runs as tables: LaTeX with the best values in bold, or CSV with bare numbers.

    write_tables([run], Path("tables"), "latex")

One run gives base, expanded and change by language; several give the change side by side, where they were measured on
the same documents. The LaTeX needs `booktabs`; any engine reads it as long as titles and languages are Latin, Greek or
Cyrillic, and XeLaTeX or LuaLaTeX with a fitting font read every script.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpr_lab.errors import ComparisonRefusedError, MissingError, UsageError, one_of
from lpr_lab.measure.significance import BETTER, WORSE, change_of
from lpr_lab.runs.compare.differences import changed_between, compare_runs, language_rows, refusal, unlike_test_sets
from lpr_lab.runs.run import Run, short_id
from lpr_lab.storage import write_text
from lpr_lab.text.languages import language_name
from lpr_lab.views.names import dataset_name
from lpr_lab.views.numbers import NOT_MEASURED

FORMATS = {"latex": ".tex", "csv": ".csv"}

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",  # some languages of babel give the straight one a meaning
    "[": "{[}",  # after a line break it would begin an option
    "]": "{]}",
    "−": "$-$",
    "–": "--",
    "→": r"$\rightarrow$",
    "\u202f": r"\,",
    "\u00a0": "~",
}

Cell = tuple[str, bool]
"""Text, and whether it is the best of its row."""


@dataclass(frozen=True)
class ResultTable:
    """One table.

    Attributes:
        name: of its file.
        caption: what it shows, and what bold means.
        head: names of the columns; those of rows first, `num_names` of them.
        rows: cells as they are read.
        numbers: the same with bare numbers, under `number_head`, for programs.
    """

    name: str
    caption: str
    head: tuple[str, ...]
    num_names: int
    rows: tuple[tuple[Cell, ...], ...]
    number_head: tuple[str, ...]
    numbers: tuple[tuple[Any, ...], ...]


def write_tables(runs: Sequence[Run], folder: Path, form: str) -> list[Path]:
    """Write every table of one run, or of several side by side; returns the files.

    Args:
        runs: one or several.
        folder: made when absent; files of the same names are replaced.
        form: `latex` or `csv`.

    Raises:
        UsageError: an unknown form, or no run.
        MissingError: nothing was measured.
        ComparisonRefusedError: several runs on different documents.
    """
    one_of("format of tables", form, FORMATS)
    tables = result_tables(runs)
    write = _latex if form == "latex" else _csv
    contents = {folder / f"{table.name}{FORMATS[form]}": write(table) for table in tables}
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in contents.items():
        write_text(path, text)
    return list(contents)


def result_tables(runs: Sequence[Run]) -> list[ResultTable]:
    """Return the tables of one run, or of several side by side; see `write_tables` for what is refused."""
    if not runs:
        raise UsageError("Tables need a run. `lpr-lab runs list` shows them; `lpr-lab demo` makes one.")
    unmeasured = [run.id for run in runs if not run.results.get("change")]
    if unmeasured:
        raise MissingError(f"Run {unmeasured[0]} was not scored on test documents, so there is no table to write.")
    if len(runs) == 1:
        tables = [_one(runs[0], dataset) for dataset in _datasets(runs)]
    else:
        _refuse_unlike(runs)
        tables = [_several(runs, dataset) for dataset in _datasets(runs)]
    return [*tables, _routing(runs), _settings(runs)]


def _datasets(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(str(row["dataset"]) for run in runs for row in run.results["change"]))


def _changes(run: Run, dataset: str) -> dict[str, dict[str, Any]]:
    return {str(row["language"]): row for row in run.results["change"] if row["dataset"] == dataset}


def _refuse_unlike(runs: Sequence[Run]) -> None:
    if said := refusal(runs):
        raise ComparisonRefusedError(f"{said} Export them one by one.")
    unlike = unlike_test_sets(runs)
    if unlike:
        where = ", ".join(f"{language_name(language)} ({dataset})" for dataset, language in unlike)
        raise ComparisonRefusedError(
            f"These runs were measured on different documents: {where}. A table of them side by side would say nothing "
            "about the models. Export them one by one, or evaluate them on one corpus."
        )


def _one(run: Run, dataset: str) -> ResultTable:
    rows, numbers = [], []
    sides, rest = changed_between(run), ("Change", "95 % interval", "Documents")
    for language, row in _changes(run, dataset).items():
        verdict = change_of(row).verdict()
        values = (row["before"], row["after"], row["change_percent"], row["ci_low"], row["ci_high"])
        rows.append(
            (
                (language_name(language), False),
                (str(row["role"]), False),
                (f"{row['before']:.3f}", verdict == WORSE),
                (f"{row['after']:.3f}", verdict == BETTER),
                (_signed(row["change_percent"]), False),
                (_interval(row), False),
                (str(row.get("n_documents", NOT_MEASURED)), False),
            )
        )
        numbers.append((language, row["role"], *values, row.get("n_documents")))
    return ResultTable(
        f"results-{dataset}",
        f"{run.title}: bits per UTF-8 byte, lower is better. {dataset_name(dataset)}. Change in per cent with 95 % "
        "interval, paired bootstrap over documents; bold where the interval excludes zero.",
        ("Language", "Role", *(name[:1].upper() + name[1:] for name in sides), *rest),
        2,
        tuple(rows),
        ("language", "role", *sides, "change_percent", "ci_low", "ci_high", "n_documents"),
        tuple(numbers),
    )


def _several(runs: Sequence[Run], dataset: str) -> ResultTable:
    changes = [_changes(run, dataset) for run in runs]
    best_of = {row.name: row.best for row in language_rows(runs)}
    rows, numbers = [], []
    for language in dict.fromkeys(code for one in changes for code in one):
        found = [one.get(language) for one in changes]
        role = next(str(row["role"]) for row in found if row)
        best = best_of[f"{language}, {dataset}"]
        cells = [
            (f"{_signed(row['change_percent'])} [{_interval(row)}]", place == best) if row else (NOT_MEASURED, False)
            for place, row in enumerate(found)
        ]
        rows.append(((language_name(language), False), (role, False), *cells))
        for run, row in zip(runs, found, strict=True):
            if row:
                numbers.append((language, role, run.id, *(row[key] for key in _KEYS), row.get("n_documents")))
    return ResultTable(
        f"results-{dataset}",
        f"Change of bits per UTF-8 byte in per cent, lower is better, with 95 % interval. {dataset_name(dataset)}, the "
        "same documents for all. Bold: clearly better than every other in its row, by the 95 % interval of the paired "
        "difference.",
        ("Language", "Role", *map(_label, runs)),
        2,
        tuple(rows),
        ("language", "role", "run", "base", "expanded", "change_percent", "ci_low", "ci_high", "n_documents"),
        tuple(numbers),
    )


_KEYS = ("before", "after", "change_percent", "ci_low", "ci_high")


def _routing(runs: Sequence[Run]) -> ResultTable:
    weights = [
        {
            (str(row["dataset"]), str(row["language"])): float(row["original_weight"])
            for row in (run.results.get("routing") or {}).get("original_weight") or []
        }
        for run in runs
    ]
    keys = list(dict.fromkeys(key for one in weights for key in one))
    rows = tuple(
        (
            (language_name(language), False),
            (dataset, False),
            *(
                (f"{one[dataset, language]:.3f}" if (dataset, language) in one else NOT_MEASURED, False)
                for one in weights
            ),
        )
        for dataset, language in keys
    )
    numbers = tuple(
        (language, dataset, run.id, one[dataset, language])
        for dataset, language in keys
        for run, one in zip(runs, weights, strict=True)
        if (dataset, language) in one
    )
    caption = "Mean weight of the original expert over tokens and layers, by language."
    head = ("Language", "Text", *(map(_label, runs) if len(runs) > 1 else ["Weight"]))
    return ResultTable("routing", caption, head, 2, rows, ("language", "dataset", "run", "original_weight"), numbers)


def _settings(runs: Sequence[Run]) -> ResultTable:
    compared = compare_runs(runs)
    shown = [row for row in compared.settings if row.differs or len(runs) == 1]
    rows = tuple(((row.name, False), *((text or NOT_MEASURED, False) for text in row.texts)) for row in shown)
    caption = "Settings." if len(runs) == 1 else "Settings in which the runs differ, of those that they recorded."
    head = ("Setting", *(map(_label, runs) if len(runs) > 1 else ["Value"]))
    numbers = tuple((row.name, *row.texts) for row in shown)
    return ResultTable("settings", caption, head, 1, rows, ("setting", *(run.id for run in runs)), numbers)


def _label(run: Run) -> str:
    return f"{run.title} ({short_id(run.id)})"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _interval(row: dict[str, Any]) -> str:
    low, high = row["ci_low"], row["ci_high"]
    return NOT_MEASURED if low is None or high is None else f"{_signed(low)}, {_signed(high)}"


# ------------------------------------------------------------------------------------------------------- writing


def escape_latex(text: str) -> str:
    r"""Return a text that LaTeX sets as it is; line breaks and control characters become spaces.

    >>> print(escape_latex("50 % of {a_b} & \\c"))
    50 \% of \{a\_b\} \& \textbackslash{}c
    """
    return "".join(_LATEX.get(c, c if c.isprintable() or c in "\u200c\u200d" else " ") for c in text)


def _latex(table: ResultTable) -> str:
    import pandas as pd

    names, columns = table.head[: table.num_names], table.head[table.num_names :]
    # Numbers instead of the names, which need not be unique; the names are put on when it is written.
    texts = pd.DataFrame(
        [[text for text, _ in row[table.num_names :]] for row in table.rows], columns=range(len(columns))
    )
    labels = [tuple(text for text, _ in row[: table.num_names]) for row in table.rows]
    bold = [[best for _, best in row[table.num_names :]] for row in table.rows]
    styles = pd.DataFrame(bold, columns=texts.columns).map(lambda best: "textbf:--rwrap" if best else "")
    body = texts.style.format(lambda text: escape_latex(str(text))).apply(lambda _: styles, axis=None)
    body = body.format_index(lambda place: " & ".join(map(escape_latex, labels[int(str(place))])), axis=0)
    body = body.format_index(lambda place: escape_latex(columns[int(str(place))]), axis=1)
    written = body.to_latex(
        hrules=True,
        environment="table",
        position="tb",
        position_float="centering",
        column_format="l" * table.num_names + ("l" if table.name == "settings" else "r") * len(columns),
        caption=escape_latex(table.caption),
        label=f"tab:{table.name}",
    )
    corner = " & ".join(map(escape_latex, names))
    written = written.replace("\\toprule\n &", f"\\toprule\n{corner} &", 1)
    # Seven columns are wider than the text of a plain article at its usual size.
    written = written.replace("\\centering\n", "\\centering\n\\small\\setlength{\\tabcolsep}{5pt}\n", 1)
    return (
        "% \\usepackage{booktabs}; scripts other than Latin, Greek and Cyrillic need XeLaTeX or LuaLaTeX and a font.\n"
        + written
    )


def _csv(table: ResultTable) -> str:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(table.number_head)
    writer.writerows([["" if cell is None else cell for cell in row] for row in table.numbers])
    return out.getvalue()
