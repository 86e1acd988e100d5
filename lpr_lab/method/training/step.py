"""One optimiser step: forward and backward passes of its micro-batches, over all processes, then the update.

Each term of the loss is a sum over tokens divided by how many such tokens the *whole* step has, over all micro-batches
and ranks. So gradients do not depend on how a step is split, up to rounding, and a step for which memory runs out is
made again in smaller pieces.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import nn

from lpr_lab.errors import LprError, NotFiniteError
from lpr_lab.method.training.compute import as_one_row
from lpr_lab.method.training.load import choices, least_load
from lpr_lab.method.training.optimizer import named_parameters
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.method.training.terms import Forward, Term
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import RoutingRecord, decoder_of
from lpr_lab.model.machine import seed_device
from lpr_lab.model.parallel.sharding import clip_gradients, exchanging, without_exchange
from lpr_lab.text.blocks import Batch
from lpr_lab.text.packing import model_inputs

Metrics = dict[str, float]


@dataclass
class Stepper:
    """Makes the steps of a stage.

    Attributes:
        model: what learns; in training mode, on its device, divided or whole.
        schedule, terms: the blocks of every step, and the parts of the loss.
        optimizer: over what learns.
        record: the routing of the latest forward pass.
        processes: those that share each step.
        blocks_per_forward: blocks of one micro-batch; halved when memory does not hold them.
        max_grad_norm: the clip.
        seed: of dropout.
        is_bf16: whether matrix products are rounded to bfloat16 (autocast).
        in_one_row: whether blocks are laid end to end, as flash attention wants them.
        without_logits: whether the model returns its next-token loss when it is given targets (see
            `model.head.next_token_losses`); terms that read logits get none then.
    """

    model: nn.Module
    schedule: BlockSchedule
    terms: Sequence[Term]
    optimizer: torch.optim.Optimizer
    record: RoutingRecord
    processes: PartialState
    blocks_per_forward: int
    max_grad_norm: float = 1.0
    seed: int = 0
    is_bf16: bool = False
    in_one_row: bool = False
    without_logits: bool = False

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        # Of the optimizer: a divided model shows others between a forward and a backward pass.
        self._parameters = [parameter for _, parameter in sorted(named_parameters(self.optimizer).items())]
        self._shared = exchanging(self.model)
        self._layers = moe_layers(self.model)

    def gradients(self, step: int) -> tuple[Metrics, dict[str, int]]:
        """Leave the gradients of a step; return its numbers, each term unweighted by name, and what each term saw.

        Args:
            step: counted from 0.

        Raises:
            NotFiniteError: loss or gradient is not finite; the message names the step and its blocks.
            LprError: memory runs out, and the step cannot be made in smaller pieces.
        """
        while True:
            try:
                return self._gradients(step)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                smaller = self._smaller(step, error)
            # Only here: until its block ends, the error holds what the step had made.
            self.optimizer.zero_grad(set_to_none=True)
            clear_device_cache(garbage_collection=True)
            self.processes.print(
                f"Step {step + 1} does not fit into memory in micro-batches of {self.blocks_per_forward} blocks; it is "
                f"made again, and others from now on, with {smaller}. blocks_per_forward={smaller} saves the attempt."
            )
            self.blocks_per_forward = smaller

    def _smaller(self, step: int, error: RuntimeError) -> int:
        """Return how many blocks to try after memory ran out; refuse where that would not be the same training."""
        size, failed = self.blocks_per_forward, f"Step {step + 1} does not fit into memory"
        if size == 1:
            raise LprError(
                f"{failed} with a single block at a time. Take shorter blocks (block_tokens), "
                "activation_checkpointing=True, fewer new experts, or a device with more memory."
            ) from error
        if self.processes.num_processes > 1:
            raise LprError(
                f"{failed} of one of {self.processes.num_processes} processes, which must all split it alike. Run "
                f"again with blocks_per_forward={-(-size // 2)} or less; it is {size} now."
            ) from error
        if any(term.form.get("scope") == "micro_batch" for term in self.terms):
            raise LprError(
                f"{failed}, and load balancing is counted per micro-batch, so a smaller one would be another loss. Set "
                f"blocks_per_forward below {size}, or load_balancing_scope='step'."
            ) from error
        return -(-size // 2)

    def _gradients(self, step: int) -> tuple[Metrics, dict[str, int]]:
        whole = self.schedule.batch(step)
        counts = {term.name: term.count(whole) for term in self.terms}
        micro_batches = self._micro_batches(whole)
        observed = self._observe(step, micro_batches)
        world = self.processes.num_processes
        sums = torch.zeros(len(self.terms), device=self.device)
        chosen: dict[int, torch.Tensor] = {}
        for index, batch in enumerate(micro_batches):
            is_last = index == len(micro_batches) - 1
            with nullcontext() if is_last else without_exchange(self._shared):
                self._seed(step, index)
                made = self._forward(batch)
                for layer, seen in choices(made.routing, (batch["language_id"] >= 0).flatten()).items():
                    chosen[layer] = chosen[layer] + seen if layer in chosen else seen
                totals = [
                    term.total(replace(made, observed=observed.get(term.name))) / max(counts[term.name], 1)
                    for term in self.terms
                ]
                # Ranks average their gradients; the terms are already divided by the counts of all ranks.
                loss = world * sum(term.coefficient * total for term, total in zip(self.terms, totals, strict=True))
                assert isinstance(loss, torch.Tensor)
                loss.backward()
                sums += torch.stack([total.detach().float() for total in totals])
        values = dict(zip(counts, self.sum_over_processes(sums).tolist(), strict=True))
        total_loss = sum(term.coefficient * values[term.name] for term in self.terms)
        norm = clip_gradients(self._parameters, self.max_grad_norm)
        if not math.isfinite(total_loss) or not math.isfinite(norm):
            raise NotFiniteError(
                f"Step {step + 1} gave loss {total_loss} with gradient norm {norm} on blocks {self.schedule.at(step)}; "
                "nothing was updated. Lower the learning rate or look at these blocks, then run again from the last "
                "checkpoint.",
                {"step": step + 1, "loss": total_loss, "grad_norm": norm},
            )
        num_tokens = int((whole["language_id"] >= 0).sum())
        load = least_load(self._whole(chosen), self._layers)
        return {"loss": total_loss, **values, "grad_norm": norm, **load, "num_tokens": num_tokens}, counts

    def _whole(self, chosen: dict[int, torch.Tensor]) -> dict[int, list[int]]:
        """Return the choices of the whole step, over all processes, by layer."""
        if not chosen:
            return {}
        sizes = [len(counts) for counts in chosen.values()]
        parts = self.sum_over_processes(torch.cat([*chosen.values()])).split(sizes)
        return {layer: part.tolist() for layer, part in zip(chosen, parts, strict=True)}

    def _forward(self, batch: Batch) -> Forward:
        """Run the model on a micro-batch, through whatever has ranks share it."""
        with self._autocast():
            if self.without_logits:
                nats = self._shared(**model_inputs(batch), targets=batch["targets"])
                return Forward(batch, None, self.record.routing, next_token_nats=nats)
            logits = self._shared(**model_inputs(batch)).logits
        return Forward(batch, logits.float(), self.record.routing)

    def update(self) -> None:
        """Let the optimizer follow the gradients, and drop them."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def any_rank(self, *flags: bool) -> list[bool]:
        """Logical OR of each flag across ranks: clocks and signals differ, and a rank that stops alone hangs."""
        votes = self.sum_over_processes(torch.tensor(flags, dtype=torch.int64, device=self.device))
        return [vote > 0 for vote in votes.tolist()]

    def sum_over_processes(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of what all processes have."""
        total = reduce(tensor, "sum")
        assert isinstance(total, torch.Tensor)
        return total

    def _micro_batches(self, whole: Batch) -> list[Batch]:
        """Return this process's share of a step, in pieces that fit into memory at once."""
        rank, world, size = self.processes.process_index, self.processes.num_processes, self.blocks_per_forward
        mine = {key: value[rank::world].to(self.device) for key, value in whole.items()}
        starts = range(0, len(mine["input_ids"]), size)
        pieces = [{key: value[start : start + size] for key, value in mine.items()} for start in starts]
        return [as_one_row(piece) for piece in pieces] if self.in_one_row else pieces

    @torch.no_grad()
    def _observe(self, step: int, micro_batches: list[Batch]) -> dict[str, torch.Tensor]:
        """Return what terms must know of the whole step before any backward pass, by term name; usually nothing."""
        observers: dict[str, Callable[..., torch.Tensor]] = {t.name: t.observe for t in self.terms if t.observe}
        if not observers or (len(micro_batches) == 1 and self.processes.num_processes == 1):
            return {}
        # The decoder alone: nobody asks for logits, and DistributedDataParallel need not know of this pass.
        decoder = decoder_of(self.model)
        sums: dict[str, torch.Tensor] = {}
        for index, batch in enumerate(micro_batches):
            self._seed(step, index)
            with self._autocast():
                decoder(**model_inputs(batch))
            for name, observe in observers.items():
                seen = observe(batch, self.record.routing)
                sums[name] = sums[name] + seen if name in sums else seen
        return {name: self.sum_over_processes(total) for name, total in sums.items()}

    def _seed(self, step: int, index: int) -> None:
        """Make dropout and the like the same whenever a micro-batch is run, also after a resume."""
        seed_device(self.device, hash((self.seed, step, self.processes.process_index, index)) % 2**63)

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        """Round products to bfloat16 inside the block, from the weights as they are now.

        Autocast keeps weights that learn as it rounded them until its outermost block ends. That may be one around the
        whole stage, and then every step would compute with the weights of the first.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16):
            torch.clear_autocast_cache()
            yield
