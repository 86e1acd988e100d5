"""Files that are either whole or absent: staged directories, atomic writes, sealed manifests, the cache.

Everything this project writes and later trusts goes through here. A directory is prepared beside its final place,
every file in it is flushed to the disk, a `MANIFEST.json` with the size and SHA-256 of each file is written last, and
one rename makes it visible. A reader therefore sees a complete directory or none, also after a kill or a power cut:
renaming alone is not enough, because a file that was never flushed can come back empty.

No torch here: the dashboard reads with this module.
"""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lpr_lab.errors import DamagedError, LprError, MissingError

MANIFEST = "MANIFEST.json"


def cache_dir() -> Path:
    """Return the folder for fetched and converted things: `$LPR_LAB_CACHE`, else `~/.cache/lpr_lab` (XDG honoured)."""
    explicit = os.environ.get("LPR_LAB_CACHE")
    if explicit:
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lpr_lab"


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Flush one file or directory to the disk. A failure is never retried: the kernel forgets it after one report."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_tree(directory: Path) -> None:
    for folder, _, files in os.walk(directory, topdown=False):
        for name in files:
            fsync(Path(folder) / name)
        fsync(Path(folder))


@contextmanager
def friendly_disk_errors(doing: str, where: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one sentence with the next step.

    `torch.save` and safetensors report a full disk as `RuntimeError` or their own error, hence the text match.
    """
    try:
        yield
    except LprError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        text = str(error).lower()
        if number in (errno.ENOSPC, errno.EDQUOT) or "no space left" in text or "unexpected pos" in text:
            free = shutil.disk_usage(_existing_parent(where)).free / 1e6
            raise LprError(
                f"The disk is full ({free:.0f} MB free at {where}) while {doing}. Free some space and run the same "
                "command again: nothing half-written was kept."
            ) from error
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise LprError(f"Not allowed to write to {where} while {doing}. Choose another folder.") from error
        raise


def _existing_parent(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


@contextmanager
def staged_directory(target: Path, *, sealed: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` in one rename when the block ends without an error.

    Args:
        target: the final directory. It must not exist yet; its parent is created.
        sealed: with a dictionary, a `MANIFEST.json` holding it and every file's size and SHA-256 is written last.

    On any error or interruption the staged folder is removed and `target` does not appear.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = target.parent / f".staging-{target.name}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    stage.mkdir()
    try:
        with friendly_disk_errors(f"writing {target.name}", target):
            yield stage
            if sealed is not None:
                seal(stage, sealed)
            _fsync_tree(stage)
            os.rename(stage, target)
            fsync(target.parent)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def seal(directory: Path, facts: dict[str, Any]) -> None:
    """Write `MANIFEST.json`: the given facts plus the size and SHA-256 of every file below `directory`."""
    files = {
        path.relative_to(directory).as_posix(): {"size": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    write_json(directory / MANIFEST, {**facts, "files": files})


def verify(directory: Path) -> dict[str, Any]:
    """Check a sealed directory against its manifest and return the manifest.

    Raises:
        MissingError: there is no such directory.
        DamagedError: no manifest, or a file is missing, cut short or altered; the message names it.
    """
    if not directory.is_dir():
        raise MissingError(f"There is no directory {directory}.")
    manifest_path = directory / MANIFEST
    if not manifest_path.is_file():
        raise DamagedError(f"{directory} has no {MANIFEST}: it was never completed. Delete it or use an earlier one.")
    manifest = read_json_object(manifest_path)
    if not isinstance(manifest.get("files"), dict):
        raise DamagedError(f"{manifest_path} lists no files: it is damaged. Delete {directory} or use an earlier one.")
    for name, expected in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            raise DamagedError(f"{directory} is damaged: {name} is missing.")
        if path.stat().st_size != expected["size"]:
            raise DamagedError(
                f"{directory} is damaged: {name} has {path.stat().st_size} bytes instead of {expected['size']}."
            )
        if sha256_file(path) != expected["sha256"]:
            raise DamagedError(f"{directory} is damaged: the bytes of {name} are not the ones that were written.")
    return manifest


def remove_directory(directory: Path) -> None:
    """Delete a directory so that no reader ever sees a half-deleted one: rename it aside first, then remove."""
    if not directory.exists():
        return
    aside = directory.parent / f".trash-{directory.name}-{uuid.uuid4().hex[:6]}"
    os.rename(directory, aside)
    shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content atomically: aside, flushed, renamed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:6]}")
    try:
        with friendly_disk_errors(f"writing {path.name}", path), aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable by people (indented, any script unescaped, NaN refused)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file, naming it when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingError(f"{path} is missing.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DamagedError(f"{path} is not readable as JSON ({what_it_is_instead(path) or error}).") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds names and values, naming it when it is missing, damaged or something else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise DamagedError(f"{path} holds a JSON {type(value).__name__}; expected an object of names and values.")
    return value


def file_stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is written anew: its time and its size; None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def what_it_is_instead(path: Path) -> str:
    """Say what a file is that cannot be read as what its name promises; empty where that is not known."""
    if not path.is_file():
        return "it is missing" if not path.exists() else "it is no file"
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "it is empty"
    if not start.strip(b"\0"):
        return "it begins with zeros only: it was not fetched or written to its end"
    if start.startswith(b"version https://git-lfs"):
        return "it is the pointer that Git LFS leaves in its place; run `git lfs pull` in the folder it comes from"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, such as a site's error, saved under this name"
    if start.startswith((b"\x80", b"PK")):
        return "it is a pickle or an archive, which can run code and is not read"
    return ""


def _json_line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace a JSONL file atomically: one record a line."""
    write_text(path, "".join(map(_json_line, records)))


def append_jsonl(path: Path, record: dict[str, Any]) -> None:
    """Append one record as one line with a single write, so that concurrent and killed writers leave whole lines."""
    line = _json_line(record).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file; a missing file is empty, and a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    records: list[dict[str, Any]] = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except ValueError as error:
            if number >= len(lines) - 1:
                break
            raise DamagedError(f"{path} is damaged at line {number}: it is not JSON.") from error
    return records
