"""The experts of a trace layer by layer: a row of stacked columns, and the table whose cells choose tokens."""

from markupsafe import Markup

from lpr_lab.measure.trace import RoutingChange, RoutingTrace
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import NOT_MEASURED

MOST_LABELS = 8
"""Layers that are named below the columns; more would not fit beside one another."""


def render_profile(trace: RoutingTrace) -> Markup:
    """Return a column per layer, the weight of each expert stacked from the original upwards; also the layer picker."""
    mass = trace.mass()
    step = max(1, -(-len(trace.layers) // MOST_LABELS))
    columns = [("all", "all", mass.mean(axis=0)[: int(trace.num_experts.max())].tolist())]
    for row, layer in enumerate(trace.layers.tolist()):
        weights = mass[row, : int(trace.num_experts[row])].tolist()
        columns.append((str(layer), "" if row % step else str(layer), weights))
    return render("views/html/layer_profile.html.j2", columns=columns)


def render_grid(trace: RoutingTrace, change: RoutingChange | None = None, change_from: str = "") -> Markup:
    """Return the table of layers and experts: how many tokens went to each, and beside it the way of one chosen token.

    Args:
        trace: what is shown; a token is said to go to the expert of its largest weight.
        change: adds how many choices moved in each layer.
        change_from: what they moved from, such as `G1 expand`.
    """
    share = trace.first_share()
    moved = {} if change is None else dict(zip(change.layers.tolist(), change.moved.sum(axis=1).tolist(), strict=True))
    sizes = trace.num_experts.tolist()
    rows = [
        (layer, share[row, : sizes[row]].tolist(), moved.get(layer, NOT_MEASURED))
        for row, layer in enumerate(trace.layers.tolist())
    ]
    return render(
        "views/html/layer_grid.html.j2",
        num_experts=max(sizes),
        means=share.mean(axis=0).tolist(),
        rows=rows,
        change_from=None if change is None else change_from,
        num_moved=None if change is None else int(change.moved.sum()),
    )
