"""Figures of training: one recorded number over tokens, a panel per stage."""

from typing import TYPE_CHECKING

from lpr_lab.errors import UsageError
from lpr_lab.views import Table, theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Tell runs apart for eyes that colours do not."""
MAX_POINTS = 2000
"""Per curve; more are thinned evenly."""


def training_curves(metrics: Table, name: str = "lm_loss", template: str = "lpr") -> "go.Figure":
    """Draw one number over tokens, a panel per stage: every recorded point, and a running mean through those points.

    Args:
        metrics: columns step, tokens, stage, name, value.
        name: which number, one of `metric_names(metrics)`.
        template: `lpr` or `lpr_dark`.
    """
    rows, stages, figure = _panels(metrics, name)
    finding = []
    for column, stage in enumerate(stages, start=1):
        part = rows[rows["stage"] == stage].sort_values("step")
        part = part.iloc[:: max(1, len(part) // MAX_POINTS)]
        smooth = part["value"].rolling(max(3, len(part) // 10), center=True, min_periods=1).mean()
        common = {"x": part["tokens"], "row": 1, "col": column, "showlegend": False}
        hover = f"{name} %{{y:.4g}} after %{{x:,}} tokens<extra></extra>"
        figure.add_scatter(
            **common,
            y=part["value"],
            mode="markers",
            marker={"size": 4, "color": theme.GREY, "opacity": 0.6},
            hovertemplate=hover,
        )
        figure.add_scatter(**common, y=smooth, mode="lines", line={"color": theme.NEW, "width": 2.5}, hoverinfo="skip")
        figure.update_xaxes(title="tokens", zeroline=False, row=1, col=column)
        finding.append(f"{stage.replace('_', ' ')} {part['value'].iloc[0]:.3g} → {part['value'].iloc[-1]:.3g}")
    figure.update_layout(template=template, title=f"{name}: {', '.join(finding)}", height=320)
    figure.update_yaxes(title=name, col=1)
    figure.update_annotations(font_size=13)
    return figure


def compared_curves(metrics: Table, name: str = "lm_loss", template: str = "lpr") -> "go.Figure":
    """Draw one number of several runs over one another, a panel per stage, each over the tokens of its own stage.

    So runs of different lengths line up by tokens, and a stage that only some of them have stands in its own panel.

    Args:
        metrics: columns run (as the legend calls it), step, tokens, stage, name, value.
        name: which number, one of `metric_names(metrics)`.
        template: `lpr` or `lpr_dark`.
    """
    rows, stages, figure = _panels(metrics, name)
    runs = list(dict.fromkeys(metrics["run"]))
    drawn: set[str] = set()
    for column, stage in enumerate(stages, start=1):
        for place, run in enumerate(runs):
            part = rows[(rows["stage"] == stage) & (rows["run"] == run)].sort_values("step")
            if part.empty:
                continue
            part = part.iloc[:: max(1, len(part) // MAX_POINTS)]
            # Blue and orange are the original expert and the new ones in every picture, so no run takes them.
            colour = theme.EXPERT_COLOURS[2:][place % len(theme.EXPERT_COLOURS[2:])]
            figure.add_scatter(
                x=part["tokens"],
                y=part["value"],
                mode="lines" if len(part) > 1 else "markers",
                name=run,
                legendgroup=run,
                showlegend=run not in drawn,
                line={"color": colour, "dash": DASHES[place % len(DASHES)], "width": 2},
                marker={"color": colour, "symbol": theme.SYMBOLS[place % len(theme.SYMBOLS)]},
                hovertemplate=f"%{{fullData.name}}: {name} %{{y:.4g}} after %{{x:,}} tokens<extra></extra>",
                row=1,
                col=column,
            )
            drawn.add(run)
        figure.update_xaxes(title="tokens", zeroline=False, row=1, col=column)
    figure.update_layout(template=template, title=f"{name} of {len(drawn)} runs, stage by stage", height=360)
    figure.update_layout(legend={"orientation": "h", "y": -0.25, "yanchor": "top"})
    figure.update_yaxes(title=name, col=1)
    figure.update_annotations(font_size=13)
    return figure


def range_test_curve(table: Table, template: str = "lpr") -> "go.Figure":
    """Draw a range test: dev bits per byte after a few steps at each rate, and the rate that its rule takes.

    Args:
        table: columns learning_rate, dev_bits_per_byte, change_percent, diverged, chosen.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    sound, bad = table[~table["diverged"]], table[table["diverged"]]
    chosen = table[table["chosen"]].iloc[0]
    figure = go.Figure()
    hover = "rate %{x:.2g}: %{y:.4f} bits per byte<extra></extra>"
    for rows, name, symbol in ((sound, "trained", "circle"), (bad, "diverged", "x")):
        figure.add_scatter(
            x=rows["learning_rate"],
            y=rows["dev_bits_per_byte"],
            mode="lines+markers" if name == "trained" else "markers",
            name=name,
            marker={"symbol": symbol, "size": 10, "color": theme.GREY},
            line={"color": theme.GREY},
            hovertemplate=hover,
            showlegend=len(rows) > 0,
        )
    figure.add_scatter(
        x=[chosen["learning_rate"]],
        y=[chosen["dev_bits_per_byte"]],
        mode="markers",
        name="taken",
        marker={"symbol": "star", "size": 16, "color": theme.NEW},
        hovertemplate=hover,
    )
    title = f"Learning rate {chosen['learning_rate']:.2g}: the lowest with nearly all of the fall on dev text"
    figure.update_layout(template=template, title=title, height=320)
    figure.update_xaxes(type="log", title="learning rate of experts", zeroline=False)
    figure.update_yaxes(title="dev bits per byte, lower is better", zeroline=False)
    return figure


def metric_names(metrics: Table) -> list[str]:
    """Return the names of the recorded numbers, losses first."""
    names = list(dict.fromkeys(metrics["name"]))
    return sorted(names, key=lambda name: (name != "lm_loss", "loss" not in name, name in ("seconds", "lr"), name))


def _panels(metrics: Table, name: str) -> tuple[Table, list[str], "go.Figure"]:
    """Return what was recorded of a number, the stages that have any, and an empty figure with a panel for each."""
    from plotly.subplots import make_subplots

    theme.register()
    rows = metrics[(metrics["name"] == name) & metrics["value"].notna()]
    stages = list(dict.fromkeys(rows["stage"]))
    if not stages:
        raise UsageError(f"No {name!r} was recorded; there are {', '.join(metric_names(metrics)) or 'no numbers yet'}.")
    titles = [stage.replace("_", " ") for stage in stages]
    figure = make_subplots(rows=1, cols=len(stages), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    return rows, stages, figure
