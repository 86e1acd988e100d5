"""Processes that read text together: each its part of the blocks, and what they found is put together on all of them.

Training always shares its steps. What only reads (`evaluate`, `measure_similarity`, `fit_routers`, `local_review`,
`classifier_accuracy`) shares inside a block of `together`, and elsewhere every process reads everything by itself: so a
script may still measure on one process alone, without the others waiting for ever.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object, reduce

from lpr_lab import progress
from lpr_lab.model.parallel.processes import divides_model, join_processes
from lpr_lab.model.parallel.sharding import divided
from lpr_lab.text.blocks import Batch
from lpr_lab.text.packing import NO_TARGET

Found = TypeVar("Found")

_depth = 0
"""How many blocks of `together` are open."""


@contextmanager
def together() -> Iterator[None]:
    """Share what is read in this block among all processes that were started together; each of them has to enter it.

    What a verb returns is the same on every process, and that of one process up to rounding. A model that does not fit
    one device (see `parallel.sharding`) is divided while it reads. With one process nothing changes.

    Raises:
        UsageError: the processes do not know of one another (see `join_processes`).

    Examples:
        >>> with together():
        ...     report = lab.evaluate(model, tokenizer, corpus, languages=["en", "el"])  # doctest: +SKIP
    """
    global _depth
    state = join_processes()
    _depth += 1
    try:
        with nullcontext() if state.is_main_process else progress.hidden():
            yield
    finally:
        _depth -= 1


def num_readers() -> int:
    """Return how many processes read together here; 1 outside `together`."""
    return join_processes().num_processes if _depth else 1


def reading(model: Any) -> AbstractContextManager[Any]:
    """Give the model to read with inside the block: divided where processes read together and that was asked for."""
    return divided(model) if num_readers() > 1 else nullcontext(model)


def own_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield those of the batches that this process has to read.

    With a divided model all have to make equally many passes, so the last ones may be over a batch without any text.
    """
    world = num_readers()
    if world == 1:
        yield from batches
        return
    left, rank = iter(batches), join_processes().process_index
    while turn := list(islice(left, world)):
        if rank < len(turn):
            yield turn[rank]
        elif divides_model():
            yield _without_text(turn[0])


def _without_text(batch: Batch) -> Batch:
    nothing = {"language_id": -1, "targets": NO_TARGET, "is_text": 0, "counts": 0}
    return {name: torch.full_like(t, nothing[name]) if name in nothing else t for name, t in batch.items()}


def gathered(found: Found) -> list[Found]:
    """Return what each process that reads together found, first that of rank 0; anything that can be pickled."""
    return [found] if num_readers() == 1 else gather_object([found])


def summed(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum of what the processes that read together have."""
    if num_readers() == 1:
        return tensor
    total = reduce(tensor, "sum")
    assert isinstance(total, torch.Tensor)
    return total


def in_turn(parts: Sequence[Sequence[Found]]) -> list[Found]:
    """Put what each process has of its batches into the order of the batches.

    >>> in_turn([["0", "2", "4"], ["1", "3"]])
    ['0', '1', '2', '3', '4']
    """
    longest = max(len(part) for part in parts)
    return [part[turn] for turn in range(longest) for part in parts if turn < len(part)]
