"""Scores of two models on the same documents: both read them now, or what their runs kept is taken.

Two models that were measured on different documents are refused, if possible before any work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from lpr_lab.errors import ComparisonRefusedError, UsageError
from lpr_lab.experiments.corpus import corpus_of
from lpr_lab.experiments.studies.asking import Answers
from lpr_lab.experiments.studies.scoring_settings import EvaluationSettings
from lpr_lab.experiments.studies.subjects import languages_in, load_model
from lpr_lab.measure.bits import Report, evaluate
from lpr_lab.measure.documents import choose_documents, fingerprint_of, lost_texts
from lpr_lab.measure.routing import original_weight_by_language
from lpr_lab.measure.slices.scores import joined
from lpr_lab.model.stages import use_stage
from lpr_lab.model.tuned.pair import Tuned
from lpr_lab.runs.compare import paired_scores
from lpr_lab.runs.compare.paired_slices import paired_slice_scores
from lpr_lab.runs.model_ref import BASE, ModelRef, stages_of
from lpr_lab.runs.run import Run
from lpr_lab.text.corpus import Corpus, main_split
from lpr_lab.text.languages import language_name
from lpr_lab.text.splits import main_test_set

MAX_DOCUMENT_TOKENS = 256


def called(side: ModelRef, subject: Run) -> str:
    """Return what a side is called in tables: by its stage also where that is the newest."""
    newest = (stages_of(side.run) or ["expanded"])[-1]
    return ModelRef(side.run, side.stage or newest).name(subject)


def score(before: ModelRef, after: ModelRef, settings: EvaluationSettings, run: Run) -> None:
    """Have both models read the text, and write the tables retention, stages, documents, change and load.

    Raises:
        ComparisonRefusedError: their tokenizers choose different documents.
    """
    corpus = corpus_of(after.run.config, settings.languages, settings.corpus)
    test_sets = settings.test_sets or (main_split(corpus, settings.languages),)
    run.documents.write("data", corpus.manifest)
    model, tokenizer = load_model(after.run)
    other = load_model(before.run) if before.run.id != after.run.id else None
    if other is not None:
        _refuse_other_documents(settings, test_sets, corpus, tokenizer, other[1])
    options: dict[str, Any] = {
        "languages": settings.languages,
        "original": [code for code, role in languages_in(after.run).items() if role == "original"],
        "splits": test_sets,
        "tokens_per_language": settings.eval_tokens_per_language,
        "max_document_tokens": MAX_DOCUMENT_TOKENS,
        "bootstrap": settings.bootstrap,
        "precision": settings.precision,
        "seed": settings.seed,
    }
    first, last = called(before, after.run), called(after, after.run)
    newest = stages_of(after.run)[-1]
    with use_stage(model, after.stage or newest):
        earlier = [before.stage or newest] if other is None and before.stage != BASE else []
        report = evaluate(model, tokenizer, corpus, stages=earlier, **options)
        answers = Answers(settings, corpus, options["original"])
        answers.ask(model, tokenizer, {BASE: BASE, "expanded": last, **dict.fromkeys(earlier, first)}, earlier)
    nats = [{BASE: test.nats["base"], **test.nats, last: test.nats["expanded"]} for test in report.sets]
    sliced = [_called(report.slice_scores, {"base": BASE, first: first, "expanded": last})]
    if other is not None:
        stage = before.stage or stages_of(before.run)[-1]
        with use_stage(other[0], stages_of(before.run)[-1] if stage == BASE else stage):
            again = evaluate(other[0], other[1], corpus, **options)
            answers.ask(*other, {"base" if stage == BASE else "expanded": first})
        if unlike := [a for a, b in zip(report.sets, again.sets, strict=True) if a.fingerprint != b.fingerprint]:
            raise ComparisonRefusedError(
                f"The tokenizers of the two models lose different parts of {language_name(unlike[0].language)} "
                f"({unlike[0].dataset}), so their bits per byte are not about the same text. {paired_scores.DIFFERENT}"
            )
        key = "base" if stage == BASE else "expanded"
        nats = [{**found, first: test.nats[key]} for found, test in zip(nats, again.sets, strict=True)]
        sliced = [sliced[0][sliced[0]["model"] != first], _called(again.slice_scores, {key: first})]
    names = dict.fromkeys([BASE, first, last])
    sets = [
        replace(test, nats={name: found[name] for name in names}) for test, found in zip(report.sets, nats, strict=True)
    ]
    _write(run, Report(sets, settings.bootstrap, settings.seed, slice_scores=joined(sliced)), first, last)
    answers.write(run, first, last)
    if len(report.lost):
        run.tables.write("lost_text", report.lost)
    if len(report.load) and not isinstance(model, Tuned):  # of a mixture that learned as a whole none is the original
        run.tables.write("load", report.load)
        run.tables.write("original_weight", original_weight_by_language(report.load))


def take_kept(before: ModelRef, after: ModelRef, settings: EvaluationSettings, run: Run) -> None:
    """Compare what the runs kept, as the dashboard does, and write the same tables as far as that goes.

    Raises:
        ComparisonRefusedError: their test sets differ, or one of them was not evaluated.
    """
    found = paired_scores.compare(before, after)
    if found is None or found.rows is None:
        reason = found.refusal if found else f"Run {after.run.id} was not evaluated."
        hashes = [f"{language_name(c)}, {d}: {old} and {new}" for c, d, old, new in found.different] if found else []
        raise ComparisonRefusedError(" ".join([reason, *([f"({'; '.join(hashes)})"] if hashes else [])]))
    first, last = called(before, after.run), called(after, after.run)
    keys = list(zip(found.rows["language"], found.rows["dataset"], strict=True))
    test_sets = settings.test_sets or (main_test_set(found.rows["dataset"]),)
    wanted = [code in settings.languages and dataset in test_sets for code, dataset in keys]
    rows = found.rows[wanted].reset_index(drop=True)
    if rows.empty:
        asked = f"{', '.join(settings.languages)} on {', '.join(test_sets)}"
        there = ", ".join(f"{code} on {dataset}" for code, dataset in keys)
        raise UsageError(f"The runs kept no scores of {asked}; they have {there}.")
    pairs = paired_scores.paired(before, after, [key for key, take in zip(keys, wanted, strict=True) if take])
    if pairs is not None:
        sets = [replace(test, nats={first: test.nats["before"], last: test.nats["after"]}) for test in pairs]
        report = Report(sets, settings.bootstrap, settings.seed)
        if (slices := paired_slice_scores(before, after)) is not None:
            known = {(test.language, test.dataset) for test in sets}
            take = [key in known for key in zip(slices["language"], slices["dataset"], strict=True)]
            report.slice_scores = _called(slices[take], {"before": first, "after": last})
        _write(run, report, first, last)
        return
    run.tables.write("change", rows)
    plain = rows[["language", "role", "dataset", "n_documents"]]
    scores = [plain.assign(stage=name, bits_per_byte=rows[key]) for name, key in ((first, "before"), (last, "after"))]
    run.tables.write("stages", pd.concat(scores, ignore_index=True))


def measured_text(
    config: Mapping[str, Any], dataset: str, language: str, test_set: str, document: str, tokenizer: Any
) -> str:
    """Return the text of a document that a run was measured on, as it was measured: runs keep no text of others.

    Args:
        config: of the run.
        dataset: name of the split.
        language: code.
        test_set: hash of the test set, as tables have it.
        document: its id.
        tokenizer: the model's, which says where a long document was cut.

    Raises:
        ComparisonRefusedError: the corpus has another test set now than the one that was measured.
    """
    corpus = corpus_of(config, [language])
    budget = int(config.get("eval_tokens_per_language") or 4096)
    chosen = choose_documents(corpus.documents(dataset, language), budget, MAX_DOCUMENT_TOKENS, tokenizer)
    loss = lost_texts(tokenizer, [(dataset, language, chosen)])[0]
    if not test_set or not fingerprint_of(chosen, loss).startswith(test_set):
        raise ComparisonRefusedError(
            f"The corpus {config.get('corpus')} gives another test set now than the one that was measured, so its "
            "documents are not those of the table."
        )
    return next(one.text for one in chosen if one.id == document)


def _refuse_other_documents(
    settings: EvaluationSettings, test_sets: Sequence[str], corpus: Corpus, *tokenizers: Any
) -> None:
    """Refuse before anything is scored where two tokenizers cut the text into different test sets."""
    limits = settings.eval_tokens_per_language, MAX_DOCUMENT_TOKENS
    for split in [split for split in test_sets if split in corpus.splits]:
        for code in settings.languages:
            documents = corpus.documents(split, code)
            chosen = [fingerprint_of(choose_documents(documents, *limits, tokenizer))[:16] for tokenizer in tokenizers]
            if len(set(chosen)) > 1:
                raise ComparisonRefusedError(
                    f"The {language_name(code)} test set {split} is {chosen[1]} for the model before and {chosen[0]} "
                    f"for the one after, because their tokenizers cut text differently. {paired_scores.DIFFERENT}"
                )


def _called(scores: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Return scores of the models that have a name here, under it."""
    known = scores[scores["model"].isin(names)]
    return known.assign(model=known["model"].map(names))


def _write(run: Run, report: Report, first: str, last: str) -> None:
    frame = report.to_frame()
    run.tables.write("retention", frame)
    run.tables.write("stages", frame.rename(columns={"model": "stage"}))
    run.tables.write("documents", report.documents().rename(columns={"model": "stage"}))
    if len(report.slice_scores):
        run.tables.write("slices", report.slice_scores.rename(columns={"model": "stage"}))
    run.tables.write("change", report.changes(before=first, after=last))
