"""What one expert does in held-out text, as HTML: tokens in their sentences, what they cost without it, who is alike.

Sentences are in any script: each finds its own direction, and only the token's background differs, so that letters
join. Bytes that make no character show as bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from lpr_lab.errors import MissingError
from lpr_lab.measure.contexts.expert_contexts import BITS, WEIGHT, ExpertContexts
from lpr_lab.text.languages import language_name
from lpr_lab.views import Table
from lpr_lab.views.html.expert_panels import Link
from lpr_lab.views.html.templates import render
from lpr_lab.views.html.token_data import chip_label
from lpr_lab.views.html.token_text import visible
from lpr_lab.views.numbers import NOT_MEASURED, percent, points, signed

TITLES = {WEIGHT: "Where it has the most weight", BITS: "Where leaving it out changes most"}
WIDTH = 16
"""Tokens shown on either side."""
_NOTHING = 0.005
"""Bits per token that are said to be nothing: they round to 0.00."""


def render_contexts(
    found: ExpertContexts, layer: int, expert: int, roles: Mapping[str, str], by: str = WEIGHT
) -> Markup:
    """Return one list of an expert's contexts, language by language; nothing where there is none.

    Args:
        found: with the tokens of its documents, where the sentences shall stand around them.
        layer: decoder layer.
        expert: of that layer.
        roles: language -> `original` or `expanded`; says the order, too, and which languages are shown.
        by: `weight` or `bits`.
    """
    try:
        table = found.of(layer, expert, by)
    except MissingError:
        return Markup("")
    groups, silent = [], []
    for code, role in roles.items():
        rows = table[table["language"] == code].to_dict("records")
        if rows:
            groups.append((code, role, [_context(found, row) for row in rows]))
        else:
            silent.append(language_name(code))
    return render("views/html/expert_contexts.html.j2", title=TITLES[by], by=by, groups=groups, silent=silent)


def _context(found: ExpertContexts, row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a token with what stands around it (none where its document is not held), and its numbers as text."""
    label = chip_label(bytes.fromhex(str(row["bytes"])))
    around = None
    if (row["language"], row["document"]) in found.tokens:
        before, token, after = found.in_sentence(row["language"], row["document"], row["position"], WIDTH)
        around = visible(before), visible(token) if token.strip() else label, visible(after)
    return {
        "label": label,
        "around": around,
        "weight": percent(row["weight"]),
        "bits": f"{row['bits']:.2f}",
        "change": signed(row["change_bits"], 2),
        "document": row["document"],
        "position": row["position"] + 1,  # as the page Routing counts
    }


def effect_in_words(effects: Table) -> str:
    """Return what leaving an expert out costs, in a sentence.

    Args:
        effects: of one expert, a row per language.
    """
    rows = sorted(effects.to_dict("records"), key=lambda row: -row["change_bits"])
    most, least = rows[0], rows[-1]
    if max(abs(most["change_bits"]), abs(least["change_bits"])) < _NOTHING:
        return "Without it the text costs the same in every language: the rest of its layer does as well."
    said = f"Without it a token of {_named(most)}"
    return f"{said}." if most is least else f"{said}, and one of {_named(least)}."


def _named(row: Mapping[Any, Any]) -> str:
    change = float(row["change_bits"])
    way = "about as much" if abs(change) < _NOTHING else f"{abs(change):.2f} bits {'more' if change > 0 else 'less'}"
    return f"{language_name(str(row['language']))} costs {way}"


def render_effects(effects: Table, roles: Mapping[str, str]) -> Markup:
    """Return what a token costs more without an expert, a row per language, with intervals over documents.

    Args:
        effects: of one expert.
        roles: see `render_contexts`.
    """
    known = effects.set_index("language").to_dict("index")
    rows = [
        (
            code,
            role,
            signed(row["change_bits"], 3),
            _interval(row["ci_low"], row["ci_high"]),
            f"{row['n_tokens']:,}",
            row["n_documents"],
        )
        for code, role in roles.items()
        if (row := known.get(code)) is not None
    ]
    return render("views/html/expert_effects.html.j2", rows=rows)


def _interval(low: float, high: float) -> str:
    return NOT_MEASURED if points(low) == NOT_MEASURED else f"{signed(low, 3)} to {signed(high, 3)}"


def render_neighbours(neighbours: Table, link: Link) -> Markup:
    """Return the experts whose weights rise and fall with those of one expert, each with its address.

    Args:
        neighbours: of one expert, the closest first.
        link: what one leads to.
    """
    rows: Sequence[tuple[int, int, Any, str]] = [
        (layer, expert, link(layer, expert), signed(near, 2))
        for layer, expert, near in neighbours[["other_layer", "other_expert", "correlation"]].itertuples(index=False)
    ]
    return render("views/html/expert_neighbours.html.j2", rows=rows)
