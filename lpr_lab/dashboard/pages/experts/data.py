"""Tables of page `/experts`: which a run has, and the rows that the address selects."""

from dataclasses import dataclass
from typing import Any

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.query import Query
from lpr_lab.measure.experts import NUMBERS, by_layer, is_idle
from lpr_lab.runs.run import Run
from lpr_lab.text.splits import in_order
from lpr_lab.views import Table

ALONE = "none"
"""Value of `stage2` for no comparison."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """One stage of one run on one data set, and what it is compared with: a field for each choice of the page."""

    run: Run
    is_counted: bool
    """Whether the run has the tables of `measure.expert_counts`; if not, only the load of its newest stage."""
    load: Table
    """All stages, data sets and languages."""
    stages: tuple[str, ...]
    """Oldest first; ("",) where stages were not told apart."""
    stage: str
    stage2: str
    """Empty for no comparison."""
    datasets: tuple[str, ...]
    data: str
    numbers: tuple[str, ...]
    number: str
    roles: dict[str, str]
    """Language -> `original` or `expanded`, in the order of the table."""
    languages: tuple[str, ...]
    """Those shown."""
    sizes: dict[int, int]
    """Layer -> its experts at this stage."""
    layer: int
    expert: int
    top_k: int

    def rows(self, stage: str | None = None, *, every_language: bool = False) -> Table:
        """Return the load of a stage (by default the one shown) on the data set and in the languages shown."""
        table = self.load
        wanted = self.stage if stage is None else stage
        table = table[(table["stage"] == wanted) & (table["dataset"] == self.data)]
        return table if every_language else table[table["language"].isin(self.languages)]

    def query(self, given: Query, **changes: Any) -> Query:
        """Return the address of what is shown, with some of it changed; what is so by default is left out."""
        newest, before = self.stages[-1], stage_before(self.stages, self.stage)
        values = {
            "run": self.run.id,
            "stage": "" if self.stage == newest else self.stage,
            "stage2": "" if self.stage2 == before else self.stage2 or ALONE,
            "langs": "" if set(self.languages) == set(self.roles) else ",".join(self.languages),
            "data": "" if self.data == self.datasets[0] else self.data,
            "layer": self.layer,
            "expert": self.expert,
            "view": "" if self.number == NUMBERS[0] else self.number,
        }
        return Query.parse({**vars(given), **values, **changes})


def stage_before(stages: tuple[str, ...], stage: str) -> str:
    """Return the stage before one, or nothing."""
    place = stages.index(stage)
    return stages[place - 1] if place else ""


def read(run: Run, query: Query) -> Selection | None:
    """Return what the address asks for, or the closest to it that there is; None where load was not measured."""
    load, is_counted = run.tables.read("expert_load"), True
    top_k = int(run.config.get("top_k", 2))
    if load is None or load.empty:
        load, is_counted = run.tables.read("load"), False
        if load is None or load.empty:
            return None
        slots = load.groupby(["language", "dataset", "layer"])["expert"].transform("size").clip(upper=top_k)
        load = load.assign(stage="", chosen=load["share"] * slots)
    stages = tuple(dict.fromkeys(load["stage"]))
    stage = query.stage if query.stage in stages else stages[-1]
    stage2 = query.stage2 if query.stage2 in stages else stage_before(stages, stage)
    datasets = tuple(in_order(load["dataset"]))
    data = query.data if query.data in datasets else datasets[0]
    shown = load[(load["stage"] == stage) & (load["dataset"] == data)]
    roles = {str(row.language): str(row.role) for row in shown[["language", "role"]].drop_duplicates().itertuples()}
    numbers = tuple(name for name in NUMBERS if name in load)
    sizes = {layer: len(values) for layer, values in by_layer(shown).items()}
    layer = query.layer if query.layer in sizes else min(sizes)
    return Selection(
        run=run,
        is_counted=is_counted,
        load=load,
        stages=stages,
        stage=stage,
        stage2="" if query.stage2 == ALONE or stage2 == stage else stage2,
        datasets=datasets,
        data=data,
        numbers=numbers,
        number=query.view if query.view in numbers else numbers[0],
        roles=roles,
        languages=tuple(code for code in roles if code in query.languages) or tuple(roles),
        sizes=sizes,
        layer=layer,
        expert=query.expert if query.expert is not None and query.expert < sizes[layer] else min(1, sizes[layer] - 1),
        top_k=top_k,
    )


def idle_places(load: Table, number: str) -> list[tuple[int, int]]:
    """Return the layer and number of every idle expert."""
    loads = by_layer(load, number)
    return [(layer, int(expert)) for layer, values in loads.items() for expert in is_idle(values).nonzero()[0]]


def extra(selection: Selection, name: str) -> Table | None:
    """Return another of the run's tables at the selection's data set, or None when it was not counted."""
    table = selection.run.tables.read(name) if selection.is_counted else None
    if table is None:
        return None
    table = table[table["dataset"] == selection.data]
    return None if table.empty else table


def why_not_counted(run: Run) -> str:
    """Return, in a sentence, why the run lacks what this page shows beyond the load."""
    if run.is_example:
        return "This run was made before stages, words and company of experts were counted, and came without weights."
    if run.status.state in ("running", "queued"):
        return "This run is still working; its experts are counted near its end."
    original, expanded = shell.languages_of(run)
    if not original or not expanded or "corpus" not in run.config:
        return "This run does not say which text it was made from, so its experts cannot be counted."
    return "Stages, words and company of experts were not counted in this run."
