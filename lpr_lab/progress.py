"""Progress with time left, the same in a terminal, a log file and a notebook.

One text line that rewrites itself: in a terminal a few times a second, elsewhere (a log, a papermill run) every few
seconds, so that executed notebooks stay small. It goes to stderr; stdout is for results.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress(total: float | None, label: str, unit: str = "it", initial: float = 0) -> Iterator[tqdm]:
    """Show a progress bar with rate and time left; call `.update(n)` and `.set_postfix(...)` on what it yields.

    Args:
        total: how much there is to do, in `unit`; None when that is not known.
        label: what is being done, in a few words.
        unit: `"B"` counts bytes with binary-free SI prefixes; anything else is shown as given.
        initial: how much was done before (a resumed stage starts there).

    `LPR_LAB_QUIET=1` hides it.
    """
    live = sys.stderr.isatty()
    with tqdm(
        total=total,
        desc=label,
        unit=unit,
        unit_scale=unit in ("B", "token"),
        initial=initial,
        file=sys.stderr,
        mininterval=0.2 if live else 5.0,
        maxinterval=1.0 if live else 30.0,
        dynamic_ncols=live,
        disable=os.environ.get("LPR_LAB_QUIET") == "1",
    ) as bar:
        yield bar
