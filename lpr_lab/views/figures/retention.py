"""Gain against forgetting, one point per run: what a recipe bought and what it paid."""

from typing import TYPE_CHECKING

from lpr_lab.measure.significance import BETTER, WORSE, change_of
from lpr_lab.text.languages import language_name
from lpr_lab.views import theme
from lpr_lab.views.figures.plots import GREY, Table
from lpr_lab.views.numbers import change as change_text
from lpr_lab.views.numbers import interval

if TYPE_CHECKING:
    import plotly.graph_objects as go


def in_words(change: Table) -> list[str]:
    """Return a sentence per language: the verdict, the change with its interval, over how many documents.

    Args:
        change: columns language, change_percent, ci_low, ci_high, n_documents.
    """
    lines = []
    for row in change.to_dict("records"):
        much = f"{change_text(row['change_percent'])} bits per byte"
        found = change_of(row)
        ends = f"95% interval {interval(found.low, found.high)}" if found.has_interval else "no interval was kept"
        known = f"{found.verdict()}: {much}, {ends}"
        lines.append(f"{language_name(row['language'])} {known}, {row['n_documents']} documents")
    return lines


def trade_off_finding(points: Table) -> str:
    """Return one sentence: what the chosen run clearly gained or forgot more or less than others, and what is unclear.

    Args:
        points: columns chosen, gain_verdict, forgetting_verdict (see `runs.compare.trade_off`).
    """
    others = points[~points["chosen"]]
    if others.empty:
        return "No other run was measured on the same test sets"
    total = f"{len(others)} other run{'s' if len(others) > 1 else ''} on the same test sets"
    gained = _counts(list(others["gain_verdict"]), {WORSE: "more than", BETTER: "less than"})
    forgot = _counts(list(others["forgetting_verdict"]), {BETTER: "more than", WORSE: "less than"})
    if not gained and not forgot:
        return f"No clear difference in gain or forgetting from {total}"
    said = f"Against {total}, this one gained {gained or 'neither clearly more nor less'}"
    return f"{said}, and forgot {forgot or 'neither clearly more nor less'}"


def _counts(verdicts: list[str], words: dict[str, str]) -> str:
    """Return how many other runs are clearly on either side; empty where none is."""
    parts = [f"clearly {word} {verdicts.count(verdict)}" for verdict, word in words.items() if verdict in verdicts]
    return " and ".join(parts)


def trade_off(points: Table, template: str = "lpr") -> "go.Figure":
    """Draw the mean gain on expanded languages (right is better) against forgetting on original ones (down is better).

    Args:
        points: columns number, title, gain, forgetting, worst, chosen, gain_verdict, forgetting_verdict; per cent of
            bits per byte; one row is chosen.
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
