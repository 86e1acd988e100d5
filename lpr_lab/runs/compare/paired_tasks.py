"""Two models compared on the same task items, from the answers that runs keep. Different items are never compared."""

from dataclasses import replace
from typing import Any

from lpr_lab.runs.model_ref import BASE, ModelRef, stages_of
from lpr_lab.runs.run import Run

Table = Any
"""A `pandas.DataFrame`; the type pandas declares for itself is lost at the first filter."""


def compare_tasks(before: ModelRef, after: ModelRef) -> Table | None:
    """Return the change of each task and language as `measure.tasks.scores.change_rows` has it.

    Returns:
        None where the two answered no items in common.

    Raises:
        LprError: a table that cannot be read.
    """
    old, new = _answers(before), _answers(after)
    both = []
    for key, test in new.items():
        other = old.get(key)
        if other is None or (other.fingerprint, other.ids) != (test.fingerprint, test.ids):
            continue
        names = {"before": (other, _name(before)), "after": (test, _name(after))}
        if any(name not in found.right for found, name in names.values()):
            continue
        right = {side: found.right[name] for side, (found, name) in names.items()}
        margins = {side: found.margins[name] for side, (found, name) in names.items() if name in found.margins}
        both.append(replace(test, right=right, margins=margins))
    if not both:
        return None
    from lpr_lab.measure.tasks.scores import change_rows

    config = after.run.config
    drawn = int(config.get("bootstrap") or 1000), int(config.get("seed") or 0)
    return change_rows(both, "before", "after", *drawn, from_base=before.stage == BASE)


def _name(model: ModelRef) -> str:
    return model.stage or (stages_of(model.run) or [""])[-1]


def _answers(model: ModelRef) -> dict[tuple[str, str, str], Any]:
    """Return the items of a run by task, language and data set, with what each of its models answered."""
    items = _read(model.run)
    if items is None:
        return {}
    from lpr_lab.measure.tasks.scores import scored_items  # it brings pandas, which pages do without until then

    sets = scored_items(items.rename(columns={"stage": "model"}))
    return {(test.task, test.language, test.dataset): test for test in sets}


def _read(run: Run) -> Table | None:
    items = run.tables.read("task_items")
    return None if items is None or items.empty else items
