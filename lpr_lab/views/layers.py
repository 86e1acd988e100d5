"""The experts of a trace layer by layer: as a row of stacked columns, and as the table that says the same."""

import numpy as np

from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.views.numbers import percent
from lpr_lab.views.theme import EXPERT_COLOURS


def render_profile(trace: RoutingTrace) -> str:
    """One column per layer, the weight of each expert stacked from the original upwards; also the layer picker."""
    mass = trace.mass()
    most = int(trace.num_experts.max())
    columns = [_column("all", "all", mass.mean(axis=0), most)]
    step = max(1, -(-len(trace.layers) // 8))
    for row, layer in enumerate(trace.layers):
        label = str(layer) if row % step == 0 else ""
        columns.append(_column(str(layer), label, mass[row], int(trace.num_experts[row])))
    return (
        '<div class="lpr-layers"><p class="lpr-title"><b>Weight of each expert, by layer</b> '
        '<span class="lpr-of">whole text</span> <output class="lpr-reading"></output></p>'
        '<div class="lpr-profile" role="slider" tabindex="0" aria-label="Layer" aria-orientation="horizontal" '
        f'aria-valuemin="0" aria-valuemax="{len(trace.layers)}" aria-valuenow="0" aria-valuetext="all layers">'
        f"{''.join(columns)}</div></div>"
    )


def _column(key: str, label: str, mass: np.ndarray, experts: int) -> str:
    bars = "".join(
        f'<i style="height:{100 * mass[e]:.2f}%;--tone:var(--lpr-expert-{min(e, len(EXPERT_COLOURS) - 1)})"></i>'
        for e in range(experts)
    )
    return f'<span class="lpr-column" data-row="{key}"><span>{bars}</span><small>{label}</small></span>'


def render_layer_table(trace: RoutingTrace) -> str:
    """The same numbers as a table, for whom a picture is no help."""
    mass = trace.mass()
    most = int(trace.num_experts.max())
    heads = "".join(
        f'<th scope="col">Expert {e}{", the original" if e == 0 else ", new" if e == 1 and most == 2 else ""}</th>'
        for e in range(most)
    )
    rows = "".join(
        f'<tr><th scope="row">{layer}</th>'
        + "".join(f"<td>{percent(mass[row, e]) if e < trace.num_experts[row] else '–'}</td>" for e in range(most))
        + "</tr>"
        for row, layer in enumerate(trace.layers)
    )
    return (
        '<details class="lpr-twin"><summary>Show the layers as a table</summary><div><table>'
        "<caption>Mean weight of each expert over the tokens of the text, by layer</caption>"
        f'<thead><tr><th scope="col">Layer</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )
