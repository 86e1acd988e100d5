"""Training of one stage: both stages of the method and the baselines run through `train`.

Batches in, named loss terms out; training does not know run directories or languages. What a stage trains on is a
`BlockSchedule`, what it minimises a list of `Term`s, and what learns is whatever has `requires_grad`: part of an
expansion, another adapter, or a whole model.

Gradients do not depend on how a step is split (see `step`): one process with one micro-batch, gradient accumulation and
several processes (`torchrun`) give the same ones up to rounding. Dropout is the exception, where a base has it (of the
usual families GPT-2 does): its masks are drawn per micro-batch and rank. Where the processes divide the model
(`model.parallel.sharding`), what learned is put together at every checkpoint and at the end; a stage that fails in
between leaves it as it was saved last.

Whatever a stage sets, on the model or in the process, ends with it, however it ends; and what it says that it computed
with was seen in its first step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
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
    check_checkpointing,
    compute_options,
    fresh_gradients,
    on_device,
    resolve_attention,
)
from lpr_lab.method.training.loop import Loop
from lpr_lab.method.training.optimizer import make_optimizer, make_scheduler
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.method.training.step import Metrics, Stepper
from lpr_lab.method.training.terms import Term
from lpr_lab.model.adapter import moe_layers, trainable_parameters
from lpr_lab.model.bases.embedded import learning_rates
from lpr_lab.model.bf16_products import quick_bf16_products
from lpr_lab.model.capture import RoutingRecord, record_routing
from lpr_lab.model.head import next_token_losses
from lpr_lab.model.machine import default_device, keep_freed_memory, resolve_precision
from lpr_lab.model.observe import EXPERTS
from lpr_lab.model.parallel.processes import divides_model, join_processes
from lpr_lab.model.parallel.sharding import copy_learned, divided
from lpr_lab.model.peft import PeftModel
from lpr_lab.text.packing import in_mode, refuse_if_documents_mix

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
    activation_checkpointing: bool | str = False
    """Run each layer again in the backward pass instead of keeping its states: less memory, a third more time. With
    `experts` the experts alone: about half of that memory, a fifth more products."""
    compile: bool = False
    """Compile what surrounds the mixtures, which takes a minute before the first step."""
    checkpoint_minutes: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        resolve_precision(self.precision)
        check_attention(self.attention)
        check_checkpointing(self.activation_checkpointing)


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
        `computed_with` as they were seen in the first step of the last session, and the `blocks_per_forward` of its
        last one, which are fewer than asked for where memory did not hold them; `diverged`, None or where and why
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
    _check_what_learns(model)
    if settings.blocks_per_step % processes.num_processes:
        raise UsageError(
            f"blocks_per_step = {settings.blocks_per_step} cannot be shared equally by {processes.num_processes} "
            "processes; use a multiple of their number."
        )
    if settings.compile and divides_model():
        raise UsageError("compile=True was never tried on a model that is divided (ACCELERATE_USE_FSDP); leave it out.")
    if settings.activation_checkpointing == EXPERTS and divides_model():
        raise UsageError(
            "activation_checkpointing='experts' was never tried on a model that is divided (ACCELERATE_USE_FSDP); use "
            "True, which runs whole layers again."
        )
    with ExitStack() as stack:
        stack.enter_context(_prepare(model))
        start = starting_fingerprint(model)
        shared = stack.enter_context(divided(model))
        optimizer = make_optimizer(list(trainable_parameters(shared)), settings)
        scheduler = make_scheduler(optimizer, settings)
        facts = {**_facts_of(schedule, terms, settings), "base": start, **(facts or {})}
        with processes.main_process_first():  # one process moves damaged checkpoints aside, the others find it done
            checkpoint = newest_checkpoint(out, processes.print)
        done = Progress()
        if checkpoint is not None:
            done = load_checkpoint(checkpoint, model, optimizer, scheduler, facts, processes.print)
            copy_learned(model, shared)
            processes.print(f"{label}: resuming from {checkpoint.name} ({done.tokens:,} tokens done).")
        stepper = stack.enter_context(_stepper(shared, schedule, terms, optimizer, settings, processes))

        def save() -> None:
            copy_learned(shared, model)
            save_checkpoint(out, model, optimizer, scheduler, done, facts, writes=processes.is_main_process)

        metrics, stopped_by = Loop(stepper, settings, scheduler, done, save, label, log).run()
    return _report(done, terms) | {"stopped_by": stopped_by, "last": metrics}


@contextmanager
def _stepper(
    shared: PeftModel | PreTrainedModel,
    schedule: BlockSchedule,
    terms: Sequence[Term],
    optimizer: torch.optim.Optimizer,
    settings: TrainSettings,
    processes: PartialState,
) -> Iterator[Stepper]:
    """Have the model compute as the settings say, and yield what makes its steps."""
    # A property of the base's attention, looked at in the base's own precision.
    with shared.disable_adapter() if isinstance(shared, PeftModel) else nullcontext():
        refuse_if_documents_mix(shared)
    precision = resolve_precision(settings.precision)
    attention = resolve_attention(settings.attention, shared, precision)
    ways = {"activation_checkpointing": settings.activation_checkpointing, "compiled": settings.compile}
    reads_logits = any(term.reads_logits for term in terms)
    with (
        in_mode(shared, training=True),
        compute_options(shared, attention=attention, **ways),
        nullcontext(False) if reads_logits else next_token_losses(shared) as without_logits,
        record_routing(shared) if moe_layers(shared) else nullcontext(RoutingRecord()) as record,
        nullcontext() if settings.compile else quick_bf16_products(shared, autocast=precision == "bf16"),
    ):
        yield Stepper(
            shared,
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
            without_logits=without_logits,
        )


def _facts_of(schedule: BlockSchedule, terms: Sequence[Term], settings: TrainSettings) -> dict[str, Any]:
    """Return what a checkpoint must share to be continued: settings that matter, the order of blocks, the loss."""
    return {
        "settings": {name: value for name, value in asdict(settings).items() if name not in _WITHOUT_INFLUENCE},
        "data": schedule.ledger(min(settings.num_steps, 32)),
        "terms": {term.name: term.describe() for term in terms},
        **({"warmup": "from its first step"} if settings.warmup_fraction else {}),
    }


def _report(done: Progress, terms: Sequence[Term]) -> dict[str, Any]:
    return {
        "steps": done.step,
        "tokens": done.tokens,
        "seconds": round(done.seconds, 1),
        "tokens_per_second": round(done.tokens / max(done.seconds, 1e-9), 1),
        **done.observed,
        "diverged": done.divergence.diverged,
        "terms": {term.name: term.describe() | {term.unit: done.counts.get(term.name, 0)} for term in terms},
    }


@contextmanager
def _prepare(model: torch.nn.Module) -> Iterator[None]:
    """Set on the model and in the process what training needs, and undo it afterwards."""
    device = default_device()
    with (
        _preserve_random_state(),
        keep_freed_memory() if device.type == "cpu" else nullcontext(),
        nullcontext() if divides_model() else on_device(model, device),
        torch.autocast(device.type, enabled=False),  # whoever calls may have another in mind
        fresh_gradients(model),
    ):
        yield


@contextmanager
def _preserve_random_state() -> Iterator[None]:
    """Leave the random numbers of whoever calls as if nothing had been drawn."""
    before = rng_state()
    try:
        yield
    finally:
        restore_rng(before)


def _check_what_learns(model: torch.nn.Module) -> None:
    """Refuse a model in which nothing learns, or what is not float32: most small steps would be rounded away."""
    named = list(trainable_parameters(model))
    if not named:
        raise UsageError("Nothing learns in this model: call it on one from lpr_lab.upcycle or method.baselines.")
    for name, parameter in named:
        if parameter.dtype != torch.float32:
            raise UsageError(
                f"{name} is to learn and is {parameter.dtype}, where most small steps are rounded away; expected "
                "float32. Experts, routers and the baselines' own weights are float32 unless the model was converted "
                "afterwards; precision='bf16' makes products in bfloat16 and keeps the weights."
            )
