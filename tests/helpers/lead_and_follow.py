"""A whole run as every one of several processes that a launcher started makes it: `lab.run`, twice.

    torchrun --nproc-per-node 2 tests/helpers/lead_and_follow.py FOLDER

FOLDER holds `base` and `corpus.jsonl`; runs go to FOLDER/runs.
"""

import os
import sys
from pathlib import Path

from helpers.tiny_corpus import small_settings
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import StageBudget

BUDGET = StageBudget(tokens=3 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)


def main(folder: Path) -> None:
    """Make two runs one after the other, and say which process saw which."""
    for recipe in ("route_first", "moe_lpr"):
        run = pipeline.run(recipes.named(recipe, **small_settings(folder, BUDGET)), root=folder / "runs")
        print(f"rank {os.environ.get('RANK')}: {recipe} {run.id} {run.status.state}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
