"""Where tokens go: one text token by token (`trace`), and whole test sets language by language (`LoadCounter`).

Letters: L layers with a router, T tokens, E experts, K chosen per token.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.model.adapter import expansion_config, moe_layers
from lpr_lab.model.capture import RoutingRecord, record_routing
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.packing import separator_token_id

LOAD_COLUMNS = ["language", "role", "dataset", "layer", "expert", "share", "mass", "n_tokens"]


class LoadCounter:
    """Counts, over any number of forward passes, which experts each language's tokens were sent to."""

    def __init__(self) -> None:
        self._chosen: dict[tuple[str, str, str, int], np.ndarray] = {}
        self._mass: dict[tuple[str, str, str, int], np.ndarray] = {}
        self._tokens: dict[tuple[str, str, str, int], int] = {}

    def watch(self, record: RoutingRecord, *, language: str, role: str, dataset: str) -> Callable[[torch.Tensor], None]:
        """Return a function to call after each forward pass with a bool mask [T] of the tokens that count."""

        def see(mask: torch.Tensor) -> None:
            for layer, routing in record.routing.items():
                key = (language, role, dataset, layer)
                num_experts = routing.router_logits.shape[-1]
                ids = routing.expert_ids[mask.to(routing.expert_ids.device)].cpu()
                weights = routing.expert_weights[mask.to(routing.expert_weights.device)].cpu().double()
                chosen = torch.bincount(ids.flatten(), minlength=num_experts).numpy()
                mass = torch.zeros(num_experts, dtype=torch.float64)
                mass.scatter_add_(0, ids.flatten(), weights.flatten())
                self._chosen[key] = self._chosen.get(key, 0) + chosen
                self._mass[key] = self._mass.get(key, 0) + mass.numpy()
                self._tokens[key] = self._tokens.get(key, 0) + len(ids)

        return see

    def to_frame(self) -> pd.DataFrame:
        """Return one row per language, layer and expert.

        `share` is the expert's part of all (token, choice) slots, `mass` its mean combine weight; both sum to 1 over
        a layer's experts. Expert 0 is the original one.
        """
        rows = []
        for key, chosen in self._chosen.items():
            tokens = self._tokens[key]
            for expert in range(len(chosen)):
                share = chosen[expert] / max(chosen.sum(), 1)
                rows.append([*key, expert, float(share), float(self._mass[key][expert] / max(tokens, 1)), tokens])
        return pd.DataFrame(rows, columns=LOAD_COLUMNS)


def original_weight_by_language(load: pd.DataFrame) -> pd.DataFrame:
    """Return the mean weight of expert 0 over all layers per language and data set: 1 is entirely the base model."""
    original = load.loc[load["expert"] == 0]
    means = original.groupby(["dataset", "role", "language"], sort=False, as_index=False).agg({"mass": "mean"})
    return pd.DataFrame(means).rename(columns={"mass": "original_weight"})


@torch.no_grad()
def trace(model: PeftModel, tokenizer: PreTrainedTokenizerBase, text: str, language: str | None = None) -> RoutingTrace:
    """Trace one text: for every token and layer the chosen experts and their weights, and both models' log-probability.

    The text is read as a document of its own: the separator token of training stands before it.

    Args:
        model: an expanded model.
        tokenizer: the base model's.
        text: anything in any script.
        language: ISO 639-1 code, kept with the trace.

    Raises:
        UsageError: empty text, or more tokens than the model's context.

    Example:
        >>> result = trace(model, tokenizer, "Καλημέρα, κόσμε.", language="el")  # doctest: +SKIP
        >>> result.original_weight.mean(axis=0)  # doctest: +SKIP
    """
    if not text.strip():
        raise UsageError("The text is empty; type a sentence in any language.")
    config = expansion_config(model)
    words = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [separator_token_id(tokenizer), *words]
    longest = model.config.get_text_config().max_position_embeddings
    if len(ids) > longest:
        raise UsageError(f"The text has {len(ids):,} tokens, more than the model's context of {longest:,}; shorten it.")
    device = next(model.parameters()).device
    tensor = torch.tensor([ids], device=device)
    with record_routing(model) as record:
        log_prob = _log_prob(model(input_ids=tensor, use_cache=False).logits[0], ids)
        routing = dict(sorted(record.routing.items()))
    with model.disable_adapter():
        base_log_prob = _log_prob(model(input_ids=tensor, use_cache=False).logits[0], ids)
    top_k = max(r.expert_ids.shape[-1] for r in routing.values())
    shape = (len(routing), len(ids), top_k)
    expert_ids, expert_weights = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    for row, result in enumerate(routing.values()):
        chosen = result.expert_ids.shape[-1]
        expert_ids[row, :, :chosen] = result.expert_ids.cpu().numpy()
        expert_weights[row, :, :chosen] = result.expert_weights.float().cpu().numpy()
    return RoutingTrace(
        text=text,
        language=language,
        token_ids=ids,
        token_bytes=[None, *token_bytes(tokenizer, words, text)],
        layers=np.array(list(routing)),
        num_experts=np.array([layer.num_experts for layer in moe_layers(model)]),
        expert_ids=expert_ids,
        expert_weights=expert_weights,
        original_weight=np.stack([r.original_weight().float().cpu().numpy() for r in routing.values()]),
        log_prob=log_prob,
        base_log_prob=base_log_prob,
        model={"base": config.base_name, "top_k": config.top_k, "router_input": config.router_input},
    )


def _log_prob(logits: torch.Tensor, ids: list[int]) -> np.ndarray:
    """Return log p(token | what came before) in nats, float [T]; NaN for the first token."""
    log_probs = logits[:-1].float().log_softmax(-1)
    following = torch.tensor(ids[1:], device=logits.device)
    return np.concatenate([[np.nan], log_probs.gather(1, following[:, None])[:, 0].cpu().numpy()])
