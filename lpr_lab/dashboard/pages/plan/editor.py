"""The plan editor: similarity over depth, and beneath it a stepper for each layer."""

from collections.abc import Sequence

from markupsafe import Markup

from lpr_lab.dashboard.pages.plan.facts import Similarity
from lpr_lab.dashboard.parameters import MAX_PER_LAYER
from lpr_lab.views.html.templates import render
from lpr_lab.wording import counted


def render_editor(experts: Sequence[int], similarity: Similarity | None) -> Markup:
    """Return the editor; `plan.js` brings it to life.

    Each layer is a spin button: arrows up and down change it, left and right go to the next layer.
    """
    drawn, top = _curves(similarity) if similarity else ([], 0.0)
    return render(
        "dashboard/pages/plan/editor.html.j2",
        experts=experts,
        most=MAX_PER_LAYER,
        highest=max(*experts, 1),
        said=said,
        alike=[f", similarity {value:.2f}" for value in similarity.values] if similarity else [""] * len(experts),
        keys=_keys(similarity),
        curves=drawn,
        top=top,
        in_words=_in_words(similarity.values) if similarity else "",
    )


def said(count: int) -> str:
    """Return a count of new experts in words, as `plan.js` does."""
    return counted(count, "new expert") if count else "no new expert"


def _curves(similarity: Similarity) -> tuple[list[tuple[str, str]], float]:
    """Return the points of each curve by name, above the middle of its layer's column, and the top of the scale."""
    curves = [
        ("across", similarity.expanded_to_original if similarity.between_expanded else ()),
        ("between", similarity.between_expanded),
        ("mean", similarity.values),
    ]
    highest = max(*similarity.values, *similarity.expanded_to_original, *similarity.between_expanded)
    top = 1.08 * highest
    return [(name, _points(values, top)) for name, values in curves if values], top


def _points(values: Sequence[float], top: float) -> str:
    return " ".join(f"{layer + 0.5},{100 - 100 * value / top:.2f}" for layer, value in enumerate(values))


def _in_words(values: Sequence[float]) -> str:
    lowest, highest = values.index(min(values)), values.index(max(values))
    return (
        f"Similarity over {len(values)} layers, least in layer {lowest} ({values[lowest]:.2f}), "
        f"most in layer {highest} ({values[highest]:.2f})"
    )


def _keys(similarity: Similarity | None) -> list[tuple[str, str]]:
    """Return the legend: name and meaning of each curve."""
    if similarity is None:
        return []
    keys = [("mean", "similarity, which the rule reads")]
    if similarity.between_expanded:
        keys += [("across", "expanded to original"), ("between", "between expanded")]
    return keys


def render_table(experts: Sequence[int], similarity: Similarity | None) -> Markup:
    """Return the same as a table."""
    columns: dict[str, Sequence[float]] = {}
    if similarity is not None:
        columns["Similarity"] = similarity.values
        if similarity.between_expanded:
            columns["Expanded to original"] = similarity.expanded_to_original
            columns["Between expanded"] = similarity.between_expanded
    rows = [
        [str(count), *(f"{values[layer]:.3f}" for values in columns.values())] for layer, count in enumerate(experts)
    ]
    heads = ("Layer", "New experts", *columns)
    return render("dashboard/pages/plan/table.html.j2", heads=heads, rows=rows)
