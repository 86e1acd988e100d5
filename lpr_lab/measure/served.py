"""Reads which experts a server chose: files of vLLM, SGLang and llama.cpp. No torch here.

    vLLM       `CompletionOutput.routed_experts` (`enable_return_routed_experts`), kept by `numpy.save`
    SGLang     an answer of `/generate` (`return_routed_experts`) as JSON: `meta_info.routed_experts`, base64 of int32
    llama.cpp  the CSV of `examples/moe-trace`: a row `layer,expert` for each choice, pass by pass and layer by layer

Letters: N layers in the file, T tokens, K chosen per token, best first. Weights are in none of these files.
"""

import base64
import binascii
import csv
from pathlib import Path

import numpy as np

from lpr_lab.errors import UsageError
from lpr_lab.storage import read_json_object

KINDS = {".npy": "vLLM", ".json": "SGLang", ".csv": "llama.cpp"}
"""Who wrote a file, by how its name ends."""
MAX_BYTES = 500_000_000


def require_served(file: str | Path) -> str:
    """Return who wrote a file, by its name, before anything else is opened.

    Raises:
        UsageError: no such file, of another kind, or too large.
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path.name} ends with none of {', '.join(f'{end} ({who})' for end, who in KINDS.items())}.")
    if path.stat().st_size > MAX_BYTES:
        raise UsageError(f"{path.name} has {path.stat().st_size:,} bytes; expected at most {MAX_BYTES:,}.")
    return kind


def read_served(file: str | Path, layers: int, top_k: int) -> np.ndarray:
    """Return the chosen experts of every layer and token, int [N, T, K].

    Args:
        file: see `KINDS`.
        layers: N, how many layers of the served model are mixtures.
        top_k: K.

    Raises:
        UsageError: no such file, of another kind, damaged, or of another model.
    """
    path, kind = Path(file), require_served(file)
    read = {"vLLM": _read_array, "SGLang": _read_answer, "llama.cpp": _read_trace}[kind]
    found = read(path, layers, top_k)
    if found.shape[0] != layers or found.shape[2] != top_k:
        raise UsageError(
            f"{path.name} has {found.shape[0]} layers with {found.shape[2]} experts a token; the run's model has "
            f"{layers} with {top_k}. Was another model served?"
        )
    if not found.shape[1] or found.min() < 0:
        raise UsageError(f"{path.name} says of no token, or with a number below 0, where it went.")
    return found


def _read_array(path: Path, layers: int, top_k: int) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UsageError(f"{path.name} is no array as numpy.save writes one ({error}).") from error
    if values.ndim != 3 or values.dtype.kind not in "iu":
        raise UsageError(
            f"{path.name} has the shape {values.shape} of {values.dtype}; expected whole numbers by token, layer and "
            "choice."
        )
    return np.moveaxis(values.astype(np.int64), 1, 0)


def _read_answer(path: Path, layers: int, top_k: int) -> np.ndarray:
    answer = read_json_object(path)
    coded = (answer.get("meta_info") or {}).get("routed_experts") if isinstance(answer.get("meta_info"), dict) else None
    if not isinstance(coded, str):
        raise UsageError(f"{path.name} has no meta_info.routed_experts; ask SGLang with return_routed_experts.")
    try:
        values = np.frombuffer(base64.b64decode(coded, validate=True), dtype="<i4")
    except (binascii.Error, ValueError) as error:
        raise UsageError(f"meta_info.routed_experts of {path.name} is no base64 of int32 ({error}).") from error
    if values.size % (layers * top_k):
        raise UsageError(
            f"{path.name} has {values.size:,} choices, which {layers} layers with {top_k} experts a token don't "
            "divide. Was another model served?"
        )
    return np.moveaxis(values.reshape(-1, layers, top_k).astype(np.int64), 1, 0)


def _read_trace(path: Path, layers: int, top_k: int) -> np.ndarray:
    by_layer: dict[int, list[int]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if number == 1 and row and not row[0].strip().lstrip("-").isdecimal():
                continue  # the names of the columns
            if len(row) != 2 or not all(cell.strip().isdecimal() for cell in row):
                raise UsageError(f"Line {number} of {path.name} is {','.join(row)[:60]!r}; expected layer,expert.")
            by_layer.setdefault(int(row[0]), []).append(int(row[1]))
    if len({len(chosen) for chosen in by_layer.values()}) != 1 or len(next(iter(by_layer.values()))) % top_k:
        raise UsageError(f"{path.name} has not the same number of choices, a multiple of {top_k}, for every layer.")
    # The rows of one layer come in the order of tokens, whatever the passes were.
    return np.array([by_layer[layer] for layer in sorted(by_layer)], dtype=np.int64).reshape(len(by_layer), -1, top_k)
