"""Finds the contexts of a finished run's experts, on the text that the run was scored on, and keeps them with it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from lpr_lab.errors import MissingError
from lpr_lab.experiments.corpus import corpus_of
from lpr_lab.experiments.expert_tables import MAX_DOCUMENT_TOKENS, HasModel, scored_roles, scored_tokens
from lpr_lab.measure.contexts.compute import ContextStep, context_steps, context_tokens
from lpr_lab.measure.contexts.expert_contexts import Tokens
from lpr_lab.runs.expert_contexts import read_contexts, write_contexts
from lpr_lab.runs.run import Run


def find_contexts(
    run: Run,
    use: Callable[[], AbstractContextManager[HasModel]],
    *,
    dataset: str = "",
    stage: str = "",
    without: tuple[int, int] | None = None,
) -> Iterator[ContextStep]:
    """Find the contexts of all experts, part by part, and write them into the run's tables before the last step.

    A generator, so that whoever asked can watch and stop: nothing is written before the end.

    Args:
        run: with weights, and a corpus that is here or can be fetched.
        use: gives the model for one step and takes it back, so that others can use it in between.
        dataset: the test set; the one that says most (`text.corpus.main_split`) where none is named.
        stage: of the model; empty for the newest.
        without: (layer, expert) of one that is also left out.

    Raises:
        UsageError: the run does not say which corpus it was made from; or as `expert_contexts`.
    """
    languages = list(scored_roles(run))
    corpus = corpus_of(run.config, languages)
    with use() as held:
        steps = context_steps(
            held.model,
            held.tokenizer,
            corpus,
            languages=languages,
            split=dataset,
            effects_of=[] if without is None else [without],
            stage=stage or None,
            tokens_per_language=scored_tokens(run),
            max_document_tokens=MAX_DOCUMENT_TOKENS,
        )
    while True:
        with use():
            step = next(steps, None)
        if step is None:
            return
        if step.result is not None:
            write_contexts(run, step.result)
        yield step


def find_tokens(run: Run, use: Callable[[], AbstractContextManager[HasModel]], dataset: str = "") -> Tokens:
    """Return the tokens of the documents that a run's contexts are from: the run keeps their ids and places only.

    Arguments are those of `find_contexts`.

    Raises:
        MissingError: the run keeps no contexts from this test set.
        ComparisonRefusedError: the corpus has other text now than when they were found.
        UsageError: the run does not say which corpus it was made from.
    """
    kept = read_contexts(run, dataset)
    if kept is None:
        raise MissingError(
            f"Run {run.id} keeps no contexts of its experts in {dataset or 'any'} text; find them first."
        )
    languages = list(scored_roles(run))
    corpus = corpus_of(run.config, languages)
    with use() as held:
        return context_tokens(
            held.model,
            held.tokenizer,
            corpus,
            kept.contexts,
            languages=languages,
            split=dataset,
            tokens_per_language=scored_tokens(run),
            max_document_tokens=MAX_DOCUMENT_TOKENS,
        )
