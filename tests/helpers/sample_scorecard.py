"""Made-up runs of a scorecard: what each arm gained and forgot is given, the scores of its documents follow."""

import hashlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lpr_lab.measure.forgetting import ScoredDocuments, bootstrap_draws, change_rows, document_rows
from lpr_lab.runs.run import Run

ROLES = {"en": "original", "es": "original", "hu": "expanded"}
MOE = {"G1 expand": {"hu": -0.05, "en": 0.04, "es": 0.06}, "G1 review": {"hu": -0.045, "en": 0.005, "es": 0.05}}
WITHOUT_LPR = {**MOE, "G1 review": {"hu": -0.046, "en": 0.02, "es": 0.05}}
FULL = {"finetune": {"hu": -0.08, "en": 0.03, "es": 0.09}}
CONFIG = {"base": "tiny", "original": ["en"], "unreviewed": ["es"], "earlier": [], "expanded": ["hu"]}


def arm_run(
    root: Path,
    seed: int,
    stages: dict[str, dict[str, float]],
    noise: float = 0.002,
    config: dict[str, Any] | None = None,
    roles: dict[str, str] = ROLES,
    datasets: Sequence[str] = ("heldout",),
    **further: Any,
) -> Run:
    """Make a finished run.

    Args:
        root: the folder of runs.
        seed: of the noise, and the run's own.
        stages: stage to the change of each language's bits per byte, as a share, such as {"G1 expand": {"hu": -0.05}}.
        noise: standard deviation over seeds of a language's change, as a share.
        config: all settings; `CONFIG` and the seed when not given.
        roles: of every language that is scored.
        datasets: that it is scored on.
        further: of what phases found, by phase.
    """
    run = Run.create(root, kind="expansion", slug="x", title="x", config=config or {**CONFIG, "seed": seed})
    rng, sets = np.random.default_rng(seed), []
    for (code, role), dataset in product(roles.items(), datasets):
        fixed = np.random.default_rng(len(code) + ord(code[0]))  # the same documents in every run
        sizes = fixed.integers(80, 900, 30)
        base = fixed.normal(2.2, 0.25, 30).clip(1) * np.log(2) * sizes
        spread = fixed.normal(0, 0.01, 30)
        nats = {"base": base}
        for stage, changes in stages.items():
            nats[stage] = base * (1 + changes.get(code, 0.0) + spread + rng.normal(0, noise))
        ids = tuple(f"{code}/{number:03}" for number in range(30))
        digest = hashlib.sha256(code.encode()).hexdigest()
        sets.append(ScoredDocuments(code, role, dataset, digest, sizes, nats, ids))
    run.tables.write("documents", document_rows(sets).rename(columns={"model": "stage"}))
    last = list(stages)[-1]
    run.tables.write("change", change_rows(sets, [bootstrap_draws(test, 50) for test in sets], "base", last))
    run.tables.write(
        "stages",
        pd.DataFrame(
            [
                [test.language, test.role, name, test.dataset, test.bits_per_byte(name)]
                for test in sets
                for name in test.nats
            ],
            columns=["language", "role", "stage", "dataset", "bits_per_byte"],
        ),
    )
    for phase, facts in further.items():
        run.phases.record(phase, facts)
    run.finish({"schema_version": 1})
    return run


def scorecard_runs(root: Path) -> Any:
    """Make three seeds of four arms of a card, as `experiments.scorecard` would, and return the card."""
    from lpr_lab.experiments.scorecard.plan import card_for, experiment_of

    card = card_for(expanded=("hu",))
    stages = {"moe_lpr": MOE, "moe_lpr again": MOE, "review_without_lpr": WITHOUT_LPR, "full_replay": FULL}
    for name, of_arm in stages.items():
        for seed in range(3):
            config = experiment_of(card, name, seed).to_config()
            arm_run(root, config["seed"] + 7 * len(name), of_arm, config=config, plan={"new_experts": [1] * 5})
    return card


def language_run(root: Path, code: str, change: float, seed: int = 0, **facts: float) -> Run:
    """Make a finished run of one language of the small world that changed by so much, as a share."""
    from lpr_lab.experiments.each_language.plan import ARM, PHASE, card_of
    from lpr_lab.experiments.scorecard.plan import experiment_of

    config = experiment_of(card_of("small-world", code), ARM, seed).to_config()
    changes = {"G1 expand": {code: change, "en": 0.01, "es": 0.02}}
    run = arm_run(root, seed + len(code), changes, config=config, roles={**ROLES, code: "expanded"})
    run.phases.record(PHASE, facts)
    return run


def tiny_card(materials: Path) -> Any:
    """Return the card of a tiny base, to be trained in seconds."""
    from lpr_lab.experiments.scorecard.plan import card_for

    return card_for(
        str(materials / "base"),
        corpus=str(materials / "corpus.jsonl"),
        original=("en",),
        unreviewed=("es",),
        expanded=("el",),
        further=("tr",),
        stage1_tokens=128,
        stage2_tokens=64,
        block_tokens=32,
        blocks_per_step=2,
        eval_tokens_per_language=200,
    )
