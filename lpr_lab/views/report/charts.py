"""The charts of a run as data for a page of its own: a plotly figure, the finding as a heading, the numbers as a table.

Charts are drawn anew from a run's tables where we know them; any other figure that the run keeps is taken as it is.
What comes from files is data: links, images and kinds of traces that need more than drawing are left out.
"""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lpr_lab.measure.significance import change_verdict
from lpr_lab.runs.compare.differences import changed_between
from lpr_lab.runs.model_ref import BASE, baseline_of
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.text.splits import main_test_set
from lpr_lab.views import Table
from lpr_lab.views.figures import experts, stages
from lpr_lab.views.figures.causal import causal_by_layer
from lpr_lab.views.figures.layers import layer_profile, load_heatmap, planned_experts
from lpr_lab.views.figures.retention import before_and_after
from lpr_lab.views.figures.titles import take_title
from lpr_lab.views.figures.training import training_curves
from lpr_lab.views.names import dataset_name, datasets
from lpr_lab.views.numbers import NOT_MEASURED, count, interval, percent
from lpr_lab.views.numbers import change as change_text

MAX_ROWS = 120
"""Of the table beside a chart; longer ones are thinned evenly, and say so."""

_DRAWN = ("scatter", "bar", "heatmap", "histogram", "box", "violin")
_LINK = re.compile(r"</?a\b[^>]*>", re.IGNORECASE)
_LOSSES = ("lm_loss", "load_balancing_loss", "lpr_loss", "classifier_loss")


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: unique within its run.
        title: the finding, in plain text.
        figure: plotly's `data` and `layout`, JSON-able; the template left out.
        head, rows: the same as a table.
        caption: what it was measured on.
    """

    name: str
    title: str
    figure: dict[str, Any]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    kicker: str = ""
    """A few words above the finding."""


def retention_charts(run: Run) -> Iterator[Chart]:
    """Yield bits per byte before and after by language, a chart per data set, then stage after stage."""
    change = run.tables.read("change")
    if change is not None and not change.empty:
        for dataset in datasets(change):
            rows = change[change["dataset"] == dataset]
            caption = "Bits per UTF-8 byte. Intervals are 95 %, from resampling the documents of both models together."
            before, after = changed_between(run)
            head = retention_head(before, after)
            figure = before_and_after(rows, before=before, after=after)
            one = _chart(
                f"retention-{dataset}", figure, head, retention_rows(rows, from_base=baseline_of(run) == BASE), caption
            )
            yield replace(one, kicker=dataset_name(dataset))
    table = run.tables.read("retention_by_stage")
    if table is not None and not table.empty:
        rows = _main(table)
        head = ("Language", "Group", "Stage", "Bits per byte", "Change", "95 % interval")
        body = [
            (
                language_name(str(row["language"])),
                str(row["group"]),
                str(row["stage"]),
                f"{row['bits_per_byte']:.3f}",
                change_text(row["change_percent"]),
                interval(row["change_low"], row["change_high"]),
            )
            for row in rows.to_dict("records")
        ]
        yield _chart("retention-by-stage", stages.retention_by_stage(rows), head, body)


def retention_head(before: str, after: str) -> tuple[str, ...]:
    """Return the names of the columns of `retention_rows`."""
    sides = (before[:1].upper() + before[1:], after[:1].upper() + after[1:])
    return ("Language", "Known before", "Documents", *sides, "Change", "95 % interval", "Verdict")


def retention_rows(rows: Table, *, from_base: bool = True) -> list[tuple[str, ...]]:
    """Return the rows of `change` as texts, under `retention_head`."""
    return [
        (
            language_name(str(row["language"])),
            "yes" if row["role"] == "original" else "no",
            str(row.get("n_documents", NOT_MEASURED)),
            f"{row['before']:.3f}",
            f"{row['after']:.3f}",
            change_text(row["change_percent"]),
            interval(row["ci_low"], row["ci_high"]),
            change_verdict(row, from_base=from_base),
        )
        for row in rows.to_dict("records")
    ]


def routing_charts(run: Run) -> Iterator[Chart]:
    """Yield the weight of the original expert by layer and language, as colours and as lines."""
    load = run.tables.read("load")
    if load is None or load.empty:
        return
    rows = _main(load)
    weights: Table = rows[rows["expert"] == 0].pivot_table(index="layer", columns="language", values="mass", sort=True)
    codes = [str(code) for code in dict.fromkeys(rows["language"])]
    head = ("Layer", *(language_name(code) for code in codes))
    body = [(str(layer), *(percent(weights.loc[layer, code]) for code in codes)) for layer in weights.index]
    caption = f"{_on(load)}; mean weight of expert 0, the base's own block, over tokens."
    yield _chart("routing-layers", load_heatmap(rows), head, body, caption)
    profile = _chart("routing-profile", layer_profile(rows), head, body, caption)
    yield replace(profile, title="The same over depth, a line per language")


def causal_charts(run: Run) -> Iterator[Chart]:
    """Yield which layers carry which language, where every layer was switched to the original expert on test text."""
    table = run.tables.read("causal")
    if table is None or table.empty or not (table["expert"] == 0).any():
        return
    rows = _main(table).query("expert == 0")
    body = [
        (
            language_name(str(row["language"])),
            str(row["layer"]),
            f"{row['change_bits']:+.4f}",
            f"{row['ci_low']:+.4f} to {row['ci_high']:+.4f}",
            str(row["n_documents"]),
        )
        for row in rows.to_dict("records")
    ]
    head = ("Language", "Layer", "Bits per token", "95 % interval", "Documents")
    caption = (
        f"{_on(table)}; what a token costs more when this layer alone uses the original expert "
        "for every token. In brackets: the interval, from resampling documents, contains 0."
    )
    yield _chart("causal-layers", causal_by_layer(rows), head, body, caption)


def expert_charts(run: Run) -> Iterator[Chart]:
    """Yield what experts tell about language, and what changed between stages, where it was counted."""
    table = run.tables.read("expert_information")
    if table is not None and not table.empty:
        rows = _main(table)
        rows = rows[rows["stage"] == table["stage"].iloc[-1]]
        columns = [name for name in ("bits", "ceiling_bits", "null_bits", "null_high_bits") if name in rows]
        names = {
            "bits": "Measured",
            "ceiling_bits": "At most",
            "null_bits": "By chance",
            "null_high_bits": "Chance, 95 %",
        }
        body = [(str(row["layer"]), *(f"{row[name]:.3f}" for name in columns)) for row in rows.to_dict("records")]
        head = ("Layer", *(f"{names[name]}, bits" for name in columns))
        yield _chart("experts-information", experts.information(rows), head, body)
    table = run.tables.read("original_probability")
    if table is not None and not table.empty:
        rows = _main(table)
        body = [
            (language_name(str(row["language"])), str(row["layer"]), str(row["stage"]), percent(row["probability"]))
            for row in rows.to_dict("records")
        ]
        head = ("Language", "Layer", "Stage", "Router's probability of expert 0")
        caption = "Softmax over all experts, before any is chosen (fig. 3 of MoE-LPR)."
        yield _chart("experts-original-probability", experts.original_probability(rows), head, body, caption)
    table = run.tables.read("expert_agreement")
    if table is not None and not table.empty:
        last = table.iloc[-1]
        rows = table[(table["before"] == last["before"]) & (table["after"] == last["after"])]
        rows = _main(rows)
        rows = rows.assign(role=rows["language"].map(_roles(run))).dropna(subset=["role"])
        if rows.empty:
            return
        body = [
            (language_name(str(row["language"])), str(row["layer"]), percent(row["same_first"]))
            for row in rows.to_dict("records")
        ]
        yield _chart("experts-agreement", experts.agreement(rows), ("Language", "Layer", "Same first choice"), body)


def _roles(run: Run) -> dict[str, str]:
    """Return `original` or `expanded` by language, as far as a table says it."""
    table = run.tables.read("expert_load")
    table = run.tables.read("load") if table is None else table
    return {} if table is None else dict(zip(table["language"], table["role"], strict=True))


def training_charts(run: Run) -> Iterator[Chart]:
    """Yield the losses over tokens, a chart per loss that was recorded."""
    metrics = run.metrics.read()
    for name in _LOSSES:
        rows = metrics[(metrics["name"] == name) & metrics["value"].notna()]
        if rows.empty:
            continue
        body = [
            (row["stage"].replace("_", " "), str(int(row["step"])), count(row["tokens"]), f"{row['value']:.4f}")
            for row in rows[rows["step"].notna() & rows["tokens"].notna()].to_dict("records")
        ]
        figure = training_curves(metrics, name)
        caption = "Every recorded step, and a running mean through them."
        yield _chart(f"training-{name}", figure, ("Stage", "Step", "Tokens", name), body, caption)


def plan_charts(run: Run) -> Iterator[Chart]:
    """Yield how alike languages are by layer and the new experts that follow, where the run planned."""
    table = run.tables.read("layers")
    if table is None or table.empty or "new_experts" not in table:
        return
    body = [
        (str(row["layer"]), f"{row['similarity']:.3f}", str(row["new_experts"]), "yes" if row["classifier"] else "no")
        for row in table.to_dict("records")
    ]
    yield _chart("plan", planned_experts(table), ("Layer", "Similarity", "New experts", "Routing classifier"), body)


def kept_charts(run: Run, drawn: Sequence[str]) -> Iterator[Chart]:
    """Yield the figures that the run keeps, but for those that were drawn anew."""
    anew = {
        "retention": "retention-",
        "retention_by_stage": "retention-by-stage",
        "load": "routing-layers",
        "layers": "routing-profile",
        "causal": "causal-layers",
        "training": "training-",
        "plan": "plan",
    }
    for name, figure in run.figures.read().items():
        if name in anew and any(one.startswith(anew[name]) for one in drawn):
            continue
        if not isinstance(figure, dict) or not isinstance(figure.get("data"), list):
            continue
        layout = _layout(figure)
        title = layout.get("title")
        text = title.get("text") if isinstance(title, dict) else title
        plain = re.sub(r"<[^>]*>", "", str(text or name.replace("_", " ")))
        head, body = as_table(figure)
        yield Chart(f"kept-{name}", plain, drawable(figure), head, _thinned(body), f"Kept by the run as {name}.")


def _chart(name: str, figure: Any, head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Chart:
    title = take_title(figure)
    # Plotly reads a title as markup; ours are plain.
    return Chart(name, title, drawable(json.loads(figure.to_json())), tuple(head), _thinned(rows), caption)


def _thinned(rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    step = -(-len(rows) // MAX_ROWS) or 1
    return tuple(tuple(row) for row in rows[::step])


def drawable(figure: dict[str, Any]) -> dict[str, Any]:
    """Return a figure without what could reach beyond the page: its template, links, images, maps, 3-D."""
    data = [trace for trace in figure["data"] if isinstance(trace, dict) and trace.get("type", "scatter") in _DRAWN]
    layout = _layout(figure)
    layout = {key: value for key, value in layout.items() if key not in ("template", "images", "title", "width")}
    return _without_links({"data": data, "layout": layout})


def _layout(figure: dict[str, Any]) -> dict[str, Any]:
    layout = figure.get("layout")
    return layout if isinstance(layout, dict) else {}


def _without_links(value: Any) -> Any:
    if isinstance(value, str):
        return _LINK.sub("", value)
    if isinstance(value, dict):
        return {key: _without_links(item) for key, item in value.items()}
    return [_without_links(item) for item in value] if isinstance(value, list) else value


def as_table(figure: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the numbers of any figure of points, lines, bars or cells: a row per point, or per row of cells."""
    traces = [trace for trace in figure["data"] if isinstance(trace, dict)]
    cells = next((trace for trace in traces if trace.get("type") == "heatmap"), None)
    if cells is not None:
        grid = [list(row) for row in _values(cells.get("z"))]
        across = [str(name) for name in _values(cells.get("x"))] or [str(n) for n in range(len(grid[0]) if grid else 0)]
        down = [str(name) for name in _values(cells.get("y"))] or [str(n) for n in range(len(grid))]
        return ("", *across), [(name, *map(_number, row)) for name, row in zip(down, grid, strict=False)]
    rows = []
    for number, trace in enumerate(traces):
        if trace.get("hoverinfo") == "skip":
            continue
        name = str(trace.get("name") or f"series {number + 1}")
        points = zip(_values(trace.get("x")), _values(trace.get("y")), strict=False)
        rows += [(name, _number(x), _number(y)) for x, y in points if x is not None and y is not None]
    layout = _layout(figure)
    return ("Series", _axis(layout, "xaxis", "x"), _axis(layout, "yaxis", "y")), rows


def _axis(layout: dict[str, Any], key: str, otherwise: str) -> str:
    title = (layout.get(key) or {}).get("title") if isinstance(layout.get(key), dict) else None
    text = title.get("text") if isinstance(title, dict) else title
    return str(text or otherwise)


def _values(value: Any) -> list[Any]:
    """Return numbers or texts as a list; plotly writes arrays of numbers as base64."""
    if isinstance(value, dict) and {"dtype", "bdata"} <= set(value):
        array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]))
        if value.get("shape"):
            array = array.reshape([int(size) for size in str(value["shape"]).split(",")])
        return array.tolist()
    return list(value) if isinstance(value, list | tuple) else []


def _number(value: Any) -> str:
    if isinstance(value, float):
        return NOT_MEASURED if value != value else f"{value:.4g}"
    return NOT_MEASURED if value is None else str(value)


def _main(table: Table) -> Table:
    """Return the rows on the test set that is reported first."""
    return table[table["dataset"] == main_test_set(table["dataset"])]


def _on(table: Table) -> str:
    return dataset_name(main_test_set(table["dataset"]))
