"""Opens safetensors files; one that cannot be read is named, with what it is instead and what to do."""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lpr_lab.errors import DamagedError
from lpr_lab.storage import what_it_is_instead

_CHUNK_BYTES = 1 << 20


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file for reading; the header is checked against the file's length.

    Raises:
        DamagedError: missing, cut, or no safetensors file at all; the message names the file.
    """
    try:
        file = safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise DamagedError(
            f"{path} cannot be read as safetensors ({what_it_is_instead(path) or error}). Fetch or save this file "
            "again; nothing was loaded."
        ) from error
    with file as opened:
        yield opened


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        DamagedError: as `open_tensors`.
    """
    with open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def refuse_zeros_at_the_end(path: Path) -> None:
    """Refuse a file whose header is whole and whose numbers stop: a download into reserved space that broke off.

    Zeros at the end of a good file begin where a tensor begins. Where they begin inside one and go over others, or over
    half of the file, the rest never arrived.

    Raises:
        DamagedError: with the file and the first tensor that is missing.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_bytes))
        start = 8 + header_bytes
        end = _end_of_numbers(file, start, size) - start
    header.pop("__metadata__", None)
    places = sorted((*facts["data_offsets"], name) for name, facts in header.items())
    missing = [name for first, last, name in places if end <= first < last]
    begins_inside = any(first < end < last - 16 for first, last, _ in places)  # 16: a number may end in zeros
    if (missing and begins_inside) or 2 * end < size - start:
        raise DamagedError(
            f"{path} holds nothing but zeros from {(start + end) / size:.0%} of its length on, where "
            f"{missing[0] if missing else places[-1][-1]} should be: it was not fetched to its end. Fetch it again."
        )


def _end_of_numbers(file: Any, start: int, size: int) -> int:
    """Return the place after the last byte that is not zero."""
    place = size
    while place > start:
        length = min(_CHUNK_BYTES, place - start)
        file.seek(place - length)
        kept = file.read(length).rstrip(b"\0")
        if kept:
            return place - length + len(kept)
        place -= length
    return start
