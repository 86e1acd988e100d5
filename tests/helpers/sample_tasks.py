"""Made-up answers to tasks, for runs of tests: in two languages, by the base and two stages."""

import numpy as np

from helpers.sample_scores import STAGES
from lpr_lab.experiments.tasks import write_tasks
from lpr_lab.measure.settings import TaskSettings
from lpr_lab.measure.tasks.scores import ScoredItems, TaskReport, left_out_rows
from lpr_lab.runs.run import Run

SHARES = {"en": (0.8, 0.55, 0.8), "el": (0.3, 0.6, 0.7)}


def answers(texts: str = "", number: int = 120) -> list[ScoredItems]:
    """Return answers: stage 1 makes English worse and Greek better, the review repairs English.

    Args:
        texts: another word makes other items of it.
        number: of items.
    """
    sets = []
    for task in ("choice", "script"):
        for code, shares in SHARES.items():
            luck = np.random.default_rng(len(sets)).random(number)
            right = {name: luck < share for name, share in zip(("base", *STAGES), shares, strict=True)}
            margins = {name: share - luck for name, share in zip(("base", *STAGES), shares, strict=True)}
            names = tuple(f"item {n}" for n in range(number))
            digest = f"{len(sets)}{texts.encode().hex()}".ljust(64, "0")
            role = "original" if code == "en" else "expanded"
            margins = margins if task == "choice" else {}
            sets.append(ScoredItems(task, code, role, "heldout", digest, names, right, margins))
    return sets


def write_answers(run: Run, texts: str = "") -> None:
    """Write the tables of tasks as a run does, one language left out."""
    report = TaskReport(answers(texts), left_out=left_out_rows([("inflection", "el", "there is no <table> of lemmas")]))
    names = {name: name for name in ("base", *STAGES)}
    write_tasks(run, report, TaskSettings(tasks=("choice", "inflection")), names)
