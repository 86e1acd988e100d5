"""Stage 1: train new experts (and routers) on the expanded languages, and on nothing else.

Everything of the base model stays frozen, expert 0 included: `set_trainable` is the place where that is said; here and
in the review it holds for the stage alone, by `trainable_parts` (MoE-LPR §2.3).

The paper's ablation *one-stage* (its Table 3) is here too: with `original`, replay and the language-priors routing loss
move from the review into this stage, and experts and routers learn together.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.method.training.budget import StageBudget
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.method.training.terms import EXTRA_TERMS, balance_term, lm_term, lpr_term, z_term
from lpr_lab.method.training.train import Metrics, TrainSettings, train, train_settings
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.parallel.processes import join_processes
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import trainable_parts
from lpr_lab.text.blocks import Blocks
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.draw import first_documents, shuffled_documents
from lpr_lab.text.shards.blocks import pack_documents
from lpr_lab.text.vocabulary import require_embeddings


def expand(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    languages: Sequence[str],
    out: str | Path,
    settings: StageBudget | None = None,
    load_balancing_coef: float = 0.01,
    load_balancing_variant: str = "paper",
    load_balancing_scope: str = "step",
    router_z_coef: float = 0.0,
    train_routers: bool = True,
    original: Sequence[str] = (),
    replay_share: float = 1 / 12,
    lpr_coef: float = 0.1,
    lpr_variant: str = "paper",
    log: Callable[[Metrics], None] | None = None,
) -> dict[str, Any]:
    """Train the newest experts on the expanded languages (stage 1).

    Each setting is a keyword, so that a notebook changes one alone; an experiment keeps its own in `ExpandSettings`.

    Args:
        model: from `upcycle`; changed in place.
        tokenizer: the base model's.
        corpus: its `train` split of `languages` is what is seen; original languages are not, unless asked for.
        languages: the expanded languages; they get equal shares of the token budget.
        out: folder for checkpoints; a stage that was interrupted continues from there.
        settings: budget and rates, or `TrainSettings` for all of it; 61,440 tokens by default, which ten minutes on two
            cores pay for, at the rates that suit the base.
        load_balancing_coef: alpha of the paper, 0.01. Layers with as many experts as top-k have a constant loss.
        load_balancing_variant: `paper` or `released` (see `losses`).
        load_balancing_scope: `step`, exact however a step is split, or `micro_batch` as in the papers' runs (see
            `terms.balance_term`).
        router_z_coef: weight of the router z-loss, off in the papers.
        train_routers: False when routers were fitted before (`fit_routers`) and stay as they are.
        original: only for the ablation *one-stage*: original languages to replay here, from the `replay` split, with
            the LPR loss. Leave the review out then.
        replay_share: their share of the blocks. 1/12 is what they have of both stages together by default; in the
            paper's runs it is 0.6 % (`paper_settings.REPLAY_SHARE_OF_BOTH`).
        lpr_coef: gamma, for one-stage.
        lpr_variant: see `review`.
        log: called with the numbers of every step.

    Returns:
        steps, tokens, seconds, what stopped it, coefficients and variants, last metrics.

    Raises:
        UsageError: no languages, a language the corpus lacks, a model without experts, or original languages to replay
            for routers that do not learn; or processes that were started together and do not know of one another.
    """
    join_processes()
    settings = train_settings(settings, model, 61_440)
    if not languages:
        raise UsageError("Stage 1 needs at least one expanded language, for example languages=['el'].")
    if original and not train_routers:
        raise UsageError("The LPR loss is for routers, and with train_routers=False none learns; leave original out.")
    require_embeddings(model, tokenizer)
    weights = shares(original, languages, replay_share if original else 0.0)
    splits = {language: "replay" if language in original else "train" for language in weights}
    blocks = pack_by_language(corpus, tokenizer, splits, settings, weights)
    config = expansion_config(model)
    if len([stage for stage in config.stages if stage["expansion"] == config.stages[-1]["expansion"]]) > 1:
        raise UsageError(
            f"The experts of this expansion are at rest since {config.stages[-1]['name']!r} began, so that earlier "
            "stages can be selected again. Call lpr_lab.upcycle for new experts, or load the adapter of stage 1."
        )
    config.groups[-1] = list(languages)
    config.original = list(original) or config.original
    terms = [lm_term()]
    if train_routers:
        terms.append(balance_term(model, load_balancing_coef, load_balancing_variant, load_balancing_scope))
        if router_z_coef:
            terms.append(z_term(router_z_coef))
        if original:
            terms.append(lpr_term(len(original), lpr_coef, lpr_variant))
    terms += [make(model, len(original)) for make in EXTRA_TERMS["expand"]]
    schedule = BlockSchedule(blocks, blocks_per_step=settings.blocks_per_step, seed=settings.seed, weights=weights)
    with trainable_parts(model, experts=True, routers=train_routers):
        result = train(model, schedule, terms, settings, out=Path(out), label="Stage 1, expand", log=log)
    result |= {"languages": list(languages), "load_balancing_variant": load_balancing_variant}
    return result | ({"original": list(original), "lpr_variant": lpr_variant} if original else {})


def shares(original: Sequence[str], expanded: Sequence[str], replay_share: float) -> dict[str, float]:
    """Return the share of blocks that each language gets, original languages first, as the terms expect them.

    Args:
        original: languages to replay; they divide `replay_share` equally.
        expanded: languages to learn; they divide the rest.
        replay_share: in [0, 1]; languages without a share are left out.

    Raises:
        UsageError: a share with no language to give it to, or a language on both sides.

    >>> shares(["en"], ["el", "hu"], 0.5)
    {'en': 0.5, 'el': 0.25, 'hu': 0.25}
    """
    both = sorted(set(original) & set(expanded))
    if both:
        raise UsageError(f"{', '.join(both)} cannot be both an original and an expanded language.")
    if not 0 <= replay_share <= 1 or (replay_share > 0) != bool(original) or (replay_share < 1 and not expanded):
        raise UsageError(
            f"replay_share = {replay_share} of the blocks for the original languages {list(original)}, the rest for "
            f"the expanded {list(expanded)}; expected 0 to 1, and languages on each side that gets a share."
        )
    weights = {language: replay_share / len(original) for language in original}
    if replay_share < 1:
        weights |= {language: (1 - replay_share) / len(expanded) for language in expanded}
    return weights


def pack_by_language(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    splits: dict[str, str],
    settings: TrainSettings,
    weights: Mapping[str, float] | None = None,
) -> dict[str, Blocks]:
    """Pack each language's documents of the split it is named with, shuffled, no more than the budget can use.

    Args:
        corpus: where documents come from.
        tokenizer: the base model's.
        splits: language code -> split.
        settings: the token budget, the block length and the seed of the shuffles.
        weights: language code -> its share of the budget; equal shares by default.
    """
    languages = tuple(splits)
    weights = weights or dict.fromkeys(languages, 1 / len(languages))
    packed: dict[str, Blocks] = {}
    for language, split in splits.items():
        # Half as much again as its share of the budget: what is never reached need not be tokenised.
        enough = max(int(1.5 * settings.tokens * weights[language]), 4 * settings.block_tokens)
        shuffled = first_documents(shuffled_documents(corpus, split, language, settings.seed), 6 * enough)
        packed[language] = pack_documents(shuffled, tokenizer, settings.block_tokens, languages=languages)
    return packed
