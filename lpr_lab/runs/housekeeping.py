"""Tags on runs, and a trash folder for those that are no longer wanted. Nothing is ever deleted."""

import os
import re
import secrets
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lpr_lab.errors import LprError, UsageError
from lpr_lab.runs.find import list_runs, point_latest_at_newest
from lpr_lab.runs.lineage import children_of
from lpr_lab.runs.people.notes import why_read_only
from lpr_lab.runs.run import Run
from lpr_lab.storage import friendly_disk_errors

TRASH = ".trash"
MAX_TAG_LENGTH = 40
_TAG = re.compile(r"[\w.+-]+")


def checked_tag(word: str) -> str:
    """Return a tag in its one spelling (NFC), or refuse it.

    Raises:
        UsageError: it is more than one word, or too long.
    """
    tag = unicodedata.normalize("NFC", word)
    # Combining marks are not \w, and most scripts of South Asia cannot be written without.
    letters = "".join(c for c in tag if unicodedata.category(c) not in ("Mn", "Mc"))
    if not _TAG.fullmatch(letters) or len(tag) > MAX_TAG_LENGTH:
        raise UsageError(
            f"{word!r} is no tag: use one word of up to {MAX_TAG_LENGTH} letters of any script, digits, dots, plus "
            "signs, hyphens and underscores."
        )
    return tag


def read_tags(run: Run) -> tuple[str, ...]:
    """Return the tags of a run.

    Raises:
        DamagedError: `tags.json` cannot be read.
    """
    return tuple(str(word) for word in run.documents.read("tags").get("tags") or ())


def tags_of(run: Run) -> tuple[str, ...]:
    """Return the tags of a run; none where they cannot be read, because a list must not fail for one of its lines."""
    try:
        return read_tags(run)
    except (LprError, OSError):
        return ()


def tag(run: Run, words: Iterable[str], *, remove: bool = False) -> tuple[str, ...]:
    """Add tags to a run, or remove them; returns those that it has now.

    They are in a file of their own; settings and results are not touched.

    Raises:
        UsageError: a word that is no tag or, when removing, not on the run; or an example, which is read only.
    """
    if reason := why_read_only(run):
        raise UsageError(f"{reason} Tag a run of your own.")
    given = [checked_tag(word) for word in words]
    tags = read_tags(run)
    if remove and (unknown := [word for word in given if word not in tags]):
        has = f"It has {', '.join(tags)}." if tags else "It has none."
        raise UsageError(f"Run {run.id} has no tag {unknown[0]!r}. {has}")
    kept = sorted({*tags} - {*given} if remove else {*tags, *given})
    run.documents.write("tags", {"schema_version": 1, "tags": kept})
    return tuple(kept)


def retag(run: Run, wanted: Iterable[str], seen: Iterable[str]) -> tuple[str, ...]:
    """Give a run the tags that somebody wants who saw these; returns those that it has now.

    Only what they changed is changed, so that tags which others put on it meanwhile stay.

    Raises:
        UsageError: as `tag`.
    """
    wanted, before = {checked_tag(word) for word in wanted}, set(seen)
    gone = [word for word in read_tags(run) if word in before - wanted]
    if added := wanted - before:
        tag(run, added)
    return tag(run, gone, remove=True) if gone else read_tags(run)


@dataclass(frozen=True)
class Removal:
    """A run that was, or would be, moved to the trash.

    Attributes:
        run: it.
        target: where to; moving it back restores it.
        children: ids of runs that continue it and are not removed with it; they stay whole.
    """

    run: Run
    target: Path
    children: tuple[str, ...]


def remove(root: Path, runs: Sequence[Run], *, dry_run: bool = False) -> list[Removal]:
    """Move runs to `.trash` in the folder of runs. All are checked before the first is moved.

    Raises:
        UsageError: one of them is an example, or is being worked on.
    """
    unique = list({run.id: run for run in runs}.values())
    for run in unique:
        if run.is_example:
            raise UsageError(f"Run {run.id} is an example that came with the code, and stays.")
        if _is_worked_on(run):
            raise UsageError(f"Run {run.id} is being worked on. Stop it first, then remove it.")
    everything = list_runs(root)
    leaving = {run.id for run in unique}
    removals = []
    for run in unique:
        children = tuple(child.id for child in children_of(run, everything) if child.id not in leaving)
        removals.append(Removal(run, _free_place(root / TRASH, run.id), children))
    if not dry_run and removals:
        with friendly_disk_errors("moving runs", root):
            (root / TRASH).mkdir(exist_ok=True)
            for removal in removals:
                os.rename(removal.run.path, removal.target)
        point_latest_at_newest(root)
    return removals


def _is_worked_on(run: Run) -> bool:
    """Whether a process holds its lock; a run that was killed or cannot be read is held by nobody."""
    if not (run.path / ".lock").exists():
        return False
    try:
        with FileLock(run.path / ".lock", timeout=0, thread_local=False, fallback_to_soft=False):
            return False
    except Timeout:
        return True


def _free_place(trash: Path, name: str) -> Path:
    return trash / (f"{name}.{secrets.token_hex(2)}" if (trash / name).exists() else name)
