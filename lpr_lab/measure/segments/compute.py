"""Compares one segment in many languages: a trace of each, its divergence from the reference, and their similarity.

One forward pass per language gives both: where its tokens went, and the inputs of its MLPs, which is what routers read.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError, one_of
from lpr_lab.measure.routing import ids_of_text, trace_tokens
from lpr_lab.measure.segments.comparison import LanguageComparison, choose_reference
from lpr_lab.measure.segments.divergence import between_halves, divergence, token_weights
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.capture import watch_mlp_inputs
from lpr_lab.model.cosines import mean_cosines, sum_of_unit_vectors
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import selected_stage, stage_names
from lpr_lab.progress import run_through
from lpr_lab.text.languages import get_languages, language_name

SHUFFLES = 200


class ComparisonStep(NamedTuple):
    """How far a comparison is: languages read, of how many; and the comparison, once all are."""

    done: int
    total: int
    result: LanguageComparison | None


class _Reading(NamedTuple):
    """A text that was read: its routing, and by layer the sum of the unit vectors of its tokens."""

    trace: RoutingTrace
    sums: dict[int, torch.Tensor]


def compare_languages(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, str],
    *,
    reference: str | None = None,
    stage: str | None = None,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> LanguageComparison:
    """Compare the routing of one segment in several languages with that of a reference language, layer by layer.

    Each text is read as a document of its own, as in `trace`. Divergence is that of the mean weights on experts
    (Jensen-Shannon, in bits), with what the same tokens give when they are dealt to both texts at random. Similarity is
    LayerMoE's: the mean cosine over all pairs of a token of one text and one of the other, of the inputs of MLPs.

    Args:
        model: an expanded model.
        tokenizer: the base model's.
        texts: language -> the segment in it; at least two. That they say the same is for you to know.
        reference: which of them the others are compared with; None: English, else the first that no expansion taught,
            else the first.
        stage: a name from `stage_names(model)`; None: the stage in use.
        shuffles: how often tokens are dealt at random.
        seed: of the deals.

    Raises:
        UsageError: fewer than two languages, one that is not known, a reference that is not among them, or a text that
            is empty or longer than the model's context. Raised before anything is computed.

    Examples:
        >>> texts = {"en": "I heard the sea.", "el": "Άκουσα τη θάλασσα.", "ar": "سمعت البحر."}
        >>> found = compare_languages(model, tokenizer, texts)  # doctest: +SKIP
        >>> found.to_frame().pivot(index="layer", columns="language", values="divergence_bits")  # doctest: +SKIP
    """
    steps = compare_steps(model, tokenizer, texts, reference=reference, stage=stage, shuffles=shuffles, seed=seed)
    return run_through(steps, "Comparing", "language", total=len(texts))


def compare_steps(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, str],
    *,
    reference: str | None = None,
    stage: str | None = None,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> Iterator[ComparisonStep]:
    """Compare language by language, for whoever shows progress or lets a reader stop it.

    Arguments and errors are those of `compare_languages`, and errors come at once. Between two steps the model stands
    as it stood before.
    """
    texts = {language.code: texts[given] for given, language in zip(texts, get_languages(texts), strict=True)}
    if len(texts) < 2:
        raise UsageError(f"Only {', '.join(texts)} has a text; expected the same segment in two languages or more.")
    if shuffles < 0:
        raise UsageError(f"shuffles = {shuffles}; expected 0 or more.")
    taught = {code for group in expansion_config(model).groups for code in group}
    reference = choose_reference(list(texts), [code for code in texts if code not in taught], reference)
    stage = stage or selected_stage(model)
    one_of("stage", stage, stage_names(model))
    for code, text in texts.items():
        _, pieces = ids_of_text(model, tokenizer, text)
        if all(piece is None for piece in pieces):
            raise UsageError(f"The text in {language_name(code)} has special tokens only; give it some words.")
    return _steps(model, tokenizer, texts, reference, stage, shuffles, seed)


def _steps(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, str],
    reference: str,
    stage: str,
    shuffles: int,
    seed: int,
) -> Iterator[ComparisonStep]:
    read: dict[str, _Reading] = {}
    for code, text in texts.items():
        read[code] = _read(model, tokenizer, text, code, stage)
        if len(read) < len(texts):
            yield ComparisonStep(len(read), len(texts), None)
    yield ComparisonStep(len(read), len(texts), _compared(read, reference, stage, shuffles, seed))


def _read(model: PeftModel, tokenizer: PreTrainedTokenizerBase, text: str, code: str, stage: str) -> _Reading:
    ids, pieces = ids_of_text(model, tokenizer, text)
    is_text = torch.tensor([float(piece is not None) for piece in pieces])
    sums: dict[int, torch.Tensor] = {}

    def see(layer: int, x: torch.Tensor) -> None:
        sums[layer] = sum_of_unit_vectors(x, is_text)  # the base passes first; what stays is of the stage

    with watch_mlp_inputs(model, see):
        found = trace_tokens(model, ids, pieces, text, code, stages=[stage])
    return _Reading(found, sums)


def _compared(read: Mapping[str, _Reading], reference: str, stage: str, shuffles: int, seed: int) -> LanguageComparison:
    languages = list(read)
    traces = {code: one.trace for code, one in read.items()}
    weights = {code: token_weights(trace) for code, trace in traces.items()}
    divergences = [
        divergence(weights[code], weights[reference], shuffles=0 if code == reference else shuffles, seed=seed)
        for code in languages
    ]
    layers = sorted(read[reference].sums)
    counts = [len(weights[code]) for code in languages]
    means = np.stack(
        [
            np.stack([read[code].sums[layer].numpy() for layer in layers]) / count
            for code, count in zip(languages, counts, strict=True)
        ]
    )
    return LanguageComparison(
        reference=reference,
        stage=stage,
        traces=traces,
        layers=traces[reference].layers,
        all_layers=np.array(layers),
        divergence=np.stack([one.bits for one in divergences]),
        chance=np.stack([one.chance for one in divergences]),
        chance_high=np.stack([one.chance_high for one in divergences]),
        halves=np.stack([between_halves(weights[code]) for code in languages]),
        similarity=mean_cosines(means, counts)[:, languages.index(reference)].T,
        shuffles=shuffles,
        seed=seed,
    )
