"""The contexts of experts as a run keeps them: ids, places, single tokens and numbers.

No sentence is kept: runs hold no text of others. Whoever has the corpus finds the sentences again by id and place.
"""

from typing import TYPE_CHECKING

from lpr_lab.measure.contexts.expert_contexts import ExpertContexts
from lpr_lab.text.splits import main_test_set

if TYPE_CHECKING:
    import pandas as pd

    from lpr_lab.runs.run import Run

CONTEXTS, NEIGHBOURS, EFFECTS = TABLES = ("expert_contexts", "expert_neighbours", "expert_effects")


def read_contexts(run: "Run", dataset: str = "", stage: str = "") -> ExpertContexts | None:
    """Return what a run keeps of one test set at one stage, without sentences; None where that was not read.

    Args:
        run: any.
        dataset: name of the test set; held-out text where none is named, or else what there is.
        stage: of the run's model; empty for the one that was read last.
    """
    found = run.tables.read(CONTEXTS)
    if found is not None:
        dataset = dataset or main_test_set(found["dataset"])
    if found is None or not (stages := found.loc[found["dataset"] == dataset, "stage"].unique().tolist()):
        return None
    stage = stage or stages[-1]
    if stage not in stages:
        return None
    tables = [_of(table, stage, dataset) for table in (found, _read(run, NEIGHBOURS), _read(run, EFFECTS))]
    return ExpertContexts(*tables, tokens={})


def write_contexts(run: "Run", found: ExpertContexts) -> None:
    """Keep what was found beside what the run keeps of other stages, test sets and experts that were left out.

    An expert that was left out now or earlier keeps what was found of it then: its contexts by bits with it.
    """
    import pandas as pd

    stage, dataset = (str(found.contexts[name].iloc[0]) for name in ("stage", "dataset"))
    before = read_contexts(run, dataset, stage)
    contexts, effects = found.contexts, found.effects
    if before is not None:
        now = _experts(effects)
        earlier = _experts(before.effects).difference(now)
        known = before.contexts[_rows_of(before.contexts, earlier)]
        contexts = pd.concat([contexts[~_rows_of(contexts, earlier)], known])
        effects = pd.concat([effects, before.effects[_rows_of(before.effects, earlier)]])
    for name, table in zip(TABLES, (contexts, found.neighbours, effects), strict=True):
        kept = run.tables.read(name)
        parts = [table] if kept is None else [kept[~_is_of(kept, stage, dataset)], table]
        if any(len(part) for part in parts):
            run.tables.write(name, pd.concat([part for part in parts if len(part)], ignore_index=True))


def _read(run: "Run", name: str) -> "pd.DataFrame":
    import pandas as pd

    from lpr_lab.measure.contexts import expert_contexts as columns

    table = run.tables.read(name)
    empty = {NEIGHBOURS: columns.NEIGHBOUR_COLUMNS, EFFECTS: columns.EFFECT_COLUMNS}
    return pd.DataFrame(columns=empty[name]) if table is None else table


def _is_of(table: "pd.DataFrame", stage: str, dataset: str) -> "pd.Series":
    return (table["stage"] == stage) & (table["dataset"] == dataset)


def _of(table: "pd.DataFrame", stage: str, dataset: str) -> "pd.DataFrame":
    return table[_is_of(table, stage, dataset)].reset_index(drop=True)


def _experts(table: "pd.DataFrame") -> "pd.MultiIndex":
    import pandas as pd

    return pd.MultiIndex.from_frame(table[["layer", "expert"]].drop_duplicates())


def _rows_of(table: "pd.DataFrame", experts: "pd.MultiIndex") -> "pd.Series":
    import pandas as pd

    return pd.Series(pd.MultiIndex.from_frame(table[["layer", "expert"]]).isin(experts), index=table.index)
