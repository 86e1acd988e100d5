"""Two models compared on the same documents, from the scores that runs keep, or a refusal that says why not.

Where both models were scored document by document, the change between them is paired and has an interval; of older runs
only base and newest stage are. Different test sets are never compared.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lpr_lab.measure.significance import UNCLEAR
from lpr_lab.runs.model_ref import ModelRef, baseline_of, stages_of
from lpr_lab.runs.run import Run
from lpr_lab.storage import file_stamp

Table = Any
"""A `pandas.DataFrame`; the type pandas declares for itself is lost at the first filter."""

DIFFERENT = (
    "These two were measured on different documents, so a difference between them would say nothing about the models. "
    "Evaluate both on one corpus with the same languages, and compare again."
)
NUM_MOVED = 10
"""Documents shown on either end."""


@dataclass(frozen=True)
class PairedChange:
    """The change between two models per language, or why there is none.

    Attributes:
        before, after: the two models.
        rows: as `Report.changes()`; where no paired scores were kept there is no interval, and so no clear difference.
        refusal: why these must not be compared, in sentences; then there are no rows.
        missing: languages that only one of them was scored on.
        documents: columns language, role, dataset, document, bytes, before, after, change_percent, points, or None.
            Points are what a document adds to the change of its language and data set; they sum to that change.
        different: (language, data set, hash of the test set before, after) where these differ.
    """

    before: ModelRef
    after: ModelRef
    rows: Table | None
    refusal: str = ""
    missing: tuple[str, ...] = ()
    documents: Table | None = None
    different: tuple[tuple[str, str, str, str], ...] = ()


def compare(before: ModelRef, after: ModelRef, dataset: str = "") -> PairedChange | None:
    """Compare two models on one data set (by default on all); None when the run after was not evaluated.

    Raises:
        LprError: a table that cannot be read.
    """
    new = _scores(after)
    if new is None:
        return None
    old = _scores(before)
    if old is None:
        return PairedChange(
            before, after, None, f"“{before.run.title}” was not evaluated, so there is nothing to compare."
        )
    if dataset:
        new, old = ({key: value for key, value in scores.items() if key[1] == dataset} for scores in (new, old))
    shared = [key for key in new if key in old]
    missing = tuple(dict.fromkeys(key[0] for key in [*new, *old] if (key in new) != (key in old)))
    different = [key for key in shared if new[key]["test_set"] != old[key]["test_set"]]
    if different:
        hashes = tuple((*key, old[key]["test_set"], new[key]["test_set"]) for key in different)
        return PairedChange(before, after, None, DIFFERENT, missing, different=hashes)
    if not shared:
        return PairedChange(before, after, None, "The two were not evaluated on a language that they share.", missing)
    rows, documents = _changes(before, after, {key: new[key] for key in shared}, old)
    return PairedChange(before, after, rows, "", missing, documents)


Key = tuple[str, str]
"""Language and data set."""


def _scores(model: ModelRef) -> dict[Key, dict[str, Any]] | None:
    """Return role, test_set, n_documents and this model's bits by language and data set, where they are known."""
    change = model.run.tables.read("change")
    if change is None or change.empty:
        return None
    found: dict[Key, dict[str, Any]] = {}
    newest = (stages_of(model.run) or [""])[-1]
    stage = model.stage or newest
    of_stage = _bits_of_stage(model.run, stage)
    for row in change.to_dict("records"):
        key = (str(row["language"]), str(row["dataset"]))
        bits = {baseline_of(model.run): row["before"], newest: row["after"]}.get(stage)
        bits = of_stage.get(key, bits)
        if bits is None:
            continue
        known = {name: row[name] for name in ("role", "n_documents")}
        found[key] = {**known, "test_set": str(row.get("test_set") or ""), "bits": float(bits)}
    return found


def _bits_of_stage(run: Run, stage: str) -> dict[Key, float]:
    """Return bits per byte of one stage by language and data set; none where stages were not scored."""
    stages = run.tables.read("stages")
    if stages is None:
        return {}
    rows = stages[stages["stage"] == stage].drop_duplicates(["language", "dataset"])
    return dict(zip(zip(rows["language"], rows["dataset"], strict=True), rows["bits_per_byte"], strict=True))


def _changes(before: ModelRef, after: ModelRef, new: dict[Key, Any], old: dict[Key, Any]) -> tuple[Table, Table | None]:
    """Return changes by language, and by document where both models have scores of documents."""
    import pandas as pd

    pairs = paired(before, after, list(new))
    if pairs is not None:
        from lpr_lab.measure.forgetting import bootstrap_draws, change_rows

        config = after.run.config
        drawn = int(config.get("bootstrap") or 1000), int(config.get("seed") or 0)
        rows = change_rows(pairs, [bootstrap_draws(test, *drawn) for test in pairs], "before", "after")
        return rows, _by_document(pairs)
    stored = _stored(before, after)
    if stored is not None:
        keys = list(zip(stored["language"], stored["dataset"], strict=True))
        return stored[[key in new for key in keys]].reset_index(drop=True), None
    records = []
    for (language, dataset), score in new.items():
        bits, was = score["bits"], old[(language, dataset)]["bits"]
        record = {"language": language, "role": score["role"], "dataset": dataset, "before": was, "after": bits}
        record |= {"change_percent": 100 * (bits / was - 1), "ci_low": float("nan"), "ci_high": float("nan")}
        record |= {"n_documents": score["n_documents"], "verdict": UNCLEAR, "test_set": score["test_set"]}
        records.append(record)
    return pd.DataFrame(records), None


def _stored(before: ModelRef, after: ModelRef) -> Table | None:
    """Return the changes that the run itself wrote for these two models, if it did."""
    if before.run.id != after.run.id or after.stage:
        return None
    if before.stage == baseline_of(after.run):
        return after.run.tables.read("change")
    stages = stages_of(after.run)
    group = stages[-1].split()[0]
    earlier = [name for name in stages if name.split()[0] != group]
    return after.run.tables.read("change_from_parent") if earlier and before.stage == earlier[-1] else None


def paired(before: ModelRef, after: ModelRef, keys: list[Key]) -> list[Any] | None:
    """Return the test sets with the scores of both models under the names `before` and `after`, or None."""
    old, new = document_sets(before.run), document_sets(after.run)
    if old is None or new is None:
        return None
    names = [model.stage or (stages_of(model.run) or [""])[-1] for model in (before, after)]
    pairs = []
    for key in keys:
        if key not in old or key not in new or old[key].ids != new[key].ids:
            return None
        if names[0] not in old[key].nats or names[1] not in new[key].nats:
            return None
        nats = {"before": old[key].nats[names[0]], "after": new[key].nats[names[1]]}
        pairs.append(replace(new[key], nats=nats))
    return pairs


def document_sets(run: Run) -> dict[Key, Any] | None:
    """Return the test sets of a run with the scores of their documents under every stage, or None."""
    stamp = file_stamp(run.path / "tables" / "documents.csv")
    return _document_sets(run.path, stamp) if stamp else None


@lru_cache(maxsize=128)
def _document_sets(path: Path, stamp: tuple[int, int]) -> dict[Key, Any] | None:
    from lpr_lab.measure.forgetting import scored_documents  # it brings pandas, which pages do without until then

    documents = Run(path).tables.read("documents")
    if documents is None:
        return None
    sets = scored_documents(documents.rename(columns={"stage": "model"}))
    return {(test.language, test.dataset): test for test in sets}


def _by_document(pairs: list[Any]) -> Table:
    import numpy as np
    import pandas as pd

    parts = []
    for test in pairs:
        size = np.log(2) * test.num_bytes
        of = {"language": test.language, "role": test.role, "dataset": test.dataset}
        ratio = test.nats["after"] / test.nats["before"]
        values = {"before": test.nats["before"] / size, "after": test.nats["after"] / size}
        points = 100 * (test.nats["after"] - test.nats["before"]) / test.nats["before"].sum()
        part = {"document": test.ids, "bytes": test.num_bytes, **values, "change_percent": 100 * (ratio - 1)}
        part |= {"points": points}
        parts.append(pd.DataFrame(part).assign(**of))
    return pd.concat(parts, ignore_index=True)


def most_moved(documents: Table, count: int = NUM_MOVED) -> tuple[Table, Table]:
    """Return (the documents that got worse, those that got better), each at most `count`, the farthest first."""
    worse = documents[documents["change_percent"] > 0].nlargest(count, "change_percent")
    better = documents[documents["change_percent"] < 0].nsmallest(count, "change_percent")
    return worse, better
