"""What experts do, as HTML: bars of load per layer, languages by experts, an expert's typical tokens, expert pairs.

Bars say it at a glance, links and tables say it to keyboard and screen reader. Expert 0, the original, is hatched; the
dashed line is an even share. What could not be read is refused in words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from lpr_lab.measure.experts import by_layer, even_load, given_expert, is_idle
from lpr_lab.text.languages import language_name
from lpr_lab.views import Table, theme
from lpr_lab.views.html.templates import render, with_style
from lpr_lab.views.html.token_data import chip_label
from lpr_lab.views.names import expert_name
from lpr_lab.views.numbers import percent, signed

MAX_BARS = 12
"""Experts in one layer that can still be told apart as bars, or as the columns of a square of numbers."""

NUMBER_NAMES = {"mass": "weight", "chosen": "tokens", "first": "first choices"}

Attributes = Mapping[str, str]
"""Of a link, by name; values are escaped."""

Link = Callable[[int, int | None], Attributes]
"""Layer and expert (or None) to the attributes of a link, such as `{"href": "/routing?layer=3"}`."""


def render_load_panels(
    load: Table,
    number: str = "mass",
    *,
    top_k: int = 2,
    compared: Table | None = None,
    names: tuple[str, str] = ("this stage", "the other"),
    layer: int | None = None,
    link: Link | None = None,
    standalone: bool = False,
) -> Markup:
    """Return one panel of bars per layer, all to one scale, with an even share as a dashed line.

    Args:
        load: one stage and data set; columns language, layer, expert and what `number` names. Languages are averaged.
        number: `mass`, `chosen` or `first`.
        top_k: K, for the even share of `chosen`.
        compared: another stage, marked by a line across each bar.
        names: of the two stages, for the legend.
        layer: the panel that is selected.
        link: what a panel leads to.
        standalone: bring colours and style along, for notebooks.
    """
    loads = by_layer(load, number)
    others = by_layer(compared, number) if compared is not None else {}
    if not loads:
        return Markup('<p class="lpr-caption">No layer of this model has a router.</p>')
    highest = max(float(values.max()) for part in (loads, others) for values in part.values())
    top = min(max(0.1, float(np.ceil(10 * highest) / 10)), 1.0)
    panels = [
        _panel(row, loads.get(row), others.get(row), even_load(number, len(loads.get(row, [0])), top_k), top)
        for row in range(max(loads) + 1)
    ]
    body = render(
        "views/html/expert_load.html.j2",
        legend=_legend(max(len(values) for values in loads.values())),
        is_compared=bool(others),
        other_name=names[1],
        top=top,
        panels=panels,
        selected=layer,
        link=link,
    )
    return with_style(body, "expert_panels.css") if standalone else body


def _legend(num_experts: int) -> list[tuple[int, str]]:
    """Return what the colours of the bars stand for, those of new experts."""
    if num_experts == 2:
        return [(1, "new expert")]
    last = len(theme.EXPERT_COLOURS) - 1
    named = [(e, f"expert {e}") for e in range(1, min(num_experts, last))]
    if num_experts > last:
        named.append((last, f"expert {last}" if num_experts == last + 1 else f"experts from {last} on"))
    return named


def _panel(layer: int, load: np.ndarray | None, other: np.ndarray | None, even: float, top: float) -> dict[str, Any]:
    """Return what a panel shows, heights in per cent of the panel; bars are None where there is no choice."""
    if load is None:
        said = f"Layer {layer}: no new experts, so no choice here"
        return {"layer": layer, "bars": None, "said": said}
    words = ", ".join(f"{expert_name(e)} {percent(value)}" for e, value in enumerate(load[:MAX_BARS]))
    was = [] if other is None else [min(100 * float(value) / top, 100) for value in other]
    was += [None] * len(load)
    bars = [(100 * float(value) / top, was[e]) for e, value in enumerate(load)] if len(load) <= MAX_BARS else []
    return {
        "layer": layer,
        "said": f"Layer {layer}: {words}; even is {percent(even)}",
        "bars": bars,
        "even": 100 * even / top,
        "num_idle": int(is_idle(load).sum()),
        "num_experts": len(load),
    }


def render_load_table(load: Table, number: str = "mass", *, link: Link | None = None) -> Markup:
    """Return the numbers of the panels: a row per layer, a column per expert."""
    loads = by_layer(load, number)
    return render(
        "views/html/expert_load_table.html.j2",
        number=NUMBER_NAMES[number],
        num_experts=max((len(values) for values in loads.values()), default=0),
        rows=[(layer, values.tolist()) for layer, values in loads.items()],
        link=link,
    )


@dataclass(frozen=True)
class LanguageLinks:
    """What may be chosen in languages by experts; each gives the attributes of a link.

    Attributes:
        cell: of a language and an expert.
        head: of an expert, in the head of its column.
        selected: the expert whose column is chosen.
    """

    cell: Callable[[str, int], Attributes] | None = None
    head: Callable[[int], Attributes] | None = None
    selected: int | None = None


def render_languages(
    codes: Sequence[str],
    roles: dict[str, str],
    values: np.ndarray,
    number: str = "mass",
    *,
    top_k: int = 2,
    compared: np.ndarray | None = None,
    links: LanguageLinks = LanguageLinks(),
) -> Markup:
    """Return languages down, experts across for one layer, a number and a bar in every cell.

    Args:
        codes: language codes, A.
        roles: code -> `original` or `expanded`.
        values: [A, E].
        number: what they are.
        top_k: K.
        compared: the same at another stage, [A, E']; given as a change in points.
        links: what may be chosen.
    """
    num_experts = values.shape[1]
    cells = values.astype(float).tolist()
    before = cells if compared is None else compared.astype(float).tolist()

    def moved(place: int, expert: int) -> str:
        if compared is None or expert >= len(before[place]):
            return ""
        return signed(100 * (cells[place][expert] - before[place][expert]), 1)

    return render(
        "views/html/expert_languages.html.j2",
        number=NUMBER_NAMES[number],
        num_experts=num_experts,
        even=even_load(number, num_experts, top_k),
        rows=[
            (code, roles[code], [(share, moved(place, e)) for e, share in enumerate(cells[place])])
            for place, code in enumerate(codes)
        ],
        links=links,
    )


def render_vocabulary(tokens: Table, roles: dict[str, str]) -> Markup:
    """Return the most typical tokens of one expert in one layer, a row per language.

    Args:
        tokens: columns language, bytes (hex), count, total; most typical first.
        roles: code -> `original` or `expanded`; says the order, too.
    """
    rows, silent = [], []
    for code, role in roles.items():
        part = tokens[tokens["language"] == code]
        if part.empty:
            silent.append(language_name(code))
            continue
        found = [(chip_label(bytes.fromhex(str(row["bytes"]))), row) for row in part.to_dict("records")]
        rows.append((code, role, found))
    return render("views/html/expert_vocabulary.html.j2", rows=rows, silent=silent)


def render_pairs(pairs: Table) -> Markup:
    """Return which experts of one layer are chosen together: P(column | row), all pairs.

    Args:
        pairs: columns expert_a, expert_b, n_tokens, of one layer; a = b counts the tokens of an expert.
    """
    number = int(pairs["expert_b"].max()) + 1
    if number > MAX_BARS:
        return Markup(
            '<p class="lpr-caption">{} experts make {} pairs, more than can be read as a table; they are in the run\'s '
            "table <code>expert_pairs</code>.</p>"
        ).format(number, number * (number - 1) // 2)
    counts = np.zeros((number, number))
    for a, b, tokens in pairs[["expert_a", "expert_b", "n_tokens"]].itertuples(index=False):
        counts[a, b] = counts[b, a] = tokens
    shares = [[None if np.isnan(share) else share for share in row] for row in given_expert(counts).tolist()]
    return render("views/html/expert_pairs.html.j2", shares=shares)
