"""The load of experts as HTML: a panel of bars per layer, languages by experts, the words of an expert, its company.

Bars say it at a glance, links and tables say it to keyboard and screen reader. Expert 0, the original, is hatched; the
dashed line is an even share. What could not be read is refused in words.
"""

import html
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from lpr_lab.measure.experts import by_layer, even_load, given_expert, is_idle
from lpr_lab.text.languages import language_name
from lpr_lab.views import Table, theme
from lpr_lab.views.html.token_data import chip_label
from lpr_lab.views.numbers import NOT_MEASURED, percent
from lpr_lab.views.static import read_static

MAX_BARS = 12
"""Experts in one layer that can still be told apart as bars, or as the columns of a square of numbers."""

NUMBER_NAMES = {"mass": "weight", "chosen": "tokens", "first": "first choices"}

Link = Callable[[int, int | None], str]
"""Layer and expert (or None) to the attributes of a link, such as `href="…"`."""


@cache
def style() -> str:
    """Return the style sheet of all that is drawn here; colours come from the page's variables."""
    return read_static("expert_panels.css")


def expert_name(expert: int) -> str:
    """Return what an expert is called: `expert 0, the original`, or `expert 2`."""
    return "expert 0, the original" if expert == 0 else f"expert {expert}"


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
) -> str:
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
        return '<p class="lpr-caption">No layer of this model has a router.</p>'
    highest = max(float(values.max()) for part in (loads, others) for values in part.values())
    top = min(max(0.1, float(np.ceil(10 * highest) / 10)), 1.0)
    panels = "".join(
        _panel(row, loads.get(row), others.get(row), number, top_k, top, layer, link) for row in range(max(loads) + 1)
    )
    most = max(len(values) for values in loads.values())
    key = (
        f'<p class="lpr-ex-key">{_legend(most)}<span><i class="lpr-ex-line"></i>an even share</span>'
        + (f'<span><i class="lpr-ex-was"></i>{html.escape(names[1])}</span>' if others else "")
        + f"<span>bars to {percent(top)}</span></p>"
    )
    own = f"<style>{theme.notebook_colours()}{style()}</style>" if standalone else ""
    return f'{own}{key}<div class="lpr-ex-panels" role="group" aria-label="Load by layer">{panels}</div>'


def _legend(num_experts: int) -> str:
    """Return what the colours of the bars stand for."""
    last = len(theme.EXPERT_COLOURS) - 1
    named = [(e, f"expert {e}") for e in range(1, min(num_experts, last))]
    if num_experts > last:
        named.append((last, f"expert {last}" if num_experts == last + 1 else f"experts from {last} on"))
    swatches = "".join(
        f'<span><i style="background:var(--lpr-expert-{e})"></i>{"new expert" if num_experts == 2 else name}</span>'
        for e, name in named
    )
    return f'<span><i class="lpr-ex-zero"></i>expert 0, the original</span>{swatches}'


def _panel(
    row: int,
    load: np.ndarray | None,
    other: np.ndarray | None,
    number: str,
    top_k: int,
    top: float,
    selected: int | None,
    link: Link | None,
) -> str:
    if load is None:
        said = f"Layer {row}: no new experts, so no choice here"
        return (
            f'<span class="lpr-ex-panel lpr-ex-dense" role="img" aria-label="{said}" title="{said}"><b>{row}</b></span>'
        )
    even = even_load(number, len(load), top_k)
    words = ", ".join(f"{expert_name(e)} {percent(value)}" for e, value in enumerate(load[:MAX_BARS]))
    said = f"Layer {row}: {words}; even is {percent(even)}"
    if len(load) > MAX_BARS:
        inner = f"<em>{len(load)} experts: too many for bars</em>"
    else:
        bars = ""
        for e, value in enumerate(load):
            tone = f"--tone:var(--lpr-expert-{min(e, len(theme.EXPERT_COLOURS) - 1)})"
            was = ""
            if other is not None and e < len(other):
                was = f'<u style="bottom:{min(100 * other[e] / top, 100):.1f}%"></u>'
            kind = ' class="lpr-ex-zero"' if e == 0 else ""
            bars += f'<span><i{kind} style="height:{100 * value / top:.1f}%;{tone}"></i>{was}</span>'
        inner = f'<span class="lpr-ex-bars" style="--even:{100 * even / top:.1f}%">{bars}</span>'
    here = ' aria-current="true"' if row == selected else ""
    idle = int(is_idle(load).sum())
    mark = f'<small title="{idle} idle">{idle} idle</small>' if idle else ""
    if link is None:
        return (
            f'<span class="lpr-ex-panel" role="img" aria-label="{said}" title="{said}"><b>{row}</b>{mark}{inner}</span>'
        )
    return (
        f'<a class="lpr-ex-panel" {link(row, None)}{here} aria-label="{said}" title="{said}">'
        f"<b>{row}</b>{mark}{inner}</a>"
    )


def render_load_table(load: Table, number: str = "mass", *, link: Link | None = None) -> str:
    """Return the numbers of the panels: a row per layer, a column per expert."""
    loads = by_layer(load, number)
    most = max((len(values) for values in loads.values()), default=0)
    heads = "".join(f'<th scope="col" class="lpr-number">{"Expert" if e == 0 else ""} {e}</th>' for e in range(most))
    rows = ""
    for layer, values in loads.items():
        cells = "".join(
            f'<td class="lpr-number">{_linked(percent(values[e]), link, layer, e) if e < len(values) else ""}</td>'
            for e in range(most)
        )
        rows += f'<tr><th scope="row">{layer}</th>{cells}</tr>'
    return _table(f"Share of {NUMBER_NAMES[number]} per layer and expert", f"<th scope='col'>Layer</th>{heads}", rows)


def render_languages(
    codes: Sequence[str],
    roles: dict[str, str],
    values: np.ndarray,
    number: str = "mass",
    *,
    top_k: int = 2,
    compared: np.ndarray | None = None,
    expert: int | None = None,
    link: Callable[[str, int], str] | None = None,
    choose: Callable[[int], str] | None = None,
) -> str:
    """Return languages down, experts across for one layer, a number and a bar in every cell.

    Args:
        codes: language codes, A.
        roles: code -> `original` or `expanded`.
        values: [A, E].
        number: what they are.
        top_k: K.
        compared: the same at another stage, [A, E']; given as a change in points.
        expert: the column that is selected.
        link: language and expert to the attributes of a link.
        choose: expert to the attributes of the link in its column's head.
    """
    num_experts = values.shape[1]
    even = even_load(number, num_experts, top_k)
    heads = ""
    for e in range(num_experts):
        dot = (
            f'<i class="lpr-ex-dot{" lpr-ex-zero" if e == 0 else ""}" style="--tone:var(--lpr-expert-{min(e, 6)})"></i>'
        )
        here = ' aria-current="true"' if e == expert else ""
        name = f"{dot}Expert {e}"
        inner = name if choose is None else f"<a {choose(e)}{here}>{name}</a>"
        heads += f'<th scope="col">{inner}</th>'
    rows = ""
    for place, code in enumerate(codes):
        cells = ""
        for e in range(num_experts):
            value = float(values[place, e])
            bar = f"--part:{100 * min(value, 1):.1f}%;--even-part:{even:.3f};--tone:var(--lpr-expert-{min(e, 6)})"
            moved = ""
            if compared is not None and e < compared.shape[1]:
                moved = f"<small>{_points(value - float(compared[place, e]))}</small>"
            text = percent(value)
            if link is not None:
                said = f"{language_name(code)}, {expert_name(e)}: {text}; see a text on the page Routing"
                text = f'<a {link(code, e)} aria-label="{html.escape(said)}">{text}</a>'
            zero = " lpr-ex-zero" if e == 0 else ""
            cells += f'<td class="lpr-ex-cell{zero}" style="{bar}">{text}{moved}</td>'
        name = f'<span class="lpr-chip-lang lpr-{html.escape(roles[code])}">{html.escape(language_name(code))}</span>'
        rows += f'<tr><th scope="row">{name}</th>{cells}</tr>'
    caption = f"Share of {NUMBER_NAMES[number]} per language and expert"
    return _table(caption, f'<th scope="col">Language</th>{heads}', rows, "lpr-ex-languages")


def render_vocabulary(tokens: Table, roles: dict[str, str]) -> str:
    """Return the most typical tokens of one expert in one layer, a row per language.

    Args:
        tokens: columns language, bytes (hex), count, total; most typical first.
        roles: code -> `original` or `expanded`; says the order, too.
    """
    rows, silent = "", []
    for code, role in roles.items():
        part = tokens[tokens["language"] == code]
        if part.empty:
            silent.append(language_name(code))
            continue
        chips = "".join(
            f'<li><bdi lang="{html.escape(code)}">{html.escape(chip_label(bytes.fromhex(str(row["bytes"]))))}</bdi>'
            f"<small>{row['count']} of {row['total']}</small></li>"
            for row in part.to_dict("records")
        )
        name = f'<span class="lpr-chip-lang lpr-{html.escape(role)}">{html.escape(language_name(code))}</span>'
        rows += f'<div class="lpr-ex-words"><div>{name}</div><ul>{chips}</ul></div>'
    if silent:
        names = html.escape(", ".join(silent))
        rows += f'<p class="lpr-caption">No token went here first three times in {names}.</p>'
    return rows


def render_pairs(pairs: Table) -> str:
    """Return which experts of one layer are chosen together: P(column | row), all pairs.

    Args:
        pairs: columns expert_a, expert_b, n_tokens, of one layer; a = b counts the tokens of an expert.
    """
    number = int(pairs["expert_b"].max()) + 1
    if number > MAX_BARS:
        return (
            f'<p class="lpr-caption">{number} experts make {number * (number - 1) // 2} pairs, more than can be read '
            "as a table; they are in the run's table <code>expert_pairs</code>.</p>"
        )
    counts = np.zeros((number, number))
    for a, b, tokens in pairs[["expert_a", "expert_b", "n_tokens"]].itertuples(index=False):
        counts[a, b] = counts[b, a] = tokens
    given = given_expert(counts)
    heads = "".join(f'<th scope="col" class="lpr-number">{e}</th>' for e in range(number))
    rows = ""
    for a in range(number):
        cells = "".join(
            "<td></td>"
            if a == b
            else f'<td class="lpr-number lpr-ex-tint" style="--part:{np.nan_to_num(given[a, b]):.3f}">'
            f"{NOT_MEASURED if np.isnan(given[a, b]) else percent(given[a, b])}</td>"
            for b in range(number)
        )
        rows += f'<tr><th scope="row">With {expert_name(a)}</th>{cells}</tr>'
    return _table("Share of a row's tokens for which the column was chosen too", f"<td></td>{heads}", rows)


def _linked(text: str, link: Link | None, layer: int, expert: int) -> str:
    return text if link is None else f"<a {link(layer, expert)}>{text}</a>"


def _points(difference: float) -> str:
    rounded = round(100 * difference, 1)
    return f"{'+' if rounded > 0 else '−' if rounded < 0 else ''}{abs(rounded):.1f}"


def _table(caption: str, heads: str, rows: str, kind: str = "lpr-ex-grid") -> str:
    return (
        f'<div class="lpr-scroll"><table class="lpr-table {kind}"><caption class="lpr-hidden">{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
