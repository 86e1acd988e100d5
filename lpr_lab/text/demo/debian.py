"""Debian packages as containers of text: fetched into the cache without touching the system, read without unpacking.

`apt-get download` runs with package lists, state and cache of its own, so it needs no root and no `apt-get update`
beforehand, and the system's apt is left as it was, hooks included: of its settings only `Acquire::*` (proxies,
authentication) is taken over. Apt checks the signatures. Nothing is ever installed: the package's files are streamed
from `dpkg-deb --fsys-tarfile`, and only regular files whose names match are read.
"""

import errno
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from lpr_lab.errors import DamagedError, LprError, MissingError
from lpr_lab.fetching import NO_NETWORK, NO_SPACE, last_line, locked, run_watched
from lpr_lab.storage import cache_dir, friendly_disk_errors, read_json, staged_directory, verify

_MAX_MEMBERS = 100_000
_MAX_MEMBER_BYTES = 16 << 20
_MAX_TOTAL_BYTES = 1 << 30

INSTEAD = "give load_corpus a hub dataset by name or your own JSONL, TXT or Parquet files instead"
"""The way out wherever Debian packages cannot be had."""


@dataclass(frozen=True)
class Package:
    """A package in the cache."""

    name: str
    version: str
    sha256: str
    path: Path
    """The .deb file."""


def get_packages(patterns: Sequence[str]) -> dict[str, Package]:
    """Return one package per pattern, fetching those that are not in the cache.

    Args:
        patterns: regular expressions for whole package names. Of several matches the one with the highest numbers in
            its name is taken (`wesnoth-1.18-utbs` before `wesnoth-1.16-utbs`); a cached one comes first of all.

    Raises:
        MissingError: no apt-get here, no network, or no such package in this system's sources.
        LprError: no room on the disk.
    """
    found = {pattern: _cached(pattern) for pattern in patterns}
    missing = [pattern for pattern, package in found.items() if package is None]
    if missing:
        with locked(_folder(), "fetching Debian packages"):
            _fetch([pattern for pattern in missing if _cached(pattern) is None], _folder())
        found |= {pattern: _cached(pattern) for pattern in missing}
    return {pattern: package for pattern, package in found.items() if package is not None}


def _folder() -> Path:
    return cache_dir() / "packages"


def _cached(pattern: str) -> Package | None:
    names = (path.name for path in _folder().glob("*/"))
    name = _highest(name for name in names if re.fullmatch(pattern, name))
    if name is None:
        return None
    facts = read_json(_folder() / name / "MANIFEST.json")
    return Package(name, facts["version"], facts["files"]["package.deb"]["sha256"], _folder() / name / "package.deb")


def _highest(names: Iterator[str]) -> str | None:
    return max(names, key=lambda name: ([int(digits) for digits in re.findall(r"\d+", name)], name), default=None)


# -- fetching ----------------------------------------------------------------------------------------------------------


def _fetch(patterns: Sequence[str], folder: Path) -> None:
    if not patterns:
        return
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise MissingError(
            f"The demo corpus is made from Debian packages, and this system has no apt-get and dpkg-deb; {INSTEAD}."
        )
    # Inside: the message says how much is free while what was fetched so far still lies there.
    with _private_apt(folder) as (work, configuration), friendly_disk_errors("fetching Debian packages", folder):
        environment = {"APT_CONFIG": str(configuration)}

        def watched(*arguments: str, label: str, total_bytes: int | None = None) -> None:
            code, output = run_watched(
                ["apt-get", *arguments],
                folders=[work],
                total_bytes=total_bytes,
                label=label,
                environment=environment,
                working_directory=work,
            )
            # `apt-get update` succeeds without having fetched anything.
            if code != 0 or not list(work.glob("lists/*Packages*")):
                raise _explain_apt(output)

        def ask(*command: str) -> str:
            variables = {**os.environ, **environment}
            return subprocess.run(command, env=variables, cwd=work, capture_output=True, text=True, check=False).stdout

        watched("update", label="Reading package lists")
        known = ask("apt-cache", "pkgnames").split()
        names = []
        for pattern in patterns:
            name = _highest(name for name in known if re.fullmatch(pattern, name))
            if name is None:
                raise MissingError(
                    f"This system's package sources have no package called {pattern}; enable Debian's main or Ubuntu's "
                    f"universe archive, or {INSTEAD}."
                )
            names.append(name)
        uris = ask("apt-get", "download", "--print-uris", *names)
        total = sum(int(size) for size in re.findall(r"^'.*' \S+ (\d+)", uris, flags=re.MULTILINE))
        watched("download", *names, label=f"Downloading {len(names)} Debian packages", total_bytes=total)
        for name in names:
            (deb,) = work.glob(f"{name}_*.deb")
            facts = {"package": name, "version": unquote(deb.name.split("_")[1])}
            with staged_directory(folder / name, sealed=facts) as stage:
                shutil.copyfile(deb, stage / "package.deb")


@contextmanager
def _private_apt(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a temporary folder for everything that apt writes, and a configuration that keeps it there."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    kept = [
        line
        for line in dump.splitlines()
        if line.startswith("Acquire::") and not line.startswith(("Acquire::IndexTargets", "Acquire::Languages"))
    ]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".apt-") as temporary:
        work = Path(temporary)
        for part in ("lists/partial", "archives/partial", "none"):
            (work / part).mkdir(parents=True)
        (work / "empty.conf").touch()
        configuration = work / "apt.conf"
        configuration.write_text(
            "\n".join(
                [
                    *kept,
                    f'Dir::Etc::parts "{work}/none";',  # no hooks of the system
                    f'Dir::Etc::main "{work}/empty.conf";',
                    f'Dir::State "{work}";',
                    'Dir::State::status "/var/lib/dpkg/status";',
                    f'Dir::State::lists "{work}/lists";',
                    f'Dir::Cache "{work}";',
                    f'Dir::Cache::archives "{work}/archives";',
                    'Acquire::Languages "none";',
                    'Acquire::Retries "2";',
                    'Acquire::http::Timeout "20";',
                    'Acquire::https::Timeout "20";',
                    'APT::Sandbox::User "";',  # apt's own user could not write here
                ]
            )
            + "\n"
        )
        yield work, configuration


def _explain_apt(output: str) -> Exception:
    if NO_SPACE.search(output):
        return OSError(errno.ENOSPC, "No space left on device")  # becomes a sentence in friendly_disk_errors
    if NO_NETWORK.search(output):
        return MissingError(
            "The demo corpus is not in the cache and the Debian archive cannot be reached; connect to the network and "
            f"run the same command again, or {INSTEAD}."
        )
    return MissingError(f"apt-get could not fetch the demo corpus ({last_line(output)}); mend that, or {INSTEAD}.")


# -- reading -----------------------------------------------------------------------------------------------------------


def read_members(package: Package, pattern: str) -> Iterator[tuple[re.Match[str], bytes]]:
    """Yield (match, content) for every regular file of the package whose path matches `pattern` as a whole.

    Paths have no leading `./`. The package's SHA-256 is checked first.

    Raises:
        DamagedError: the cached package was altered, or cannot be read.
    """
    again = f"delete {package.path.parent} and run the same command again"
    try:
        verify(package.path.parent)
    except DamagedError as error:
        raise DamagedError(f"{error} To fetch it anew, {again}.") from None
    command = ["dpkg-deb", "--fsys-tarfile", str(package.path)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            try:
                yield from read_tar(child.stdout, pattern)
            finally:
                child.kill()  # when the reader stops early
    except FileNotFoundError as error:
        raise MissingError(
            f"Reading {package.name} needs dpkg-deb, which this system does not have; {INSTEAD}."
        ) from error
    except tarfile.TarError as error:
        raise DamagedError(f"The package {package.name} cannot be read ({error}); {again}.") from error


def read_tar(stream: IO[bytes], pattern: str) -> Iterator[tuple[re.Match[str], bytes]]:
    """Yield (match, content) for the regular members of a tar stream whose names match; never extracts to the disk.

    Raises:
        LprError: more or larger members than any package of text has.
    """
    wanted = re.compile(pattern)
    total = 0
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for number, member in enumerate(archive):
            match = wanted.fullmatch(member.name.removeprefix("./"))
            if match is None or not member.isreg():
                continue
            total += member.size
            if number > _MAX_MEMBERS or member.size > _MAX_MEMBER_BYTES or total > _MAX_TOTAL_BYTES:
                raise LprError(f"{member.name} makes the package larger than a package of text can be; it is not read.")
            file = archive.extractfile(member)
            assert file is not None
            yield match, file.read()
