"""How a run's tables and routing traces lie on disk: CSV and npz that other tools read too, without pickle.

A trace is three files: `<name>.npz` (the arrays), `<name>.tokens.jsonl` (one token per line: id and bytes) and
`<name>.json` (the text and what was traced). Heavy imports happen inside the functions: listing runs stays quick.
"""

import csv
import io
import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpr_lab.errors import DamagedError, MissingError, UsageError
from lpr_lab.storage import friendly_disk_errors, fsync, read_json, read_jsonl, write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

    from lpr_lab.measure.trace import RoutingTrace

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
_CELL = re.compile(r'("(?:[^"]|"")*"|[^,\n]*)(,|\r?\n|\Z)')
_TRACE_ARRAYS = ("layers", "num_experts", "expert_ids", "expert_weights", "original_weight")
_OPTIONAL_ARRAYS = ("log_prob", "base_log_prob")


SCHEMA_VERSION = 1


def checked_facts(path: Path) -> dict[str, Any]:
    """Return what `run.json` says, or refuse one that is not ours or newer than this code."""
    facts = read_json(path)
    version = facts.get("schema_version") if isinstance(facts, dict) else None
    if not isinstance(version, int):
        raise DamagedError(f"{path} does not say which schema_version it has.")
    if version > SCHEMA_VERSION:
        raise DamagedError(
            f"{path} was written by a newer lpr_lab (schema {version}; this one reads up to {SCHEMA_VERSION}). Upgrade."
        )
    return facts


def checked_name(name: str, what: str) -> str:
    """Return a name that is safe as a file name, or refuse it.

    Raises:
        UsageError: it holds anything but letters, digits, dot, hyphen and underscore, or is too long.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a {what}: use 1 to 81 letters, digits, dots, hyphens and underscores."
        )
    return name


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a CSV in which text is always quoted and numbers never are, so that reading needs no guess."""
    text = table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    path.parent.mkdir(exist_ok=True)
    write_text(path, text)


def read_table(path: Path) -> "pd.DataFrame":
    """Read such a CSV: a quoted column stays text, also when it holds `nan`, `no` or the digits of a hash."""
    import pandas as pd

    try:
        text = path.read_text(encoding="utf-8")
        header = next(csv.reader(io.StringIO(text)), [])
        first_row = text.partition("\n")[2]
        quoted = [cell.startswith('"') for cell in _cells(first_row, len(header))] or [False] * len(header)
        types: Any = {name: str for name, is_text in zip(header, quoted, strict=True) if is_text}
        missing: Any = {name: [""] for name in header if name not in types}
        return pd.read_csv(io.StringIO(text), dtype=types, keep_default_na=False, na_values=missing)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise DamagedError(f"{path} is not readable as a table ({error}).") from error


def _cells(text: str, count: int) -> list[str]:
    cells: list[str] = []
    position = 0
    while position < len(text) and len(cells) < count:
        match = _CELL.match(text, position)
        if match is None:
            return cells
        cells.append(match[1])
        position = match.end()
    return cells


def write_trace(folder: Path, name: str, trace: "RoutingTrace") -> None:
    """Write a trace; weights are kept to half precision, which a picture and a mean over tokens do not notice."""
    import numpy as np

    folder.mkdir(exist_ok=True)
    most = int(trace.num_experts.max(initial=1))
    arrays = {
        "layers": np.asarray(trace.layers, np.int32),
        "num_experts": np.asarray(trace.num_experts, np.int32),
        "expert_ids": np.asarray(trace.expert_ids, np.uint8 if most <= 256 else np.uint16),
        "expert_weights": np.asarray(trace.expert_weights, np.float16),
        "original_weight": np.asarray(trace.original_weight, np.float16),
    }
    for optional in _OPTIONAL_ARRAYS:
        values = getattr(trace, optional)
        if values is not None:
            arrays[optional] = np.asarray(values, np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    lines = [
        f'{{"i": {index}, "id": {token_id}, "bytes": ' + ("null}\n" if piece is None else f'"{piece.hex()}"}}\n')
        for index, (token_id, piece) in enumerate(zip(trace.token_ids, trace.token_bytes, strict=True))
    ]
    arrays_path = folder / f"{name}.npz"
    aside = folder / f".{name}.npz.partial"
    with friendly_disk_errors(f"writing {arrays_path.name}", arrays_path):
        aside.write_bytes(buffer.getvalue())
        fsync(aside)
        os.replace(aside, arrays_path)
    write_text(folder / f"{name}.tokens.jsonl", "".join(lines))
    # Last, because the list of traces goes by this file.
    write_json(
        folder / f"{name}.json",
        {"schema_version": 1, "text": trace.text, "language": trace.language, "model": trace.model},
    )


def read_trace(folder: Path, name: str) -> "RoutingTrace":
    """Read a trace and check that its pieces fit together.

    Raises:
        MissingError: one of its files is not there.
        DamagedError: one is not readable, or the pieces disagree in length.
    """
    import numpy as np

    from lpr_lab.measure.trace import RoutingTrace

    facts = read_json(folder / f"{name}.json")
    tokens_path, arrays_path = folder / f"{name}.tokens.jsonl", folder / f"{name}.npz"
    for path in (tokens_path, arrays_path):
        if not path.is_file():
            raise MissingError(f"{path} is missing.")
    try:
        with np.load(arrays_path, allow_pickle=False) as stored:
            arrays: dict[str, Any] = {key: stored[key] for key in (*_TRACE_ARRAYS, *_OPTIONAL_ARRAYS) if key in stored}
        for key in ("layers", "num_experts", "expert_ids"):
            arrays[key] = arrays[key].astype(np.int64)
        for key in ("expert_weights", "original_weight"):
            arrays[key] = arrays[key].astype(np.float32)
        tokens = read_jsonl(tokens_path)
        trace = RoutingTrace(
            text=facts["text"],
            language=facts["language"],
            token_ids=[int(token["id"]) for token in tokens],
            token_bytes=[None if token["bytes"] is None else bytes.fromhex(token["bytes"]) for token in tokens],
            model=facts.get("model", {}),
            **arrays,
        )
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DamagedError(f"The trace {folder / name} is damaged ({error!r}); record it again.") from error
    cells = (len(trace.layers), len(tokens))
    shapes_fit = trace.expert_ids.shape == trace.expert_weights.shape and trace.original_weight.shape == cells
    if trace.expert_ids.shape[:2] != cells or not shapes_fit:
        raise DamagedError(f"The trace {folder / name} is damaged: its arrays and its tokens differ in length.")
    return trace
