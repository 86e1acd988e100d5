"""What notebooks show below a cell: figures, tables, settings, claims.

Figures go in without plotly.js, so that an executed notebook stays small; long titles stand on several lines. Tables
show sentences whole and from their own side.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from lpr_lab.runs.compare.differences import flatten
from lpr_lab.runs.compare.paired_tasks import compare_tasks
from lpr_lab.runs.model_ref import ModelRef
from lpr_lab.runs.people.continuations import Pair
from lpr_lab.views.figures.titles import with_wrapped_title
from lpr_lab.views.html.forest import claims_forest
from lpr_lab.views.html.run_overview import render_settings
from lpr_lab.views.html.tasks import render_tasks, tasks_finding
from lpr_lab.views.html.templates import with_style

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from pandas.io.formats.style import Styler

    from lpr_lab.runs.run import Run

# Each text begins where its script begins (`plaintext`), and keeps its line breaks.
_TEXT = {"text-align": "start", "unicode-bidi": "plaintext", "white-space": "pre-wrap", "min-width": "7em"}


def show(figure: "go.Figure", run: "Run | None" = None, name: str | None = None) -> None:
    """Show a figure below a notebook cell without carrying plotly.js along; with a run and a name, keep its JSON there.

    What is displayed is the plotly mimetype alone, so that an executed notebook stays small.
    """
    from IPython.display import display

    value = json.loads(str(figure.to_json()))
    if run is not None and name is not None:
        run.figures.write(name, value)
    value = with_wrapped_title(value)
    display({"application/vnd.plotly.v1+json": value, "text/plain": figure.layout.title.text or "figure"}, raw=True)


def show_settings(run: "Run") -> None:
    """Show every setting of a run below a notebook cell, folded: what the notebook is about comes first."""
    from IPython.display import display

    rows = flatten(run.config)
    said = f"{len(rows)} settings of run {run.id}"
    body = Markup("<details><summary>{}</summary>{}</details>").format(said, render_settings(rows))
    display({"text/html": with_style(body, "run_overview.css"), "text/plain": said}, raw=True)


def show_tasks(run: "Run", before: str, after: str) -> None:
    """Show what two models of a run made of tasks below a notebook cell, or how to ask some."""
    from IPython.display import display

    changes = compare_tasks(ModelRef(run, before), ModelRef(run, after))
    if changes is None:
        print("No tasks were asked. Ask some with tasks=['choice', 'inflection', 'generation'].")
        return
    said = f"{tasks_finding(changes)}."
    body = Markup("<p>{}</p>{}").format(said, render_tasks(changes, before, after, run.tables.read("tasks_left_out")))
    display({"text/html": with_style(body, "run_overview.css"), "text/plain": said}, raw=True)


def show_claims(run: "Run", all_must_hold: bool = False) -> "Styler":
    """Return a table of what a finished run claims; exact claims must hold in every run.

    Args:
        run: with `results.json`.
        all_must_hold: the measured ones as well, because the settings are those that they are made for.

    Raises:
        AssertionError: a claim does not hold that must.
    """
    import pandas as pd

    claims = run.results["claims"]
    broken = [claim["text"] for claim in claims if not claim["holds"] and (claim["is_exact"] or all_must_hold)]
    if broken:
        raise AssertionError(f"Not so in run {run.id}: {' '.join(broken)}")
    group = ["group"] if any("group" in claim for claim in claims) else []
    return in_full(pd.DataFrame(claims, columns=[*group, "text", "measured", "target", "holds"]))


def show_verdicts(scorecard: Mapping[str, Any], claims: Sequence[int]) -> None:
    """Show the parts of claims with their intervals and verdicts, below a notebook cell.

    Args:
        scorecard: from `experiments.studies.scorecard.make`.
        claims: by number; those that were trained for.
    """
    from IPython.display import SVG, display

    chosen = [row for row in scorecard["claims"] if row["number"] in claims and row["parts"]]
    if chosen:
        display(SVG(str(claims_forest(chosen))))


def continuations_of(run: "Run") -> Any:
    """Return what base and trained model wrote to the same prompts, a row for each, as a `pandas.DataFrame`."""
    import pandas as pd

    pairs = [Pair.from_record(record) for record in run.generations.read()]
    columns = ["language", "prompt", *(pairs[0].names if pairs else ())]
    rows = [[pair.language, pair.prompt, pair.left.text, pair.right.text] for pair in pairs]
    return pd.DataFrame(rows, columns=columns)


def in_full(frame: Any, columns: list[str] | None = None) -> "Styler":
    """Return a table to show as it is: no row numbers, every text whole, six digits at most.

    Args:
        frame: a `pandas.DataFrame`.
        columns: which of its columns, in this order; all by default.

    pandas itself cuts texts at fifty characters, and notebooks set them against the right edge.
    """
    shown = frame[columns] if columns else frame
    texts = [name for name in shown.columns if any(isinstance(value, str) for value in shown[name])]
    headings = {name: [{"selector": "th", "props": [("text-align", "start")]}] for name in texts}
    return (
        shown.style.hide(axis="index")
        .format("{:.6g}", subset=list(shown.select_dtypes("float").columns), na_rep="–")
        .set_properties(subset=texts, **_TEXT)
        .set_table_styles(headings, overwrite=False)
    )
