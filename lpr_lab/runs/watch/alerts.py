"""Alerts that a run raises itself: rules over its numbers while it trains and over its results, torch-free.

Each alert is one line of `alerts.jsonl`, written once by the process that works on the run. The page Runs, the terminal
that watches a run, `lpr-lab runs` and the report show the same sentences.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lpr_lab.errors import LprError, UsageError
from lpr_lab.measure.significance import change_of
from lpr_lab.runs.run import Run
from lpr_lab.storage import append_jsonl, read_jsonl, write_jsonl
from lpr_lab.text.languages import language_name

FORGETTING_PERCENT = 3.0
"""Bound of forgetting, of the claim `retention` as well."""
RULES = ("collapse", "not_finite", "divergence", "forgetting")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """From where on a number is worth an alert.

    Attributes:
        least_load: an expert has collapsed below this part of its even share of a layer's choices. An expert with a
            hundredth of it sees so few tokens that a run a hundred times as long would be needed to train it.
        steps: for so many steps in a row. One step may hold text that needs no such expert; a step of a few thousand
            tokens that leaves it out by chance eight times running does not occur.
        forgetting_percent: more bits per byte on an original language than this, with the whole interval above it.
            Unless set otherwise it is the bound of the claim `retention`, so that the two do not disagree.

    An experiment has them as `alert_least_load`, `alert_steps` and `alert_forgetting_percent`.
    """

    least_load: float = 0.01
    steps: int = 8
    forgetting_percent: float = FORGETTING_PERCENT

    def __post_init__(self) -> None:
        if not 0 <= self.least_load < 1 or self.steps < 1 or not self.forgetting_percent >= 0:
            raise UsageError(
                f"Alerts with {self}: expected least_load in [0, 1), steps from 1 and forgetting_percent from 0."
            )


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert.

    Attributes:
        rule: one of `RULES`.
        stage: the training stage, or the data set whose evaluation shows it.
        step: at which it was noticed; None for an evaluation.
        text: what was seen, as a sentence with the number and its bound.
    """

    rule: str
    stage: str
    step: int | None
    text: str


@dataclass
class Watch:
    """The rules over the steps of one stage, in the order they are made.

    >>> watch = Watch("expand", Bounds(steps=2))
    >>> [watch.update({"step": step, "loss": 1.0, "least_load": 0.0}) != [] for step in (1, 2, 3)]
    [False, True, False]
    """

    stage: str
    bounds: Bounds = field(default_factory=Bounds)
    raised: set[str] = field(default_factory=set)
    low: int = 0

    def update(self, metrics: Mapping[str, float]) -> list[Alert]:
        """Take in the numbers of one step; return the alerts it raises, each rule once in a stage."""
        step, found = int(metrics["step"]), {}
        broken = [name for name in ("loss", "grad_norm") if not math.isfinite(metrics.get(name, 0.0))]
        if broken:
            found["not_finite"] = f"{' and '.join(broken)} was not a finite number at step {step}."
        if metrics.get("diverged"):
            found["divergence"] = f"The training diverges: its loss is {metrics['loss']:.4g} at step {step}."
        self.count_low(metrics.get("least_load"))
        if self.low >= self.bounds.steps:
            found["collapse"] = self._collapse(metrics)
        new = {rule: text for rule, text in found.items() if rule not in self.raised}
        self.raised |= set(new)
        return [Alert(rule=rule, stage=self.stage, step=step, text=text) for rule, text in new.items()]

    def count_low(self, load: float | None) -> None:
        """Take in the least load of one step: one more in a row that is too low, or the end of the row."""
        self.low = self.low + 1 if load is not None and load < self.bounds.least_load else 0

    def _collapse(self, metrics: Mapping[str, float]) -> str:
        where = ""
        if "least_load_expert" in metrics:
            expert, layer = int(metrics["least_load_expert"]), int(metrics["least_load_layer"])
            where = f", now expert {expert} of layer {layer}"
        return (
            f"An expert collapsed: for {self.bounds.steps} steps in a row one had under "
            f"{100 * self.bounds.least_load:g} % of its even share of tokens{where}."
        )


def of_results(results: Mapping[str, Any], bounds: Bounds | None = None) -> list[Alert]:
    """Return the alerts of an evaluation: original languages that were forgotten beyond the bound, whole interval."""
    bounds = bounds or Bounds()
    found = []
    for row in results.get("change") or ():
        change = change_of(row)
        if row["role"] == "original" and change.has_interval and change.low > bounds.forgetting_percent:
            text = (
                f"{language_name(row['language'])} was forgotten beyond {bounds.forgetting_percent:g} %: "
                f"{change.value:+.1f} % bits per byte, 95 % interval {change.low:+.1f} to {change.high:+.1f} %."
            )
            found.append(Alert(rule="forgetting", stage=str(row["dataset"]), step=None, text=text))
    return found


def path_of(run: Run) -> Path:
    """Return where a run's alerts are."""
    return run.path / "alerts.jsonl"


def read(run: Run) -> list[Alert]:
    """Return a run's alerts, oldest first; none where they cannot be read, for a list must not fail for a line."""
    names = [one.name for one in fields(Alert)]
    try:
        rows = read_jsonl(path_of(run))
        return [Alert(**{name: row[name] for name in names}) for row in rows]
    except (LprError, OSError, KeyError, TypeError):
        return []


def add(run: Run, alert: Alert) -> None:
    """Append an alert, unless it is there already."""
    if alert not in read(run):
        append_jsonl(path_of(run), asdict(alert))


def resume(run: Run, stage: str, step: int, bounds: Bounds | None = None) -> Watch:
    """Return the watch of a stage that begins with a step; what an interrupted attempt raised from there on is dropped.

    The steps before it are read again, so that a row of them goes on where it was.
    """
    known = read(run)
    kept = [alert for alert in known if alert.stage != stage or (alert.step or 0) < step]
    if len(kept) < len(known):
        write_jsonl(path_of(run), [asdict(alert) for alert in kept])
    watch = Watch(stage, bounds or Bounds())
    watch.raised = {alert.rule for alert in kept if alert.stage == stage}
    earlier: dict[int, float] = {}
    for row in read_jsonl(run.metrics.path):
        if row["stage"] == stage and row["name"] == "least_load" and row["step"] < step and row["value"] is not None:
            earlier[row["step"]] = row["value"]
    for load in earlier.values():
        watch.count_low(load)
    return watch


def line(alert: Alert) -> str:
    """Return an alert as a sentence, with the stage or the data set it is of."""
    return f"{alert.stage.replace('_', ' ')}: {alert.text}"
