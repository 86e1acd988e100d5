"""Texts that people typed and keep with a run, by name in groups: list, add, rename, edit and delete them.

A kept text that was traced is a trace like any other, `traces/own-<hex digits>.*`, whose JSON also holds the name and
the group that it was given. Texts that were imported line by line lie in `own_texts.json` until they are traced. The id
stays the same whatever is added, renamed or traced, so addresses go on leading to it. Earlier versions kept every typed
text, without a name; those are called by their first words.
"""

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from lpr_lab.errors import LprError, MissingError, UsageError
from lpr_lab.runs.run import Run
from lpr_lab.storage import read_json, read_json_object, write_json
from lpr_lab.text.unicode import check_text

if TYPE_CHECKING:
    from lpr_lab.measure.trace import RoutingTrace

MAX_NAME = 60
MAX_CHARACTERS = 4000
"""Of one text."""
MAX_LINES = 500
"""Texts that are imported at once."""
IMPORTED = "own_texts.json"
_ID = re.compile(r"own-[0-9a-f]{8,32}")


@dataclass(frozen=True)
class OwnText:
    """A kept text, as a list shows it."""

    id: str
    name: str
    language: str | None
    group: str = ""
    text: str = ""
    is_traced: bool = True

    @property
    def label(self) -> str:
        """Its name after that of its group, as a list of texts of several groups shows it."""
        return f"{self.group}: {self.name}" if self.group else self.name


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
    """Return the kept texts by group and name, those of no group first.

    One whose file is damaged is called by its id, and says why when it is opened.
    """
    found = {name: _listed(run, name) for name in run.traces.names() if is_own(name)}
    found = {text.id: text for text in _imported(run)} | found  # traced since, by another who imported it
    return sorted(found.values(), key=lambda text: (text.group.casefold(), text.name.casefold(), text.id))


def by_group(texts: Iterable[OwnText]) -> dict[str, list[OwnText]]:
    """Return texts by the name of their group, in their order."""
    found: dict[str, list[OwnText]] = {}
    for text in texts:
        found.setdefault(text.group, []).append(text)
    return found


def imported_text(run: Run, text_id: str) -> OwnText | None:
    """Return a kept text that was not traced yet; None where there is none of that id."""
    if not is_own(text_id) or text_id in run.traces.names():
        return None
    return next((text for text in _imported(run) if text.id == text_id), None)


def is_kept(run: Run, text_id: str) -> bool:
    """Whether a run keeps a text of that id, traced or not."""
    return is_own(text_id) and (text_id in run.traces.names() or imported_text(run, text_id) is not None)


def _imported(run: Run) -> list[OwnText]:
    path = run.path / IMPORTED
    if not path.exists():
        return []
    try:
        return [
            OwnText(
                str(one["id"]),
                str(one["name"]),
                one.get("language"),
                str(one.get("group") or ""),
                str(one["text"]),
                False,
            )
            for one in read_json_object(path)["texts"]
            if is_own(str(one["id"]))
        ]
    except (LprError, OSError, KeyError, TypeError, AttributeError):
        return []  # a list must not fail for one file; adding to it says what is wrong


@contextmanager
def _importing(run: Run) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield the imported texts by id, and write what becomes of them; one process at a time."""
    path = run.path / IMPORTED
    with FileLock(run.path / ".own_texts.lock"):
        before = list(read_json_object(path)["texts"]) if path.exists() else []
        texts = {str(one["id"]): dict(one) for one in before}
        yield texts
        if list(texts.values()) != before:
            write_json(path, {"schema_version": 1, "texts": list(texts.values())})


def _listed(run: Run, name: str) -> OwnText:
    try:
        facts = read_json(run.path / "traces" / f"{name}.json")
        called = str(facts.get("name") or suggested_name(str(facts["text"])))
        return OwnText(name, called, facts.get("language"), str(facts.get("group") or ""), str(facts["text"]))
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


def checked_group(name: str) -> str:
    """Return the name of a group in one line; empty for none.

    Raises:
        UsageError: it is too long.
    """
    words = " ".join(name.split())
    if len(words) > MAX_NAME:
        raise UsageError(f"The group's name has {len(words)} characters; expected at most {MAX_NAME}.")
    return check_text(words, "The group's name")


def read_lines(data: bytes | str) -> list[str]:
    """Return the texts of a file of lines, one text a line, without empty lines.

    Raises:
        UsageError: a line is not UTF-8 or too long, which is named, or there are too many lines, or none.
    """
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if isinstance(data, bytes) else data.split("\n")
    texts = []
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8") if isinstance(line, bytes) else check_text(line, f"Line {number}")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"Line {number} is not UTF-8 (byte {error.start + 1} of it). Save the file as UTF-8, import it again."
            ) from None
        text = text.strip()
        if "\0" in text:
            raise UsageError(f"Line {number} holds a zero byte; expected a file of text, one text a line.")
        if len(text) > MAX_CHARACTERS:
            raise UsageError(f"Line {number} has {len(text):,} characters; a text has at most {MAX_CHARACTERS:,}.")
        if text:
            texts.append(text)
    if not texts:
        raise UsageError("There is no text in it; expected one text a line.")
    if len(texts) > MAX_LINES:
        raise UsageError(
            f"There are {len(texts):,} texts in it; at most {MAX_LINES} are imported at once. Cut it in two."
        )
    return texts


def add_texts(run: Run, texts: Sequence[str], group: str = "", language: str = "") -> list[OwnText]:
    """Keep texts with a run that are not traced yet, called by their first words; returns them.

    A text that the group has already is not added again.

    Raises:
        UsageError: a group's name that is too long, or a run that came with the code.
    """
    group = checked_group(group)
    _refuse_example(run)
    there = {(text.group, text.text) for text in own_texts(run)}
    fresh = [text for text in dict.fromkeys(texts) if (group, text) not in there]
    made = [OwnText(new_id(), suggested_name(text), language or None, group, text, False) for text in fresh]
    with _importing(run) as kept:
        for one in made:
            facts = asdict(one)
            del facts["is_traced"]
            kept[one.id] = facts
    return made


def keep_text(run: Run, text_id: str, name: str, trace: "RoutingTrace", group: str = "") -> None:
    """Keep a traced text with a run, or put it in place of the one of that id.

    Raises:
        UsageError: an invalid name, an id that is not of a typed text, or a run that came with the code.
    """
    name = checked_own_name(name)
    if not is_own(text_id):
        raise UsageError(f"{text_id!r} is not the id of a typed text.")
    group = checked_group(group)
    _refuse_example(run)
    run.traces.write(text_id, trace)
    rename_text(run, text_id, name, group)
    _forget_imported(run, text_id)


def _forget_imported(run: Run, *text_ids: str) -> None:
    if (run.path / IMPORTED).exists():
        with _importing(run) as kept:
            for text_id in text_ids:
                kept.pop(text_id, None)


def rename_text(run: Run, text_id: str, name: str, group: str | None = None, text: str | None = None) -> None:
    """Give a kept text another name, another group or, where it was not traced yet, other words; None leaves them.

    Raises:
        UsageError: an invalid name, or a run that came with the code.
        MissingError: the text is not there.
    """
    changed = {"name": checked_own_name(name)} | ({} if group is None else {"group": checked_group(group)})
    _refuse_example(run)
    _existing(run, text_id)
    if imported_text(run, text_id) is None:
        path = run.path / "traces" / f"{text_id}.json"
        write_json(path, {**read_json(path), **changed})
        return
    with _importing(run) as kept:
        kept[text_id] |= changed | ({} if text is None else {"text": check_text(text.strip())})


def delete_text(run: Run, text_id: str) -> None:
    """Delete a kept text for good.

    Raises:
        UsageError: a run that came with the code.
        MissingError: the text is not there.
    """
    _refuse_example(run)
    run.traces.delete(_existing(run, text_id))
    _forget_imported(run, text_id)


def delete_group(run: Run, group: str) -> int:
    """Delete all kept texts of a group for good; returns how many there were.

    Raises:
        UsageError: no group is named, or a run that came with the code.
        MissingError: there is no text in it.
    """
    if not group:
        raise UsageError("Texts of no group are deleted one by one.")
    found = by_group(own_texts(run)).get(group)
    if not found:
        raise MissingError(f"Run {run.id} keeps no text in a group {group!r}; somebody may have deleted it.")
    _refuse_example(run)
    for text in found:
        if text.is_traced:
            run.traces.delete(text.id)
    _forget_imported(run, *(text.id for text in found))
    return len(found)


def _existing(run: Run, text_id: str) -> str:
    if not is_kept(run, text_id):
        raise MissingError(f"Run {run.id} keeps no text {text_id!r}; somebody may have deleted it.")
    return text_id


def _refuse_example(run: Run) -> None:
    if run.is_example:
        raise UsageError(f"Run {run.id} came with the code and is read only; trace the text with a run of your own.")
