"""Who is compared with whom: the base, a stage of a run's model, or what a run ended with.

A side is written as `base`, `expanded`, the name of a stage (`G1 expand`), a run id, or `<run id>: <stage>`.
"""

from dataclasses import dataclass
from pathlib import Path

from lpr_lab.errors import UsageError, did_you_mean
from lpr_lab.runs.run import EXAMPLES, RUN_ID_PATTERN, Run
from lpr_lab.storage import read_json

BASE = "base"
EXPANDED = "expanded"
"""What a model is called as it stands, at its newest stage."""

LOOKING = ("evaluation", "routing", "comparison")
"""Kinds of runs that look at the model of another run, which their setting `run` names."""


@dataclass(frozen=True)
class Side:
    """One of the two models: the base (`stage` is `base`) or a stage of a run; empty for what a run ended with."""

    run: Run
    stage: str

    def called(self, beside: Run) -> str:
        """Return what it is called on a page about `beside`."""
        stage = self.stage or "expanded"
        return stage if self.run.id == beside.id or stage == BASE else f"{self.run.title} ({stage})"


def stages_of(run: Run) -> list[str]:
    """Return the stages of a run's model, oldest first: from its weights, else from its scores; empty for neither."""
    if run.paths.has_checkpoint:
        stages = read_json(run.paths.checkpoint / "adapter_config.json").get("stages") or []
        return [str(stage["name"]) for stage in stages]
    table = run.tables.read("stages")
    return [] if table is None else [str(name) for name in dict.fromkeys(table["stage"]) if name != BASE]


def name_of(side: Side, run: Run) -> str:
    """Return what a side is called in records: `base`, `expanded`, a stage; with the run's id where it is another."""
    stage = side.stage or EXPANDED
    return stage if side.run.id == run.id or stage == BASE else f"{side.run.id}: {stage}"


def side_named(text: str, run: Run, root: Path | str) -> Side:
    """Return the side that a text names (see above); stages without a run id are those of `run`.

    Args:
        text: as typed; empty for what `run` ended with.
        run: the run that a bare `base`, `expanded` or stage belongs to.
        root: the folder in which other runs are looked for.

    Raises:
        UsageError: no such stage, with the closest one.
        MissingError: no such run.
    """
    text, named = text.strip(), run_named(text, root)
    if named:
        run, text = Run.open(root, named), text.partition(":")[2].strip()
    known = stages_of(run)
    if text in ("", EXPANDED, *known[-1:]):
        return Side(run, "")
    if text not in (BASE, *known):
        names = [BASE, EXPANDED, *known]
        raise UsageError(
            f"{text!r} is neither a run nor a stage of run {run.id}; expected a run id or one of {', '.join(names)}."
            f"{did_you_mean(text, names)}"
        )
    return Side(run, text)


def run_named(text: str, root: Path | str) -> str:
    """Return the run id in the text of a side; empty where it is the base or a stage alone.

    A text that only looks like an id is one, too: then "no such run" says most.
    """
    head, colon, _ = (part.strip() for part in text.partition(":"))
    if RUN_ID_PATTERN.fullmatch(head) is None:
        return ""
    is_there = any((folder / head).is_dir() for folder in (Path(root), Path(root) / EXAMPLES))
    return head if colon or head[:8].isdecimal() or is_there else ""


def looked_at(run: Run) -> str:
    """Return the id of the run whose model this one only looked at; empty for a run that made one of its own."""
    return str(run.config.get("run") or "") if run.kind in LOOKING else ""


def own_before(run: Run) -> str:
    """Return the side that the changes of a run are changes from: the base, unless an evaluation chose another."""
    return str(run.config.get("before") or BASE) if run.kind in LOOKING else BASE
