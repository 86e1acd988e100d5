"""Stage 2, the review: train only the routers, on a little replay, with the language-priors routing loss.

Original-language tokens are pulled to the original expert; tokens of expanded languages only have the language-model
loss, which keeps their routing (MoE-LPR §2.4). The balance loss of stage 1 is gone.

The paper's ablations need no code of their own. *Without LPR* is `lpr_coef=0`: the loss is still logged, without
weight. *Without review* is the stage before: `select_stage(model, "G1 expand")`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.method.expand import pack_by_language, shares
from lpr_lab.method.training.budget import StageBudget
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.method.training.terms import EXTRA_TERMS, classifier_term, group_term, lm_term, lpr_term
from lpr_lab.method.training.train import Metrics, train, train_settings
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.parallel.processes import join_processes
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import enter_stage, trainable_parts
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.vocabulary import require_embeddings


def review(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    out: str | Path,
    settings: StageBudget | None = None,
    lpr_coef: float = 0.1,
    lpr_variant: str = "paper",
    replay_share: float = 1 / 3,
    classifier_layers: Sequence[int] = (),
    classifier_coef: float = 0.1,
    classifier_input: str = "token",
    group_coef: float = 0.0,
    group_variant: str = "paper",
    log: Callable[[Metrics], None] | None = None,
) -> dict[str, Any]:
    """Review the original languages (stage 2): only routers learn.

    Each setting is a keyword, so that a notebook changes one alone; an experiment keeps its own in `ReviewSettings`.

    Args:
        model: after `expand`; changed in place.
        tokenizer: the base model's.
        corpus: originals come from its `replay` split, expanded languages from `train`, as in the paper.
        original: languages the base model is good at.
        expanded: languages of every expansion so far, the earlier groups included.
        out: folder for checkpoints.
        settings: budget and rates, or `TrainSettings` for all of it; 20,480 tokens by default.
        lpr_coef: gamma of the paper, 0.1; 0 is its ablation "w/o LPR".
        lpr_variant: `paper` (-log p0, mean over layers) or `released` (softmax twice, mean over layers of equally many
            experts and then over these groups).
        replay_share: share of blocks that are in original languages; 1/3 in the paper (50k documents to 100k).
        classifier_layers: decoder layers that get a routing classifier, trained here (LayerMoE): those where original
            and expanded languages are most alike, see `SimilarityTable.most_similar_layers`.
        classifier_coef: weight of the classifiers' cross-entropy; 0.1 in the released scripts.
        classifier_input: `token` (causal), or `sequence`, the released form (see `model.router.RoutingClassifier`).
        group_coef: weight of the loss that pulls tokens of earlier groups to their own groups' experts (lifelong
            MoE-LPR, see `losses.group_loss`); off in LayerMoE.
        group_variant: `paper` or `released` (see `losses.group_loss`).
        log: called with the numbers of every step.

    Returns:
        steps, tokens, seconds, what stopped it, coefficients and variants, last metrics.

    Raises:
        UsageError: no original language, a replay share outside (0, 1], a classifier on a layer without experts, or
            `group_coef` without a replayed language of an earlier group; or as in `expand` on processes.
    """
    join_processes()
    settings = train_settings(settings, model, 20_480)
    if not original:
        raise UsageError("The review needs at least one original language to replay, for example original=['en'].")
    require_embeddings(model, tokenizer)
    weights = shares(original, expanded, replay_share)
    splits = {language: "replay" if language in original else "train" for language in weights}
    blocks = pack_by_language(corpus, tokenizer, splits, settings, weights)
    group_terms = [group_term(model, [*splits], group_coef, group_variant)] if group_coef else []
    enter_stage(model, "review", classifiers=classifier_layers, classifier_input=classifier_input)
    expansion_config(model).original = list(original)
    terms = [lm_term(), lpr_term(len(original), lpr_coef, lpr_variant)]
    if classifier_layers:
        terms.append(classifier_term(len(original), classifier_coef, classifier_input))
    terms += group_terms + [make(model, len(original)) for make in EXTRA_TERMS["review"]]
    schedule = BlockSchedule(blocks, blocks_per_step=settings.blocks_per_step, seed=settings.seed + 1, weights=weights)
    with trainable_parts(model, experts=False, routers=True):
        result = train(model, schedule, terms, settings, out=Path(out), label="Stage 2, review", log=log)
    return result | {"original": list(original), "expanded": list(expanded), "lpr_variant": lpr_variant}
