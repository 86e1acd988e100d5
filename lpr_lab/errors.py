"""What can go wrong, as a family of exceptions that the command line maps to exit codes.

    LprError                    1   something failed while working
    ├── UsageError              2   a wrong name, value or combination; nothing was started
    │   ├── UnsupportedModelError   a model that cannot be upcycled, with what was found in it
    │   └── BusyError               another process works on the very run that was asked for
    ├── MissingError            3   a model, corpus, run or file that is not there (or not reachable)
    │   └── DamagedError            it is there but incomplete or altered; the message names the piece
    └── ComparisonRefusedError  4   two things that must not be compared (different test sets, another base)

Every message says what was given, what was expected, and what to do next.
"""

import difflib
from collections.abc import Iterable
from typing import Any


class LprError(Exception):
    """Something failed while working."""

    exit_code = 1


class UsageError(LprError, ValueError):
    """A wrong name, value or combination. Raised before any work starts."""

    exit_code = 2


class UnsupportedModelError(UsageError):
    """A model that cannot be upcycled; the message says what was found and why it does not fit."""


class BusyError(UsageError):
    """Another process works on the very run that was asked for; later it may be free, or finished."""


class NotFiniteError(LprError):
    """A step whose loss or gradient norm is no finite number; `metrics` has `step`, `loss` and `grad_norm`."""

    def __init__(self, message: str, metrics: dict[str, float]):
        super().__init__(message)
        self.metrics = metrics


class MissingError(LprError):
    """A model, corpus, run or file that is not there, or that cannot be reached."""

    exit_code = 3


class DamagedError(MissingError):
    """Something is there but incomplete or altered; the message names the piece."""


class ComparisonRefusedError(LprError):
    """Two things that must not be compared, such as scores on different test sets."""

    exit_code = 4


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known name closest to `given`, or an empty string.

    >>> did_you_mean("smolm2-135m", ["smollm2-135m", "gemma3-270m"])
    " Did you mean 'smollm2-135m'?"
    """
    close = difflib.get_close_matches(str(given), [str(name) for name in known], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def first_line(error: Exception) -> str:
    """Return the first line of another library's error, or its class where it says nothing, to be quoted."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def one_of(name: str, value: Any, choices: Iterable[Any], hint: str = "") -> None:
    """Refuse a value that is none of the choices.

    Args:
        name: of the parameter, or what a message calls the value.
        value: as given.
        choices: what is allowed.
        hint: a sentence to end the message with.

    Raises:
        UsageError: with the choices, and the closest of them.

    >>> one_of("rule", "round-up", ("round_up", "largest_remainder"))
    Traceback (most recent call last):
    lpr_lab.errors.UsageError: rule = 'round-up'; expected one of round_up, largest_remainder. Did you mean 'round_up'?
    """
    known = list(choices)
    if value not in known:
        listed = ", ".join(str(choice) or "''" for choice in known)
        expected = f"expected one of {listed}" if known else "there is none to choose from"
        advice = did_you_mean(value, known) + (f" {hint}" if hint else "")
        raise UsageError(f"{name} = {value!r}; {expected}.{advice}")
