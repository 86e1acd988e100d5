"""Stage 2, the review: train only the routers, on a little replay, with the language-priors routing loss.

Original-language tokens are pulled to the original expert; tokens of expanded languages only have the language-model
loss, which keeps their routing (MoE-LPR §2.4). The balance loss of stage 1 is gone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.method.expand import pack_by_language
from lpr_lab.method.schedule import BlockSchedule
from lpr_lab.method.terms import classifier_term, lm_term, lpr_term
from lpr_lab.method.training import Metrics, TrainSettings, train
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.stages import enter_stage, set_trainable
from lpr_lab.text.corpus import Corpus


def review(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    out: str | Path,
    settings: TrainSettings | None = None,
    lpr_coef: float = 0.1,
    lpr_variant: str = "paper",
    replay_share: float = 1 / 3,
    classifier_layers: Sequence[int] = (),
    classifier_coef: float = 0.1,
    classifier_input: str = "token",
    log: Callable[[Metrics], None] | None = None,
) -> dict[str, Any]:
    """Review the original languages (stage 2): only routers learn.

    Args:
        model: after `expand`; changed in place.
        tokenizer: the base model's.
        corpus: originals come from its `replay` split, expanded languages from `train`, as in the paper.
        original: languages the base model is good at.
        expanded: languages of every expansion so far, the earlier groups included.
        out: folder for checkpoints.
        settings: budgets and rates; 20,480 tokens by default.
        lpr_coef: gamma of the paper, 0.1.
        lpr_variant: `paper` (-log p0) or `released` (softmax twice).
        replay_share: share of blocks that are in original languages; 1/3 in the paper (50k documents to 100k).
        classifier_layers: decoder layers that get a routing classifier, trained here (LayerMoE): those where original
            and expanded languages are most alike, see `SimilarityTable.most_similar_layers`.
        classifier_coef: weight of the classifiers' cross-entropy; 0.1 in the released scripts.
        classifier_input: `token` (causal), or `sequence`, the released form (see `model.router.RoutingClassifier`).
        log: called with the numbers of every step.

    Returns:
        steps, tokens, seconds, what stopped it, coefficients and variants, last metrics.

    Raises:
        UsageError: no original language, a replay share outside (0, 1], or a classifier on a layer without experts.
    """
    settings = settings or TrainSettings(tokens=20_480)
    if not original:
        raise UsageError("The review needs at least one original language to replay, for example original=['en'].")
    if not 0 < replay_share <= 1 or (replay_share < 1 and not expanded):
        raise UsageError(f"replay_share = {replay_share}; expected more than 0 and at most 1.")
    splits = dict.fromkeys(original, "replay")
    weights = {language: replay_share / len(original) for language in original}
    if replay_share < 1:
        splits |= dict.fromkeys(expanded, "train")
        weights |= {language: (1 - replay_share) / len(expanded) for language in expanded}
    blocks = pack_by_language(corpus, tokenizer, splits, settings)
    enter_stage(model, "review", classifiers=classifier_layers, classifier_input=classifier_input)
    set_trainable(model, experts=False, routers=True)
    expansion_config(model).original = list(original)
    terms = [lm_term(), lpr_term(len(original), lpr_coef, lpr_variant)]
    if classifier_layers:
        terms.append(classifier_term(len(original), classifier_coef, classifier_input))
    schedule = BlockSchedule(blocks, blocks_per_step=settings.blocks_per_step, seed=settings.seed + 1, weights=weights)
    result = train(model, schedule, terms, settings, out=Path(out), label="Stage 2, review", log=log)
    return result | {"original": list(original), "expanded": list(expanded), "lpr_variant": lpr_variant}
