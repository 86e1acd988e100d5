"""A forest plot: numbers with their intervals, one below the other, as an SVG that documents and pages can hold."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lpr_lab.views import theme
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import NOT_MEASURED, points_and_ends

SIGNS = {"holds": "✓", "fails": "✕", "not decidable here": "?"}
"""Of verdicts."""
_WIDTH, _LABELS, _NUMBERS, _LINE, _PAD = 760, 330, 180, 15, 9
"""Of the picture, of labels and of numbers beside the plot, of a line of text and above a row, in pixels."""
_CHARACTERS = 54
"""Of a line of a label."""
_TICKS = 5


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One number with its interval.

    Attributes:
        label: what it is.
        value, low, high: None where there is none; without a value the row says that nothing was measured.
        role: `original`, `expanded` or empty, for colour and shape.
        sign: a short text after the number, such as the sign of a verdict.
    """

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    role: str = ""
    sign: str = ""


def forest(title: str, rows: Sequence[ForestRow], axis: str) -> Markup:
    """Return the picture of rows on one axis with zero on it.

    Args:
        title: what it shows, for those who do not see it.
        rows: from top to bottom.
        axis: what is measured, in which unit, and which side is better.

    >>> forest("Two", [ForestRow(label="a", value=1.0, low=0.5, high=1.5)], "points").startswith("<svg")
    True
    """
    ticks = _ticks([end for row in rows for end in (row.value, row.low, row.high) if end is not None])
    low, high = ticks[0], ticks[-1]
    unit = (_WIDTH - _LABELS - _NUMBERS) / (high - low)

    def x(value: float) -> str:
        return f"{_LABELS + (value - low) * unit:.1f}"

    drawn, top = [], 0
    for row in rows:
        lines = textwrap.wrap(row.label, _CHARACTERS) or [""]
        height = _LINE * len(lines) + 2 * _PAD
        middle = top + height / 2
        first = middle - _LINE * (len(lines) - 1) / 2 + 4
        places = [{"text": line, "y": f"{first + _LINE * number:.1f}"} for number, line in enumerate(lines)]
        drawn.append({"lines": places, "y": f"{middle:.1f}", **_marks(row, x)})
        top += height
    return render(
        "views/html/forest.svg.j2",
        title=title,
        axis=axis,
        rows=drawn,
        ticks=[(x(tick), f"{tick:+g}".replace("-", "−") if tick else "0") for tick in ticks],
        zero=x(0),
        width=_WIDTH,
        middle=f"{_LABELS + (_WIDTH - _LABELS - _NUMBERS) / 2:.1f}",
        bottom=top,
        colours={name: getattr(theme, name) for name in ("LIGHT", "DARK", "ORIGINAL", "NEW", "FONT")},
    )


def claims_forest(claims: Sequence[Mapping[str, Any]]) -> Markup:
    """Return the picture of the parts of claims, each with the sign of its verdict.

    Args:
        claims: rows of a scorecard (`runs.scorecard.table.row_json`); exact ones have no number to draw.
    """
    several = len(claims) > 1
    rows = [
        ForestRow(
            label=f"{claim['number']}. {part['text']}" if several else part["text"],
            value=part["value"],
            low=part["low"],
            high=part["high"],
            sign=SIGNS[part["verdict"]],
        )
        for claim in claims
        for part in claim["parts"]
    ]
    numbers = ", ".join(str(claim["number"]) for claim in claims)
    axis = ", ".join(f"{sign} {verdict}" for verdict, sign in SIGNS.items())
    return forest(f"Parts of claims {numbers}", rows, f"points; {axis}")


def _marks(row: ForestRow, x: Any) -> dict[str, Any]:
    if row.value is None:
        return {"x": None, "ends": None, "number": f"{NOT_MEASURED} {row.sign}".strip(), "role": row.role}
    ends = None if row.low is None or row.high is None else (x(row.low), x(row.high))
    number = f"{points_and_ends(row.value, row.low, row.high)} {row.sign}".strip()
    return {"x": x(row.value), "ends": ends, "number": number, "role": row.role}


def _ticks(values: Sequence[float]) -> list[float]:
    """Return round numbers that reach over all values and zero.

    >>> _ticks([-3.2, 1.1]), _ticks([])
    ([-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0], [0.0, 1.0])
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return [0.0, 1.0]
    rough = (high - low) / _TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.99)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, last + 1)]
