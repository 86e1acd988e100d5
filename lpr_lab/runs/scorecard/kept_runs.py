"""The runs behind a committed scorecard, without weights: all that its numbers are computed from, in one archive.

With them anyone can compute an interval again, and put runs that another machine made into the same table. What a run
trained and what it read are not among them.
"""

import io
import json
import lzma
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from lpr_lab.errors import DamagedError, MissingError
from lpr_lab.runs.run import RUN_ID_PATTERN, Run
from lpr_lab.runs.scorecard.table import RESULTS, file_name
from lpr_lab.storage import friendly_disk_errors, read_json_object, staged_directory

_DOCUMENTS = (
    "run.json",
    "status.json",
    "config.yaml",
    "config.input.yaml",
    "env.json",
    "data.json",
    "phases.json",
    "results.json",
)
_TABLES = ("documents", "change", "stages", "expert_load", "classifiers", "self_divergence", "tasks", "task_changes")
KEPT = frozenset((*_DOCUMENTS, *(f"tables/{name}.csv" for name in _TABLES)))
"""Files of a run that are kept."""
_MEASURED = frozenset(("phases.json", "results.json", *(f"tables/{name}.csv" for name in _TABLES)))
"""Of these, the files of numbers that were measured, in float32."""
_LONG = re.compile(rb"-?\d+\.\d{7,}(?:[eE][-+]?\d+)?")
_DIGITS = 7
"""That a measured number has: what a float32 has, and half the size of an archive."""
SUFFIX = ".runs.tar.xz"
"""Of an archive. What runs have in common is compressed once, which makes it a fifth of the size of a zip file."""


def pack(runs: Iterable[Run], base: str, folder: Path | None = None) -> Path:
    """Write runs, without weights, as the archive that belongs to a base's committed scorecard; returns the file."""
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = _archive(base, folder)
    aside = path.with_name(f".{path.name}")
    runs = sorted(runs, key=lambda run: run.id)
    with friendly_disk_errors(f"writing {path.name}", path):
        with tarfile.open(aside, "w:xz", preset=9) as archive:
            # The same file of all runs after one another, for what they share to lie close together.
            for name, run in product(sorted(KEPT), runs):
                if (run.path / name).is_file():
                    content = _content(run.path / name, name)
                    facts = tarfile.TarInfo(f"{run.id}/{name}")  # without owner or time: the same runs, the same bytes
                    facts.size = len(content)
                    archive.addfile(facts, io.BytesIO(content))
        aside.replace(path)
    return path


@contextmanager
def packed(runs: Iterable[Run], base: str, folder: Path | None = None) -> Iterator[tuple[Path, Path]]:
    """Write runs as an archive, as `pack` does; yields the file, and a folder with what it keeps, inside the block.

    A table is saved from there, so that its numbers are those of the kept runs.
    """
    path = pack(runs, base, folder)
    with TemporaryDirectory() as kept:
        unpack(base, Path(kept), folder)
        yield path, Path(kept)


def unpack(base: str, root: Path, folder: Path | None = None) -> tuple[list[str], list[str]]:
    """Put the runs of a base's committed scorecard into a folder of runs.

    Args:
        base: whose scorecard.
        root: the folder of runs.
        folder: where the archive is; the package's own when not given.

    Returns:
        The ids of the runs that were put there, and of those that were there before and stay as they are.

    Raises:
        MissingError: that scorecard came without its runs.
        DamagedError: the archive cannot be read, or holds what `pack` does not write; then nothing was put anywhere.
    """
    path = _archive(base, folder or RESULTS)
    if not path.is_file():
        raise MissingError(
            f"There are no runs of a scorecard of {base!r} to unpack. Make them: lpr-lab scorecard run --base {base}"
        )
    try:
        with tarfile.open(path, "r:xz") as archive:
            contents: dict[str, dict[str, bytes]] = {}
            for member in archive:
                run_id, rest = _checked(member, path)
                file = archive.extractfile(member)
                assert file is not None, "a plain file has content"
                contents.setdefault(run_id, {})[rest] = file.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise DamagedError(f"{path} is not readable as an archive ({error}).") from error
    there = [run_id for run_id in contents if (root / run_id).exists()]
    new = [run_id for run_id in contents if run_id not in there]
    for run_id in new:
        with staged_directory(root / run_id) as stage:
            for name, content in contents[run_id].items():
                (stage / name).parent.mkdir(exist_ok=True)
                (stage / name).write_bytes(content)
    return new, there


def source_of_saved(base: str, folder: Path | None = None, *, verb: str = "scorecard") -> str:
    """Return in words where a saved table is from, and how its runs are had, where they were saved with it.

    Args:
        base: of the table.
        folder: where it lies; None for the scorecards that came with the code.
        verb: the command whose table it is.
    """
    there = _archive(base, folder or RESULTS).is_file()
    how = f"their runs, without weights: lpr-lab {verb} unpack --base {base}" if there else "their runs are not here"
    return f"the results that came with the code; {how}"


def _content(path: Path, name: str) -> bytes:
    """Return a file as it is kept: measured numbers in seven digits, and a status without process and machine."""
    if name in _MEASURED:
        return _LONG.sub(lambda found: f"{float(found[0]):.{_DIGITS}g}".encode(), path.read_bytes())
    if name != "status.json":
        return path.read_bytes()
    status = read_json_object(path) | dict.fromkeys(("pid", "host", "boot_id", "start_ticks"))
    return (json.dumps(status, indent=2, ensure_ascii=False) + "\n").encode()


def _checked(member: tarfile.TarInfo, path: Path) -> tuple[str, str]:
    run_id, _, rest = PurePosixPath(member.name).as_posix().partition("/")
    if not member.isfile() or not RUN_ID_PATTERN.fullmatch(run_id) or rest not in KEPT:
        raise DamagedError(f"{path} holds {member.name!r}, which no run of a scorecard has; nothing was unpacked.")
    return run_id, rest


def _archive(base: str, folder: Path) -> Path:
    return folder / f"{file_name(base)}{SUFFIX}"
