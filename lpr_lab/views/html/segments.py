"""One segment in many languages as HTML: languages in numbers, their token strips under one another, every layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from lpr_lab.measure.segments.comparison import LanguageComparison, Summary, finding_in_words
from lpr_lab.text.languages import language_name
from lpr_lab.views.html.templates import render
from lpr_lab.views.html.tokens import StripChoices, render_token_strip
from lpr_lab.views.numbers import NOT_MEASURED


def render_segment(
    found: LanguageComparison,
    roles: Mapping[str, str] = {},
    links: Mapping[str, str] = {},
    *,
    query: str = "",
) -> Markup:
    """Return the languages in numbers, and their token strips under one another.

    Args:
        found: the comparison.
        roles: language -> `original` or `expanded`.
        links: language -> address of the full trace of its text, where there is one.
        query: of the address that shows the comparison again; empty where something else on the page sets the address.
    """
    languages = [found.reference, *found.others]
    return render(
        "views/html/segment.html.j2",
        said=finding_in_words(found),
        reference=language_name(found.reference),
        stage=found.stage,
        query=query,
        num_layers=len(found.layers),
        shuffles=found.shuffles,
        rows=[_row(found, code, roles.get(code), links.get(code, "")) for code in languages],
    )


def render_layers(found: LanguageComparison) -> Markup:
    """Return the numbers of both figures as a table: by layer the divergence of each language and its similarity."""
    routed = {int(layer): place for place, layer in enumerate(found.layers)}
    rows = {}
    for place, layer in enumerate(found.all_layers.tolist()):
        at = routed.get(layer)
        cells: list[str] = []
        for code in found.others:
            row = found.languages.index(code)
            bits = NOT_MEASURED if at is None else _number(found.divergence[row, at], 3)
            chance = "" if at is None or np.isnan(found.chance_high[row, at]) else found.chance_high[row, at]
            cells += [bits if chance == "" else f"{bits} ({chance:.3f})", _number(found.similarity[row, place], 3)]
        rows[layer] = cells
    return render(
        "views/html/segment_layers.html.j2",
        languages=[language_name(code) for code in found.others],
        reference=language_name(found.reference),
        rows=rows,
    )


def _row(found: LanguageComparison, code: str, role: str | None, link: str) -> dict[str, Any]:
    one = found.summary(code)
    strip = render_token_strip(found.traces[code], StripChoices(), linked=False, grid=False)
    return {
        "code": code,
        "name": language_name(code),
        "role": role,
        "is_reference": code == found.reference,
        "link": link,
        "cells": _cells(found, one),
        "strip": strip,
    }


def _cells(found: LanguageComparison, one: Summary) -> list[str]:
    is_reference = one.language == found.reference
    above = NOT_MEASURED if is_reference or not found.shuffles else f"{one.above_chance} of {len(found.layers)}"
    return [
        str(one.num_tokens),
        NOT_MEASURED if is_reference else _number(one.divergence, 3),
        _number(one.chance, 3),
        _number(one.halves, 3),
        above,
        _number(one.similarity, 2),
    ]


def _number(value: float, digits: int) -> str:
    return NOT_MEASURED if np.isnan(value) else f"{value:.{digits}f}".replace("-", "−")
