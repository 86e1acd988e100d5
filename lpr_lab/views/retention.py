"""Gain against forgetting, one point per run: what a recipe bought and what it paid."""

from typing import TYPE_CHECKING

from lpr_lab.text.languages import language_name
from lpr_lab.views import theme
from lpr_lab.views.numbers import change as change_text
from lpr_lab.views.plots import GREY, Table

if TYPE_CHECKING:
    import plotly.graph_objects as go


def in_words(change: Table) -> list[str]:
    """Return a sentence per language: the verdict, the change with its interval, over how many documents.

    Args:
        change: columns language, change_percent, ci_low, ci_high, n_documents, verdict.
    """
    lines = []
    for row in change.to_dict("records"):
        much = f"{change_text(row['change_percent'])} bits per byte"
        interval = f"95% interval {change_text(row['ci_low'])} to {change_text(row['ci_high'])}"
        known = f"{row['verdict']}: {much}, {interval}" if row["verdict"] else f"{much}, no interval was kept"
        lines.append(f"{language_name(row['language'])} {known}, {row['n_documents']} documents")
    return lines


def trade_off_finding(points: Table) -> str:
    """Return one sentence: where the chosen run stands among those on the same test sets."""
    chosen = points[points["chosen"]].iloc[0]
    others = points[~points["chosen"]]
    if others.empty:
        return "No other run was measured on the same test sets"
    dominating = others[(others["gain"] >= chosen["gain"]) & (others["forgetting"] <= chosen["forgetting"])]
    total = f"{len(others)} other run{'s' if len(others) > 1 else ''}"
    if dominating.empty:
        return f"None of {total} on the same test sets gained as much and forgot as little"
    verb = "gains" if len(dominating) == 1 else "gain"
    return f"{len(dominating)} of {total} on the same test sets {verb} as much and forgot as little, or less"


def trade_off(points: Table, template: str = "lpr") -> "go.Figure":
    """Draw the mean gain on expanded languages (right is better) against forgetting on original ones (down is better).

    Args:
        points: columns number, title, gain, forgetting, worst, chosen; per cent of bits per byte; one row is chosen.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    figure = go.Figure()
    for is_chosen, name, colour, symbol in (
        (False, "other runs", GREY, "circle"),
        (True, "this run", theme.NEW, "star"),
    ):
        rows = points[points["chosen"] == is_chosen]
        if rows.empty:
            continue
        figure.add_scatter(
            x=rows["gain"],
            y=rows["forgetting"],
            mode="markers+text",
            name=name,
            text=rows["number"].astype(str),
            textposition="middle right",
            customdata=rows[["title", "worst"]],
            hovertemplate="%{customdata[0]}<br>gain %{x:.1f}%, forgetting %{y:+.1f}% (worst language "
            "%{customdata[1]:+.1f}%)<extra></extra>",
            marker={"symbol": symbol, "size": 16 if is_chosen else 11, "color": colour},
        )
    figure.add_hline(y=0, line={"color": GREY, "width": 1, "dash": "dot"})
    lowest, highest = min(0.0, float(points["forgetting"].min())), max(0.0, float(points["forgetting"].max()))
    margin = 0.15 * (highest - lowest) or 0.5
    figure.update_layout(
        template=template,
        title=trade_off_finding(points),
        height=360,
        xaxis={"title": "mean gain on expanded languages, %", "zeroline": False},
        yaxis={
            "title": "mean forgetting on original languages, %",
            "range": [lowest - margin, highest + margin],
            "zeroline": False,
        },
    )
    return figure
