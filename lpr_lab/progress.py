"""Progress with time left, the same in a terminal, a log file and a notebook.

One text line that rewrites itself: in a terminal a few times a second, elsewhere (a log, a papermill run) every few
seconds, so that executed notebooks stay small. It goes to stderr, since stdout is for results; in a notebook, which
shows what comes on stderr as an error, it goes to stdout.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO, TypeVar

from tqdm import tqdm

Result = TypeVar("Result", covariant=True)
_hidden = 0
"""How many blocks of `hidden` are open."""


def in_notebook() -> bool:
    """Whether this is a notebook's kernel, where displays can be updated; a terminal's IPython is none."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def stream() -> TextIO:
    """Return where progress is written."""
    return sys.stdout if in_notebook() else sys.stderr


def remark(text: str) -> None:
    """Write a line that people should read, where progress goes: in a notebook it is no error."""
    print(text, file=stream(), flush=True)


def announce(text: str) -> None:
    """Write a line that announces what begins; inside `hidden`, nothing."""
    if not _hidden:
        remark(text)


def is_hidden() -> bool:
    """Whether progress bars are hidden here, by `hidden` or by `LPR_LAB_QUIET=1`."""
    return bool(_hidden) or os.environ.get("LPR_LAB_QUIET") == "1"


@contextmanager
def hidden() -> Iterator[None]:
    """Draw no progress bar while the block shows by other means how far it is."""
    global _hidden
    _hidden += 1
    try:
        yield
    finally:
        _hidden -= 1


@contextmanager
def progress(total: float | None, label: str, unit: str = "it", initial: float = 0) -> Iterator[tqdm]:
    """Show a progress bar with rate and time left; call `.update(n)` and `.set_postfix(...)` on what it yields.

    Args:
        total: how much there is to do, in `unit`; None when that is not known.
        label: what is being done, in a few words.
        unit: `"B"` counts bytes with binary-free SI prefixes; anything else is shown as given.
        initial: how much was done before (a resumed stage starts there).

    `LPR_LAB_QUIET=1` hides it, and so does `hidden`.
    """
    out = stream()
    live = out.isatty()
    with tqdm(
        total=total,
        desc=label,
        unit=unit,
        unit_scale=unit in ("B", "token"),
        initial=initial,
        file=out,
        mininterval=0.2 if live else 5.0,
        maxinterval=1.0 if live else 30.0,
        dynamic_ncols=live,
        disable=is_hidden(),
    ) as bar:
        yield bar


class Step(Protocol[Result]):
    """How far some work is: what is done, of how much, and what came out once it is through."""

    @property
    def done(self) -> int:
        """How much is done."""
        ...

    @property
    def total(self) -> int:
        """Of how much."""
        ...

    @property
    def result(self) -> Result | None:
        """What came out; None before the last step."""
        ...


def run_through(steps: Iterable[Step[Result]], label: str, unit: str = "it", total: int | None = None) -> Result:
    """Do work that is done step by step, with progress, and return what came out.

    Args:
        steps: the last one has the result.
        label: of the bar.
        unit: of what is done.
        total: how much there is to do, where that is known before the first step.
    """
    result = None
    with progress(total, label, unit) as bar:
        for step in steps:
            bar.total, result = step.total, step.result
            bar.update(step.done - bar.n)
    assert result is not None, "the last step has the result"
    return result
