"""Brings the routing of a served model into the run whose export was served, and checks it against our own trace."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lpr_lab.errors import UsageError
from lpr_lab.measure.routing import ids_of_text, trace_tokens
from lpr_lab.measure.served import read_served, require_served
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.model.formats.save_load import load_expansion, load_tokenizer
from lpr_lab.runs.people import own_texts
from lpr_lab.runs.run import Run


@dataclass(frozen=True)
class Served:
    """A served model's routing of one text.

    Attributes:
        trace: what the file says. A file has no weights, so every chosen expert counts alike; the trace of our own on
            the same tokens lies in its `stages`, and the page Routing compares the two.
        same_choices: share of (layer, token) in which both chose the same experts, in any order.
        same_first: the same of the first choice.
        text_id: under which the run keeps it.
    """

    trace: RoutingTrace
    same_choices: float
    same_first: float
    text_id: str


def import_routing(
    run: Run, file: str | Path, text: str, language: str | None = None, *, separator: bool = True, name: str = ""
) -> Served:
    """Keep what a server says of a text's routing with the run whose export it served.

    Args:
        run: an expansion with weights.
        file: of vLLM, SGLang or llama.cpp (see `measure.served`).
        text: prompt and continuation together, as served.
        language: ISO 639-1 code, kept with the text.
        separator: whether the separator token of training stood before it, as it does here. A server adds it only where
            it was asked to; without it the routing of the first tokens is another one.
        name: to call the text by; by default the file's.

    Raises:
        UsageError: a file of another model, of another text, or with an expert that a layer does not have.
        MissingError: the run has no weights.
    """
    server = require_served(file)
    model, tokenizer = load_expansion(run.path), load_tokenizer(run.path)
    ids, pieces = ids_of_text(model, tokenizer, text)
    if not separator:
        ids, pieces = ids[1:], pieces[1:]
    known = trace_tokens(model, ids, pieces, text, language)
    depth = model.config.get_text_config().num_hidden_layers
    chosen = _of_layers(file, known, depth)
    tokens = chosen.shape[1]
    if tokens not in (len(ids), len(ids) - 1):  # the token that was written last need never be read
        raise UsageError(
            f"{Path(file).name} has {tokens:,} tokens, and the text {len(ids):,}{' with' if separator else ' without'} "
            "the separator. Give prompt and continuation together, and say whether the separator was there."
        )
    ours = _first_tokens(known, tokens)
    trace = _as_trace(chosen, ours, server)
    both = np.sort(chosen, axis=2) == np.sort(ours.expert_ids, axis=2)
    text_id = own_texts.new_id()
    own_texts.keep_text(run, text_id, name or Path(file).name, trace)
    same_first = (chosen[:, :, 0] == ours.first_choice).mean()
    return Served(trace, float(both.all(axis=2).mean()), float(same_first), text_id)


def _of_layers(file: str | Path, known: RoutingTrace, depth: int) -> np.ndarray:
    """Return the choices of the layers that have a router here, int [L, T, K]; exports may have one in every layer."""
    top_k = known.expert_ids.shape[2]
    try:
        found, rows = read_served(file, depth, top_k), known.layers
    except UsageError:
        if len(known.layers) == depth:
            raise
        found, rows = read_served(file, len(known.layers), top_k), np.arange(len(known.layers))
    chosen = found[rows]
    for row, (layer, experts) in enumerate(zip(known.layers, known.num_experts, strict=True)):
        if chosen[row].max() >= experts:
            raise UsageError(f"Layer {layer} chose expert {chosen[row].max()}; the run's model has {experts} there.")
    return chosen


def _first_tokens(trace: RoutingTrace, tokens: int) -> RoutingTrace:
    if tokens == trace.num_tokens:
        return trace
    pieces = trace.token_bytes[:tokens]
    return replace(
        trace,
        text=b"".join(piece for piece in pieces if piece is not None).decode("utf-8", errors="ignore"),
        token_ids=trace.token_ids[:tokens],
        token_bytes=pieces,
        expert_ids=trace.expert_ids[:, :tokens],
        expert_weights=trace.expert_weights[:, :tokens],
        original_weight=trace.original_weight[:, :tokens],
        router_probs=None if trace.router_probs is None else trace.router_probs[:, :tokens],
        log_prob=None if trace.log_prob is None else trace.log_prob[:tokens],
        base_log_prob=None if trace.base_log_prob is None else trace.base_log_prob[:tokens],
    )


def _as_trace(chosen: np.ndarray, ours: RoutingTrace, server: str) -> RoutingTrace:
    weights = np.full(chosen.shape, 1 / chosen.shape[2], np.float32)
    return replace(
        ours,
        expert_ids=chosen,
        expert_weights=weights,
        original_weight=(weights * (chosen == 0)).sum(axis=2),
        router_probs=None,
        log_prob=None,
        base_log_prob=None,
        model={**ours.model, "stage": f"served by {server}", "weights": "not recorded; every choice counts alike"},
        stages={ours.stage: ours},
    )
