"""The experts of a trace layer by layer: a row of stacked columns, and the table whose cells choose tokens."""

import html

import numpy as np

from lpr_lab.measure.trace import RoutingChange, RoutingTrace
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
    bars = "".join(f'<i style="height:{100 * mass[e]:.2f}%;--tone:var({_tone(e)})"></i>' for e in range(experts))
    return f'<span class="lpr-column" data-row="{key}"><span>{bars}</span><small>{label}</small></span>'


def _tone(expert: int) -> str:
    return f"--lpr-expert-{min(expert, len(EXPERT_COLOURS) - 1)}"


def render_grid(trace: RoutingTrace, change: RoutingChange | None = None, change_from: str = "") -> str:
    """The table of layers and experts: how many tokens went to each, and beside it the way of one chosen token.

    Args:
        trace: what is shown; a token is said to go to the expert of its largest weight.
        change: adds how many choices moved in each layer.
        change_from: what they moved from, such as `G1 expand`.
    """
    share = trace.first_share()
    most = int(trace.num_experts.max())
    rows = [_mean_row(trace, share, change)]
    moved = {} if change is None else dict(zip(change.layers.tolist(), change.moved.sum(axis=1).tolist(), strict=True))
    for row, layer in enumerate(trace.layers.tolist()):
        cells = "".join(_cell(layer, e, share[row, e]) for e in range(int(trace.num_experts[row])))
        cells += "<td>–</td>" * (most - int(trace.num_experts[row]))
        if change is not None:
            cells += f'<td class="lpr-moved">{moved.get(layer, "–")}</td>'
        rows.append(f'<tr data-row="{layer}"><th scope="row">{layer}</th>{cells}{_WAY}</tr>')
    heads = "".join(f'<th scope="col">{_expert_name(e, most)}</th>' for e in range(most))
    if change is not None:
        heads += '<th scope="col">Moved</th>'
    since = f" Moved: choices that were others in {html.escape(change_from)}." if change is not None else ""
    return (
        '<div class="lpr-gridbox"><table class="lpr-grid"><caption><b>Where the tokens went, layer by layer</b> '
        "Share of tokens whose largest weight is this expert’s. A cell picks out its tokens; arrow keys move."
        f"{since}</caption>"
        f'<thead><tr class="lpr-groups"><td></td><th scope="colgroup" colspan="{most + (change is not None)}">'
        'All tokens</th><th scope="colgroup" colspan="5" class="lpr-whose">One token</th></tr>'
        f'<tr><th scope="col">Layer</th>{heads}<th scope="col">First</th><th scope="col">p</th><th scope="col">Second'
        '</th><th scope="col">p</th><th scope="col">Margin</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


_WAY = "<td>–</td>" * 5
"""What the way of one token is written into."""


def _mean_row(trace: RoutingTrace, share: np.ndarray, change: RoutingChange | None) -> str:
    cells = "".join(f"<td>{percent(value)}</td>" for value in share.mean(axis=0))
    if change is not None:
        cells += f'<td class="lpr-moved">{int(change.moved.sum())}</td>'
    return f'<tr data-row="all"><th scope="row">all</th>{cells}{_WAY}</tr>'


def _cell(layer: int, expert: int, share: float) -> str:
    kind = "original" if expert == 0 else "new"
    said = f"layer {layer}, expert {expert}, {kind}: {percent(share)} of tokens"
    return (
        f'<td><button type="button" tabindex="-1" data-l="{layer}" data-e="{expert}" aria-pressed="false" '
        f'aria-label="{said}" style="--tone:var({_tone(expert)});--a:{0.06 + 0.34 * share:.3f}">{percent(share)}'
        "</button></td>"
    )


def _expert_name(expert: int, most: int) -> str:
    kind = "<small>original</small>" if expert == 0 else "<small>new</small>"
    return f"{'Expert ' if most <= 4 else ''}{expert} {kind}"
