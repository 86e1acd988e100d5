"""Where a finished run's model sends its text: load, co-activation and information of experts, and traced texts.

A run of this kind keeps the same tables and traces as the run it looks at, for other text, languages or layers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import regex

from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.experiments.corpus import corpus_of
from lpr_lab.experiments.expert_tables import count_experts
from lpr_lab.experiments.studies.predecessors import begun_from, runs_folder
from lpr_lab.experiments.studies.subjects import find_subject, has_default_settings, languages_in, load_model
from lpr_lab.measure import experts
from lpr_lab.measure.causal.languages import causal_by_language
from lpr_lab.measure.expert_counts import ExpertCounter
from lpr_lab.measure.guesses.compute import logit_lens
from lpr_lab.measure.routing import original_weight_by_language, trace
from lpr_lab.measure.segments.compute import compare_languages
from lpr_lab.measure.trace import RoutingTrace, layers_in
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.stages import stage_names
from lpr_lab.progress import progress, remark
from lpr_lab.runs.claims import MIN_ORIGINAL_WEIGHT, MIN_SEPARATION, Claim, as_records
from lpr_lab.runs.find import start_run
from lpr_lab.runs.formats import json_records
from lpr_lab.runs.run import Run
from lpr_lab.text.corpus import Corpus, main_split
from lpr_lab.text.languages import language_codes
from lpr_lab.text.sample_texts import TEXTS

KIND = "routing"
MAX_SENTENCE = 300
"""Characters of a document that are traced."""


@dataclass(frozen=True, kw_only=True)
class RoutingSettings:
    """Whose routing is looked at, on which text, in which layers."""

    run: str = ""
    """Empty for the newest finished expansion."""
    corpus: str = ""
    """Empty for the one that the run was made from."""
    languages: tuple[str, ...] = ()
    """Empty for all of the run."""
    test_sets: tuple[str, ...] = ()
    """Splits; empty for held-out text, or dev text where that is not there in every language."""
    tokens_per_language: int = 2048
    """Counted, per test set."""
    n_sentences: int = 2
    """Traced token by token, per language, beside our own sample text."""
    causal_tokens: int = 192
    """Of each language, on which every layer is switched to each of its experts; 0 for none."""
    layers: str = "all"
    """`all`, or numbers and ranges such as `0-5, 12`."""
    precision: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "languages", language_codes(self.languages))
        if self.tokens_per_language < 1 or self.n_sentences < 0 or self.causal_tokens < 0:
            raise UsageError(
                f"tokens_per_language = {self.tokens_per_language}, n_sentences = {self.n_sentences}, causal_tokens = "
                f"{self.causal_tokens}; expected at least one token, and no negative number of sentences or tokens."
            )


@dataclass(frozen=True)
class Analysis:
    """An analysis at work: its run, its settings as resolved, whose model it looks at, and the languages."""

    settings: RoutingSettings
    run: Run
    subject: Run
    roles: dict[str, str]

    @property
    def uses_defaults(self) -> bool:
        """Whether model and text are as they come, so that the measured claims must hold as well."""
        asked = (self.settings.corpus, self.settings.layers, self.settings.test_sets)
        return asked == (self.subject.config["corpus"], "all", ()) and has_default_settings(self.subject)

    def table(self, name: str) -> pd.DataFrame:
        """Return one of the tables, empty where there was nothing to count."""
        found = self.run.tables.read(name)
        return pd.DataFrame() if found is None else found


def start(settings: RoutingSettings, run_dir: str | Path = "", root: str | Path | None = None) -> Analysis:
    """Find the run to look at, making a short expansion where there is none, and return the analysis, its run started.

    Raises:
        MissingError, UsageError: a run that there is not, a layer without a router.
    """
    folder = runs_folder(run_dir, root)
    subject = find_subject(folder, settings.run or begun_from(run_dir, "run"))
    known = languages_in(subject)
    roles = {code: known.get(code, "expanded") for code in settings.languages or known}
    config = subject.config
    settings = replace(
        settings, run=subject.id, corpus=settings.corpus or str(config["corpus"]), languages=tuple(roles)
    )
    given: dict[str, Any] = asdict(settings) | {"base": config["base"], "top_k": config.get("top_k", 2)}
    given |= {role: [code for code in roles if roles[code] == role] for role in ("original", "expanded")}
    run = start_run(
        given,
        kind=KIND,
        slug=" ".join(roles),
        title=f"{subject.title}: where its tokens go",
        run_dir=run_dir,
        root=folder,
        parents=[subject.id],
    )
    return Analysis(settings, run, subject, roles)


def measure(analysis: Analysis) -> None:
    """Count what every stage does with the text, trace sentences token by token, and write tables and traces."""
    run, settings = analysis.run, analysis.settings
    if run.phases.is_done("measure"):
        return
    with run.working("measure"):
        corpus = corpus_of(analysis.subject.config, list(analysis.roles), settings.corpus)
        test_sets = settings.test_sets or (main_split(corpus, list(analysis.roles)),)
        model, tokenizer = load_model(analysis.subject)
        wanted = _layers(settings.layers, list(expansion_config(model).layer_indices))
        counter = ExpertCounter(stage_names(model))
        options = {"splits": test_sets, "tokens_per_language": settings.tokens_per_language}

        @contextmanager
        def use() -> Iterator[Any]:
            yield SimpleNamespace(model=model, tokenizer=tokenizer)

        with progress(None, "Counting", "part") as bar:
            for step in count_experts(counter, corpus, analysis.roles, use, **options, precision=settings.precision):
                bar.total = step.total
                bar.update(step.done - bar.n)
        tables = {name: table[table["layer"].isin(wanted)] for name, table in counter.tables(tokenizer).items()}
        if tables["expert_load"].empty:
            sets = ", ".join(test_sets)
            raise UsageError(f"The corpus {corpus.name} has no text in the test sets {sets}, so nothing was counted.")
        for name, table in tables.items():
            if len(table):
                run.tables.write(name, table)
        if settings.causal_tokens:
            caused = causal_by_language(
                model,
                tokenizer,
                corpus,
                analysis.roles,
                splits=test_sets,
                tokens_per_language=settings.causal_tokens,
            )
            run.tables.write("causal", caused[caused["layer"].isin(wanted)])
        guessed = _guesses(analysis, corpus, model, tokenizer)
        if guessed is not None:
            run.tables.write("guesses", guessed)
        load = _plain_load(tables["expert_load"], stage_names(model)[-1])
        run.tables.write("load", load)
        run.tables.write("original_weight", original_weight_by_language(load))
        samples = {code: TEXTS[code] for code in analysis.roles if code in TEXTS}
        if len(samples) > 1:
            compared = compare_languages(model, tokenizer, samples).to_frame()
            run.tables.write("segment", compared[compared["layer"].isin(wanted)])
        for name, (language, text) in _texts(analysis, corpus, test_sets).items():
            traced = trace(model, tokenizer, text, language, stages=stage_names(model))
            traced.model |= {"run": analysis.subject.id}
            run.traces.write(name, _only(traced, wanted))
        run.phases.mark_done("measure")


def rows(analysis: Analysis, name: str, dataset: str) -> pd.DataFrame:
    """Return a table's rows on one data set, at the newest stage where it tells stages apart."""
    table = analysis.table(name)
    if table.empty:
        return table
    table = table[table["dataset"] == dataset]
    return table[table["stage"] == table["stage"].iloc[-1]] if "stage" in table else table


def coactivation(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return P(column chosen | row chosen) over all layers of a table `expert_pairs`, expert by expert."""
    number = int(pairs["expert_b"].max()) + 1
    counts = np.zeros((number, number))
    for a, b, tokens in pairs[["expert_a", "expert_b", "n_tokens"]].itertuples(index=False):
        counts[a, b] += tokens
        counts[b, a] += tokens if a != b else 0
    names = pd.RangeIndex(number, name="expert")
    return pd.DataFrame(experts.given_expert(counts), names, names)


def finish(analysis: Analysis) -> dict[str, Any]:
    """Write balance, claims and results, and mark the run finished."""
    run = analysis.run
    with run.working("finish"):
        datasets = list(dict.fromkeys(analysis.table("expert_load")["dataset"]))
        balance = pd.concat(
            [experts.balance(rows(analysis, "expert_load", name)).assign(dataset=name) for name in datasets]
        )
        run.tables.write("balance", balance)
        weights = analysis.table("original_weight")
        results = {
            "schema_version": 1,
            **{key: run.config[key] for key in ("base", "run", "original", "expanded")},
            "routing": {"original_weight": weights.to_dict("records")},
            "balance": json_records(balance),
            "traces": list(run.traces.names()),
            "claims": as_records(check(analysis)),
        }
        run.finish(results)
    return results


def check(analysis: Analysis) -> list[Claim]:
    """Check what the notebook says: of every analysis exactly, of the demo's model as measured."""
    load = analysis.table("expert_load")
    sums = load.groupby(["stage", "dataset", "language", "layer"])["mass"].sum()
    off = float((sums - 1).abs().max())
    text = "The weights of a layer's experts add up to 1 in every language (largest distance)."
    claims = [Claim("weights_add_up", text, off, 1e-4, off <= 1e-4, is_exact=True)]
    worst = 0.0
    for name in analysis.run.traces.names():
        traced = analysis.run.traces.read(name)
        worst = max(worst, float(abs(traced.expert_weights.sum(-1) - 1).max(initial=0)))
    text = "So they do for every token of every traced text (largest distance; traces keep half precision)."
    claims.append(Claim("traces_add_up", text, worst, 2e-3, worst <= 2e-3, is_exact=True))
    weights = analysis.table("original_weight")
    kept = weights[weights["role"] == "original"]["original_weight"]
    left = weights[weights["role"] == "expanded"]["original_weight"]
    if len(kept) and len(left):
        least, apart = float(kept.min()), float(kept.min() - left.max())
        text = f"Mean weight of the original expert is at least {MIN_ORIGINAL_WEIGHT:g} on every original language."
        claims.append(Claim("original_to_original", text, least, MIN_ORIGINAL_WEIGHT, least >= MIN_ORIGINAL_WEIGHT))
        text = f"It is at least {MIN_SEPARATION:g} lower on every expanded language (smallest distance)."
        claims.append(Claim("languages_separated", text, apart, MIN_SEPARATION, apart >= MIN_SEPARATION))
    told = analysis.table("expert_information")
    if len(told):
        clear = float((told["bits"] > told["null_high_bits"]).mean())
        text = "In every layer the expert tells more about the language than chance (share of layers)."
        claims.append(Claim("more_than_chance", text, clear, 1.0, clear == 1.0))
    return claims


# Small pieces


def _layers(text: str, known: list[int]) -> list[int]:
    try:
        return layers_in(text, known)
    except ValueError as error:
        raise UsageError(f"layers = {text!r}. {error}") from error


def _plain_load(counted: pd.DataFrame, stage: str) -> pd.DataFrame:
    """Return the newest stage's load in the columns of a run's table `load`."""
    load = counted[counted["stage"] == stage].drop(columns="stage")
    slots = load.groupby(["language", "dataset", "layer"])["chosen"].transform("sum")
    columns = ["language", "role", "dataset", "layer", "expert", "share", "mass", "n_tokens", "first"]
    return load.assign(share=load["chosen"] / slots)[columns]


def _guesses(analysis: Analysis, corpus: Corpus, model: Any, tokenizer: Any) -> pd.DataFrame | None:
    """Return in which languages every layer, also one without a router, would go on with one of our sample texts.

    It is that of the last language that has one; expanded languages come last. None where there is no such text, or
    the model cannot be read layer by layer.
    """
    texts = [code for code in analysis.roles if code in TEXTS]
    if not texts:
        return None
    options = {"languages": list(analysis.roles), "corpus": corpus}
    try:
        return logit_lens(model, tokenizer, TEXTS[texts[-1]], texts[-1], **options).languages_by_layer()
    except UnsupportedModelError as error:
        remark(f"No guesses by layer: {error}")
        return None


def _texts(analysis: Analysis, corpus: Corpus, test_sets: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return name -> (language, text): our own sample texts, then the beginnings of documents."""
    found: dict[str, tuple[str, str]] = {}
    for code in analysis.roles:
        if code in TEXTS:
            found[code] = (code, TEXTS[code])
        split = next((name for name in test_sets if name in corpus.splits), None)
        documents = corpus.documents(split, code) if split else []
        for number, document in enumerate(documents[: analysis.settings.n_sentences], 1):
            found[f"{code}-{number}"] = (code, beginning(document.text))
    return found


def beginning(text: str, most: int = MAX_SENTENCE) -> str:
    """Return the first sentence of a text, cut between words or, where there are none, characters.

    >>> beginning("One day. Another.")
    'One day.'
    """
    text = " ".join(text.split())
    first = regex.match(r".+?[.!?…。！？؟।](?=\s|$|[^\d\s])", text)
    sentence = first[0] if first else text
    if len(sentence) <= most:
        return sentence
    head = "".join(regex.findall(r"\X", sentence)[:most])
    return head.rpartition(" ")[0] or head


def _only(traced: RoutingTrace, wanted: list[int]) -> RoutingTrace:
    """Return a trace with some of its layers, in all of its stages."""
    keep = [row for row, layer in enumerate(traced.layers) if layer in wanted]
    per_layer = ("layers", "num_experts", "expert_ids", "expert_weights", "original_weight", "router_probs")
    arrays: dict[str, Any] = {name: getattr(traced, name) for name in per_layer}
    arrays = {name: array[keep] for name, array in arrays.items() if array is not None}
    stages = {name: _only(stage, wanted) for name, stage in traced.stages.items() if stage is not traced}
    return replace(traced, **arrays, stages=stages)
