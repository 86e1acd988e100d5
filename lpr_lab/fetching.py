"""Downloads: by child processes that are watched (progress, log, exit code), and from the Hugging Face hub."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lpr_lab.errors import LprError, MissingError, first_line
from lpr_lab.progress import progress, remark
from lpr_lab.storage import friendly_disk_errors

_POLL_SECONDS = 0.2

NO_NETWORK = re.compile(
    r"connection broken|NewConnectionError|ConnectionError|Temporary failure|timed out|ProxyError|unreachable|SSLError"
    r"|Could not resolve|Could not connect|Unable to connect|Connection failed|Connection refused",
    re.IGNORECASE,
)
"""What pip and apt say when there is no network."""

NO_SPACE = re.compile(r"No space left|Disk quota|not enough (free )?space", re.IGNORECASE)
"""What they say when the disk is full."""

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""What can be the name of a model or a data set on the hub."""


def run_watched(
    command: Sequence[str],
    *,
    folders: Sequence[Path],
    total_bytes: int | None,
    label: str,
    environment: Mapping[str, str] | None = None,
    working_directory: Path | None = None,
) -> tuple[int, str]:
    """Run a command that downloads into `folders`, show how much has arrived, and return (exit code, output).

    Args:
        command: what to run, without a shell.
        folders: where it writes, temporary files included; their growth is the progress.
        total_bytes: what should arrive; None when that is not known.
        label: what is being fetched, in a few words.
        environment: variables set on top of ours.
        working_directory: where it runs; None for here.

    The child is killed when we are interrupted. Output is both streams, in order.
    """
    before = sum(map(_bytes_below, folders))
    # English messages whatever the user's language: they are matched above.
    variables = {**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})}
    log = folders[0] / ".output.log"
    with log.open("w") as log_file, progress(total_bytes, label, unit="B") as bar:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            env=variables,
            cwd=working_directory,
        )
        try:
            while child.returncode is None:
                with suppress(subprocess.TimeoutExpired):  # it is awaited, so that a short one takes no longer
                    child.wait(_POLL_SECONDS)
                arrived = sum(map(_bytes_below, folders)) - before
                bar.update(max(min(arrived, total_bytes or arrived) - bar.n, 0))
        finally:
            child.kill()
            child.wait()
        if child.returncode == 0 and total_bytes is not None:
            bar.update(total_bytes - bar.n)
    output = log.read_text(errors="replace")
    log.unlink()
    return child.returncode, output


@contextmanager
def locked(
    folder: Path, doing: str, lock: str = ".lock", left_overs: Sequence[str] = (".staging-*", ".apt-*")
) -> Iterator[None]:
    """Make `folder` and hold its lock, so that one process at a time prepares what is in it; clear what a kill left.

    Args:
        folder: in which something is prepared.
        doing: what for, in a few words: `fetching x`.
        lock: name of the lock file.
        left_overs: patterns of what a killed process may have left.
    """
    with friendly_disk_errors(doing, folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = FileLock(folder / lock)
        try:
            file.acquire(timeout=0)
        except Timeout:
            remark(f"Another process is {doing}; waiting for it.")
            file.acquire()
    try:
        for path in (path for pattern in left_overs for path in folder.glob(pattern)):
            shutil.rmtree(path, ignore_errors=True)
        yield
    finally:
        file.release()


def last_line(output: str) -> str:
    """Return the last line that says something, to be quoted in an error."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no output")


@contextmanager
def hub_errors(
    kind: str,
    name: str,
    instead: str,
    *,
    missing: tuple[type[Exception], ...] = (),
    undelivered: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turn the errors of the Hugging Face hub into one sentence each.

    Args:
        kind: what is fetched: `model` or `data set`.
        name: its name on the hub.
        instead: what else to do, the end of a sentence.
        missing: further errors which say that it is not there.
        undelivered: further errors which say that it could not be read.

    Raises:
        MissingError: not there, gated, not reachable, or not delivered.
    """
    import httpx
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except LprError:
        raise
    except GatedRepoError as error:  # a kind of RepositoryNotFoundError, hence first
        raise MissingError(
            f"{name} is gated: accept its terms on its hub page and log in with `hf auth login`, {instead}."
        ) from error
    except (RepositoryNotFoundError, *missing) as error:
        raise MissingError(
            f"There is no {kind} {name!r} on the hub, or it is gated or private; check the name, log in with "
            f"`hf auth login`, {instead}."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError, ConnectionError) as error:
        raise MissingError(
            f"{name} is not complete in the cache and the hub cannot be reached; connect to the network (and unset "
            f"HF_HUB_OFFLINE), {instead}."
        ) from error
    except (HfHubHTTPError, *undelivered) as error:
        raise MissingError(f"The hub did not deliver {name} ({first_line(error)}); try again, {instead}.") from error


def _bytes_below(folder: Path) -> int:
    total = 0
    # Files and folders are moved while we look: `os.walk` passes over folders that are gone, `rglob` raises.
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total
