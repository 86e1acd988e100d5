"""The training of several runs in one table, lined up by stage and by tokens."""

from collections.abc import Sequence

import pandas as pd

from lpr_lab.runs.run import Run


def training_of(runs: Sequence[Run]) -> pd.DataFrame:
    """Return every number that the runs logged: column `run` (its id), then those of `run.metrics.read()`."""
    parts = [run.metrics.read().assign(run=run.id) for run in runs]
    kept = [part for part in parts if not part.empty]
    columns = ["run", *(runs[0].metrics.columns if runs else ())]
    return pd.concat(kept, ignore_index=True)[columns] if kept else pd.DataFrame(columns=columns)


def at_common_tokens(metrics: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return how one number of each run stands in each stage: at its end, and where the shortest run of it ended.

    Runs of different lengths are compared fairly only after the same number of tokens. One number of one step is no
    measurement of a model: what differs here may be the text of that step.

    Args:
        metrics: columns run, stage, step, tokens, name, value.
        name: of the number.

    Returns:
        Columns stage, run, tokens (at its end), first, last, common_tokens, at_common (the newest value up to there).
    """
    rows = metrics[(metrics["name"] == name) & metrics["value"].notna()]
    found = []
    for stage, of_stage in rows.groupby("stage", sort=False):
        common = int(of_stage.groupby("run")["tokens"].max().min())
        for run, part in of_stage.groupby("run", sort=False):
            ordered = part.sort_values("step")
            values, before = ordered["value"], ordered[ordered["tokens"] <= common]["value"]
            found.append(
                {
                    "stage": stage,
                    "run": run,
                    "tokens": int(ordered["tokens"].max()),
                    "first": values.iloc[0],
                    "last": values.iloc[-1],
                    "common_tokens": common,
                    "at_common": before.iloc[-1] if len(before) else None,
                }
            )
    return pd.DataFrame(found, columns=["stage", "run", "tokens", "first", "last", "common_tokens", "at_common"])
