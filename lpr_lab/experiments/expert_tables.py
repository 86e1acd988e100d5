"""Tables of what a run's experts do: counted while it is evaluated, or later, for a run that has weights.

The tables are those of `measure.expert_counts`. Later is the same as then: the same documents, splits and stages.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.experiments.corpus import corpus_of
from lpr_lab.measure.documents import choose_documents
from lpr_lab.measure.expert_counts import ExpertCounter, TextSource, read_stage
from lpr_lab.model.stages import stage_names
from lpr_lab.runs.run import Run
from lpr_lab.text.corpus import Corpus, comparable_splits
from lpr_lab.text.packing import pack
from lpr_lab.text.splits import TEST_SETS

MAX_DOCUMENT_TOKENS = 256
BLOCK_TOKENS = 256


class HasModel(Protocol):
    """What `use` gives: the run's model and tokenizer."""

    @property
    def model(self) -> Any:
        """An expanded model."""

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""


@dataclass(frozen=True)
class Progress:
    """How far `measure_experts` has come."""

    done: int
    total: int
    doing: str
    share: float = 0.0
    """Of the tokens that are to be read, those that were."""


def write_expert_tables(run: Run, counter: ExpertCounter, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write what was counted; a table without rows is not written."""
    for name, table in counter.tables(tokenizer).items():
        if len(table):
            run.tables.write(name, table)


def original_weight_by_stage(run: Run) -> pd.DataFrame | None:
    """Return the mean weight of expert 0 over all layers at every stage, or None where the run did not count it.

    Columns: dataset, role, language, stage (oldest first), original_weight.
    """
    load = run.tables.read("expert_load")
    if load is None:
        return None
    keys = ["dataset", "role", "language", "stage"]
    means = load[load["expert"] == 0].groupby(keys, sort=False)["mass"].mean()
    return means.reset_index(name="original_weight")


def measure_experts(run: Run, use: Callable[[], AbstractContextManager[HasModel]]) -> Iterator[Progress]:
    """Count for a finished run what its measuring counts today; the tables are written at the end.

    A generator, so that whoever asked can watch and stop: nothing is written before the last step.

    Args:
        run: with weights, and a corpus that is here or can be fetched.
        use: gives the model for one step and takes it back, so that others can use it in between.

    Raises:
        UsageError: the run does not say which corpus it was made from.
    """
    roles = scored_roles(run)
    yield Progress(0, 1, "Reading the run's text")
    corpus = corpus_of(run.config, list(roles))
    with use() as held:
        counter, tokenizer = ExpertCounter(stage_names(held.model)), held.tokenizer
    yield from count_experts(counter, corpus, roles, use, tokens_per_language=scored_tokens(run))
    write_expert_tables(run, counter, tokenizer)


def scored_roles(run: Run) -> dict[str, str]:
    """Return the languages that a run is scored in, and whether each is `original` or `expanded`.

    Raises:
        UsageError: the run does not say which corpus it was made from.
    """
    config = run.config
    if not {"corpus", "original", "expanded"} <= set(config):
        raise UsageError(f"Run {run.id} does not say which text it was made from, so its experts cannot be counted.")
    originals = [*config["original"], *config.get("unreviewed", ())]
    languages = [*originals, *config.get("earlier", ()), *config["expanded"]]
    return {code: "original" if code in originals else "expanded" for code in languages}


def scored_tokens(run: Run) -> int:
    """Return up to how many tokens of each language a run is scored on."""
    return int(run.config.get("eval_tokens_per_language") or 4096)


def count_experts(
    counter: ExpertCounter,
    corpus: Corpus,
    roles: Mapping[str, str],
    use: Callable[[], AbstractContextManager[HasModel]],
    *,
    splits: Sequence[str] = TEST_SETS,
    tokens_per_language: int,
    precision: str = "auto",
) -> Iterator[Progress]:
    """Let the counter watch every stage of a model read text in every language.

    Args:
        counter: of the model's stages.
        corpus: splits are left out as in an evaluation.
        roles: language -> `original` or `expanded`.
        use: see `measure_experts`.
        splits: what is read.
        tokens_per_language: of each split, as for an evaluation.
        precision: auto, fp32 or bf16.
    """
    with use() as held:
        stages, tokenizer = stage_names(held.model), held.tokenizer
    budget = tokens_per_language
    parts = [(split, code) for split in comparable_splits(corpus, splits, list(roles)) for code in roles]
    total = len(parts) * len(stages)
    packed = []
    for split, code in parts:
        documents = choose_documents(corpus.documents(split, code), budget, MAX_DOCUMENT_TOKENS, tokenizer)
        packed.append(pack(documents, tokenizer, BLOCK_TOKENS, languages=[code]) if documents else None)
    sizes = [0 if blocks is None else blocks.input_ids.numel() for blocks in packed]
    read, all_of_it = 0, max(1, sum(sizes) * len(stages))
    for place, ((split, code), blocks) in enumerate(zip(parts, packed, strict=True)):
        for number, stage in enumerate(stages):
            done = place * len(stages) + number
            yield Progress(done, total, f"{code}, {split} text, {stage}", read / all_of_it)
            if blocks is None:
                continue
            read += sizes[place]
            with use() as held:
                source = TextSource(code, roles[code], split)
                read_stage(counter, held.model, blocks, stage, source, precision=precision)
    yield Progress(total, total, "Shuffling documents and writing tables", 1.0)
