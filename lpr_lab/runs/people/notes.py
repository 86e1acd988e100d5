"""Notes that people write on a run: a few lines of plain text in `notes.md`, a file of their own.

Settings and results are not touched. Whatever somebody wrote is untrusted text: views escape it.
"""

import os

from lpr_lab.errors import LprError, UsageError
from lpr_lab.runs.run import Run
from lpr_lab.storage import write_text
from lpr_lab.text.unicode import check_text

MAX_CHARACTERS = 2000
_FIRST_LINE = 120


def why_read_only(run: Run) -> str:
    """Return, in a sentence, why nothing can be written on a run; empty where it can."""
    if run.is_example:
        return f"Run {run.id} is an example that came with the code, and read only."
    if not os.access(run.path, os.W_OK):
        return f"The folder of run {run.id} is read only here."
    return ""


def read_notes(run: Run) -> str:
    """Return what is noted on a run; empty where nothing is, or where it cannot be read."""
    try:
        return run.documents.notes.strip()
    except OSError:
        return ""


def first_line(text: str) -> str:
    r"""Return the first line of notes, shortened, as a list has room for.

    >>> first_line("Best so far.\nTry a longer review.")
    'Best so far. …'
    """
    line, _, rest = text.strip().partition("\n")
    line = line.strip()
    if len(line) > _FIRST_LINE:
        return f"{line[:_FIRST_LINE].rstrip()}…"
    return f"{line} …" if rest.strip() else line


def write_notes(run: Run, text: str, seen: str | None = None) -> str:
    """Note a text on a run in place of what is noted there; nothing takes the notes away. Returns them as they are now.

    Args:
        run: one's own.
        text: plain, at most `MAX_CHARACTERS` characters.
        seen: the notes that the writer had before them; None replaces whatever is there.

    Raises:
        UsageError: the run is read only, the text is too long, or somebody else wrote meanwhile.
        LprError: the disk refuses.
    """
    if reason := why_read_only(run):
        raise UsageError(reason)
    text = check_text(text, "The note").replace("\r\n", "\n").replace("\r", "\n").strip()
    now = read_notes(run)
    if seen is not None and now != seen.strip() and now != text:
        raise UsageError(
            "Somebody changed the notes of this run meanwhile; theirs are shown above. Put yours beside them and save "
            "again."
        )
    if len(text) > MAX_CHARACTERS:
        raise UsageError(
            f"The note has {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken. Nothing was cut: shorten it "
            f"by {len(text) - MAX_CHARACTERS:,}."
        )
    path = run.path / "notes.md"
    try:
        if text:
            write_text(path, f"{text}\n")
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise LprError(f"The notes of run {run.id} cannot be written ({error.strerror}).") from error
    return text
