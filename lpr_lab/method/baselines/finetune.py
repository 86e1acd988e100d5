"""The one verb that trains any baseline: one stage, the next-token loss, the text of both stages of the method."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.method.expand import pack_by_language, shares
from lpr_lab.method.training.budget import StageBudget
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.method.training.terms import balance_term, lm_term
from lpr_lab.method.training.train import Metrics, train, train_settings
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.mixture import all_layers
from lpr_lab.model.parallel.processes import divides_model, join_processes
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.tuned.slices import slices_of
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.vocabulary import require_embeddings


def finetune(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    out: str | Path,
    settings: StageBudget | None = None,
    replay_share: float = 1 / 12,
    load_balancing_coef: float = 0.01,
    log: Callable[[Metrics], None] | None = None,
) -> dict[str, Any]:
    """Train a baseline in one stage, on the text that both stages of the method see together.

    The keywords are those of `expand` and `review` that a baseline shares with them.

    Args:
        model: from one of the functions here; changed in place. To resume from a checkpoint, make it anew.
        tokenizer: the base model's.
        corpus: originals come from its `replay` split, expanded languages from `train`.
        original: languages to replay; may be empty.
        expanded: languages to learn.
        out: folder for checkpoints; a training that was interrupted continues from there.
        settings: budget and rates, or `TrainSettings` for all of it; 81,920 tokens by default, those of `expand` and
            `review` together.
        replay_share: share of blocks in original languages. 1/12 is what both stages have together by default; in the
            paper's runs it is 0.6 % (`paper_settings.REPLAY_SHARE_OF_BOTH`).
        load_balancing_coef: alpha, for `sparse_moe` only.
        log: called with the numbers of every step.

    Returns:
        steps, tokens, seconds, what stopped it, coefficients and variants, last metrics.

    Raises:
        UsageError: an expansion, which has stages of its own, or a language on both sides; or as in `expand` on
            processes.
    """
    if isinstance(model, PeftModel) and all_layers(model):
        raise UsageError(
            "An expansion is trained by lpr_lab.expand and lpr_lab.review; the baselines start from a base."
        )
    join_processes()
    if divides_model() and slices_of(model):
        raise UsageError(
            "Rows and columns that learn apart from their weight were never tried on a model that is divided "
            "(ACCELERATE_USE_FSDP); train this baseline on one device, or with plain processes."
        )
    settings = train_settings(settings, model, 81_920)
    weights = shares(original, expanded, replay_share if original else 0.0)
    splits = {language: "replay" if language in original else "train" for language in weights}
    require_embeddings(model, tokenizer)
    blocks = pack_by_language(corpus, tokenizer, splits, settings, weights)
    terms = [lm_term()]
    if moe_layers(model):
        terms.append(balance_term(model, load_balancing_coef))
    schedule = BlockSchedule(blocks, blocks_per_step=settings.blocks_per_step, seed=settings.seed, weights=weights)
    result = train(model, schedule, terms, settings, out=Path(out), label="Baseline", log=log)
    return result | {"original": list(original), "expanded": list(expanded)}
