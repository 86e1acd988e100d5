"""File formats of tables and routing traces: CSV and npz that other tools read too, without pickle.

A trace is three files: `<name>.npz` (the arrays), `<name>.tokens.jsonl` (one token per line: id and bytes) and
`<name>.json` (the text and what was traced). Heavy imports happen inside the functions: listing runs stays quick.
"""

import csv
import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
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
_OPTIONAL_ARRAYS = ("log_prob", "base_log_prob", "router_probs")


SCHEMA_VERSION = 1
"""Of `run.json` and with it of the whole directory. What the version before wrote is read, too."""


def checked_facts(path: Path) -> dict[str, Any]:
    """Return what `run.json` says, or refuse one that is not ours, newer than this code, or too old for it."""
    facts = read_json(path)
    version = facts.get("schema_version") if isinstance(facts, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DamagedError(f"{path} does not say which schema_version it has.")
    if version > SCHEMA_VERSION:
        raise DamagedError(
            f"{path} was written by a newer lpr_lab (schema {version}; this one reads up to {SCHEMA_VERSION}). Upgrade."
        )
    if version < SCHEMA_VERSION - 1:
        raise DamagedError(
            f"{path} was written by an older lpr_lab (schema {version}; this one reads {SCHEMA_VERSION - 1} and "
            f"{SCHEMA_VERSION}). Read it with the version that `env.json` beside it names."
        )
    return facts


def version_note(version: Any) -> str:
    """Return a note about a run of the version before; empty for one of this version."""
    if version == SCHEMA_VERSION or not isinstance(version, int):
        return ""
    return f"Written by an earlier lpr_lab (schema {version}, this one writes {SCHEMA_VERSION}); it is read as it is."


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings within settings as (dotted name, value).

    >>> dict(dotted({"seed": 3, "stage1": {"seed": 4, "tokens": 5}}))
    {'seed': 3, 'stage1.seed': 4, 'stage1.tokens': 5}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def seeds_in(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return every seed among settings, by dotted name."""
    return {name: value for name, value in dotted(settings) if re.search(r"(?:^|[._])seed$", name)}


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


_MISSING_NUMBER = "\x00missing\x00"  # nobody's text: no file of ours holds a zero byte


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a CSV in which text is always quoted and numbers never are, so that reading needs no guess.

    A missing number is nothing between two commas, a missing text is an empty one. The csv module would write both as
    `""`, and a column whose first number is missing would be read as text.
    """
    texts = [name for name in table.columns if table[name].map(lambda cell: isinstance(cell, str)).any()]
    filled = table.fillna(dict.fromkeys(texts, ""))
    text = filled.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n", na_rep=_MISSING_NUMBER)
    text = text.replace(f'"{_MISSING_NUMBER}"', "")
    path.parent.mkdir(exist_ok=True)
    write_text(path, text)


def json_records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return the rows of a table as JSON-able mappings, with None for what is missing and for what has no bounds."""
    known = table.notna() & ~table.isin([float("inf"), float("-inf")])
    rows = table.astype(object).where(known, None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def read_table(path: Path) -> "pd.DataFrame":
    """Read such a CSV: a quoted column stays text, also when it holds `nan`, `no` or the digits of a hash.

    A file is parsed once for as long as it stays as it is; the table is the caller's to change.
    """
    found = path.stat()
    # pandas copies on write: who changes this table does not change the one that is kept
    return _parsed_table(path, (found.st_mtime_ns, found.st_size, found.st_ino)).copy(deep=False)


@lru_cache(maxsize=64)
def _parsed_table(path: Path, stamp: tuple[int, ...]) -> "pd.DataFrame":
    import pandas as pd

    try:
        text = path.read_text(encoding="utf-8")
        header = next(csv.reader(io.StringIO(text)), [])
        first_row = text.partition("\n")[2]
        quoted = [cell.startswith('"') for cell in _cells(first_row, len(header))] or [False] * len(header)
        types: Any = {name: str for name, is_text in zip(header, quoted, strict=True) if is_text}
        missing: Any = {name: [""] for name in header if name not in types}
        whole: Any = {"skip_blank_lines": False}  # a row of one missing number is a blank line
        return pd.read_csv(io.StringIO(text), dtype=types, keep_default_na=False, na_values=missing, **whole)
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
    """Write a trace; weights are kept to half precision, which a picture and a mean over tokens do not notice.

    Its earlier stages are in the same files: arrays named `0.expert_ids`, `1.expert_ids` and so on, in the order of
    `stages` in the JSON. A reader of one stage only finds it where it always was.
    """
    import numpy as np

    folder.mkdir(exist_ok=True)
    arrays = _arrays_of(trace)
    for number, earlier in enumerate(trace.stages.values()):
        stored = _arrays_of(earlier)
        stored.pop("base_log_prob", None)  # the same base
        arrays |= {f"{number}.{key}": values for key, values in stored.items()}
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
    facts: dict[str, Any] = {"schema_version": 1, "text": trace.text, "language": trace.language, "model": trace.model}
    if trace.stages:
        facts["stages"] = [earlier.model | {"stage": stage} for stage, earlier in trace.stages.items()]
    # Last, because the list of traces goes by this file.
    write_json(folder / f"{name}.json", facts)


def _arrays_of(trace: "RoutingTrace") -> dict[str, Any]:
    import numpy as np

    most = int(trace.num_experts.max(initial=1))
    types: dict[str, Any] = {
        "layers": np.int32,
        "num_experts": np.int32,
        "expert_ids": np.uint8 if most <= 256 else np.uint16,
        "expert_weights": np.float16,
        "original_weight": np.float16,
        "log_prob": np.float32,
        "base_log_prob": np.float32,
        "router_probs": np.float16,
    }
    values = {key: getattr(trace, key) for key in types}
    return {key: np.asarray(array, types[key]) for key, array in values.items() if array is not None}


def read_trace(folder: Path, name: str) -> "RoutingTrace":
    """Read a trace, with its earlier stages, and check that its pieces fit together.

    Raises:
        MissingError: one of its files is not there.
        DamagedError: one is not readable, or the pieces disagree in length.
    """
    import numpy as np

    facts = read_json(folder / f"{name}.json")
    tokens_path, arrays_path = folder / f"{name}.tokens.jsonl", folder / f"{name}.npz"
    for path in (tokens_path, arrays_path):
        if not path.is_file():
            raise MissingError(f"{path} is missing.")
    try:
        tokens = read_jsonl(tokens_path)
        shared = {
            "text": facts["text"],
            "language": facts["language"],
            "token_ids": [int(token["id"]) for token in tokens],
            "token_bytes": [None if token["bytes"] is None else bytes.fromhex(token["bytes"]) for token in tokens],
        }
        with np.load(arrays_path, allow_pickle=False) as stored:
            trace = _trace_from(stored, "", shared, facts.get("model", {}))
            for number, model in enumerate(facts.get("stages", [])):
                shared["base_log_prob"] = trace.base_log_prob
                trace.stages[str(model["stage"])] = _trace_from(stored, f"{number}.", shared, model)
    except (AttributeError, KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DamagedError(f"The trace {folder / name} is damaged ({error!r}); record it again.") from error
    for part in (trace, *trace.stages.values()):
        cells = (len(part.layers), len(tokens))
        shapes_fit = part.expert_ids.shape == part.expert_weights.shape and part.original_weight.shape == cells
        if part.expert_ids.shape[:2] != cells or not shapes_fit:
            raise DamagedError(f"The trace {folder / name} is damaged: its arrays and its tokens differ in length.")
    return trace


def _trace_from(stored: Any, prefix: str, shared: dict[str, Any], model: dict[str, Any]) -> "RoutingTrace":
    import numpy as np

    from lpr_lab.measure.trace import RoutingTrace

    wanted = [key for key in (*_TRACE_ARRAYS, *_OPTIONAL_ARRAYS) if key in _TRACE_ARRAYS or prefix + key in stored]
    arrays: dict[str, Any] = {key: stored[prefix + key] for key in wanted}
    for key in ("layers", "num_experts", "expert_ids"):
        arrays[key] = arrays[key].astype(np.int64)
    for key in ("expert_weights", "original_weight", "router_probs"):
        if key in arrays:
            arrays[key] = arrays[key].astype(np.float32)
    return RoutingTrace(**(shared | arrays), model=dict(model))
