"""What controls say about a run's forgetting, below the comparison: KL to the base, excess forgetting, equal gain."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from lpr_lab.errors import LprError
from lpr_lab.measure.significance import Difference
from lpr_lab.runs.compare.control_runs import (
    MEAN,
    curves_of,
    excess_forgetting,
    find_old_only,
    forgetting_at_gain,
    is_control,
)
from lpr_lab.runs.run import Run, short_id
from lpr_lab.text.languages import language_name
from lpr_lab.views import Table
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import change, interval


@dataclass(frozen=True)
class Part:
    """One control: what it means, and its numbers, or why there are none."""

    title: str
    meaning: str
    heads: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    missing: str = ""
    makes: bool = False
    """Whether the command makes it."""


TEMPLATE = "dashboard/pages/retention/controls.html.j2"


def controls(run: Run, runs: Sequence[Run], dataset: str) -> Markup:
    """Return the section: each control with its meaning in words, its numbers with intervals, or how to make it."""
    parts = [_divergence(run), _excess(run, runs, dataset), _at_gain(run, runs, dataset)]
    return render(TEMPLATE, parts=parts, command=f"lpr-lab control old-only {run.id}")


def _divergence(run: Run) -> Part:
    table = run.tables.read("self_divergence")
    title = "Distance from the base on the base's own samples"
    meaning = (
        "KL_self: how differently the model goes on where the base wrote the text itself, in bits per byte, over the "
        "whole vocabulary at every token. It is 0 only where both say the same and never below, so raw text cannot "
        "hide it. It says that the model changed there, not that it got worse: learning raw text moves it too, so look "
        "at that of the old-only arm as well."
    )
    if table is None:
        return Part(title, meaning, missing="This run did not ask for it (self_samples=64).")
    rows = [
        [
            str(row["model"]),
            f"{row['kl_bits_per_byte']:.4f}",
            f"{row['ci_low']:.4f} to {row['ci_high']:.4f}",
            f"{row['kl_percent']:.2f}%",
            f"{100 * row['same_top']:.1f}%",
        ]
        for row in table[table["language"] == "all"].to_dict("records")
    ]
    heads = ["Stage", "KL, bits per byte", "95% interval", "Of the base's own bits", "Same likeliest token"]
    return Part(title, meaning, heads, rows)


def _excess(run: Run, runs: Sequence[Run], dataset: str) -> Part:
    title = "Excess forgetting, beyond the old-only arm"
    meaning = (
        "The old-only arm is the same training on original languages alone. What any raw text does to the base is in "
        "both, so their difference, in points, is what the new languages cost. Above zero is forgetting."
    )
    if is_control(run):
        return Part(title, meaning, missing="This run is an old-only arm itself.")
    control = find_old_only(run, runs)
    if control is None:
        return Part(title, meaning, missing="The arm was not trained yet.", makes=True)
    try:
        table = excess_forgetting(run, control, dataset)
    except LprError as error:
        return Part(title, meaning, missing=str(error))
    rows = [
        [
            "All, on average" if row["language"] == MEAN else language_name(str(row["language"])),
            change(row["change_percent"]),
            change(row["control_percent"]),
            f"{row['excess']:+.2f} points",
            _interval(row["ci_low"], row["ci_high"]),
            str(row["verdict"]),
        ]
        for row in table.to_dict("records")
    ]
    heads = ["Language", "This run", f"Old-only arm {short_id(control.id)}", "Excess", "95% interval", "Verdict"]
    return Part(title, meaning, heads, rows)


def _at_gain(run: Run, runs: Sequence[Run], dataset: str) -> Part:
    title = "Forgetting at equal gain"
    meaning = (
        "Recipes compared where they learned the new languages equally well, not at equal learning rates: between two "
        "runs of a recipe forgetting is read off a straight line, and beyond them nothing is said. A learning rate so "
        "high that a lower one gained no less does not count."
    )
    curves = {name: models for name, models in curves_of(run, runs).items() if len(models) > 1}
    own = str(run.config.get("recipe"))
    if own not in curves or len(curves) < 2:
        needs = "It needs two runs or more, with other rates or budgets, of this recipe and of another one."
        return Part(title, meaning, missing=needs)
    try:
        table = forgetting_at_gain({own: curves[own], **curves}, dataset=dataset)
    except LprError as error:
        return Part(title, meaning, missing=str(error))
    return Part(title, meaning, *_gain_rows(table))


def _gain_rows(table: Table) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            str(row["name"]),
            str(row["n_models"]),
            change(row["forgetting"]),
            _interval(row["ci_low"], row["ci_high"]),
            f"{row['difference']:+.2f} points" if row["verdict"] else "–",
            _interval(row["difference_low"], row["difference_high"]) if row["verdict"] else "–",
            str(row["verdict"]) or "–",
        ]
        for row in table.to_dict("records")
    ]
    at = f"Forgetting at a gain of {table['gain'].iloc[0]:.1f}%"
    heads = ["Recipe", "Runs", at, "95% interval", "Against this recipe", "95% interval", "Verdict"]
    return heads, rows


def _interval(low: float, high: float) -> str:
    return interval(low, high) if Difference(0.0, low, high).has_interval else "–"
