"""Stage 1: train new experts (and routers) on the expanded languages, and on nothing else.

Everything of the base model stays frozen, expert 0 included: `set_trainable` is the place where that is said, and it
is called here and in the review, nowhere else (MoE-LPR §2.3).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.method.losses import IGNORED, load_balancing_loss, router_z_loss
from lpr_lab.method.schedule import BlockSchedule
from lpr_lab.method.training import Batch, Metrics, Term, TrainSettings, train
from lpr_lab.model.adapter import moe_layers, set_trainable
from lpr_lab.model.capture import RoutingRecord
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.packing import PackedBlocks, pack


def expand(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    languages: Sequence[str],
    out: str | Path,
    settings: TrainSettings | None = None,
    load_balancing_coef: float = 0.01,
    load_balancing_variant: str = "paper",
    router_z_coef: float = 0.0,
    train_routers: bool = True,
    log: Callable[[Metrics], None] | None = None,
) -> dict[str, Any]:
    """Train the newest experts on the expanded languages (stage 1).

    Args:
        model: from `upcycle`; changed in place.
        tokenizer: the base model's.
        corpus: its `train` split of `languages` is what is seen; original languages are not.
        languages: the expanded languages; they get equal shares of the token budget.
        out: folder for checkpoints; a stage that was interrupted continues from there.
        settings: budgets and rates; 61,440 tokens by default, which ten minutes on two cores pay for.
        load_balancing_coef: alpha of the paper, 0.01. Layers with as many experts as top-k have a constant loss.
        load_balancing_variant: `paper` or `released` (see `losses`).
        router_z_coef: weight of the router z-loss, off in the papers.
        train_routers: False when routers were fitted before (`fit_routers`) and stay as they are.
        log: called with the numbers of every step.

    Returns:
        steps, tokens, seconds, what stopped it, coefficients and variants, last metrics.

    Raises:
        UsageError: no languages, a language the corpus lacks, or a model without experts.
    """
    settings = settings or TrainSettings(tokens=61_440)
    if not languages:
        raise UsageError("Stage 1 needs at least one expanded language, for example languages=['el'].")
    blocks = pack_by_language(corpus, tokenizer, dict.fromkeys(languages, "train"), settings)
    set_trainable(model, experts=True, routers=train_routers)
    terms = [lm_term()]
    if train_routers:
        terms.append(balance_term(model, load_balancing_coef, load_balancing_variant))
        if router_z_coef:
            terms.append(z_term(model, router_z_coef))
    schedule = BlockSchedule(blocks, blocks_per_step=settings.blocks_per_step, seed=settings.seed)
    result = train(model, schedule, terms, settings, out=Path(out), label="Stage 1, expand", log=log)
    return result | {"languages": list(languages), "load_balancing_variant": load_balancing_variant}


def pack_by_language(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, splits: dict[str, str], settings: TrainSettings
) -> dict[str, PackedBlocks]:
    """Pack each language's documents of the split it is named with, shuffled, no more than the budget can use."""
    languages = tuple(splits)
    packed = {}
    for language, split in splits.items():
        documents = list(corpus.documents(split, language))
        if not documents:
            raise UsageError(f"The corpus {corpus.name} has no {split} text in {language!r}.")
        generator = torch.Generator().manual_seed(settings.seed)
        order = torch.randperm(len(documents), generator=generator).tolist()
        # Half as much again as an equal share of the budget: what is never reached need not be tokenised.
        enough = max(int(1.5 * settings.tokens / len(languages)), 4 * settings.block_tokens)
        shuffled, characters = [], 0
        for index in order:
            shuffled.append(documents[index])
            characters += len(documents[index].text)
            if characters > 6 * enough:
                break
        packed[language] = pack(shuffled, tokenizer, settings.block_tokens, languages=languages)
    return packed


def lm_term() -> Term:
    """Next-token loss, mean over all scored tokens of the step."""
    return Term(
        "lm_loss",
        1.0,
        count=lambda batch: float((batch["targets"] != IGNORED).sum()),
        total=lambda batch, logits, _: F.cross_entropy(
            logits.float().flatten(0, 1), batch["targets"].flatten(), ignore_index=IGNORED, reduction="sum"
        ),
    )


def balance_term(model: PeftModel, coefficient: float, variant: str) -> Term:
    """Load-balancing loss, mean over layers; each micro-batch counts by its tokens."""
    top_k = moe_layers(model)[0].top_k

    def total(batch: Batch, logits: torch.Tensor, record: RoutingRecord) -> torch.Tensor:
        mask = (batch["language_id"] >= 0).flatten()
        per_layer = [
            load_balancing_loss(routing.router_logits, top_k, mask, variant) for routing in record.routing.values()
        ]
        return torch.stack(per_layer).mean() * mask.sum()

    return Term("load_balancing_loss", coefficient, count=_num_tokens, total=total)


def z_term(model: PeftModel, coefficient: float) -> Term:
    """Router z-loss, mean over layers and tokens."""

    def total(batch: Batch, logits: torch.Tensor, record: RoutingRecord) -> torch.Tensor:
        mask = (batch["language_id"] >= 0).flatten()
        per_layer = [router_z_loss(routing.router_logits, mask) for routing in record.routing.values()]
        return torch.stack(per_layer).mean() * mask.sum()

    return Term("router_z_loss", coefficient, count=_num_tokens, total=total)


def _num_tokens(batch: Batch) -> float:
    return float((batch["language_id"] >= 0).sum())
