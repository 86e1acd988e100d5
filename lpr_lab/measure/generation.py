"""Base and expanded model generating side by side, in lockstep, from one copy of the weights.

Both continue the same prompt, token by token, with the same decoding and the same seed; the base is the expanded model
with its adapter off. Text is released by whole characters: bytes of a character still being written wait, so no
script stutters and no replacement character ever appears for one.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache

from lpr_lab.errors import UsageError
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.packing import separator_token_id


@dataclass(frozen=True)
class PairStep:
    """Where both generations stand after one more token each.

    Attributes:
        base_text, expanded_text: what can be shown so far, the prompt not included.
        base_ids, expanded_ids: generated token ids so far.
        base_finished, expanded_finished: that side has ended (an end token, or the limit).
        diverged_at: index of the first generated token in which they differ; None while they agree.
        seconds: since the start.
    """

    base_text: str
    expanded_text: str
    base_ids: tuple[int, ...]
    expanded_ids: tuple[int, ...]
    base_finished: bool
    expanded_finished: bool
    diverged_at: int | None
    seconds: float


class _Side:
    """One of the two generations: its cache, its tokens, its random numbers."""

    def __init__(
        self, model: PeftModel, prompt: torch.Tensor, *, expanded: bool, temperature: float, seed: int
    ) -> None:
        self.model = model
        self.expanded = expanded
        self.temperature = temperature
        self.generator = torch.Generator(device=prompt.device).manual_seed(seed)
        self.cache = DynamicCache(config=model.config)
        self.next_input = prompt
        self.ids: list[int] = []
        self.finished = False

    @torch.no_grad()
    def step(self, stops: set[int], limit: int) -> None:
        if self.finished:
            return
        with nullcontext() if self.expanded else self.model.disable_adapter():
            logits = self.model(input_ids=self.next_input, past_key_values=self.cache, use_cache=True).logits[:, -1]
        if self.temperature > 0:
            chances = (logits.float() / self.temperature).softmax(-1)
            token = torch.multinomial(chances, 1, generator=self.generator)
        else:
            token = logits.argmax(-1, keepdim=True)
        self.next_input = token
        if int(token) in stops:
            self.finished = True
            return
        self.ids.append(int(token))
        self.finished = len(self.ids) >= limit


def generate_pair(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[PairStep]:
    """Continue a prompt with the base and the expanded model in lockstep; yields after every token.

    Args:
        model: an expanded model.
        tokenizer: the base model's.
        prompt: text to continue, in any script.
        max_new_tokens: limit per side.
        temperature: 0 takes the likeliest token; more samples, with the same seed on both sides.
        seed: of the sampling.

    Raises:
        UsageError: an empty prompt, or limits that make no sense. Raised at once, not at the first step.

    Example:
        >>> for step in generate_pair(model, tokenizer, "Η Αθήνα είναι"):  # doctest: +SKIP
        ...     print(step.base_text, "|", step.expanded_text)
    """
    if not prompt.strip():
        raise UsageError("The prompt is empty; type some text to continue.")
    if max_new_tokens < 1 or temperature < 0:
        raise UsageError(f"Expected max_new_tokens >= 1 and temperature >= 0, got {max_new_tokens} and {temperature}.")
    return _generate(model, tokenizer, prompt, max_new_tokens, temperature, seed)


def _generate(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> Iterator[PairStep]:
    started = time.monotonic()
    separator = separator_token_id(tokenizer)
    ids = [separator, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    tensor = torch.tensor([ids], device=next(model.parameters()).device)
    end = tokenizer.eos_token_id
    stops = {separator, end} if isinstance(end, int) else {separator}
    sides = [_Side(model, tensor, expanded=flag, temperature=temperature, seed=seed) for flag in (False, True)]
    while not all(side.finished for side in sides):
        for side in sides:
            side.step(stops, max_new_tokens)
        base, expanded = sides
        yield PairStep(
            base_text=visible_text(token_bytes(tokenizer, base.ids)),
            expanded_text=visible_text(token_bytes(tokenizer, expanded.ids)),
            base_ids=tuple(base.ids),
            expanded_ids=tuple(expanded.ids),
            base_finished=base.finished,
            expanded_finished=expanded.finished,
            diverged_at=_first_difference(base.ids, expanded.ids),
            seconds=time.monotonic() - started,
        )


def visible_text(pieces: list[bytes | None]) -> str:
    r"""Return the text of a byte stream that is still being written.

    Bytes at the end that begin a character are held back; bytes that can never become one show as `⟨E0⟩`.

    >>> visible_text([b"caf", b"\xc3"]), visible_text([b"caf", b"\xc3", b"\xa9"])
    ('caf', 'café')
    """
    rest = b"".join(piece for piece in pieces if piece is not None)
    text = ""
    while rest:
        try:
            return text + rest.decode("utf-8")
        except UnicodeDecodeError as error:
            text += rest[: error.start].decode("utf-8")
            if error.reason == "unexpected end of data":
                return text
            text += "".join(f"⟨{byte:02X}⟩" for byte in rest[error.start : error.end])
            rest = rest[error.end :]
    return text


def _first_difference(left: list[int], right: list[int]) -> int | None:
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return None if len(left) == len(right) else min(len(left), len(right))
