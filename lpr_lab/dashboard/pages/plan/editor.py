"""The selection of a plan, which is its editor too: similarity over depth, and beneath it a stepper for each layer."""

from collections.abc import Sequence

from lpr_lab.dashboard.pages.plan.facts import Similarity
from lpr_lab.dashboard.parameters import MAX_PER_LAYER
from lpr_lab.dashboard.shell import esc


def render_editor(experts: Sequence[int], similarity: Similarity | None) -> str:
    """Return the editor; `plan.js` brings it to life.

    Each layer is a spin button: arrows up and down change it, left and right go to the next layer.
    """
    columns = "".join(_layer(layer, count, experts, similarity) for layer, count in enumerate(experts))
    return (
        f'<div class="lpr-plan lpr-card" style="--layers:{len(experts)}" data-most="{MAX_PER_LAYER}">'
        f"{_legend(similarity)}"
        '<div class="lpr-scroll"><div class="lpr-plan-field">'
        f"{_curves(similarity)}"
        f'<div class="lpr-plan-layers" role="group" aria-label="New experts, layer by layer">{columns}</div>'
        "</div></div>"
        '<p class="lpr-caption"><kbd>↑</kbd> <kbd>↓</kbd> one expert more or less, <kbd>←</kbd> <kbd>→</kbd> the next '
        "layer, <kbd>Home</kbd> none. What you change is kept in the address.</p></div>"
    )


def _layer(layer: int, count: int, experts: Sequence[int], similarity: Similarity | None) -> str:
    top = max(*experts, 1)
    alike = f", similarity {similarity.values[layer]:.2f}" if similarity else ""
    return (
        f'<div class="lpr-plan-layer"><button type="button" tabindex="-1" data-step="1" aria-label="One more in layer '
        f'{layer}">+</button>'
        f'<div class="lpr-plan-count" role="spinbutton" tabindex="{0 if layer == 0 else -1}" data-layer="{layer}" '
        f'aria-label="Layer {layer}" aria-valuemin="0" aria-valuemax="{MAX_PER_LAYER}" aria-valuenow="{count}" '
        f'aria-valuetext="{said(count)}{alike}" data-alike="{alike}">'
        f'<i aria-hidden="true" style="height:{100 * count / top:.1f}%"></i><b aria-hidden="true">{count}</b></div>'
        f'<button type="button" tabindex="-1" data-step="-1" aria-label="One fewer in layer {layer}">−</button>'
        f'<small aria-hidden="true">{layer}</small></div>'
    )


def said(count: int) -> str:
    """Return a count of new experts in words, as `plan.js` does."""
    return "no new expert" if count == 0 else "1 new expert" if count == 1 else f"{count} new experts"


def _curves(similarity: Similarity | None) -> str:
    """Draw the curves; each point stands above the middle of its layer's column."""
    if similarity is None:
        return ""
    curves = [
        ("across", similarity.expanded_to_original),
        ("between", similarity.between_expanded),
        ("mean", similarity.values),
    ]
    top = 1.08 * max(max(values) for _, values in curves if values)
    count = len(similarity.values)
    lines = "".join(
        f'<polyline class="lpr-plan-{name}" vector-effect="non-scaling-stroke" points="{_points(values, top)}"/>'
        for name, values in curves
        if values and not (name == "across" and not similarity.between_expanded)
    )
    return (
        f'<div class="lpr-plan-curves" role="img" aria-label="{esc(_in_words(similarity.values))}">'
        f'<svg viewBox="0 0 {count} 100" preserveAspectRatio="none" aria-hidden="true">{lines}</svg>'
        f'<span class="lpr-plan-scale" aria-hidden="true">{top:.2f}</span></div>'
    )


def _points(values: Sequence[float], top: float) -> str:
    return " ".join(f"{layer + 0.5},{100 - 100 * value / top:.2f}" for layer, value in enumerate(values))


def _in_words(values: Sequence[float]) -> str:
    lowest, highest = values.index(min(values)), values.index(max(values))
    return (
        f"Similarity over {len(values)} layers, least in layer {lowest} ({values[lowest]:.2f}), "
        f"most in layer {highest} ({values[highest]:.2f})"
    )


def _legend(similarity: Similarity | None) -> str:
    bars = '<span><i class="lpr-plan-key-bar"></i>new experts</span>'
    if similarity is None:
        return f'<p class="lpr-plan-legend">{bars}</p>'
    keys = [("mean", "similarity, which the rule reads")]
    if similarity.between_expanded:
        keys += [("across", "expanded to original"), ("between", "between expanded")]
    lines = "".join(
        '<span><svg viewBox="0 0 24 6" aria-hidden="true">'
        f'<path class="lpr-plan-{name}" d="M0 3h24"/></svg>{text}</span>'
        for name, text in keys
    )
    return f'<p class="lpr-plan-legend">{lines}{bars}</p>'


def render_table(experts: Sequence[int], similarity: Similarity | None) -> str:
    """Return the same as a table."""
    heads = ["Layer", "New experts"]
    if similarity is not None:
        heads.append("Similarity")
        if similarity.between_expanded:
            heads += ["Expanded to original", "Between expanded"]
    rows = []
    for layer, count in enumerate(experts):
        cells = [str(count)]
        if similarity is not None:
            cells.append(f"{similarity.values[layer]:.3f}")
            if similarity.between_expanded:
                cells.append(f"{similarity.expanded_to_original[layer]:.3f}")
                cells.append(f"{similarity.between_expanded[layer]:.3f}")
        rows.append(f'<tr><th scope="row">{layer}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        '<details class="lpr-twin"><summary>Show the plan as a table</summary><div class="lpr-scroll"><table>'
        "<caption>New experts per layer and how alike languages look there (mean cosine)</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )
