"""Runs the steps of a training stage: progress, logging, divergence, time limit, checkpoints and interrupts."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from lpr_lab.method.training.checkpoints import Progress
from lpr_lab.method.training.step import Metrics, Stepper
from lpr_lab.model.observe import Observed, observe
from lpr_lab.progress import progress as progress_bar

if TYPE_CHECKING:
    from lpr_lab.method.training.train import TrainSettings

_ADVICE = "It goes on; results will say so. Lower the learning rate, or warm up longer."


@dataclass
class Loop:
    """The steps that are left of a stage.

    Attributes:
        stepper: makes them.
        settings: of the stage.
        scheduler: of the optimizer's rates.
        done: how far the stage is; kept up to date.
        save: writes a checkpoint; called on every process.
        label: of the progress bar.
        log: told the numbers of every step.
    """

    stepper: Stepper
    settings: "TrainSettings"
    scheduler: LRScheduler
    done: Progress
    save: Callable[[], object]
    label: str
    log: Callable[[Metrics], None] | None

    def run(self) -> tuple[Metrics, str]:
        """Make the steps; return the numbers of the last one, and what ended the stage: `tokens` or `max_minutes`.

        Raises:
            KeyboardInterrupt: after the step under way was finished and saved.
        """
        metrics: Metrics = {}
        done, settings, processes = self.done, self.settings, self.stepper.processes
        tokens_per_step = self.stepper.schedule.tokens_per_step
        progress: AbstractContextManager[tqdm] = tqdm(disable=True)
        if processes.is_main_process:
            progress = progress_bar(settings.tokens, self.label, "token", initial=done.step * tokens_per_step)
        last_saved = time.monotonic()
        with progress as bar, _defer_interrupts() as interrupted:
            while done.step < settings.num_steps:
                metrics = self._step(is_first=not metrics)
                self._warn_of_divergence(metrics, bar)
                bar.update(tokens_per_step)
                note = ", diverges" * done.divergence.is_diverging
                bar.set_postfix_str(f"loss={metrics['loss']:.3f}{note}", refresh=False)
                if self.log is not None and processes.is_main_process:
                    self.log({"step": done.step, "tokens": done.tokens, "seconds": done.seconds, **metrics})
                interrupt, out_of_time, due = self.stepper.any_rank(
                    interrupted.is_set(),
                    settings.max_minutes is not None and done.seconds >= 60 * settings.max_minutes,
                    time.monotonic() - last_saved >= 60 * settings.checkpoint_minutes,
                )
                if interrupt or out_of_time or due or done.step == settings.num_steps:
                    self.save()
                    processes.wait_for_everyone()
                    last_saved = time.monotonic()
                if interrupt:
                    raise KeyboardInterrupt(f"{self.label} was interrupted after step {done.step}; its work is saved.")
                if out_of_time and done.step < settings.num_steps:
                    return metrics, "max_minutes"
        return metrics, "tokens"

    def _step(self, *, is_first: bool) -> Metrics:
        """Make one step; the first one of a session is observed."""
        started, done, stepper, seen = time.monotonic(), self.done, self.stepper, Observed()
        lr = stepper.optimizer.param_groups[0]["lr"]
        autocast = torch.bfloat16 if stepper.is_bf16 else None
        with observe(stepper.model, seen, autocast) if is_first else nullcontext():
            metrics, counts = stepper.gradients(done.step)
        if is_first:
            done.observed = seen.facts()
        stepper.update()
        self.scheduler.step()
        done.step += 1
        done.observed["blocks_per_forward"] = stepper.blocks_per_forward
        done.tokens += int(metrics.pop("num_tokens"))
        done.counts = {name: done.counts.get(name, 0) + count for name, count in counts.items()}
        done.seconds += time.monotonic() - started
        return metrics | {"lr": lr, "tokens_per_second": done.tokens / done.seconds}

    def _warn_of_divergence(self, metrics: Metrics, bar: tqdm) -> None:
        done, divergence = self.done, self.done.divergence
        noticed = divergence.update(done.step, metrics["loss"], metrics["grad_norm"], self.settings.max_grad_norm)
        if divergence.diverged is None:
            return
        if noticed and self.stepper.processes.is_main_process:
            why = divergence.diverged["why"]
            bar.write(f"{self.label} diverges at step {done.step}: {why}. {_ADVICE}", file=sys.stderr)
        metrics["diverged"] = float(divergence.is_diverging)


@contextmanager
def _defer_interrupts() -> Iterator[threading.Event]:
    """Let the step under way finish when Ctrl-C or a termination arrives; a second one stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def wait(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, wait) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
