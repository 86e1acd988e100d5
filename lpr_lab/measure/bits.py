"""Bits per UTF-8 byte, per language, of the base and the expanded model on the same documents.

Perplexity per token cannot be compared across tokenizers or scripts, and within one tokenizer it rewards languages
that are cut into many easy pieces. Bits per byte can: `total nats / (ln 2 · total UTF-8 bytes)`. Special tokens are not
scored, every byte of every document is, and lower is better.

A tokenizer that loses text has the model predict less than the text. Bytes that the tokens do not spell (unknown
characters, what a normaliser takes away) are not counted as predicted, while the nats of unknown tokens are counted.
The share lost stands beside the scores, and beyond a tenth it is refused (`text.round_trip`).

Base and expanded are scored on one copy of the weights (`disable_adapter`) and on the same documents, so the
difference between them is paired and its interval comes from resampling documents.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.measure.documents import choose_tests, fingerprint_of, lost_texts
from lpr_lab.measure.expert_counts import ExpertCounter, TextSource
from lpr_lab.measure.forgetting import ScoredDocuments, bootstrap_draws, change_rows, document_rows
from lpr_lab.measure.significance import bootstrap_interval
from lpr_lab.measure.slices.scores import SCORE_COLUMNS, joined, slice_changes, slice_scores
from lpr_lab.measure.slices.tokenized import is_scored, owners_of, tokenized
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import RoutingRecord, record_routing
from lpr_lab.model.forward import inference, read_blocks
from lpr_lab.model.head import next_token_losses
from lpr_lab.model.machine import keep_freed_memory, resolve_precision
from lpr_lab.model.observe import Observed, observe
from lpr_lab.model.parallel.sharing import gathered, reading
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import selected_stage, use_stage
from lpr_lab.model.tuned.pair import Tuned, model_and_base
from lpr_lab.progress import progress
from lpr_lab.text.blocks import Batch
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.languages import find_language
from lpr_lab.text.packing import NO_TARGET, PackedBlocks, pack, refuse_if_documents_mix
from lpr_lab.text.round_trip import LostText
from lpr_lab.text.splits import TEST_SETS
from lpr_lab.text.vocabulary import require_embeddings

LOST_COLUMNS = ["language", "role", "dataset", "n_bytes", "lost_bytes", "lost_share", "characters"]
COLUMNS = ["language", "role", "model", "dataset", "bits_per_byte", "ci_low", "ci_high", "n_documents"]


@dataclass
class Report:
    """Scores of base and expanded model per language and test set, with 95 % intervals over documents."""

    sets: list[ScoredDocuments]
    bootstrap: int
    seed: int
    load: pd.DataFrame = field(default_factory=pd.DataFrame)
    settings: dict[str, Any] = field(default_factory=dict)
    lost: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LOST_COLUMNS))
    """Test sets of which the tokenizer loses something: n_bytes, lost_bytes (not counted in bits per byte), lost_share,
    characters (those lost most often). Empty for a tokenizer that gives back the text."""
    slice_scores: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=SCORE_COLUMNS))
    """Of digits, names and other slices (`measure.slices`), document by document: slice, tokens, and as `documents`."""

    def to_frame(self) -> pd.DataFrame:
        """Return one row per language, test set and model: bits per byte (lower is better) with its interval."""
        rows = []
        for test in self.sets:
            draws = self._draws(test)
            size = test.num_bytes[draws].sum(1)
            for model, nats in test.nats.items():
                resampled = nats[draws].sum(1) / (np.log(2) * size)
                low, high = bootstrap_interval(resampled, len(nats))
                rows.append(
                    [test.language, test.role, model, test.dataset, test.bits_per_byte(model), low, high, len(nats)]
                )
        return pd.DataFrame(rows, columns=COLUMNS)

    def changes(self, before: str = "base", after: str = "expanded") -> pd.DataFrame:
        """Return the paired change between two models per language and test set (see `measure.forgetting`).

        Args:
            before: `base`, `expanded`, or a stage that was scored.
            after: the same.
        """
        paired = [test for test in self.sets if {before, after} <= set(test.nats)]
        return change_rows(paired, [self._draws(test) for test in paired], before, after)

    def slices(self, before: str = "base", after: str = "expanded") -> pd.DataFrame:
        """Return the paired change of digits, names and other slices by language and test set (`slices.scores`).

        Args:
            before: `base`, `expanded`, or a stage that was scored.
            after: the same.
        """
        return slice_changes(self.slice_scores, before, after, bootstrap=self.bootstrap, seed=self.seed)

    def documents(self) -> pd.DataFrame:
        """Return one row per document and model: language, role, dataset, test_set, document, bytes, bits_per_byte.

        The texts are not in it; the ids are those of the corpus.
        """
        return document_rows(self.sets)

    def _draws(self, test: ScoredDocuments) -> np.ndarray:
        return bootstrap_draws(test, self.bootstrap, self.seed)


def evaluate(
    model: PeftModel | PreTrainedModel | Tuned,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    languages: Sequence[str],
    original: Sequence[str] = (),
    splits: Sequence[str] = TEST_SETS,
    stages: Sequence[str] = (),
    tokens_per_language: int = 4096,
    max_document_tokens: int = 256,
    block_tokens: int = 256,
    batch_blocks: int = 4,
    bootstrap: int = 1000,
    precision: str = "auto",
    seed: int = 0,
    experts: ExpertCounter | None = None,
    base: PreTrainedModel | None = None,
) -> Report:
    """Score base and expanded model on the same documents, in bits per UTF-8 byte.

    Each setting is a keyword, so that a notebook changes one alone; an experiment keeps its own in `EvaluateSettings`.

    Args:
        model: an expanded model, one with another adapter such as LoRA, a baseline from `load_trained`, or a plain
            causal LM (then there is only `base`, unless it is given).
        tokenizer: the base model's.
        corpus: splits that it lacks are left out, and those without text in one of the languages while another has all.
        languages: which to score.
        original: those of them that the base model is good at; the others count as expanded.
        splits: `heldout` is another source and genre than the training text, `dev` the same source.
        stages: earlier stages of the same adapter to score as well, such as `G1 expand`; each costs one more pass.
        tokens_per_language: documents up to this many tokens, drawn in an order fixed by their ids.
        max_document_tokens: a longer document is scored on its beginning, so that no single one decides the result.
        block_tokens: S; longer documents are scored in pieces of this context.
        batch_blocks: blocks per forward pass.
        bootstrap: resamples for the intervals.
        precision: auto, fp32 or bf16; the same for both models.
        seed: of the resampling.
        experts: counts on the way what every stage scored here sends to which expert.
        base: what to compare a plain model with that no longer has its base inside, such as one that was trained as a
            whole (`method.baselines`).

    Returns:
        A `Report`; `.to_frame()` and `.changes()` are tidy tables, `.load` is the expert load seen on the way.

    Raises:
        UsageError: none of the splits has documents in one of the languages, a `base` beside an adapter's own, or a
            tokenizer that loses more than a tenth of the text.
    """
    model, base = model_and_base(model, base)
    require_embeddings(model, tokenizer)
    chosen = choose_tests(corpus, splits, languages, tokens_per_language, max_document_tokens, tokenizer)
    losses = lost_texts(tokenizer, chosen)
    packed = [pack(documents, tokenizer, block_tokens, languages=[language]) for _, language, documents in chosen]
    is_compared = isinstance(model, PeftModel) or base is not None
    with base_of(model, base) as dense:
        refuse_if_documents_mix(dense)
    newest = "expanded" if experts is None else selected_stage(cast("PeftModel", model))
    counter = ExpertCounter([newest], load_only=True) if experts is None else experts
    seen = Observed()
    sets: list[ScoredDocuments] = []
    sliced: list[pd.DataFrame] = []
    passes = 2 + len(stages) if is_compared else 1
    total = passes * sum(blocks.input_ids.numel() for blocks in packed)
    on_processor = next(model.parameters()).device.type == "cpu"
    keeping = keep_freed_memory() if on_processor else nullcontext()
    # Where processes read together, twins of both may be divided; elsewhere these are the models themselves.
    with (
        keeping,
        reading(model) as model,
        nullcontext() if base is None else reading(base) as base,
        progress(total, "Evaluating", "token") as bar,
    ):
        both = cast("PeftModel | PreTrainedModel", model), base
        readers = _Readers(*both, stages, newest, counter, counts_stages=experts is not None)
        for (split, language, documents), blocks, loss in zip(chosen, packed, losses, strict=True):
            source = TextSource(language, "original" if language in original else "expanded", split)
            options: dict[str, Any] = {"batch_blocks": batch_blocks, "precision": precision, "bar": bar}
            options["seen"] = None if sets else seen
            of_tokens = readers.nats(blocks, source, **options)
            owner = owners_of(blocks)
            nats = {name: np.bincount(owner, values, len(documents)) for name, values in of_tokens.items()}
            sizes = np.maximum(np.array(loss.num_bytes) - np.array(loss.lost_bytes), 1)
            ids = tuple(document.id for document in documents)
            sets.append(ScoredDocuments(*source, fingerprint_of(documents, loss), sizes, nats, ids))
            known, texts = find_language(language), tokenized(documents, blocks, tokenizer)
            if known is not None and texts is not None:
                sliced.append(slice_scores(sets[-1], texts, of_tokens, known))
    settings = {"precision": gathered(seen.precision)[0], "block_tokens": block_tokens, "bootstrap": bootstrap}
    return Report(sets, bootstrap, seed, counter.load(newest), settings, _lost_rows(sets, losses), joined(sliced))


@dataclass(frozen=True)
class _Readers:
    """Who reads a test set: the base, the model, and earlier stages of its adapter.

    Attributes:
        model, base, stages: as given to `evaluate`.
        newest: the stage that the model is at.
        counter: of what goes to which expert on the way.
        counts_stages: whether it counts in earlier stages too.
    """

    model: PeftModel | PreTrainedModel
    base: PreTrainedModel | None
    stages: Sequence[str]
    newest: str
    counter: ExpertCounter
    counts_stages: bool

    def nats(self, blocks: PackedBlocks, source: TextSource, **options: Any) -> dict[str, np.ndarray]:
        """Return by name of the reader what each token cost it, in nats."""
        model = self.model
        with base_of(model, self.base) as dense:
            nats = {"base": token_nats(dense, blocks, **options)}
        if not isinstance(model, PeftModel) and self.base is None:
            return nats
        with record_routing(model) if moe_layers(model) else nullcontext(RoutingRecord()) as record:
            count = self.counter.watch(record, self.newest, source)
            nats["expanded"] = token_nats(model, blocks, after_batch=count, **options)
        self.counter.gather(self.newest, source)
        for stage in self.stages:
            with use_stage(cast("PeftModel", model), stage), record_routing(model) as record:
                count = self.counter.watch(record, stage, source) if self.counts_stages else None
                nats[stage] = token_nats(model, blocks, after_batch=count, **options)
            if self.counts_stages:
                self.counter.gather(stage, source)
        return nats


def _lost_rows(sets: Sequence[ScoredDocuments], losses: Sequence[LostText]) -> pd.DataFrame:
    rows = [
        [test.language, test.role, test.dataset, sum(loss.num_bytes), sum(loss.lost_bytes), loss.share, loss.examples]
        for test, loss in zip(sets, losses, strict=True)
        if loss.share
    ]
    return pd.DataFrame(rows, columns=LOST_COLUMNS)


@contextmanager
def base_of(model: PeftModel | PreTrainedModel, base: PreTrainedModel | None) -> Iterator[Any]:
    """Give the base inside the block: the one given, a model without its adapter, or the plain model itself."""
    with model.disable_adapter() if isinstance(model, PeftModel) else nullcontext():
        yield model if base is None else base


def token_nats(
    model: torch.nn.Module,
    blocks: PackedBlocks,
    *,
    after_batch: Callable[[Batch], object] | None = None,
    **options: Any,
) -> np.ndarray:
    """Return the negative log-likelihood of every token in nats, documents one after the other, float64 [tokens].

    Separators are not scored and have no place in it. Arguments are those of `document_nats`, which sums the same.
    """
    places = torch.arange(blocks.input_ids.numel()).view_as(blocks.input_ids)
    documents = blocks.document_index.flatten()

    def after(batch: Batch) -> None:
        if after_batch is not None:
            after_batch({**batch, "document_index": documents[batch["document_index"]]})

    alone = replace(blocks, document_index=places, num_documents=places.numel())  # each position a document of its own
    return document_nats(model, alone, after_batch=after, **options)[is_scored(blocks).flatten().numpy()]


def document_nats(
    model: torch.nn.Module,
    blocks: PackedBlocks,
    *,
    batch_blocks: int = 4,
    precision: str = "auto",
    after_batch: Callable[[Batch], object] | None = None,
    bar: Any = None,
    seen: Observed | None = None,
    whole_logits: bool = False,
) -> np.ndarray:
    """Return the negative log-likelihood of every packed document in nats, float64 [documents].

    Documents do not see one another, every token is scored once, and separators are not scored. Processes that read
    together share the blocks, and get all of it.

    Args:
        model: a causal LM, expanded or not.
        blocks: from `pack`.
        batch_blocks: blocks per forward pass.
        precision: auto, fp32 or bf16.
        after_batch: called with each batch after its pass, see `read_blocks`.
        bar: told how many tokens were read.
        seen: takes in what was computed with.
        whole_logits: make the logits of a batch at once instead of a few rows at a time, for comparison.

    Raises:
        LprError: products were made in another precision, and `seen` could tell.
    """

    def scored_targets(batch: Batch) -> torch.Tensor:
        return batch["targets"].masked_fill(batch["targets"] == blocks.separator_id, NO_TARGET)

    totals = np.zeros(blocks.num_documents)
    autocast = torch.bfloat16 if resolve_precision(precision) == "bf16" else None
    watching = nullcontext() if seen is None else observe(model, seen, autocast)
    with inference(model, precision), watching, next_token_losses(model, whole=whole_logits):
        for batch, losses in read_blocks(model, blocks, batch_blocks=batch_blocks, bar=bar, targets=scored_targets):
            scored = scored_targets(batch) != NO_TARGET
            owners = batch["document_index"][scored].numpy()
            np.add.at(totals, owners, losses.cpu()[scored].double().numpy())
            if after_batch is not None:
                after_batch(batch)
    return np.sum(gathered(totals), axis=0)
