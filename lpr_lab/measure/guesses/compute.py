"""Computes logit lenses: the state after every layer goes through the model's own final norm and head.

One forward pass of each model keeps the states of all layers, [L, T, D]; logits are made of them a few rows at a time
(`model.head`), so no more than those are ever there. What the head adds (a scale, a soft cap, a bias) is the model's
own.

Letters: L decoder layers, T tokens, D model width, V vocabulary, K guesses kept, N rows of logits.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UnsupportedModelError, UsageError, one_of
from lpr_lab.measure.guesses.count_tokens import count_token_languages
from lpr_lab.measure.guesses.lens import MODELS, Guesses, LogitLens
from lpr_lab.measure.guesses.token_languages import TokenLanguages
from lpr_lab.measure.routing import ids_of_text
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.bases.families import decoder_layers, final_norm
from lpr_lab.model.capture import causal_lm_of, record_routing
from lpr_lab.model.forward import inference
from lpr_lab.model.head import Head, head_of, hidden_states, rows_at_once
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import selected_stage, stage_names, use_stage
from lpr_lab.progress import run_through
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.graphemes import token_bytes

TOP = 5


class LensStep(NamedTuple):
    """How far a lens is: layers read, of how many, both models together; the lens once it is whole."""

    done: int
    total: int
    result: LogitLens | None


def logit_lens(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    language: str | None = None,
    *,
    stage: str | None = None,
    top: int = TOP,
    languages: Iterable[str] = (),
    corpus: Corpus | None = None,
) -> LogitLens:
    """Read what every layer would say comes next, were it the last: of the expanded model and of its base.

    The text is read as a document of its own, as in `trace`. The guess of the last layer is the model's own. Layers
    before it were never trained to be read so: a guess says what the head makes of a state, not what the layer is for.

    Args:
        model: an expanded model.
        tokenizer: the base model's.
        text: anything in any script.
        language: ISO 639-1 code, kept with the result.
        stage: of the expanded model, a name from `stage_names(model)`; None: the stage in use.
        top: guesses kept of every state.
        languages: codes of the languages that a guess may be said to be of; without any, guesses have scripts only.
        corpus: text of these languages, to tell apart those that share a script.

    Raises:
        UsageError: empty text, half of a character, more tokens than the model's context, a stage or a language that
            there is not, or a `top` outside the vocabulary. Raised before anything is computed.
        UnsupportedModelError: a family without a final norm, or one that does more between its layers and its head.

    Examples:
        >>> import lpr_lab as lab  # doctest: +SKIP
        >>> lens = lab.logit_lens(model, tokenizer, "Καλημέρα, κόσμε.", "el", languages=["en", "el"])  # doctest: +SKIP
        >>> lens.to_frame().query("model == 'expanded' and token == 3")  # doctest: +SKIP
        >>> lens.languages_by_layer()  # doctest: +SKIP
    """
    codes = tuple(languages)
    known = count_token_languages(tokenizer, corpus, codes) if codes else TokenLanguages()
    steps = lens_steps(model, tokenizer, text, language, stage=stage, top=top, token_languages=known)
    return run_through(steps, "Reading layers", "layer")


def lens_steps(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    language: str | None = None,
    *,
    stage: str | None = None,
    top: int = TOP,
    token_languages: TokenLanguages | None = None,
) -> Iterator[LensStep]:
    """Read one layer after the other, for whoever shows progress or lets a reader stop it.

    Arguments and errors are those of `logit_lens`, and errors of usage come at once. Between two steps the model stands
    as it stood before.
    """
    stage = stage or selected_stage(model)
    one_of("stage", stage, stage_names(model))
    size = _vocabulary(model)
    if not 1 <= top <= size:
        raise UsageError(f"top is {top}; expected 1 to {size}, the size of the vocabulary.")
    final_norm(causal_lm_of(model))
    ids, pieces = ids_of_text(model, tokenizer, text)
    return _steps(model, tokenizer, (ids, pieces), text, language, stage, top, token_languages or TokenLanguages())


def _steps(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: tuple[list[int], list[bytes | None]],
    text: str,
    language: str | None,
    stage: str,
    top: int,
    token_languages: TokenLanguages,
) -> Iterator[LensStep]:
    ids, pieces = tokens
    device = next(model.parameters()).device
    number = len(decoder_layers(causal_lm_of(model)))
    total, done = 2 * number, 0
    found: dict[str, Guesses] = {}
    new_weight = np.full((number, len(ids)), np.nan, np.float32)
    for name in MODELS:
        with _standing(model, stage if name == "expanded" else None), record_routing(model) as record:
            states = _states(model, torch.tensor([ids], device=device))
            for layer, routing in record.routing.items():
                new_weight[layer] = 1 - routing.original_weight().float().cpu().numpy()
        rows = _Rows(ids, number, top, rows_at_once(_vocabulary(model), device))
        # The last layer first: the others are asked about what it guesses.
        for layer in reversed(range(number)):
            with _standing(model, stage if name == "expanded" else None):
                rows.read(layer, _head_after_norm(model), states[layer])
            done += 1
            if done < total:
                yield LensStep(done, total, None)
        found[name] = rows.guesses()
    named = sorted({int(one) for guesses in found.values() for one in np.unique(guesses.token_ids)})
    result = LogitLens(
        text=text,
        language=language,
        stage=stage,
        token_ids=ids,
        token_bytes=pieces,
        layers=np.arange(number),
        guesses=found,
        new_weight=new_weight,
        vocabulary=dict(zip(named, token_bytes(tokenizer, named), strict=True)),
        token_languages=token_languages,
        model={"base": expansion_config(model).base_name},
    )
    yield LensStep(done, total, result)


def _vocabulary(model: PeftModel) -> int:
    return causal_lm_of(model).config.get_text_config().vocab_size


@contextmanager
def _standing(model: PeftModel, stage: str | None) -> Iterator[None]:
    """Have a model at a stage, or as its base (None), ready to be read."""
    with use_stage(model, stage), inference(model, None):
        yield


def _states(model: PeftModel, ids: torch.Tensor) -> list[torch.Tensor]:
    """Return the state [T, D] after every decoder layer, of ids [1, T].

    Raises:
        UnsupportedModelError: the head does not read what the final norm makes of the last state.
    """
    inner = causal_lm_of(model)
    seen: dict[int, torch.Tensor] = {}
    with hidden_states(model) as is_separable:
        handles = [
            layer.register_forward_hook(lambda _, __, output, place=place: seen.update({place: _first(output)}))
            for place, layer in enumerate(decoder_layers(inner))
        ]
        try:
            read = model(input_ids=ids, use_cache=False, only_states=True)
        finally:
            for handle in handles:
                handle.remove()
    states = [seen[place] for place in sorted(seen)]
    alike = {state.shape for state in states} == {read.shape}
    if not is_separable or not alike or not torch.equal(final_norm(inner)(states[-1]), read):
        raise UnsupportedModelError(
            f"{inner.config.name_or_path or type(inner).__name__} ({type(inner).__name__}) does more between its "
            "layers and its logits than a norm and a head, so earlier states cannot be read by them; expected "
            "a decoder whose last state goes through the final norm into the head."
        )
    return [state[0] for state in states]


def _first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple | list) else output


def _head_after_norm(model: nn.Module) -> Head:
    """Return the way from states of any layer [N, D] to logits [N, V]."""
    norm, head = final_norm(causal_lm_of(model)), head_of(model)
    return lambda states: head(norm(states[None])[0])


class _Rows:
    """Takes in layer after layer, the last first, a few rows of logits at a time."""

    def __init__(self, ids: list[int], number: int, top: int, at_once: int) -> None:
        self._follows = torch.tensor([*ids[1:], ids[-1]])  # at the last place nothing does; its numbers are taken out
        self._final = torch.zeros(len(ids), dtype=torch.long)
        shape = (number, len(ids))
        self._arrays: dict[str, np.ndarray] = {
            "token_ids": np.zeros((*shape, top), np.int64),
            "probs": np.zeros((*shape, top), np.float32),
            "next_prob": np.zeros(shape, np.float32),
            "next_rank": np.zeros(shape, np.int64),
            "final_prob": np.zeros(shape, np.float32),
            "final_rank": np.zeros(shape, np.int64),
        }
        self._last, self._top, self._at_once = number - 1, top, at_once

    def read(self, layer: int, logits_of: Head, states: torch.Tensor) -> None:
        """Take in the states [T, D] of one layer."""
        for start in range(0, len(states), self._at_once):
            stretch = slice(start, min(start + self._at_once, len(states)))
            logits = logits_of(states[stretch]).float()
            best = logits.topk(self._top)
            if layer == self._last:
                self._final[stretch] = best.indices[:, 0].cpu()
            normaliser = logits.logsumexp(-1, keepdim=True)
            found = {"token_ids": best.indices, "probs": (best.values - normaliser).exp()}
            for name, asked in (("next", self._follows), ("final", self._final)):
                of_asked = logits.gather(1, asked[stretch, None].to(logits.device))
                found[f"{name}_prob"] = (of_asked - normaliser).exp()[:, 0]
                found[f"{name}_rank"] = 1 + (logits > of_asked).sum(-1)
            for name, values in found.items():
                self._arrays[name][layer, stretch] = values.cpu().numpy()

    def guesses(self) -> Guesses:
        """Return what was found, once every layer was read."""
        self._arrays["next_prob"][:, -1] = np.nan
        self._arrays["next_rank"][:, -1] = 0
        return Guesses(**self._arrays)
