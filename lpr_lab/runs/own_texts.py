"""Texts that people typed and keep with a run: list, add, rename and delete them.

A kept text is a trace like any other, `traces/own-<hex digits>.*`, whose JSON also holds the name that it was given.
The id stays the same whatever is added, renamed or traced again, so addresses go on leading to it. Earlier versions
kept every typed text, without a name; those are called by their first words.
"""

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lpr_lab.errors import LprError, MissingError, UsageError
from lpr_lab.runs.run import Run
from lpr_lab.storage import read_json, write_json

if TYPE_CHECKING:
    from lpr_lab.measure.trace import RoutingTrace

MAX_NAME = 60
_ID = re.compile(r"own-[0-9a-f]{8,32}")


@dataclass(frozen=True)
class OwnText:
    """A kept text, as a list shows it."""

    id: str
    name: str
    language: str | None


def new_id() -> str:
    """Return an id that cannot be guessed: a text that is not kept is found only by its address."""
    return f"own-{secrets.token_hex(16)}"


def is_own(name: str) -> bool:
    """Whether a trace of this name is of a text that somebody typed.

    >>> is_own("own-0123abcd"), is_own("el")
    (True, False)
    """
    return _ID.fullmatch(name) is not None


def suggested_name(text: str) -> str:
    """Return the first words of a text, to call it by.

    >>> suggested_name("  One day in the old town by the sea there was a letter.")
    'One day in the old town by the sea…'
    """
    words = " ".join(text.split())
    if len(words) <= 36:
        return words
    head = words[:36].rpartition(" ")[0] or words[:36]
    return f"{head}…"


def own_texts(run: Run) -> list[OwnText]:
    """Return the kept texts by name; one whose file is damaged is called by its id, and says why when it is opened."""
    found = [_listed(run, name) for name in run.traces.names() if is_own(name)]
    return sorted(found, key=lambda text: (text.name.casefold(), text.id))


def _listed(run: Run, name: str) -> OwnText:
    try:
        facts = read_json(run.path / "traces" / f"{name}.json")
        called = str(facts.get("name") or suggested_name(str(facts["text"])))
        return OwnText(name, called, facts.get("language"))
    except (LprError, AttributeError, KeyError, OSError):
        return OwnText(name, name, None)


def checked_own_name(name: str) -> str:
    """Return a name in one line.

    Raises:
        UsageError: it is empty or too long.
    """
    words = " ".join(name.split())
    if not words or len(words) > MAX_NAME:
        raise UsageError(f"The name has {len(words)} characters; expected 1 to {MAX_NAME}.")
    return words


def keep_text(run: Run, text_id: str, name: str, trace: "RoutingTrace") -> None:
    """Keep a traced text with a run, or put it in place of the one of that id.

    Raises:
        UsageError: an invalid name, an id that is not of a typed text, or a run that came with the code.
    """
    name = checked_own_name(name)
    if not is_own(text_id):
        raise UsageError(f"{text_id!r} is not the id of a typed text.")
    _refuse_example(run)
    run.traces.write(text_id, trace)
    rename_text(run, text_id, name)


def rename_text(run: Run, text_id: str, name: str) -> None:
    """Give a kept text another name.

    Raises:
        UsageError: an invalid name, or a run that came with the code.
        MissingError: the text is not there.
    """
    name = checked_own_name(name)
    _refuse_example(run)
    path = run.path / "traces" / f"{_existing(run, text_id)}.json"
    write_json(path, {**read_json(path), "name": name})


def delete_text(run: Run, text_id: str) -> None:
    """Delete a kept text for good.

    Raises:
        UsageError: a run that came with the code.
        MissingError: the text is not there.
    """
    _refuse_example(run)
    run.traces.delete(_existing(run, text_id))


def _existing(run: Run, text_id: str) -> str:
    if not is_own(text_id) or text_id not in run.traces.names():
        raise MissingError(f"Run {run.id} keeps no text {text_id!r}; somebody may have deleted it.")
    return text_id


def _refuse_example(run: Run) -> None:
    if run.is_example:
        raise UsageError(f"Run {run.id} came with the code and is read only; trace the text with a run of your own.")
