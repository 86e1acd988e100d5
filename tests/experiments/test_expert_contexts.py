"""Contexts of experts are kept with a run as tables without a sentence, and are found again as they were."""

from contextlib import nullcontext
from types import SimpleNamespace

import pandas as pd
import pytest

from helpers.small_expansion import make_expansion
from lpr_lab.errors import MissingError, UsageError
from lpr_lab.experiments import expert_contexts as found_by
from lpr_lab.experiments.expert_contexts import find_contexts, find_tokens
from lpr_lab.measure.contexts.compute import expert_contexts
from lpr_lab.measure.contexts.expert_contexts import BITS
from lpr_lab.model.stages import stage_names
from lpr_lab.runs.expert_contexts import TABLES, read_contexts
from lpr_lab.runs.run import Run


@pytest.fixture
def made(tmp_path, tiny_model, tiny_tokenizer, tiny_corpus, monkeypatch):
    """Return a run of two layers with two experts each, its model, and what gives the model for a step."""
    run, model = make_expansion(
        tmp_path, tiny_model("llama"), tiny_tokenizer, expanded=["el"], eval_tokens_per_language=300
    )
    monkeypatch.setattr(found_by, "corpus_of", lambda *_, **__: tiny_corpus)
    return run, model, lambda: nullcontext(SimpleNamespace(model=model, tokenizer=tiny_tokenizer))


def last(steps):
    *_, step = steps
    return step


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_what_a_run_keeps_is_what_was_found_without_its_sentences(made, tiny_tokenizer, tiny_corpus):
    run, model, use = made
    step = last(find_contexts(run, use, without=(1, 1)))
    options = {"languages": ["en", "el"], "tokens_per_language": 300, "effects_of": [(1, 1)]}
    again = expert_contexts(model, tiny_tokenizer, tiny_corpus, **options)
    kept = read_contexts(Run(run.path))
    assert kept is not None and kept.tokens == {}
    for name in ("contexts", "neighbours", "effects"):
        same(getattr(kept, name), getattr(again, name))
        same(getattr(step.result, name), getattr(again, name))
    written = "".join((run.path / "tables" / f"{name}.csv").read_text() for name in TABLES)
    assert not any(document.text[:20] in written for document in tiny_corpus.documents("heldout", "en"))
    assert find_tokens(run, use) == again.tokens


def test_another_expert_that_is_left_out_later_stands_beside_the_first(made):
    run, _, use = made
    first = last(find_contexts(run, use, without=(1, 1))).result
    second = last(find_contexts(run, use, without=(0, 0))).result
    last(find_contexts(run, use))
    kept = read_contexts(run)
    assert kept is not None
    same(kept.of(1, 1, BITS), first.of(1, 1, BITS))
    same(kept.of(1, 1), first.of(1, 1))
    same(kept.of(0, 0, BITS), second.of(0, 0, BITS))
    assert len(kept.effects) == 4
    keys = ["stage", "dataset", "language", "layer", "expert", "by", "rank"]
    assert not kept.contexts.duplicated(keys).any()


def test_stages_and_test_sets_stand_beside_one_another(made):
    run, model, use = made
    first, newest = stage_names(model)[0], stage_names(model)[-1]
    for options in ({"stage": first, "dataset": "dev"}, {"stage": first}, {}):
        last(find_contexts(run, use, **options))
    for stage, dataset in ((first, "dev"), (first, "heldout"), (newest, "heldout")):
        kept = read_contexts(run, dataset, stage)
        assert (
            kept is not None and set(kept.contexts["stage"]) == {stage} and set(kept.neighbours["dataset"]) == {dataset}
        )
    assert set(read_contexts(run).contexts["stage"]) == {newest}
    assert read_contexts(run, "dev", newest) is None and read_contexts(run, "nothing") is None


def test_stopping_before_the_end_writes_nothing(made):
    run, _, use = made
    steps = find_contexts(run, use)
    assert next(steps).result is None
    steps.close()
    assert not run.tables.names() and read_contexts(run) is None


def test_a_run_that_does_not_say_its_text_and_one_without_contexts_are_refused(made, tmp_path):
    run, _, use = made
    with pytest.raises(MissingError, match="find them first"):
        find_tokens(run, use)
    bare = Run.create(tmp_path / "runs", kind="expand", slug="bare", title="Bare", config={"base": "b"})
    with pytest.raises(UsageError, match="which text"):
        next(find_contexts(bare, use))
