"""Model references: the base, a stage of a run's model, or a run's final model.

A reference is written as `base`, `expanded`, the name of a stage (`G1 expand`), a run id, or `<run id>: <stage>`.
"""

from dataclasses import dataclass
from pathlib import Path

from lpr_lab.errors import UsageError, did_you_mean
from lpr_lab.model.tuned.names import BASELINE, FINETUNE
from lpr_lab.runs.run import EXAMPLES, RUN_ID_PATTERN, Run
from lpr_lab.storage import read_json

BASE = "base"
EXPANDED = "expanded"
"""Name of a final model, at its newest stage."""

ANALYSES = ("evaluation", "routing", "comparison", "harness")
"""Kinds of runs that analyse the model of another run, which their setting `run` names."""


@dataclass(frozen=True)
class ModelRef:
    """Base, stage or final model.

    Attributes:
        run: whose model, or whose base.
        stage: `base`, or the name of a stage; empty for the final model.
    """

    run: Run
    stage: str

    def title(self, beside: Run) -> str:
        """Return its name on a page about the run `beside`."""
        return self._in(beside, f"{self.run.title} ({self._called})")

    def name(self, beside: Run) -> str:
        """Return its name in records of the run `beside`: `base`, `expanded`, a stage; with the id of another run."""
        return self._in(beside, f"{self.run.id}: {self._called}")

    def _in(self, beside: Run, elsewhere: str) -> str:
        return self._called if self.run.id == beside.id or self.stage == BASE else elsewhere

    @property
    def _called(self) -> str:
        return final_name(self.run) if self.stage in ("", EXPANDED) else self.stage


def tuned_as(run: Run) -> str:
    """Return which baseline a run trained, such as `full`; empty for an expansion, and where no model was trained."""
    return str(run.config.get("baseline") or "")


def final_name(run: Run) -> str:
    """Return the name of a run's final model: `expanded`, or `finetune` for a baseline, which nothing was added to."""
    return FINETUNE if tuned_as(run) else EXPANDED


def title_of_final(run: Run) -> str:
    """Return what people call a run's final model, with its stage: it has no other name where it has no stages."""
    stages = stages_of(run)
    kind = tuned_as(run)
    if kind:
        return f"tuned model ({kind})"
    return f"expanded model ({stages[-1]})" if stages else "expanded model"


def why_no_routing(run: Run) -> str:
    """Return, in a sentence, why there is no routing to look at in a run's model; empty for an expansion."""
    kind = tuned_as(run)
    if kind == "sparse_moe":
        return (
            "This run trained a mixture of experts as a whole, the original experts too, so none of them is the base's "
            "own that tokens could be left to: there is no routing to show as an expansion's."
        )
    if kind:
        return (
            f"This run trained a dense model ({kind}): every token passes through all of it, so there is no routing to "
            "show. What it gained and forgot is on the page Retention, what it writes on Compare."
        )
    return ""


def stages_of(run: Run) -> list[str]:
    """Return the stages of a run's model, oldest first: from its weights, else from its scores; empty for neither."""
    if run.paths.has_checkpoint:
        about = run.paths.checkpoint / BASELINE
        about = about if about.is_file() else run.paths.checkpoint / "adapter_config.json"
        stages = read_json(about).get("stages") or []
        return [str(stage["name"]) for stage in stages]
    table = run.tables.read("stages")
    return [] if table is None else [str(name) for name in dict.fromkeys(table["stage"]) if name != BASE]


def parse_model_ref(text: str, run: Run, root: Path | str) -> ModelRef:
    """Return the model that a text refers to (see above); stages without a run id are those of `run`.

    Args:
        text: as typed; empty for the final model of `run`.
        run: the run that a bare `base`, `expanded` or stage belongs to.
        root: the folder in which other runs are looked for.

    Raises:
        UsageError: no such stage, with the closest one.
        MissingError: no such run.
    """
    text, run_id = text.strip(), run_id_in(text, root)
    if run_id:
        run, text = Run.open(root, run_id), text.partition(":")[2].strip()
    known = stages_of(run)
    if text in ("", EXPANDED, final_name(run), *known[-1:]):
        return ModelRef(run, "")
    if text not in (BASE, *known):
        names = [BASE, EXPANDED, *known]
        raise UsageError(
            f"{text!r} is neither a run nor a stage of run {run.id}; expected a run id or one of {', '.join(names)}."
            f"{did_you_mean(text, names)}"
        )
    return ModelRef(run, text)


def run_id_in(text: str, root: Path | str) -> str:
    """Return the run id in a model reference; empty where it is the base or a stage alone.

    A text that only looks like an id is one, too: then "no such run" says most.
    """
    head, colon, _ = (part.strip() for part in text.partition(":"))
    if RUN_ID_PATTERN.fullmatch(head) is None:
        return ""
    is_there = any((folder / head).is_dir() for folder in (Path(root), Path(root) / EXAMPLES))
    return head if colon or head[:8].isdecimal() or is_there else ""


def analysed_run(run: Run) -> str:
    """Return the id of the run whose model this one only analysed; empty for a run that made a model of its own."""
    return str(run.config.get("run") or "") if run.kind in ANALYSES else ""


def baseline_of(run: Run) -> str:
    """Return the model that a run's changes are measured from: the base, unless an evaluation chose another."""
    return str(run.config.get("before") or BASE) if run.kind in ANALYSES else BASE
