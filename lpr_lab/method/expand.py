"""Stage 1: train new experts (and routers) on the expanded languages, and on nothing else.

Everything of the base model stays frozen, expert 0 included: `set_trainable` is the place where that is said, and it
is called here and in the review, nowhere else (MoE-LPR §2.3).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.method.schedule import BlockSchedule
from lpr_lab.method.terms import balance_term, lm_term, z_term
from lpr_lab.method.training import Metrics, TrainSettings, train
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.stages import set_trainable
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
    load_balancing_scope: str = "step",
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
        load_balancing_scope: `step`, exact however a step is split, or `micro_batch` as in the papers' runs (see
            `terms.balance_term`).
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
    config = expansion_config(model)
    if len([stage for stage in config.stages if stage["expansion"] == config.stages[-1]["expansion"]]) > 1:
        raise UsageError(
            f"The experts of this expansion are at rest since {config.stages[-1]['name']!r} began, so that earlier "
            "stages can be selected again. Call lpr_lab.upcycle for new experts, or load the adapter of stage 1."
        )
    set_trainable(model, experts=True, routers=train_routers)
    config.groups[-1] = list(languages)
    terms = [lm_term()]
    if train_routers:
        terms.append(balance_term(model, load_balancing_coef, load_balancing_variant, load_balancing_scope))
        if router_z_coef:
            terms.append(z_term(router_z_coef))
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
