"""Whether a GGUF file holds what an expansion computes: read again here, and by llama.cpp where it is installed.

Beyond float32 two forward passes differ by what the file rounded, and a token between two experts may go to the other
one, so no limit on logits says right from wrong. There every tensor must be the rounded one of the native model, bit
for bit, and the largest difference of the logits is kept as a fact.
"""

from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import DamagedError
from lpr_lab.model.formats import gguf_file, llama_cpp
from lpr_lab.model.formats.compare import Difference, probe_ids, probe_logits
from lpr_lab.text.sample_texts import TEXTS as SAMPLES

TEXTS = [*SAMPLES.values(), " ".join(SAMPLES.values()), "  12,345.67 km\n\n\t(x == y)  'tis we've "]
"""What is cut into tokens by both: many scripts, numbers, white space."""
LLAMA_CPP_SHARE = 1e-4
"""Of the largest logit: what llama.cpp in float32 may differ by. Its exponentials are polynomials."""


def check_gguf(
    file: Path,
    native: PreTrainedModel,
    form: str,
    tokenizer: PreTrainedTokenizerBase,
    expected: torch.Tensor,
    weights: str,
) -> dict[str, Any]:
    """Return what was compared and by how much it differs.

    Args:
        file: the GGUF file.
        native: the model that it was written from.
        form: its native form.
        tokenizer: the base's.
        expected: logits of the expansion, from `probe_logits`.
        weights: type of the matrices.

    Returns:
        difference: of the logits of what the file holds, by transformers; llama_cpp: version, or None where it is not
        installed; llama_cpp_difference: of its logits, if asked.

    Raises:
        DamagedError: a tensor or, in float32, a logit is another one; or llama.cpp cuts a text in another way.
    """
    read = gguf_file.read(file, native.config, form)
    found = read.state_dict()
    for name, values in native.state_dict().items():
        if not torch.equal(found[name], _rounded(values.cpu(), weights, found[name])):
            raise DamagedError(f"{file.name} holds other numbers for {name} than were written, so nothing is kept.")
    read.to(native.device)  # pyright: ignore[reportArgumentType]
    apart = Difference.of(expected, probe_logits(read))
    if weights == "f32" and not apart.is_rounding:
        raise DamagedError(f"What {file.name} holds does not compute the same, so nothing is kept: {apart}")
    del read
    facts: dict[str, Any] = {"difference": apart.largest, "llama_cpp": None}
    if llama_cpp.is_installed():
        facts |= _ask_llama_cpp(file, tokenizer, expected, weights)
    return facts


def _rounded(values: torch.Tensor, weights: str, found: torch.Tensor) -> torch.Tensor:
    """Return values as the file should have them: as they are where they are found so, else rounded to its type."""
    if weights == "f32" or torch.equal(values, found):
        return values
    kind = gguf_file.WEIGHTS[weights][0]
    return torch.from_numpy(gguf.dequantize(gguf.quantize(values.contiguous().numpy(), kind), kind)).view(values.shape)


def _ask_llama_cpp(
    file: Path, tokenizer: PreTrainedTokenizerBase, expected: torch.Tensor, weights: str
) -> dict[str, Any]:
    """Compare with what llama.cpp computes, and its tokens of texts in many scripts."""
    answer = llama_cpp.ask(file, probe_ids(expected.shape[-1]).tolist(), TEXTS)
    apart = Difference.of(expected.cpu(), torch.from_numpy(answer.logits))
    if weights == "f32" and not apart.largest <= LLAMA_CPP_SHARE * max(apart.largest_logit, 1.0):
        raise DamagedError(f"llama.cpp computes something else from {file.name}, so nothing is kept: {apart}")
    for text, tokens in zip(TEXTS, answer.tokens, strict=True):
        if tokens != tokenizer(text, add_special_tokens=False)["input_ids"]:
            raise DamagedError(f"llama.cpp cuts this text into other tokens, so nothing is kept: {text}")
    return {"llama_cpp": answer.version, "llama_cpp_difference": apart.largest}
