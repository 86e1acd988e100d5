"""Find or make the run that a single stage continues from: an upcycled run for stage 1, a stage-1 run for stage 2.

The one that was named, else the newest that suits, else one made here and left as a run to look at.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.studies import upcycle as upcycling
from lpr_lab.experiments.studies.predecessors import begun_from, find_predecessor, runs_folder
from lpr_lab.experiments.studies.upcycle import UpcyclingSettings
from lpr_lab.runs.run import Run


def upcycled(
    from_run: str = "", run_dir: str | Path = "", root: str | Path | None = None, *, settings: UpcyclingSettings
) -> Run:
    """Return the run that stage 1 goes on from.

    Args:
        from_run: its id; empty to have it found, or made with `settings`.
        run_dir: the directory of the run that goes on; one that was begun before keeps to what it began with.
        root: the folder of runs; that of `run_dir`, or the usual one, when not given.
        settings: where `from_run` is empty, the base that is meant, and what is made where no run of it is there.

    Raises:
        UsageError: the run that was named is not an upcycled one with weights.
    """
    root = runs_folder(run_dir, root)
    named = begun_from(run_dir) or from_run
    return find_predecessor(
        root,
        named,
        suits=lambda run: (
            run.kind == upcycling.KIND
            and run.paths.has_checkpoint
            and (bool(named) or run.config["base"] == settings.base)
        ),
        what=f"an upcycled model{'' if named else f' of {settings.base}'} with its weights (03_upcycle)",
        make=lambda: upcycling.make(settings, root=root),
    )


def after_stage1(
    from_run: str = "",
    run_dir: str | Path = "",
    root: str | Path | None = None,
    *,
    how: str = "review",
    base: str,
    corpus: str,
    original: Sequence[str],
    expanded: Sequence[str],
    **changes: Any,
) -> Run:
    """Return the run that stage 2 goes on from.

    Args:
        from_run: as in `upcycled`.
        run_dir: as there.
        root: as there.
        how: `review` or `local_review`; the second needs routers with a constant per expert.
        base: where `from_run` is empty, the base that is meant; the same for the text.
        corpus: see `base`.
        original: see `base`.
        expanded: see `base`.
        changes: of stage 1, where it has to be made (see `recipes.stage1`).

    Raises:
        UsageError: the run that was named is not a run of stage 1 that this review can go on from.
    """
    root = runs_folder(run_dir, root)
    named = begun_from(run_dir) or from_run
    text: dict[str, Any] = {"corpus": corpus, "original": list(original), "expanded": list(expanded)}
    asked = {"base": base, **text}

    def suits(run: Run) -> bool:
        fit = run.kind == "stage1" and run.paths.has_checkpoint and (how == "review" or run.config["router_bias"])
        return bool(fit) and (bool(named) or all(run.config[name] == value for name, value in asked.items()))

    def make() -> Run:
        begun = upcycled(root=root, settings=UpcyclingSettings(base=base, seed=changes.get("seed", 0)))
        experiment = recipes.stage1(begun, **text, **changes)
        return pipeline.run(experiment, root=root)

    constant = ", whose routers have a constant per expert" if how != "review" else ""
    where = "" if named else f" on {', '.join(expanded)} beside {', '.join(original)}"
    what = f"a run of stage 1{where} with its weights{constant} (04_stage1_post_pretrain)"
    return find_predecessor(root, named, suits=suits, what=what, make=make)
