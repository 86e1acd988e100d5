"""The training loop of both stages and of the baselines.

Batches in, named loss terms out; the loop does not know run directories or languages. What a stage trains on is a
`BlockSchedule`, what it minimises a list of `Term`s, and what learns is whatever has `requires_grad`: part of an
expansion, another adapter, or a whole model.

Gradients do not depend on how a step is split (see `step`): one process with one micro-batch, gradient accumulation and
several processes (`torchrun`) give the same ones up to rounding. Dropout is the exception, where a base has it (of the
usual families GPT-2 does): its masks are drawn per micro-batch and rank.

Whatever a stage sets, on the model or in the process, ends with it, however it ends; and what it says that it computed
with was seen in its first step.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm
from transformers import PreTrainedModel

from lpr_lab.errors import UsageError
from lpr_lab.method.training.budget import StageBudget
from lpr_lab.method.training.checkpoints import (
    Progress,
    load_checkpoint,
    newest_checkpoint,
    restore_rng,
    rng_state,
    save_checkpoint,
    starting_fingerprint,
)
from lpr_lab.method.training.compute import (
    FLASH,
    check_attention,
    compute_options,
    fresh_gradients,
    on_device,
    resolve_attention,
)
from lpr_lab.method.training.processes import join_processes
from lpr_lab.method.training.rates import make_scheduler
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.method.training.step import Metrics, Stepper
from lpr_lab.method.training.terms import Term
from lpr_lab.model.adapter import moe_layers, trainable_parameters
from lpr_lab.model.bases.embedded import learning_rates
from lpr_lab.model.capture import RoutingRecord, record_routing
from lpr_lab.model.machine import default_device, keep_freed_memory, resolve_precision
from lpr_lab.model.observe import Observed, observe
from lpr_lab.model.peft import PeftModel
from lpr_lab.progress import progress as progress_bar
from lpr_lab.text.packing import in_mode, refuse_if_documents_mix

_ADVICE = "It goes on; results will say so. Lower the learning rate, or warm up longer."

_WITHOUT_INFLUENCE = ("max_minutes", "checkpoint_minutes", "attention", "activation_checkpointing", "compile")
"""Settings that do not change what a step learns, so that a stage can go on with others."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(StageBudget):
    """How a stage trains. `tokens` and `max_minutes` both end it cleanly; the first one reached counts."""

    blocks_per_forward: int = 4
    """Blocks that fit into memory at once; the rest is gradient accumulation."""
    precision: str = "auto"
    """`fp32`, `bf16` (autocast; weights stay as they are), or `auto`: bf16 where the processor computes with it."""
    attention: str = "auto"
    """`flash_attention_2`, the model's own (`as_loaded`), or `auto`: the former where it can be had."""
    activation_checkpointing: bool = False
    """Run each layer again in the backward pass instead of keeping its states: less memory, a third more time."""
    compile: bool = False
    """Compile what surrounds the mixtures, which takes a minute before the first step."""
    checkpoint_minutes: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        resolve_precision(self.precision)
        check_attention(self.attention)


def train_settings(budget: StageBudget | None, model: torch.nn.Module, tokens: int, **further: Any) -> TrainSettings:
    """Return how a stage trains, with what its budget leaves open: the rates that suit the base, and the micro-batch.

    Args:
        budget: or settings, which keep what they say; None for one of `tokens` tokens.
        model: whose base decides.
        tokens: of a stage that is given no budget.
        further: of `TrainSettings`, beside what a budget has.
    """
    budget = budget or StageBudget(tokens=tokens)
    experts, routers = learning_rates(getattr(model.config, "name_or_path", ""))
    given = {name: value for name, value in asdict(budget).items() if value is not None}
    at_once = next(size for size in (4, 3, 2, 1) if budget.blocks_per_step % size == 0)
    filled = {"learning_rate": experts, "router_learning_rate": routers, "blocks_per_forward": at_once}
    return TrainSettings(**{**filled, **given, **further})


def train(
    model: PeftModel | PreTrainedModel,
    schedule: BlockSchedule,
    terms: Sequence[Term],
    settings: TrainSettings,
    *,
    out: Path,
    label: str,
    log: Callable[[Metrics], None] | None = None,
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train what is trainable in `model` and return what happened; resumes from the newest checkpoint in `out`.

    Args:
        model: an expanded model, one with another adapter, or a plain one; the caller has said what learns
            (`set_trainable`, `baselines`).
        schedule: the blocks of every step.
        terms: the parts of the loss.
        settings: budgets, rates, precision.
        out: the stage's folder, for checkpoints.
        label: of the progress bar.
        log: called after every step with numbers by name (`step`, `tokens`, `seconds`, `loss`, each term, `lr`, ...).
        facts: further settings that a checkpoint must share to be continued.

    Returns:
        steps, tokens, seconds, tokens_per_second, stopped_by (`tokens` or `max_minutes`); `precision` and
        `computed_with` as they were seen in the first step of the last session; `diverged`, None or where and why
        (see `divergence`);
        last metrics, and `terms`: for each its coefficient, its variant and how many tokens it saw over all sessions of
        the stage.

    Raises:
        UsageError: nothing learns, or what learns is not float32, several processes cannot share a step equally, or
            the checkpoint there was made with other settings.
        LprError: the loss is not finite, the message names the step and its blocks; or products are made in another
            precision than was asked for.
        KeyboardInterrupt: after the step under way was finished and saved.
    """
    settings = train_settings(settings, model, settings.tokens)
    processes = join_processes()
    device = default_device()
    named = list(trainable_parameters(model))
    if not named:
        raise UsageError("Nothing learns in this model: call it on one from lpr_lab.upcycle or method.baselines.")
    _refuse_small_numbers(named)
    if settings.blocks_per_step % processes.num_processes:
        raise UsageError(
            f"blocks_per_step = {settings.blocks_per_step} cannot be shared equally by {processes.num_processes} "
            "processes; use a multiple of their number."
        )
    precision = resolve_precision(settings.precision)
    with ExitStack() as stack:
        # All that a stage sets, on the model or in the process, for as long as it lasts.
        stack.enter_context(_preserve_random_state())
        if device.type == "cpu":
            stack.enter_context(keep_freed_memory())
        stack.enter_context(on_device(model, device))
        stack.enter_context(torch.autocast(device.type, enabled=False))  # whoever calls may have another in mind
        stack.enter_context(fresh_gradients(model))
        optimizer = make_optimizer(named, settings)
        scheduler = make_scheduler(
            optimizer, settings.num_steps, settings.warmup_fraction, settings.final_learning_rate_fraction
        )
        facts = {
            "settings": {name: value for name, value in asdict(settings).items() if name not in _WITHOUT_INFLUENCE},
            "data": schedule.ledger(min(settings.num_steps, 32)),
            "base": starting_fingerprint(model),
            "world_size": processes.num_processes,
            "terms": {term.name: term.describe() for term in terms},
            **({"warmup": "from its first step"} if settings.warmup_fraction else {}),
            **(facts or {}),
        }
        done = Progress()
        out = Path(out)
        with processes.main_process_first():  # one process moves damaged checkpoints aside, the others find it done
            checkpoint = newest_checkpoint(out, processes.print)
        if checkpoint is not None:
            done = load_checkpoint(checkpoint, model, optimizer, scheduler, facts, processes.print)
            processes.print(f"{label}: resuming from {checkpoint.name} ({done.tokens:,} tokens done).")
        # A property of the base's attention, looked at in the base's own precision.
        with model.disable_adapter() if isinstance(model, PeftModel) else nullcontext():
            refuse_if_documents_mix(model)
        attention = resolve_attention(settings.attention, model, precision)
        stack.enter_context(in_mode(model, training=True))
        ways = {"activation_checkpointing": settings.activation_checkpointing, "compiled": settings.compile}
        stack.enter_context(compute_options(model, attention=attention, **ways))
        record = stack.enter_context(record_routing(model)) if moe_layers(model) else RoutingRecord()
        stepper = Stepper(
            model,
            schedule,
            terms,
            optimizer,
            record,
            processes,
            blocks_per_forward=settings.blocks_per_forward,
            max_grad_norm=settings.max_grad_norm,
            seed=settings.seed,
            is_bf16=precision == "bf16",
            in_one_row=attention == FLASH,
        )
        save = partial(save_checkpoint, out, model, optimizer, scheduler, done, facts)
        bar = stack.enter_context(_bar(settings, schedule, done, label, processes))
        interrupted = stack.enter_context(_defer_interrupts())
        metrics, stopped_by = _steps(stepper, settings, done, scheduler, bar, interrupted, save, label, log)
    return {
        "steps": done.step,
        "tokens": done.tokens,
        "seconds": round(done.seconds, 1),
        "tokens_per_second": round(done.tokens / max(done.seconds, 1e-9), 1),
        "stopped_by": stopped_by,
        **done.observed,
        "diverged": done.divergence.diverged,
        "terms": {term.name: term.describe() | {term.unit: done.counts.get(term.name, 0)} for term in terms},
        "last": metrics,
    }


def _steps(
    stepper: Stepper,
    settings: TrainSettings,
    done: Progress,
    scheduler: LRScheduler,
    bar: tqdm,
    interrupted: threading.Event,
    save: Callable[[], object],
    label: str,
    log: Callable[[Metrics], None] | None,
) -> tuple[Metrics, str]:
    """Make the steps that are left; return the numbers of the last one, and what ended the stage."""
    metrics: Metrics = {}
    is_main, tokens_per_step = stepper.processes.is_main_process, stepper.schedule.tokens_per_step
    autocast = torch.bfloat16 if stepper.is_bf16 else None
    seen, is_first, last_saved = Observed(), True, time.monotonic()
    while done.step < settings.num_steps:
        started = time.monotonic()
        lr = stepper.optimizer.param_groups[0]["lr"]
        with observe(stepper.model, seen, autocast) if is_first else nullcontext():
            metrics, counts = stepper.gradients(done.step)
        done.observed = seen.facts()
        is_first = False
        stepper.update()
        scheduler.step()
        done.step += 1
        done.tokens += int(metrics.pop("num_tokens"))
        done.counts = {name: done.counts.get(name, 0) + count for name, count in counts.items()}
        done.seconds += time.monotonic() - started
        metrics |= {"lr": lr, "tokens_per_second": done.tokens / done.seconds}
        noticed = done.divergence.see(done.step, metrics["loss"], metrics["grad_norm"], settings.max_grad_norm)
        if done.divergence.diverged is not None:
            if noticed and is_main:
                why = done.divergence.diverged["why"]
                bar.write(f"{label} diverges at step {done.step}: {why}. {_ADVICE}", file=sys.stderr)
            metrics["diverged"] = float(done.divergence.is_diverging)
        bar.update(tokens_per_step)
        bar.set_postfix_str(f"loss={metrics['loss']:.3f}" + ", diverges" * done.divergence.is_diverging, refresh=False)
        if log is not None and is_main:
            log({"step": done.step, "tokens": done.tokens, "seconds": done.seconds, **metrics})
        interrupt, out_of_time, due = stepper.any_rank(
            interrupted.is_set(),
            settings.max_minutes is not None and done.seconds >= 60 * settings.max_minutes,
            time.monotonic() - last_saved >= 60 * settings.checkpoint_minutes,
        )
        if interrupt or out_of_time or due or done.step == settings.num_steps:
            if is_main:
                save()
            stepper.processes.wait_for_everyone()
            last_saved = time.monotonic()
        if interrupt:
            raise KeyboardInterrupt(f"{label} was interrupted after step {done.step}; its work is saved.")
        if out_of_time and done.step < settings.num_steps:
            return metrics, "max_minutes"
    return metrics, "tokens"


def _bar(
    settings: TrainSettings, schedule: BlockSchedule, done: Progress, label: str, processes: PartialState
) -> AbstractContextManager[tqdm]:
    if not processes.is_main_process:
        return tqdm(disable=True)
    return progress_bar(settings.tokens, label, "token", initial=done.step * schedule.tokens_per_step)


@contextmanager
def _preserve_random_state() -> Iterator[None]:
    """Leave the random numbers of whoever calls as if nothing had been drawn."""
    before = rng_state()
    try:
        yield
    finally:
        restore_rng(before)


def _refuse_small_numbers(named: Sequence[tuple[str, torch.nn.Parameter]]) -> None:
    """Refuse to train what is not float32, and with it AdamW's moments: most small steps would be rounded away."""
    for name, parameter in named:
        if parameter.dtype != torch.float32:
            raise UsageError(
                f"{name} is to learn and is {parameter.dtype}, where most small steps are rounded away; expected "
                "float32. Experts, routers and the baselines' own weights are float32 unless the model was converted "
                "afterwards; precision='bf16' makes products in bfloat16 and keeps the weights."
            )


def make_optimizer(named: Sequence[tuple[str, torch.nn.Parameter]], settings: TrainSettings) -> torch.optim.AdamW:
    """Return AdamW over what learns, routers and routing classifiers at their own rate.

    Fused: one pass over each tensor instead of a dozen, a fifth of the time on a processor (docs/performance.md).
    """
    routes = [(n, p) for n, p in named if "moe_lpr_router" in n or "moe_lpr_classifier" in n]
    computes = [(n, p) for n, p in named if "moe_lpr_router" not in n and "moe_lpr_classifier" not in n]
    rates = [(computes, settings.learning_rate), (routes, settings.router_learning_rate)]
    groups = [{"params": members, "lr": rate} for members, rate in rates if members]
    betas = (0.9, settings.adam_beta2)
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, betas=betas, fused=True)


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
