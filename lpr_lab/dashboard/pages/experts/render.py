"""HTML of page `/experts`: sentences, tiles and tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.experts.data import Selection, Table, extra, idle_places
from lpr_lab.dashboard.query import Query
from lpr_lab.measure.experts import balance, by_layer, profiles
from lpr_lab.text.languages import language_name
from lpr_lab.views.html import expert_panels
from lpr_lab.views.html.templates import render
from lpr_lab.views.names import dataset_name
from lpr_lab.views.numbers import NOT_MEASURED, count, percent

NUMBER_CHOICES = {"mass": "Weight", "chosen": "Tokens (top-k)", "first": "First choices"}
ANCHOR = "lpr-expert"
"""Id of the section of one expert: what leads to an expert leads there."""
ABOUT_AS_EVEN = 0.05
"""Layers whose evenness differs by less are not told apart in words."""

ABOUT_AS_MUCH = 0.02
"""Shares of languages that differ by less are not told apart in words."""

MEANINGS = {
    "mass": "how much of the layer's output the expert is given, averaged over tokens; a layer's experts sum to 100%",
    "chosen": "share of tokens that have the expert among their top-k; a layer's experts sum to k × 100%",
    "first": "share of tokens that give the expert their largest weight; a layer's experts sum to 100%",
}


def finding(selection: Selection) -> Markup:
    """Return the answer in words: idle experts, and what expert 0 carries for whom."""
    rows = selection.rows(every_language=True)
    loads = by_layer(rows)
    total = sum(len(values) for values in loads.values())
    idle = idle_places(rows, "mass")
    where = sorted({layer for layer, _ in idle})
    if not idle:
        first = f"None of the {count(total)} experts is idle"
    else:
        some = ", ".join(str(layer) for layer in where[:6]) + ("…" if len(where) > 6 else "")
        first = (
            f"{len(idle)} of {count(total)} experts {'is' if len(idle) == 1 else 'are'} idle "
            f"(layer{'s' if len(where) > 1 else ''} {some})"
        )
    parts = []
    for role in ("original", "expanded"):
        mine = rows[(rows["role"] == role) & (rows["expert"] == 0)]
        if not mine.empty:
            kind = Markup('<span class="lpr-{0}">{0} languages</span>').format(role)
            parts.append(Markup("{} on {}").format(percent(mine["mass"].mean()), kind))
    return Markup("{}; the original expert carries {}.").format(first, Markup(" and ").join(parts))


def caption(selection: Selection) -> Markup:
    """Return what the page counts, in a line."""
    rows = selection.rows()
    tokens = int(rows.groupby("language")["n_tokens"].first().sum())
    stage = f", stage {selection.stage}" if selection.stage else ""
    return shell.more(
        f"{dataset_name(selection.data)}{stage}; {count(tokens)} tokens in {len(selection.languages)} languages, which "
        "weigh the same. Even load is no aim in itself: the method wants original languages on the original expert."
    )


def tiles(selection: Selection) -> Markup:
    """Return the four numbers of the selection: idle experts, evenness, the busiest, what language tells."""
    rows = selection.rows()
    table = balance(rows, selection.number)
    idle, total = int(table["idle"].sum()), int(table["experts"].sum())
    worst = table.loc[table["max_over_mean"].idxmax()]
    made = [
        ("Idle experts", f"{idle} of {count(total)}", "less than a hundredth of an even share"),
        ("Evenness of load", f"{table['evenness'].mean():.2f}", "1 is even, 0 all on one expert; mean over layers"),
        (
            "Busiest expert",
            f"{table['max_over_mean'].mean():.1f}×",
            f"its even share, mean over layers; most in layer {int(worst['layer'])}, {worst['max_over_mean']:.1f}×",
        ),
        ("Language in the expert", *_language_tile(selection, table)),
    ]
    tile = Markup("<div><span>{}</span><strong>{}</strong><small>{}</small></div>")
    return Markup('<div class="lpr-ex-tiles">{}</div>').format(Markup("").join(tile.format(*one) for one in made))


def _language_tile(selection: Selection, table: Table) -> tuple[str, str]:
    if len(selection.languages) < 2:
        return NOT_MEASURED, "one language alone has nothing to tell apart"
    ceiling = f"of {table['ceiling_bits'].mean():.2f} bits there can be"
    stored = information(selection)
    everyone = set(selection.languages) == set(selection.roles)
    if stored is not None and everyone and "null_bits" in stored:
        return f"{stored['bits'].mean():.2f} bits", f"{ceiling}; chance alone gives {stored['null_bits'].mean():.2f}"
    why = "is known for all languages together" if stored is not None and "null_bits" in stored else "was not measured"
    return f"{table['bits'].mean():.2f} bits", f"{ceiling}; what chance gives {why}"


def information(selection: Selection, stage: str | None = None) -> Table | None:
    """Return what language tells by layer, over all languages: with shuffled documents where these were counted."""
    stage = selection.stage if stage is None else stage
    table = extra(selection, "expert_information")
    if table is not None:
        table = table[table["stage"] == stage]
        return None if table.empty else table.reset_index(drop=True)
    if len(selection.roles) < 2:
        return None
    return balance(selection.rows(stage, every_language=True))[["layer", "bits", "ceiling_bits"]]


def load_section(selection: Selection, query: Query) -> Markup:
    """Return the panels of all layers and their table."""
    rows = selection.rows()
    other = selection.rows(selection.stage2) if selection.stage2 else None

    def select(layer: int, expert: int | None) -> dict[str, str]:
        return _choose(selection.query(query, layer=layer, **({} if expert is None else {"expert": expert})))

    drawn = expert_panels.render_load_panels(
        rows,
        selection.number,
        top_k=selection.top_k,
        compared=other,
        names=(selection.stage, selection.stage2),
        layer=selection.layer,
        link=select,
    )
    return render(
        "dashboard/pages/experts/load.html.j2",
        title=_load_title(selection, rows),
        number=NUMBER_CHOICES[selection.number],
        meaning=MEANINGS[selection.number],
        takes_all=selection.number == "chosen" and all(len(v) <= selection.top_k for v in by_layer(rows).values()),
        top_k=selection.top_k,
        panels=drawn,
        table=expert_panels.render_load_table(
            rows, selection.number, link=lambda layer, e: link_to(selection, query, layer, e or 0)
        ),
    )


def _choose(query: Query) -> dict[str, str]:
    """Return the attributes of a link that draws this page anew."""
    params = query.urlencode()
    return {"href": f"/experts?{params}", "data-pick": params}


def link_to(selection: Selection, query: Query, layer: int, expert: int) -> dict[str, str]:
    """Return the attributes of a link to an expert: this page drawn anew, and the reader taken to its section."""
    chosen = _choose(selection.query(query, layer=layer, expert=expert))
    return {**chosen, "href": f"{chosen['href']}#{ANCHOR}", "data-goto": ANCHOR}


def _load_title(selection: Selection, rows: Table) -> str:
    table = balance(rows, selection.number)
    even, uneven = table.loc[table["evenness"].idxmax()], table.loc[table["evenness"].idxmin()]
    if even["evenness"] - uneven["evenness"] < ABOUT_AS_EVEN:
        said = f"Load is about as even in every layer (evenness {table['evenness'].mean():.2f})"
    else:
        said = (
            f"Load is most even in layer {int(even['layer'])} (evenness {even['evenness']:.2f}) and least in layer "
            f"{int(uneven['layer'])} ({uneven['evenness']:.2f})"
        )
    if not selection.stage2:
        return said
    before = balance(selection.rows(selection.stage2), selection.number)["evenness"].mean()
    return f"{said}; at {selection.stage2} it was {before:.2f} on average"


def _to_routing(selection: Selection, layer: int, expert: int, language: str) -> dict[str, str]:
    stage = "" if selection.stage == selection.stages[-1] else selection.stage
    query = Query(run=selection.run.id, lang=language, text=language, layer=layer, expert=expert, stage=stage)
    return {"href": query.link("/routing")}


def layer_section(selection: Selection, query: Query) -> Markup:
    """Return one layer: languages by experts, the words of the selected expert, and who is chosen with whom."""
    codes, layers = profiles(selection.rows(), selection.number)
    values, other = layers[selection.layer], None
    if selection.stage2:
        other = profiles(selection.rows(selection.stage2), selection.number)[1].get(selection.layer)
    table = expert_panels.render_languages(
        codes,
        selection.roles,
        values,
        selection.number,
        top_k=selection.top_k,
        compared=other,
        links=expert_panels.LanguageLinks(
            lambda code, e: _to_routing(selection, selection.layer, e, code),
            lambda expert: _choose(selection.query(query, expert=expert)),
            selection.expert,
        ),
    )
    return render(
        "dashboard/pages/experts/layer.html.j2",
        title=_layer_title(selection, codes, values),
        number=NUMBER_CHOICES[selection.number],
        compared=selection.stage2 if other is not None else "",
        table=table,
        expert=expert_panels.expert_name(selection.expert),
        words=_words(selection),
        pairs=_pairs(selection),
    )


def _layer_title(selection: Selection, codes: list[str], values: np.ndarray) -> str:
    mine = values[:, selection.expert]
    most, least = codes[int(mine.argmax())], codes[int(mine.argmin())]
    name = "the original expert" if selection.expert == 0 else f"expert {selection.expert}"
    if len(codes) == 1:
        return f"Layer {selection.layer}: {name} gets {percent(mine[0])} of {language_name(codes[0])}"
    if mine.max() - mine.min() < ABOUT_AS_MUCH:
        return (
            f"Layer {selection.layer}: {name} gets about as much of every language ({percent(mine.min())} to "
            f"{percent(mine.max())})"
            if percent(mine.min()) != percent(mine.max())
            else f"Layer {selection.layer}: {name} gets {percent(mine.min())} of every language"
        )
    return (
        f"Layer {selection.layer}: {name} gets most of {language_name(most)} ({percent(mine.max())}) and least of "
        f"{language_name(least)} ({percent(mine.min())})"
    )


def _words(selection: Selection) -> dict[str, Any] | None:
    """Return the words of the selected expert, or the stage for which they are kept; None where none were counted."""
    tokens = extra(selection, "expert_tokens")
    if tokens is None:
        return None
    if selection.stage != selection.stages[-1]:
        return {"stage": selection.stages[-1]}
    mine = tokens[(tokens["layer"] == selection.layer) & (tokens["expert"] == selection.expert)]
    roles = {code: selection.roles[code] for code in selection.languages}
    return {"table": expert_panels.render_vocabulary(mine, roles)}


def _pairs(selection: Selection) -> dict[str, Any] | None:
    """Return which experts are chosen together, or how many always are; None where this was not counted."""
    pairs = extra(selection, "expert_pairs")
    if pairs is None:
        return None
    mine = pairs[(pairs["layer"] == selection.layer) & (pairs["stage"] == selection.stage)]
    if mine.empty:
        size = selection.sizes[selection.layer]
        return {"size": size, "taken": min(selection.top_k, size)}
    return {"table": expert_panels.render_pairs(mine)}


def stage_table(selection: Selection) -> Markup:
    """Return all stages beside one another: what expert 0 carries, and how the load is shared."""
    if not selection.is_counted or len(selection.stages) < 2:
        return Markup("")
    shown = [(stage, rows) for stage in selection.stages if not (rows := selection.rows(stage)).empty]
    return render(
        "dashboard/pages/experts/stages.html.j2",
        heads=("Expert 0 on original", "on expanded", "Idle", "Evenness", "Busiest", "Language, bits"),
        rows={stage: _stage_cells(selection, stage, rows) for stage, rows in shown},
        here=selection.stage,
    )


def _stage_cells(selection: Selection, stage: str, rows: Table) -> list[str]:
    table, bits = balance(rows, selection.number), information(selection, stage)
    return [
        _original(rows, "original"),
        _original(rows, "expanded"),
        f"{int(table['idle'].sum())} of {int(table['experts'].sum())}",
        f"{table['evenness'].mean():.2f}",
        f"{table['max_over_mean'].mean():.2f}×",
        NOT_MEASURED if bits is None else f"{bits['bits'].mean():.2f}",
    ]


def _original(rows: Table, role: str) -> str:
    mine = rows[(rows["role"] == role) & (rows["expert"] == 0)]
    return NOT_MEASURED if mine.empty else percent(mine["mass"].mean())


def agreement(selection: Selection) -> Table | None:
    """Return the choices in common of the two stages shown, in the languages shown, or None."""
    table = extra(selection, "expert_agreement")
    if table is None or not selection.stage2:
        return None
    older, newer = sorted((selection.stage, selection.stage2), key=selection.stages.index)
    table = table[(table["before"] == older) & (table["after"] == newer) & table["language"].isin(selection.languages)]
    return None if table.empty else table.assign(role=table["language"].map(selection.roles))


def twin(table: Table, columns: Mapping[Any, Any]) -> Markup:
    """Return a figure's numbers as a table: column -> heading, each number written by its kind."""
    rows = {
        layer: [NOT_MEASURED if row[column] != row[column] else f"{row[column]:.3f}" for column in columns]
        for layer, row in table.iterrows()
    }
    return render("dashboard/pages/experts/twin.html.j2", heads=list(columns.values()), rows=rows)
