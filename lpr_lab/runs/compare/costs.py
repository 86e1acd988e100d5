"""What a run cost: parameters, file, minutes, speed and memory; the same for expansions and baselines. Torch-free."""

from typing import Any

from lpr_lab.runs.run import Run


def costs_of(run: Run) -> dict[str, float]:
    """Return what is known of a run's cost, by name; what was not recorded is left out.

    trained_parameters, active_parameters (of one token), file_bytes (all files of weights), training_seconds,
    tokens_per_second (of the steps that were trained by gradient), peak_memory_bytes (of the process that trained,
    since it began; on a GPU, of what torch held there).
    """
    phases = run.phases
    steps = [phases.get(str(step)) or {} for step in run.config.get("steps") or ()]
    trained = [step for step in steps if step.get("tokens")]
    seconds = sum(float(step.get("seconds") or 0) for step in trained)
    found: dict[str, Any] = dict(run.results.get("cost") or {})
    if trained:
        found["training_seconds"] = seconds
    if seconds:
        found["tokens_per_second"] = sum(int(step["tokens"]) for step in trained) / seconds
    peaks = [int(step["peak_memory_bytes"]) for step in steps if step.get("peak_memory_bytes")]
    if peaks:
        found["peak_memory_bytes"] = max(peaks)
    return found
