"""Figures of retention: bits per byte before and after by language, and gain against forgetting, a point per run.

A circle is the model before, a triangle the one after, pointing where it clearly went; a diamond where it did not
clearly go.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lpr_lab.errors import UsageError
from lpr_lab.measure.significance import BETTER, UNCLEAR, WORSE, change_of, direction, mean_change, verdict
from lpr_lab.text.languages import language_name
from lpr_lab.views import Table, theme
from lpr_lab.views.names import ROLES
from lpr_lab.views.numbers import change as change_text
from lpr_lab.views.numbers import interval
from lpr_lab.wording import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go


def retention_finding(change: Table) -> str:
    """Return one sentence: mean change of bits per byte on both kinds of languages, with the range."""
    parts = []
    for role in ("expanded", "original"):
        rows = change[change["role"] == role]
        if rows.empty:
            continue
        mean = mean_change(rows.to_dict("records"))
        span = ""
        if len(rows) > 1:
            low, high = rows["change_percent"].min(), rows["change_percent"].max()
            span = f" ({change_text(low)} to {change_text(high)})"
        if mean.direction:
            more = "fewer" if mean.direction < 0 else "more"
            parts.append(f"{role} languages need {abs(mean.value):.1f}% {more} bits{span}")
        else:
            parts.append(f"{role} languages show {UNCLEAR} on average{span or f' ({change_text(mean.value)})'}")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] if text else "Nothing was measured"


def before_and_after(
    change: Table, template: str = "lpr", before: str = "base", after: str = "expanded"
) -> "go.Figure":
    """Draw bits per byte of the base (circle) and the expanded model (triangle) per language, one data set at a time.

    Args:
        change: columns language, role, before, after, change_percent, ci_low, ci_high; one row per language.
        template: `lpr` or `lpr_dark`.
        before: what the circle is: `base`, `expanded`, or a stage such as `G1 review`.
        after: what the triangle is.

    Raises:
        UsageError: rows of several data sets, which must not share an axis.
    """
    import plotly.graph_objects as go

    theme.register()
    if "dataset" in change and change["dataset"].nunique() > 1:
        raise UsageError(
            "before_and_after() draws one data set at a time; filter the table by its `dataset` column first."
        )
    figure = go.Figure()
    ticks: dict[float, str] = {}
    y = 0.0
    for role, title in ROLES.items():
        rows = change[change["role"] == role]
        if rows.empty:
            continue
        figure.add_annotation(
            x=0, xref="paper", y=y, text=f"<b>{title}</b>", showarrow=False, xanchor="left", font={"size": 12}
        )
        places = [y + 1 + index for index in range(len(rows))]
        ticks |= {place: language_name(code) for place, code in zip(places, rows["language"], strict=True)}
        _dumbbells(figure, rows, places, role, (before, after))
        y = places[-1] + 1.35
    low, high = change[["before", "after"]].min().min(), change[["before", "after"]].max().max()
    margin = 0.08 * (high - low) or 0.1
    figure.update_layout(
        template=template,
        title=retention_finding(change),
        height=int(130 + 34 * y),
        margin={"r": 56},
        xaxis={
            "title": "bits per byte, lower is better",
            "range": [low - margin, high + margin],
            "zeroline": False,
        },
        yaxis={
            "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
            "range": [y - 0.6, -0.6],
            "showgrid": False,
            "zeroline": False,
        },
    )
    return figure


def _dumbbells(figure: Any, rows: Table, places: list[float], role: str, called: tuple[str, str]) -> None:
    colour, first = theme.ROLE_COLOURS[role], not figure.data
    names = [f"{name} model" if name in ("base", "expanded") else name for name in called]
    line_x, line_y = [], []
    for place, row in zip(places, rows.itertuples(), strict=True):
        line_x += [row.before, row.after, None]
        line_y += [place, place, None]
        figure.add_annotation(
            x=max(row.before, row.after),
            y=place,
            text=change_text(row.change_percent),
            showarrow=False,
            xanchor="left",
            xshift=12,
            hovertext=f"{verdict(row.ci_low, row.ci_high)}, 95% interval {interval(row.ci_low, row.ci_high)}",
            font={"size": 12},
        )
    figure.add_scatter(
        x=line_x, y=line_y, mode="lines", line={"color": colour, "width": 2}, hoverinfo="skip", showlegend=False
    )
    named = [language_name(code) for code in rows["language"]]
    hover = "%{customdata}: %{x:.3f} bits per byte"
    figure.add_scatter(
        x=rows["before"],
        y=places,
        mode="markers",
        name=names[0],
        showlegend=first,
        customdata=named,
        hovertemplate=f"{hover}<extra>{called[0]}</extra>",
        marker={"symbol": "circle", "size": 11, "color": theme.GREY},
    )
    # An arrow only where the change is clear.
    signs = [direction(low, high) for low, high in zip(rows["ci_low"], rows["ci_high"], strict=True)]
    figure.add_scatter(
        x=rows["after"],
        y=places,
        mode="markers",
        name=f"{names[1]} on {ROLES[role].lower()}",
        customdata=named,
        hovertemplate=f"{hover}<extra>{called[1]}</extra>",
        marker={
            "symbol": [{-1: "triangle-left", 1: "triangle-right", 0: "diamond"}[sign] for sign in signs],
            "size": 15,
            "color": colour,
        },
    )


def describe_changes(change: Table) -> list[str]:
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
        lines.append(f"{language_name(row['language'])} {known}, {counted(row['n_documents'], 'document')}")
    return lines


def trade_off_finding(points: Table) -> str:
    """Return one sentence: what the chosen run clearly gained or forgot more or less than others, and what is unclear.

    Args:
        points: columns chosen, gain_verdict, forgetting_verdict (see `runs.compare.trade_off`).
    """
    others = points[~points["chosen"]]
    if others.empty:
        return "No other run was measured on the same test sets"
    total = f"{counted(len(others), 'other run')} on the same test sets"
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


def gain_against_forgetting(points: Table, template: str = "lpr") -> "go.Figure":
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
        (False, "other runs", theme.GREY, "circle"),
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
    figure.add_hline(y=0, line={"color": theme.GREY, "width": 1, "dash": "dot"})
    figure.update_layout(
        template=template,
        title=trade_off_finding(points),
        height=360,
        xaxis={"title": "mean gain on expanded languages, %", "range": _span(points["gain"]), "zeroline": False},
        yaxis={
            "title": "mean forgetting on original languages, %",
            "range": _span([0.0, *points["forgetting"]]),
            "zeroline": False,
        },
    )
    return figure


def _span(values: Iterable[float]) -> list[float]:
    """Return an axis around some per cent: at least two points long, so that noise does not look like a difference."""
    lowest, highest = min(values := list(values)), max(values)
    margin = max(0.15 * (highest - lowest), 1 - (highest - lowest) / 2)
    return [lowest - margin, highest + margin]
