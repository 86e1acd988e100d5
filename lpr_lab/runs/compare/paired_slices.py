"""The change of digits, names and other slices between two models, from the scores of slices that runs keep.

The slices are those of `measure.slices`; two models are compared on the same tokens of the same documents only.
"""

from lpr_lab.runs.compare.paired_scores import Table
from lpr_lab.runs.model_ref import BASE, ModelRef, stages_of

_SET = ["language", "dataset", "test_set", "slice"]


def compare_slices(before: ModelRef, after: ModelRef, dataset: str = "", language: str = "") -> Table | None:
    """Return the paired change of every slice, as `measure.slices.scores.slice_changes`.

    Args:
        before: one model.
        after: the other.
        dataset: of one data set; by default of all.
        language: of one language; by default of all.

    Returns:
        None where a run kept no scores of slices; no row for a slice that the two read as different tokens.

    Examples:
        >>> compare_slices(ModelRef(run, "base"), ModelRef(run, ""), "heldout", "en")  # doctest: +SKIP
    """
    from lpr_lab.measure.slices.scores import slice_changes  # it brings pandas, which pages do without until then

    scores = paired_slice_scores(before, after)
    if scores is None:
        return None
    for name, value in (("dataset", dataset), ("language", language)):
        scores = scores[scores[name] == value] if value else scores
    config = after.run.config
    drawn = int(config.get("bootstrap") or 1000), int(config.get("seed") or 0)
    first = BASE if before.stage == BASE else "before"  # from the base a fall on an original language is no gain
    scores = scores.replace({"model": {"before": first}})
    return slice_changes(scores, first, "after", bootstrap=drawn[0], seed=drawn[1])


def paired_slice_scores(before: ModelRef, after: ModelRef) -> Table | None:
    """Return the scores of slices under the names `before` and `after`, or None where a run kept none of these two."""
    import pandas as pd

    found = [_of_model(model, name) for model, name in ((before, "before"), (after, "after"))]
    sides = [side for side in found if side is not None and not side.empty]
    if len(sides) < 2:
        return None
    old, new = (_by_set(side) for side in sides)
    same = [key for key in new if key in old and old[key] == new[key]]
    if not same:
        return None
    wanted = pd.MultiIndex.from_tuples(same)
    parts = [side[pd.MultiIndex.from_frame(side[_SET]).isin(wanted)] for side in sides]
    return pd.concat(parts, ignore_index=True)


def _of_model(model: ModelRef, name: str) -> Table | None:
    table = model.run.tables.read("slices")
    if table is None:
        return None
    stage = model.stage or (stages_of(model.run) or [""])[-1]
    return table[table["stage"] == stage].rename(columns={"stage": "model"}).assign(model=name)


def _by_set(scores: Table) -> dict[tuple[str, ...], list[tuple[str, int]]]:
    """Return the documents of every slice with how many of its tokens each has."""
    return {
        tuple(map(str, key)): list(zip(part["document"], part["tokens"], strict=True))
        for key, part in scores.groupby(_SET, sort=False)
    }
