"""One plain training loop, read from top to bottom; both stages run through it, and so do the papers' baselines.

Batches in, named loss terms out. Hugging Face Accelerate carries devices, mixed precision and several processes; the
loop does not know run directories or languages. What a stage trains on is a `BlockSchedule`, what it minimises a list
of `Term`s, and what learns is whatever has `requires_grad`: part of an expansion, another adapter, or a whole model.

Each term is a sum over tokens divided by how many such tokens the *whole* optimiser step has, over all micro-batches
and ranks. So gradients do not depend on how a step is split: one process with one micro-batch, gradient accumulation
and several processes (`torchrun`) give the same ones up to rounding. Dropout is the exception, where a base has it (of
the usual families GPT-2 does): its masks are drawn per micro-batch and rank.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tqdm import tqdm
from transformers import PreTrainedModel, get_cosine_with_min_lr_schedule_with_warmup

from lpr_lab.errors import LprError, UsageError
from lpr_lab.method.budget import StageBudget
from lpr_lab.method.checkpoints import (
    Progress,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    starting_fingerprint,
)
from lpr_lab.method.schedule import BlockSchedule
from lpr_lab.method.terms import Batch, Forward, Term
from lpr_lab.model.adapter import moe_layers, trainable_parameters
from lpr_lab.model.capture import RoutingRecord, decoder_of, record_routing
from lpr_lab.model.compute import FLASH, as_one_row, check_attention, computing, resolve_attention
from lpr_lab.model.embedded import learning_rates
from lpr_lab.model.heap import give_freed_memory_back, keep_freed_memory
from lpr_lab.model.machine import resolve_precision
from lpr_lab.model.peft import PeftModel
from lpr_lab.progress import progress as progress_bar
from lpr_lab.text.packing import refuse_if_documents_mix

Metrics = dict[str, float]


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
        steps, tokens, seconds, tokens_per_second, stopped_by (`tokens` or `max_minutes`), precision, computed_with,
        last metrics, and `terms`: for each its coefficient, its variant and how many tokens it saw over all sessions of
        the stage.

    Raises:
        UsageError: nothing learns, or what learns is not float32, several processes cannot share a step equally, or
            the checkpoint there was made with other settings.
        LprError: the loss is not finite; the message names the step and its blocks.
        KeyboardInterrupt: after the step under way was finished and saved.
    """
    settings = train_settings(settings, model, settings.tokens)
    # Accelerate keeps one state per process; a stage may compute in another precision than the one before it.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision="bf16" if resolve_precision(settings.precision) == "bf16" else "no",
        cpu=not torch.cuda.is_available(),
    )
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    named = list(trainable_parameters(model))
    if not named:
        raise UsageError("Nothing learns in this model: call it on one from lpr_lab.upcycle or method.baselines.")
    _refuse_small_numbers(named)
    if settings.blocks_per_step % accelerator.num_processes:
        raise UsageError(
            f"blocks_per_step = {settings.blocks_per_step} cannot be shared equally by {accelerator.num_processes} "
            "processes; use a multiple of their number."
        )
    optimizer = make_optimizer(named, settings)
    scheduler = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer,
        num_warmup_steps=math.ceil(settings.warmup_fraction * settings.num_steps),
        num_training_steps=settings.num_steps,
        min_lr_rate=settings.final_learning_rate_fraction,
    )
    facts = {
        "settings": {name: value for name, value in asdict(settings).items() if name not in _WITHOUT_INFLUENCE},
        "data": schedule.ledger(min(settings.num_steps, 32)),
        "base": starting_fingerprint(model),
        "world_size": accelerator.num_processes,
        "terms": {term.name: term.describe() for term in terms},
        **(facts or {}),
    }
    done = Progress()
    out = Path(out)
    with accelerator.main_process_first():  # one process moves damaged checkpoints aside, the others find it done
        checkpoint = newest_checkpoint(out, accelerator.print)
    if checkpoint is not None:
        done = load_checkpoint(checkpoint, model, optimizer, scheduler, facts)
        accelerator.print(f"{label}: resuming from {checkpoint.name} ({done.tokens:,} tokens done).")
    # A property of the base's attention, looked at in the base's own precision.
    with model.disable_adapter() if isinstance(model, PeftModel) else nullcontext():
        refuse_if_documents_mix(model)
    wrapped = accelerator.prepare_model(model)
    attention = resolve_attention(settings.attention, model, resolve_precision(settings.precision))
    was_training = model.training
    model.train()
    metrics: Metrics = {}
    stopped_by = "tokens"
    last_saved = time.monotonic()
    try:
        with (
            record_routing(model) if moe_layers(model) else nullcontext(RoutingRecord()) as record,
            progress_bar(settings.tokens, label, "token", initial=done.step * schedule.tokens_per_step)
            if accelerator.is_main_process
            else tqdm(disable=True) as bar,
            computing(
                model,
                attention=attention,
                activation_checkpointing=settings.activation_checkpointing,
                compiled=settings.compile,
            ),
            _interrupts_wait() as interrupted,
        ):
            while done.step < settings.num_steps:
                started = time.monotonic()
                lr = optimizer.param_groups[0]["lr"]
                metrics, counts = _step(
                    accelerator,
                    wrapped,
                    schedule,
                    done.step,
                    terms,
                    settings,
                    optimizer,
                    record,
                    in_one_row=attention == FLASH,
                )
                scheduler.step()
                done.step += 1
                done.tokens += int(metrics.pop("num_tokens"))
                done.counts = {name: done.counts.get(name, 0) + count for name, count in counts.items()}
                done.seconds += time.monotonic() - started
                metrics |= {"lr": lr, "tokens_per_second": done.tokens / done.seconds}
                bar.update(schedule.tokens_per_step)
                bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)
                if log is not None and accelerator.is_main_process:
                    log({"step": done.step, "tokens": done.tokens, "seconds": done.seconds, **metrics})
                interrupt, out_of_time, due = _anyone(
                    accelerator,
                    interrupted.is_set(),
                    settings.max_minutes is not None and done.seconds >= 60 * settings.max_minutes,
                    time.monotonic() - last_saved >= 60 * settings.checkpoint_minutes,
                )
                if interrupt or out_of_time or due or done.step == settings.num_steps:
                    if accelerator.is_main_process:
                        save_checkpoint(out, model, optimizer, scheduler, done, facts)
                    accelerator.wait_for_everyone()
                    last_saved = time.monotonic()
                if interrupt:
                    raise KeyboardInterrupt(f"{label} was interrupted after step {done.step}; its work is saved.")
                if out_of_time and done.step < settings.num_steps:
                    stopped_by = "max_minutes"
                    break
    finally:
        # Accelerate wraps `forward` in autocast; whoever uses the model next decides its precision anew.
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        model.train(was_training)
        for parameter in model.parameters():
            parameter.grad = None
        give_freed_memory_back()
    return {
        "steps": done.step,
        "tokens": done.tokens,
        "seconds": round(done.seconds, 1),
        "tokens_per_second": round(done.tokens / max(done.seconds, 1e-9), 1),
        "stopped_by": stopped_by,
        "precision": accelerator.mixed_precision.replace("no", "fp32"),
        "computed_with": {
            "attention": model.config._attn_implementation if attention == "as_loaded" else attention,
            "activation_checkpointing": settings.activation_checkpointing,
            "compile": settings.compile,
        },
        "terms": {term.name: term.describe() | {term.unit: done.counts.get(term.name, 0)} for term in terms},
        "last": metrics,
    }


def _step(
    accelerator: Accelerator,
    model: torch.nn.Module,
    schedule: BlockSchedule,
    step: int,
    terms: Sequence[Term],
    settings: TrainSettings,
    optimizer: torch.optim.Optimizer,
    record: RoutingRecord,
    *,
    in_one_row: bool = False,
) -> tuple[Metrics, dict[str, int]]:
    """Make one optimiser step; return its numbers, each term unweighted under its own name, and what each term saw."""
    whole = schedule.batch(step)
    counts = {term.name: term.count(whole) for term in terms}
    rank, world = accelerator.process_index, accelerator.num_processes
    mine = {key: value[rank::world].to(accelerator.device) for key, value in whole.items()}
    size = settings.blocks_per_forward
    starts = range(0, len(mine["input_ids"]), size)
    micro_batches = [{key: value[start : start + size] for key, value in mine.items()} for start in starts]
    if in_one_row:
        micro_batches = [as_one_row(batch) for batch in micro_batches]

    def seed(index: int) -> None:
        # Dropout and the like are the same whenever a micro-batch is run, also after a resume.
        torch.manual_seed(hash((settings.seed, step, rank, index)) % 2**63)

    observed = _observe(accelerator, model, micro_batches, terms, record, seed)
    sums = torch.zeros(len(terms), device=accelerator.device)
    for index, batch in enumerate(micro_batches):
        last = index == len(micro_batches) - 1
        with accelerator.no_sync(model) if not last else nullcontext():
            seed(index)
            logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
            totals = [
                term.total(Forward(batch, logits, record.routing, observed.get(term.name))) / max(counts[term.name], 1)
                for term in terms
            ]
            # Ranks average their gradients; the terms are already divided by the counts of all ranks.
            loss = world * sum(term.coefficient * total for term, total in zip(terms, totals, strict=True))
            accelerator.backward(loss)
            sums += torch.stack([total.detach().float() for total in totals])
    reduced = accelerator.reduce(sums, "sum")
    assert isinstance(reduced, torch.Tensor)
    values = dict(zip((term.name for term in terms), reduced.tolist(), strict=True))
    loss_value = sum(term.coefficient * values[term.name] for term in terms)
    clipped = accelerator.clip_grad_norm_([p for _, p in trainable_parameters(model)], settings.max_grad_norm)
    norm = 0.0 if clipped is None else float(clipped)
    if not math.isfinite(loss_value) or not math.isfinite(norm):
        raise LprError(
            f"Step {step + 1} gave loss {loss_value} with gradient norm {norm} on blocks {schedule.at(step)}; "
            "nothing was updated. Lower the learning rate or look at these blocks, then run again from the last "
            "checkpoint."
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    num_tokens = int((whole["language_id"] >= 0).sum())
    return {"loss": loss_value, **values, "grad_norm": norm, "num_tokens": num_tokens}, counts


@torch.no_grad()
def _observe(
    accelerator: Accelerator,
    model: torch.nn.Module,
    micro_batches: list[Batch],
    terms: Sequence[Term],
    record: RoutingRecord,
    seed: Callable[[int], None],
) -> dict[str, torch.Tensor]:
    """Return what terms must know of the whole step before any backward pass, by term name; usually nothing."""
    observers = {term.name: term.observe for term in terms if term.observe is not None}
    if not observers or (len(micro_batches) == 1 and accelerator.num_processes == 1):
        return {}
    # The decoder alone: nobody asks for logits, and DistributedDataParallel need not know of this pass.
    decoder = decoder_of(accelerator.unwrap_model(model))
    sums: dict[str, torch.Tensor] = {}
    for index, batch in enumerate(micro_batches):
        seed(index)
        with accelerator.autocast():
            decoder(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
        for name, observe in observers.items():
            seen = observe(batch, record.routing)
            sums[name] = sums[name] + seen if name in sums else seen
    reduced = accelerator.reduce(sums, "sum")
    assert isinstance(reduced, dict)
    return reduced


def _anyone(accelerator: Accelerator, *wishes: bool) -> list[bool]:
    """Return for each wish whether any process has it: clocks and signals differ, and one that stops alone hangs."""
    votes = accelerator.reduce(torch.tensor(wishes, dtype=torch.int64, device=accelerator.device), "sum")
    assert isinstance(votes, torch.Tensor)
    return [vote > 0 for vote in votes.tolist()]


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
def _interrupts_wait() -> Iterator[threading.Event]:
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
