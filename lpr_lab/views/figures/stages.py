"""Figures of stages: what each gained and lost, one line per language, one place per stage.

A group's colour is that of the expert it was given: blue the original languages, orange the first group, and so on.
"""

from typing import TYPE_CHECKING

from lpr_lab.errors import UsageError
from lpr_lab.measure.significance import UNCLEAR, Difference
from lpr_lab.text.languages import language_name
from lpr_lab.views import Table, theme
from lpr_lab.views.figures.layers import add_weight_lines
from lpr_lab.views.names import ROLES
from lpr_lab.views.numbers import change as change_text
from lpr_lab.views.numbers import percent

if TYPE_CHECKING:
    import plotly.graph_objects as go

_DASHES = ("solid", "dash", "dot", "dashdot")


def retention_finding(table: Table) -> str:
    """Return one sentence: how far the languages of the groups before the last moved after their own was taught."""
    stages = list(dict.fromkeys(table["stage"]))
    largest: tuple[Difference, str] | None = None
    for language, rows in table.groupby("language", sort=False):
        group = str(rows["group"].iloc[0])
        own = ["base"] if group == "G0" else [stage for stage in stages if stage.split()[0] == group]
        if not own or own[-1] == stages[-1]:
            continue
        at = rows.set_index("stage")
        bits = at["bits_per_byte"]
        moved = Difference(100 * (float(bits[stages[-1]]) / float(bits[own[-1]]) - 1))
        if own[-1] == "base":  # only changes from the base have an interval here
            moved = Difference(moved.value, *(float(at.loc[stages[-1], end]) for end in ("change_low", "change_high")))
        if largest is None or moved.value > largest[0].value:
            largest = (moved, language_name(str(language)))
    if largest is None:
        return "There is one group only, so nothing could be lost"
    moved, name = largest
    unclear = "" if moved.direction else f": {UNCLEAR}" + ("" if moved.has_interval else ", without an interval")
    highest = f"{change_text(moved.value)} at most ({name})"
    return f"What was known before changed by {highest} when the last group was taught{unclear}"


def retention_by_stage(table: Table, template: str = "lpr") -> "go.Figure":
    """Draw the change of bits per byte from the base, stage after stage, one line per language.

    Args:
        table: columns language, group, dataset, stage (in order), bits_per_byte, change_percent, change_low,
            change_high.
        template: `lpr` or `lpr_dark`.

    Raises:
        UsageError: rows of several data sets, which must not share an axis.
    """
    import plotly.graph_objects as go

    theme.register()
    if table["dataset"].nunique() > 1:
        raise UsageError("retention_by_stage() draws one data set at a time; filter the table by `dataset` first.")
    figure = go.Figure()
    groups = sorted(set(table["group"]))
    for group in groups:
        rows = table[table["group"] == group]
        for position, code in enumerate(dict.fromkeys(rows["language"])):
            line = rows[rows["language"] == code]
            name = language_name(code)
            figure.add_scatter(
                x=line["stage"],
                y=line["change_percent"],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": line["change_high"] - line["change_percent"],
                    "arrayminus": line["change_percent"] - line["change_low"],
                    "thickness": 1,
                },
                mode="lines+markers",
                name=f"{name} ({group})",
                line={"color": theme.expert_colour(int(group[1:])), "width": 2, "dash": _DASHES[position % 4]},
                marker={"symbol": theme.SYMBOLS[position % len(theme.SYMBOLS)], "size": 9},
                customdata=line["bits_per_byte"],
                hovertemplate=f"{name}, %{{x}}: %{{y:+.1f}}% (%{{customdata:.3f}} bits per byte)<extra></extra>",
            )
    figure.update_layout(
        template=template,
        title=retention_finding(table),
        height=420,
        xaxis={"title": "stage", "showgrid": False, "type": "category"},
        yaxis={"title": "bits per byte, change from the base, %", "zeroline": True},
    )
    return figure


def original_weight(table: Table, template: str = "lpr") -> "go.Figure":
    """Draw the mean weight of the original expert at every stage, one line per language, solid for original ones.

    Args:
        table: columns language, role, stage (in order), original_weight; one data set.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    figure = go.Figure()
    add_weight_lines(figure, table, "stage", "original_weight", "%{x}", size=9)
    xaxis = {"title": "stage", "showgrid": False, "type": "category"}
    figure.update_layout(template=template, title=_weight_finding(table), xaxis=xaxis)
    return figure


def _weight_finding(table: Table) -> str:
    stages = list(dict.fromkeys(table["stage"]))
    means = table.groupby(["role", "stage"])["original_weight"].mean()
    parts = []
    for role in ROLES:
        if role in means.index.get_level_values("role"):
            path = " → ".join(percent(float(means[role, stage])) for stage in (stages[0], stages[-1]))
            parts.append(f"{role} languages {path}")
    return f"Weight of the original expert: {', '.join(parts)}"
