"""Figures of experts over layers: their load, what they tell about language, what changed between stages.

The load itself is drawn by `views.html.expert_panels`, which people can click and read aloud.
"""

from typing import TYPE_CHECKING, Any

from lpr_lab.errors import UsageError
from lpr_lab.measure.experts import by_layer, is_idle, normalised_entropy
from lpr_lab.text.languages import language_name
from lpr_lab.views import Table, theme
from lpr_lab.views.names import ROLES, expert_name
from lpr_lab.views.numbers import percent

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_LINES = 6


def information_finding(table: Table) -> str:
    """Return one sentence: how much of the language the expert gives away, and how much chance alone would."""
    bits, ceiling = float(table["bits"].mean()), float(table["ceiling_bits"].mean())
    said = f"The expert of a token tells {bits:.2f} of {ceiling:.2f} bits about its language, on average over layers"
    if "null_bits" not in table:
        return f"{said}; what chance alone gives was not measured"
    chance = float(table["null_bits"].mean())
    clear = int((table["bits"] > table["null_high_bits"]).sum())
    where = "in every layer" if clear == len(table) else f"in {clear} of {len(table)} layers"
    return f"{said}; chance alone gives {chance:.2f}, and it is more {where}"


def information(table: Table, template: str = "lpr") -> "go.Figure":
    """Draw mutual information of language and expert over depth, its ceiling, and what shuffled documents give.

    Args:
        table: one stage and data set; columns layer, bits, ceiling_bits, and null_bits, null_high_bits where measured.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    _refuse_several(table, "information")
    figure = go.Figure()
    layers = table["layer"]
    figure.add_scatter(
        x=layers,
        y=table["ceiling_bits"],
        mode="lines",
        name="the most there can be",
        line={"color": theme.GREY, "width": 1.5, "dash": "dash"},
        hovertemplate="layer %{x}: at most %{y:.2f} bits<extra></extra>",
    )
    if "null_bits" in table:
        figure.add_scatter(
            x=layers,
            y=table["null_high_bits"],
            mode="lines",
            name="documents shuffled: 95 of 100 lie below",
            line={"color": theme.GREY, "width": 1.5, "dash": "dot"},
            fill="tozeroy",
            fillcolor="rgba(125,134,149,.18)",
            hovertemplate="layer %{x}: by chance below %{y:.3f} bits<extra></extra>",
        )
    figure.add_scatter(
        x=layers,
        y=table["bits"],
        mode="lines+markers",
        name="measured",
        line={"color": theme.NEW, "width": 2.5},
        marker={"symbol": "diamond", "size": 8},
        hovertemplate="layer %{x}: %{y:.3f} bits<extra></extra>",
    )
    yaxis = {"title": "bits", "rangemode": "tozero"}
    return _over_layers(figure, template, information_finding(table), yaxis)


def agreement_finding(table: Table, number: str = "same_first") -> str:
    """Return one sentence: how many choices stayed the same between two stages, by kind of language, and the least."""
    what = "first choices" if number == "same_first" else "choices"
    parts = []
    for role in ROLES:
        rows = table[table["role"] == role]
        if not rows.empty:
            parts.append(f"{percent(rows[number].mean())} {'' if parts else f'of {what} '}on {role} languages")
    before, after = table["before"].iloc[0], table["after"].iloc[0]
    said = f"{' and '.join(parts)} are the same at {before} and at {after}"
    means = table.groupby("language")[number].mean()
    if len(means) < 2:
        return said
    return f"{said}; fewest on {language_name(str(means.idxmin()))}, {percent(means.min())}"


def agreement(table: Table, number: str = "same_first", template: str = "lpr") -> "go.Figure":
    """Draw the share of choices that two stages have in common (saturation), over depth.

    One line per language; beyond `MAX_LINES` languages one per kind of language, with the range of its languages.

    Args:
        table: one data set and one pair of stages; columns before, after, language, role, layer, same_choices,
            same_first.
        number: `same_first` for first choices, `same_choices` for all K.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    _refuse_several(table, "agreement")
    figure = go.Figure()
    each = table["language"].nunique() <= MAX_LINES
    for role, title in ROLES.items():
        rows = table[table["role"] == role]
        for place, (code, part) in enumerate(rows.groupby("language" if each else "role", sort=False)):
            spread = part.groupby("layer")[number].agg(["mean", "min", "max"])
            name = language_name(str(code)) if each else f"{title}, with their range"
            ranges = {"array": spread["max"] - spread["mean"], "arrayminus": spread["mean"] - spread["min"]}
            figure.add_scatter(
                x=spread.index,
                y=100 * spread["mean"],
                error_y=None
                if each
                else {"symmetric": False, "thickness": 1, "width": 0, **{key: 100 * v for key, v in ranges.items()}},
                mode="lines+markers",
                name=name,
                line={"color": theme.ROLE_COLOURS[role], "width": 2, "dash": "solid" if role == "original" else "dash"},
                marker={"symbol": theme.SYMBOLS[place % len(theme.SYMBOLS)], "size": 7},
                hovertemplate=f"{name}, layer %{{x}}: %{{y:.1f}}%<extra></extra>",
            )
    yaxis = {"title": "the same at both stages, %", "range": [-3, 103], "zeroline": False}
    return _over_layers(figure, template, agreement_finding(table, number), yaxis)


def original_probability_finding(table: Table) -> str:
    """Return one sentence: what the router gives expert 0 at the newest stage, and before, by kind of language."""
    means = table.groupby(["role", "stage"], sort=False)["probability"].mean()
    stages = list(dict.fromkeys(table["stage"]))
    parts = []
    for role in (role for role in ROLES if role in set(table["role"])):
        earlier = ", ".join(f"{percent(means[role, stage])} at {stage}" for stage in stages[:-1])
        parts.append(f"{percent(means[role, stages[-1]])} on {role} languages{f' ({earlier})' if earlier else ''}")
    return f"The router's probability of expert 0 is {' and '.join(parts)}, on average over layers"


def original_probability(table: Table, template: str = "lpr") -> "go.Figure":
    """Draw the mean router probability of expert 0 over depth, at every stage (MoE-LPR, fig. 3).

    One line per stage and kind of language, the mean over its languages; the newest stage is drawn through.

    Args:
        table: one data set; columns stage (oldest first), role, layer, probability.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    _refuse_several(table.drop(columns="stage"), "original_probability")
    figure = go.Figure()
    stages = list(dict.fromkeys(table["stage"]))
    for role, title in ROLES.items():
        for place, stage in enumerate(stages):
            rows = table[(table["role"] == role) & (table["stage"] == stage)]
            if rows.empty:
                continue
            means = rows.groupby("layer")["probability"].mean()
            name = f"{title}, {stage}" if len(stages) > 1 else title
            figure.add_scatter(
                x=means.index,
                y=100 * means,
                mode="lines+markers",
                name=name,
                line={"color": theme.ROLE_COLOURS[role], "width": 2, "dash": "solid" if stage == stages[-1] else "dot"},
                marker={"symbol": theme.SYMBOLS[place % len(theme.SYMBOLS)], "size": 7},
                hovertemplate=f"{name}, layer %{{x}}: %{{y:.1f}}%<extra></extra>",
            )
    yaxis = {"title": "router's probability of expert 0, %", "range": [-3, 103], "zeroline": False}
    return _over_layers(figure, template, original_probability_finding(table), yaxis)


def load_finding(loads: dict[int, Any]) -> str:
    """Return one sentence: how even the load is, and how many experts are idle."""
    evenness = [value for value in (normalised_entropy(load) for load in loads.values()) if value == value]
    idle, total = sum(int(is_idle(load).sum()) for load in loads.values()), sum(len(load) for load in loads.values())
    even = f"Load is {sum(evenness) / len(evenness):.2f} even on average over layers (1 is even)" if evenness else ""
    return f"{even or 'No layer has a choice of experts'}; {idle or 'none'} of {total} experts idle"


def load_by_layer(load: Table, number: str = "mass", template: str = "lpr") -> "go.Figure":
    """Draw each expert's load over depth against the dashed line of an even share.

    Args:
        load: one stage and data set; columns language, layer, expert and what `number` names. Languages are averaged.
        number: `mass` or `first`, whose even share is one part in as many as there are experts.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    _refuse_several(load, "load_by_layer")
    loads = by_layer(load, number)
    figure = go.Figure()
    for expert in range(max((len(values) for values in loads.values()), default=0)):
        places = [layer for layer, values in loads.items() if expert < len(values)]
        name = expert_name(expert)
        figure.add_scatter(
            x=places,
            y=[100 * float(loads[layer][expert]) for layer in places],
            mode="lines+markers",
            name=name,
            line={"color": theme.expert_colour(expert), "width": 2, "dash": "solid" if expert == 0 else "dot"},
            marker={"symbol": theme.SYMBOLS[expert % len(theme.SYMBOLS)], "size": 7},
            hovertemplate=f"{name}, layer %{{x}}: %{{y:.1f}}%<extra></extra>",
        )
    figure.add_scatter(
        x=list(loads),
        y=[100 / len(values) for values in loads.values()],
        mode="lines",
        name="an even share",
        line={"color": theme.GREY, "width": 1.5, "dash": "dash", "shape": "hvh"},
        hovertemplate="layer %{x}: even is %{y:.1f}%<extra></extra>",
    )
    title = "share of weight, %" if number == "mass" else "share of first choices, %"
    return _over_layers(figure, template, load_finding(loads), {"title": title, "rangemode": "tozero"})


def languages_by_expert(load: Table, template: str = "lpr") -> "go.Figure":
    """Draw which share of its weight each language gives to each expert, on average over layers.

    Args:
        load: one stage and data set; columns language, role, layer, expert, mass.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    _refuse_several(load, "languages_by_expert")
    sums = load.pivot_table(index="language", columns="expert", values="mass", aggfunc="sum", sort=False).fillna(0)
    share = 100 * sums.div(sums.sum(axis=1), axis=0)
    share = share[sorted(share.columns)]
    first = share.to_numpy().argmax(axis=1)
    favourites = [f"{language_name(str(code))} {expert}" for code, expert in zip(share.index, first, strict=True)]
    figure = go.Figure(
        go.Heatmap(
            z=share.to_numpy(),
            x=[expert_name(expert) for expert in share.columns],
            y=[language_name(str(code)) for code in share.index],
            zmin=0,
            zmax=100,
            colorscale=theme.SEQUENTIAL,
            xgap=2,
            ygap=2,
            texttemplate="%{z:.0f}" if share.size <= 200 else None,
            hovertemplate="%{y}, %{x}: %{z:.1f}%<extra></extra>",
            colorbar={"title": {"text": "share of weight, %", "side": "right"}, "thickness": 10, "outlinewidth": 0},
        )
    )
    figure.update_layout(
        template=template,
        title=f"Most weight goes to expert: {', '.join(favourites)}",
        height=150 + 34 * len(share),
        xaxis={"side": "bottom", "showgrid": False},
        yaxis={"autorange": "reversed", "showgrid": False},
    )
    return figure


def _over_layers(figure: "go.Figure", template: str, finding: str, yaxis: dict[str, Any]) -> "go.Figure":
    """Return a figure laid out with layers across."""
    xaxis = {"title": "layer", "showgrid": False, "zeroline": False}
    figure.update_layout(template=template, title=finding, height=340, xaxis=xaxis, yaxis=yaxis)
    return figure


def _refuse_several(table: Table, name: str) -> None:
    for column in ("stage", "dataset", "before", "after"):
        if column in table and table[column].nunique() > 1:
            raise UsageError(f"{name}() draws one {column} at a time; filter the table by `{column}` first.")
