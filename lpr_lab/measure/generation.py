"""Generates with two models in lockstep: base and expanded model on one copy of the weights, or any two stages.

Both continue the same prompt, token by token, with the same decoding and the same seed; the base is the expanded model
with its adapter off. Each side keeps its own key-value cache, so a step computes one new token per side and nothing
twice. Text is released by whole characters (`measure.streaming`): no script stutters, and no replacement character
ever stands for one that is still being written.

Either side can be steered (`model.steering`): experts forced, banned or scaled while it writes. Afterwards
`trace_continuation` says where each token went, as it went when it was written.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache

from lpr_lab.errors import UsageError, one_of
from lpr_lab.measure.routing import trace_log_prob, trace_tokens
from lpr_lab.measure.streaming import CharacterStream
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.forward import inference
from lpr_lab.model.mixture import all_layers
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import selected_stage, stage_names, use_stage
from lpr_lab.model.steering import steer
from lpr_lab.model.tuned.pair import Tuned
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.packing import in_mode, separator_token_id
from lpr_lab.text.unicode import check_text
from lpr_lab.text.vocabulary import require_embeddings

BASE = "base"
EXPANDED = "expanded"


@dataclass(frozen=True)
class GenerationState:
    """The continuation by one model so far.

    Attributes:
        text: what can be shown, the prompt not included.
        ids: generated token ids.
        finished: whether it has ended (an end token, or the limit).
        seconds: spent computing it.
    """

    text: str
    ids: tuple[int, ...]
    finished: bool
    seconds: float


@dataclass(frozen=True)
class PairStep:
    """Where both generations stand after one more token each.

    Attributes:
        left, right: the two continuations; the base and the expanded model unless others were asked for.
        diverged_at: index of the first generated token in which they differ; None while they agree.
        seconds: since the start.
    """

    left: GenerationState
    right: GenerationState
    diverged_at: int | None
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether both have ended."""
        return self.left.finished and self.right.finished


class _ModelAtStage:
    """A model with a fast switch to one stage, or its base, and back, for every token; `use_stage` takes longer."""

    def __init__(self, model: PeftModel | PreTrainedModel, stage: str) -> None:
        self.model = model
        self._layers = all_layers(model)
        self._is_training = any(part.training for part in model.modules())
        with nullcontext() if stage == EXPANDED else use_stage(cast("PeftModel", model), _or_base(stage)):
            self._target = self._state()

    def _state(self) -> list[tuple[int, int, bool]]:
        return [(layer.stage, layer.expansion, layer.disable_adapters) for layer in self._layers]

    def _set(self, state: list[tuple[int, int, bool]]) -> None:
        for layer, (stage, expansion, disabled) in zip(self._layers, state, strict=True):
            layer.stage, layer.expansion = stage, expansion
            layer.enable_adapters(not disabled)

    @contextmanager
    def selected(self) -> Iterator[PeftModel | PreTrainedModel]:
        before = self._state()
        self._set(self._target)
        try:
            with in_mode(self.model, training=False) if self._is_training else nullcontext():
                yield self.model
        finally:
            self._set(before)


@dataclass
class _Side:
    """One of the two generations: its model, its cache, its tokens, its random numbers."""

    model: _ModelAtStage
    next_input: torch.Tensor
    temperature: float
    generator: torch.Generator
    cache: DynamicCache
    steering: Mapping[str, Any] | None = None
    ids: list[int] = field(default_factory=list)
    stream: CharacterStream = field(default_factory=CharacterStream)
    finished: bool = False
    seconds: float = 0.0

    @torch.no_grad()
    def step(self, tokenizer: PreTrainedTokenizerBase, stops: set[int], limit: int) -> None:
        if self.finished:
            return
        started = time.monotonic()
        with self.model.selected() as model, _steered(model, self.steering):
            # Of a prompt only the last position is asked for: the head is the dearest layer of a small model.
            logits = model(
                input_ids=self.next_input, past_key_values=self.cache, use_cache=True, logits_to_keep=1
            ).logits[:, -1]
        token = self.choose(logits)
        self.next_input = token
        if int(token) in stops:
            self.finished = True
        else:
            self.ids.append(int(token))
            self.stream.feed(token_bytes(tokenizer, self.ids[-1:])[0] or b"")
            self.finished = len(self.ids) >= limit
        if self.finished:
            self.stream.end()
        self.seconds += time.monotonic() - started

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the next token, [1, 1], from logits [1, V]."""
        if self.temperature > 0:
            chances = (logits.float() / self.temperature).softmax(-1)
            return torch.multinomial(chances, 1, generator=self.generator)
        return logits.argmax(-1, keepdim=True)

    def so_far(self) -> GenerationState:
        return GenerationState(self.stream.text, tuple(self.ids), self.finished, self.seconds)


def generate_pair(
    model: PeftModel | Tuned,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    *,
    left: str = BASE,
    right: str = EXPANDED,
    left_model: PeftModel | Tuned | None = None,
    right_model: PeftModel | Tuned | None = None,
    left_steering: Mapping[str, Any] | None = None,
    right_steering: Mapping[str, Any] | None = None,
) -> Iterator[PairStep]:
    """Continue a prompt on two sides in lockstep; yields after every token.

    The keywords name each side by itself, because any two stages of any two models can be compared.

    Args:
        model: an expanded model, or a baseline from `load_trained`.
        tokenizer: the base model's.
        prompt: text to continue, in any script.
        max_new_tokens: limit per side.
        temperature: 0 takes the likeliest token; more samples, with the same seed on both sides.
        seed: of the sampling.
        left: who writes on the left: `base`, `expanded` (the model as it stands) or one of its stages.
        right: the same for the right.
        left_model: writes on the left instead of `model`; it must have the same tokenizer.
        right_model: the same for the right.
        left_steering: what `steer` is told while the left side writes: `force`, `ban` and `scale`, by name. With
            `after` it is told so only after so many tokens were written, in the middle of a sentence if need be.
        right_steering: the same for the right.

    Raises:
        UsageError: an empty prompt, one with half of a character, a stage there is not, limits that make no sense, or
            steering that `steer` refuses or that a base or a baseline cannot follow. Raised at once, not at the first
            step.

    Examples:
        >>> for step in generate_pair(model, tokenizer, "Η Αθήνα είναι"):  # doctest: +SKIP
        ...     print(step.left.text, "|", step.right.text)
        >>> steps = generate_pair(model, tokenizer, "Η Αθήνα", right_steering={"scale": (0, 4.0)})  # doctest: +SKIP
        >>> switch = {"force": 1, "after": 8}  # what it is until then, then expert 1 alone
        >>> steps = generate_pair(model, tokenizer, "Η Αθήνα", right_steering=switch)  # doctest: +SKIP
    """
    if not check_text(prompt, "The prompt").strip():
        raise UsageError("The prompt is empty; type some text to continue.")
    if max_new_tokens < 1 or temperature < 0:
        raise UsageError(f"Expected max_new_tokens >= 1 and temperature >= 0, got {max_new_tokens} and {temperature}.")
    models = [(left_model or model, left), (right_model or model, right)]
    for writer, stage in models:
        one_of("stage", stage, [BASE, EXPANDED, *stage_names(writer)])
    separator = separator_token_id(tokenizer)
    ids = [separator, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    for writer, _ in models:
        require_embeddings(writer.tuned if isinstance(writer, Tuned) else writer, tokenizer, ids)
    end = tokenizer.eos_token_id
    stops = {separator, end} if isinstance(end, int) else {separator}
    for (writer, stage), told in zip(models, (left_steering, right_steering), strict=True):
        _refuse_steering(writer, stage, told)
    sides = []
    for (named, stage), told in zip(models, (left_steering, right_steering), strict=True):
        writer, stage = _writer(named, stage)
        tensor = torch.tensor([ids], device=next(writer.parameters()).device)
        generator = torch.Generator(device=tensor.device).manual_seed(seed)
        cache = DynamicCache(config=writer.config)
        steering = _placed(told, len(ids))
        sides.append(_Side(_ModelAtStage(writer, stage), tensor, temperature, generator, cache, steering))
    return _steps(sides, tokenizer, stops, max_new_tokens)


def trace_continuation(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    written: GenerationState,
    language: str | None = None,
    *,
    stage: str = EXPANDED,
    steering: Mapping[str, Any] | None = None,
) -> RoutingTrace:
    """Trace a prompt with what one side of `generate_pair` wrote, token by token as it was written, under its steering.

    One forward pass over the tokens themselves: the same routing as while they were written, up to rounding.

    Args:
        model: the expanded model that wrote.
        tokenizer: the base model's.
        prompt: what was continued.
        written: the side, `step.left` or `step.right`.
        language: ISO 639-1 code, kept with the trace.
        stage: who wrote, as in `generate_pair`. The base is traced with expert 0 forced, which computes the base.
        steering: what the side was told.

    Returns:
        A trace of prompt and continuation; `base_log_prob` is the base's.

    Raises:
        UsageError: as `generate_pair`.
    """
    one_of("stage", stage, [BASE, EXPANDED, *stage_names(model)])
    _refuse_steering(model, stage, steering)
    words = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = [separator_token_id(tokenizer), *words, *written.ids]
    pieces = [None, *token_bytes(tokenizer, words, prompt), *token_bytes(tokenizer, list(written.ids))]
    text = b"".join(filter(None, pieces)).decode(errors="replace")
    named = selected_stage(model) if stage in (BASE, EXPANDED) else stage
    told = {"force": 0} if stage == BASE else steering
    with inference(model, None), model.disable_adapter():
        as_base = trace_log_prob(model, ids)
    with use_stage(model, named), _steered(model, _placed(told, 1 + len(words))):
        traced = trace_tokens(model, ids, pieces, text, language, base=False)
    traced.base_log_prob = as_base
    traced.model |= {"steering": dict(told)} if told else {}
    return traced


def layer_experts(model: PeftModel, stage: str = EXPANDED) -> dict[int, int]:
    """Return how many experts each layer with a router has at a stage, by decoder layer."""
    with use_stage(model, selected_stage(model) if stage == EXPANDED else stage):
        return {layer.layer: layer.num_experts for layer in moe_layers(model)}


def _steered(model: PeftModel | PreTrainedModel, told: Mapping[str, Any] | None) -> AbstractContextManager[None]:
    return steer(cast("PeftModel", model), **told) if told else nullcontext()


def _placed(told: Mapping[str, Any] | None, prompt_tokens: int) -> dict[str, Any] | None:
    """Return what a side is told as `steer` takes it: from which place of prompt and continuation on.

    A token is chosen by the pass over the one before it, so that this one is the first to be steered.
    """
    if not told:
        return None
    after = told.get("after", 0)
    changes = {name: change for name, change in told.items() if name != "after"}
    return changes | {"start": prompt_tokens - 1 + after if after else 0}


def _refuse_steering(model: PeftModel | Tuned, stage: str, told: Mapping[str, Any] | None) -> None:
    """Refuse what cannot be steered before anything is written."""
    if not told:
        return
    unknown = sorted(set(told) - {"force", "ban", "scale", "after"})
    if unknown:
        raise UsageError(f"Steering has {unknown[0]!r}; expected force, ban, scale or after.")
    if told.get("after", 0) < 0:
        raise UsageError(f"Steering begins after {told['after']} tokens; expected 0 or more.")
    if stage == BASE or isinstance(model, Tuned):
        raise UsageError("The base and baselines have no experts to steer; steer an expanded model or a stage of it.")
    with use_stage(model, selected_stage(model) if stage == EXPANDED else stage), _steered(model, _placed(told, 1)):
        pass


def _or_base(stage: str) -> str | None:
    """Return a stage as `use_stage` takes it."""
    return None if stage == BASE else stage


def _writer(model: PeftModel | Tuned, stage: str) -> tuple[PeftModel | PreTrainedModel, str]:
    """Return the model that writes, and at which stage: of a baseline one of the two that stand beside one another."""
    if isinstance(model, Tuned):
        return (model.base if stage == BASE else model.tuned), EXPANDED
    return model, stage


def _steps(sides: list[_Side], tokenizer: PreTrainedTokenizerBase, stops: set[int], limit: int) -> Iterator[PairStep]:
    started = time.monotonic()
    diverged_at = None
    while not all(side.finished for side in sides):
        for side in sides:
            side.step(tokenizer, stops, limit)
        if diverged_at is None:
            diverged_at = _first_difference(sides[0], sides[1])
        left, right = (side.so_far() for side in sides)
        yield PairStep(left, right, diverged_at, time.monotonic() - started)


def _first_difference(left: _Side, right: _Side) -> int | None:
    """Return where two sides that agreed up to the last step part in this one, or None."""
    if len(left.ids) != len(right.ids):
        return min(len(left.ids), len(right.ids))
    return len(left.ids) - 1 if left.ids and left.ids[-1] != right.ids[-1] else None
