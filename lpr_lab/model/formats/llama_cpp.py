"""llama.cpp by `llama-cpp-python` (the extra `serving`), where it is installed: to check GGUF files that we wrote.

It ends the whole process on a file that it doesn't like, so it is asked in one of its own:
`python -m lpr_lab.model.formats.llama_cpp FILE FOLDER`. Torch-free, so that this one starts quickly.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lpr_lab.errors import DamagedError

INSTALL = "pip install 'lpr_lab[serving]' builds it; that needs a C++ compiler and takes some ten minutes."
_ASKED, _ANSWERED, _LOGITS = "asked.json", "answered.json", "logits.npy"


def is_installed() -> bool:
    """Say whether llama.cpp can be asked."""
    return find_spec("llama_cpp") is not None


@dataclass(frozen=True)
class Answer:
    """What llama.cpp makes of a file.

    Attributes:
        version: of llama-cpp-python.
        logits: float32 [B, S, V], each row by itself.
        tokens: of each text, without those that stand before or after it.
        continuations: of each row, the likeliest token each time.
    """

    version: str
    logits: np.ndarray
    tokens: list[list[int]]
    continuations: list[list[int]]


def ask(file: Path, rows: list[list[int]], texts: list[str] | None = None, length: int = 0) -> Answer:
    """Open a file on the processor, all in float32 that it doesn't say, and compute.

    Args:
        file: a GGUF file.
        rows: tokens, rows of one length.
        texts: to cut into tokens.
        length: tokens to continue each row by.

    Raises:
        DamagedError: llama.cpp does not open it, with its last words.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        request = {"rows": rows, "texts": texts or [], "length": length}
        (folder / _ASKED).write_text(json.dumps(request), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(file), name],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GGML_NO_BACKTRACE": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            words = " / ".join(done.stderr.strip().splitlines()[-3:])
            raise DamagedError(f"llama.cpp does not open {file.name} (exit {done.returncode}): {words}")
        answer = json.loads((folder / _ANSWERED).read_text(encoding="utf-8"))
        return Answer(logits=np.load(folder / _LOGITS), **answer)


def _open(file: str, context: int) -> Any:
    llama_cpp = import_module("llama_cpp")
    bindings: Any = import_module("llama_cpp.llama_cpp")
    defaults = bindings.llama_model_default_params

    def plain() -> Any:
        # Weights as the file has them: repacked for AMX, eight-bit ones end the process (llama.cpp's issue 20824), and
        # the check should say the same on every processor.
        parameters = defaults()
        parameters.use_extra_bufts = False
        return parameters

    bindings.llama_model_default_params = plain  # of this process, which is there for one file
    return llama_cpp.Llama(
        file,
        n_ctx=context,
        n_batch=context,
        n_gpu_layers=0,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )


def _logits(llama: Any, row: list[int]) -> np.ndarray:
    llama.reset()
    llama.eval(row)
    return llama.scores[: len(row)].copy()


def _continue(llama: Any, row: list[int], length: int) -> list[int]:
    known = list(row)
    _logits(llama, known)
    for _ in range(length):
        known.append(int(llama.scores[len(known) - 1].argmax()))
        llama.eval(known[-1:])
    return known[len(row) :]


def _answer(file: str, folder: Path) -> None:
    asked = json.loads((folder / _ASKED).read_text(encoding="utf-8"))
    # It keeps the logits of a whole context, so no more of it than is asked for.
    llama = _open(file, max(map(len, asked["rows"])) + asked["length"])
    np.save(folder / _LOGITS, np.stack([_logits(llama, row) for row in asked["rows"]]))
    answer = {
        "version": import_module("llama_cpp").__version__,
        "tokens": [llama.tokenize(text.encode(), add_bos=False, special=False) for text in asked["texts"]],
        "continuations": [_continue(llama, row, asked["length"]) for row in asked["rows"]],
    }
    (folder / _ANSWERED).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    _answer(sys.argv[1], Path(sys.argv[2]))
