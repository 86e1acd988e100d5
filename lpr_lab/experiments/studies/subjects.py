"""Find the run to analyse, or create a short one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import LprError
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import Experiment, StageBudget, completed
from lpr_lab.experiments.studies.predecessors import find_predecessor
from lpr_lab.method.baselines.files import load_trained
from lpr_lab.model.formats.save_load import load_tokenizer
from lpr_lab.runs.model_ref import analysed_run, tuned_as
from lpr_lab.runs.run import Run

WHAT = "a finished expansion with its weights"


def short_expansion() -> Experiment:
    """Return an expansion of about three minutes on two cores: two languages, a sixth of the demo's text."""
    return recipes.route_first(
        original=("en", "es"),
        expanded=("el", "tr"),
        stage1=StageBudget(tokens=10_240),
        fit_tokens_per_language=2048,
        eval_tokens_per_language=2048,
    )


def has_default_settings(run: Run) -> bool:
    """Whether a run was made with the demo's or the short expansion's settings, so that what it shows is known."""
    return completed(run.config) in (recipes.route_first().to_config(), short_expansion().to_config())


def has_model(run: Run) -> bool:
    """Whether a run is a finished expansion whose model can be loaded."""
    return has_any_model(run) and not tuned_as(run)


def has_any_model(run: Run) -> bool:
    """Whether a run is a finished expansion or baseline whose model can be loaded."""
    try:
        config = run.config
    except LprError:
        return False
    made = {"base", "corpus", "original", "expanded"} <= set(config) and not analysed_run(run)
    return made and run.paths.has_checkpoint and run.status.recorded_state == "finished"


def scored(run_id: str) -> Callable[[Run], bool]:
    """Return which runs can be scored and can write: any model that is named, and of those that are not expansions."""
    return has_any_model if run_id else has_model


def find_subject(root: Path | str, run_id: str = "", suits: Callable[[Run], bool] = has_model, what: str = WHAT) -> Run:
    """Return the run to analyse: the one named, else the newest that suits, else a short expansion made now.

    Raises:
        MissingError, UsageError: see `predecessors.find_predecessor`.
    """
    return find_predecessor(
        root, run_id, suits=suits, what=what, make=lambda: pipeline.run(short_expansion(), root=root)
    )


def load_model(run: Run) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return a run's model, verified, and its tokenizer: a `PeftModel`, the expansion, or a `Tuned`, a baseline."""
    return load_trained(run.path), load_tokenizer(run.path)


def languages_in(run: Run) -> dict[str, str]:
    """Return the languages of a run in its order, each with its role: `original` or `expanded`."""
    config = run.config
    roles = dict.fromkeys([*config["original"], *config.get("unreviewed", ())], "original")
    return roles | dict.fromkeys([*config.get("earlier", ()), *config["expanded"]], "expanded")
