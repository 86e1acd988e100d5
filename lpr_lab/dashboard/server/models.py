"""Cache of loaded models: loaded when a page first needs one, kept within a memory budget.

Nothing of torch is imported before that. One lock serves everything that touches a model, so two readers never load the
same one twice and never compute side by side. Hold it for one computation, never across a `yield`: the steps of a
generator run in different threads, and one that was stopped may not go on at all.
"""

import gc
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpr_lab.errors import LprError, MissingError, UsageError
from lpr_lab.runs.model_ref import analysed_run
from lpr_lab.runs.run import Run

BUDGET = "LPR_LAB_MODEL_MEMORY"
SHARE_OF_FREE_MEMORY = 0.5
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

Key = tuple[Path, int]
"""Where the weights lie, and when they were written: a run that was made again is another model."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to use."""

    run_id: str
    model: Any
    tokenizer: Any
    device: str
    seconds: float
    """How long loading took."""
    num_bytes: int = 0
    """What its weights take."""


def memory_budget() -> int:
    """Return how many bytes of models may be kept: `LPR_LAB_MODEL_MEMORY` (such as `4GB`), else half of what is free.

    Raises:
        UsageError: the setting is not an amount.
    """
    given = os.environ.get(BUDGET, "").strip()
    if not given:
        from lpr_lab.model.machine import free_memory

        return int(free_memory() * SHARE_OF_FREE_MEMORY)
    amount = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)i?b?", given.lower())
    if amount is None:
        raise UsageError(f"{BUDGET} is {given!r}; expected an amount such as 4GB or 800MB.")
    return int(float(amount[1]) * _UNITS[amount[2]])


class ModelCache:
    """Holds the models of runs, the one used longest ago first to go; one computation at a time.

    Args:
        budget: bytes of models to keep; None reads `memory_budget` when the first is loaded. The model asked for is
            always loaded, also when it alone is more.
    """

    def __init__(self, budget: int | None = None) -> None:
        self._lock = threading.RLock()
        self._budget = budget
        self._held: OrderedDict[Key, Loaded] = OrderedDict()
        self._in_use: list[Key] = []

    def is_loaded(self, run: Run) -> bool:
        """Whether asking for this run's model would be instant."""
        return model_key(run) in self._held

    def loaded_bytes(self) -> int:
        """Return what the models held take."""
        return sum(loaded.num_bytes for loaded in list(self._held.values()))

    @contextmanager
    def use(self, run: Run) -> Iterator[Loaded]:
        """Give the run's model and tokenizer, loading them first when needed; others wait meanwhile.

        Two models may be used at once, one `with` inside the other.

        Raises:
            MissingError: the run has no weights, or its base model is not on this machine.
            DamagedError, ComparisonRefusedError: see `method.baselines.files.load_trained`.
            LprError: not enough memory.
        """
        with self._lock:
            key = model_key(run)
            if key not in self._held:
                self._make_room(_expected_bytes(run))
                self._held[key] = self._load(run)
            self._held.move_to_end(key)
            self._in_use.append(key)
            try:
                self._make_room(0)
                yield self._held[key]
            finally:
                self._in_use.pop()

    def _make_room(self, num_bytes: int) -> None:
        """Let go of what was used longest ago, until there is room for so much more."""
        if self._budget is None:
            self._budget = memory_budget()
        idle = [key for key in self._held if key not in self._in_use]
        dropped = False
        while idle and self.loaded_bytes() + num_bytes > self._budget:
            del self._held[idle.pop(0)]
            dropped = True
        if dropped:
            gc.collect()  # models hold cycles, and the next one needs the memory now

    def _load(self, run: Run) -> Loaded:
        reason = why_no_model(run)
        if reason is not None:
            raise MissingError(reason)
        started = time.monotonic()
        import torch

        from lpr_lab.method.baselines.files import load_trained
        from lpr_lab.model.formats.save_load import load_tokenizer

        try:
            model = load_trained(run.path)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise LprError(
                "There is not enough memory for this model beside what runs already; close something and try again."
            ) from error
        tokenizer = load_tokenizer(run.path)
        device = str(next(model.parameters()).device)
        return Loaded(run.id, model, tokenizer, device, time.monotonic() - started, _bytes_of(model))


def model_key(run: Run) -> Key:
    """Return what tells the model of a run from every other, also from one that was made again."""
    try:
        return run.path, run.paths.checkpoint.stat().st_mtime_ns
    except OSError:
        return run.path, 0


def _expected_bytes(run: Run) -> int:
    """Return what a model will take, from what its run says of it; 0 when it says nothing."""
    try:
        parameters = run.results.get("parameters") or {}
        counts = [parameters.get(name, 0) for name in ("base", "new_experts", "routers", "tuned")]
    except LprError:
        return 0
    return 4 * sum(value for value in counts if isinstance(value, int))


def _bytes_of(model: Any) -> int:
    """Return what a model's weights take; those that two parts share count once."""
    parts = {part.data_ptr(): part.numel() * part.element_size() for part in (*model.parameters(), *model.buffers())}
    return sum(parts.values())


MODELS = ModelCache()
"""The process's own: one for all pages and visitors."""


def why_no_model(run: Run) -> str | None:
    """Return why no model of this run can be loaded, in one sentence, or None when it can."""
    if run.paths.has_checkpoint:
        return None
    if run.is_example:
        return "This is an example run: it came with the code and without weights."
    if analysed_run(run):
        return f"This run only analysed the model of run {analysed_run(run)}, which has the weights."
    state = run.status.state
    if state in ("running", "queued"):
        return "This run is still working; its weights are written near its end."
    if state == "finished":
        return "This run has no weights in this folder."
    return f"This run ({state}) has no weights: it did not come that far."
