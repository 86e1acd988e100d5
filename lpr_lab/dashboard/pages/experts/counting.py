"""What a run lacks of what page `/experts` shows: why, and counting it now, in the queue for models."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.experts.data import why_not_counted
from lpr_lab.dashboard.server.models import MODELS, why_no_model
from lpr_lab.dashboard.shell import status
from lpr_lab.errors import LprError
from lpr_lab.runs.model_ref import why_no_routing
from lpr_lab.runs.run import Run
from lpr_lab.views.numbers import duration


def can_count(run: Run) -> bool:
    """Whether a run has what counting needs: weights, and the name of its text."""
    return why_no_model(run) is None and "corpus" in run.config


def not_counted(run: Run, *, nothing: bool) -> dict[str, Any]:
    """Return what stands where something was not measured: why, and how to measure it."""
    if dense := why_no_routing(run):
        hidden = gr.update(visible=False)
        return {"panels" if nothing else "missing": shell.card("No experts" if nothing else "Not counted", dense)} | {
            "count": hidden,
            "stop": hidden,
        }
    reason = why_not_counted(run)
    can = can_count(run)
    if can:
        seconds = _expected_seconds(run)
        about = f", about {duration(seconds)} if this machine is as quick as then" if seconds else ""
        how = (
            f"{reason} It can be done now{about}: the model reads the run's test texts once per stage; texts that are "
            "not in the cache are fetched first. Nothing else in the run changes."
        )
        card = shell.missing("Not counted yet", how)
    elif run.status.state in ("running", "queued"):
        card = shell.missing("Not counted yet", reason)
    elif there := shell.elsewhere(run, "/experts"):
        card = shell.card("Not counted here", there)
    else:
        more = "" if run.is_example or "weights" in reason else f" {why_no_model(run) or ''}"
        how = f"{reason}{more} A new run counts all of it; the same command goes on with one that was interrupted."
        card = shell.missing("Not measured", how, "lpr-lab demo")
    count = gr.update(visible=can, interactive=True)
    return {"panels" if nothing else "missing": card, "count": count, "stop": gr.update(visible=can, interactive=False)}


def _expected_seconds(run: Run) -> float | None:
    """Return how long measuring took when the run was made: two passes over the same text, one of them the base's."""
    seconds = run.phases.seconds.get("measure")
    return float(seconds) / 2 if seconds else None


def count_now(runs_dir: Path, params: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Count what experts do for a run that lacks it; yields (status line, whether the page should be drawn again)."""
    run = shell.page_context(runs_dir, params).run
    if run is None:
        yield status("There is no run to count for."), False
        return
    reason = why_no_model(run)
    if reason is not None:
        yield status(f"{reason} Nothing was counted.", bad=True), False
        return
    yield status("Loading the model…" if not MODELS.is_loaded(run) else "Counting…", busy=True), False
    started = time.monotonic()
    try:
        from lpr_lab.experiments.expert_tables import measure_experts

        for step in measure_experts(run, lambda: MODELS.use(run)):
            spent = time.monotonic() - started
            # By tokens: texts of languages are of different length.
            left = f", {duration(spent / step.share * (1 - step.share))} left" if step.done > 1 and step.share else ""
            yield status(f"Counting {step.done} of {step.total}: {step.doing}{left}", busy=True), False
    except LprError as error:
        yield status(str(error), bad=True), False
        return
    except OSError as error:
        yield status(f"The tables could not be written ({error.strerror or error}).", bad=True), False
        return
    yield status(f"Counted in {duration(time.monotonic() - started)}; kept with the run."), True
