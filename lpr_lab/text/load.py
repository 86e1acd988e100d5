"""Loads a corpus by name: the embedded `demo`, files, a data set on the hub, or several of them joined."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpr_lab.errors import UsageError
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.demo.corpus import DEMO_LANGUAGES, TRAINED_LANGUAGES, load_demo
from lpr_lab.text.languages import get_languages
from lpr_lab.text.shards.from_hub import prepare_hub
from lpr_lab.text.shards.pool import Workers, num_workers
from lpr_lab.text.shards.prepare import prepare_files
from lpr_lab.text.sources.files import list_files, load_files, looks_like_path
from lpr_lab.text.sources.hub import load_hub
from lpr_lab.text.worlds.corpus import SMALL_WORLD, load_small_world

JOINT = " + "
"""Between the sources of a corpus that is made from several."""

STREAMED_BYTES = 500_000_000
"""Files of this size together are read into shards unless told otherwise: as Python objects they would take ten times
as much memory while they are compared."""

STREAMED_TOKENS = 5_000_000
"""Tokens of a language that the first documents of a data set, which are kept in memory, cannot be trusted to have."""


def load_corpus(
    source: str | Path | Sequence[str | Path] | Mapping[str, Any] = "demo",
    *,
    languages: Sequence[str] | None = None,
    text_column: str | None = None,
    configs: Mapping[str, str] | None = None,
    hub_split: str = "train",
    max_documents: int | None = None,
    tokens: int | None = None,
    streaming: bool | None = None,
    num_proc: int | None = None,
) -> Corpus:
    """Load text in the given languages.

    Args:
        source: `"demo"`; `"small-world"`, the same with cipher languages (`text.worlds`); or a JSONL, JSON, CSV, TSV,
            TXT or Parquet file, also compressed (.gz, .bz2, .xz, .zst), a folder of them, or a list of either; or a
            mapping from language to such paths; or the name of a data set on the hub; or several of these as one text,
            such as `"my_texts + demo"`: a language is taken from the first that has it.
        languages: ISO 639 or FLORES codes, or tags such as `pt-BR`. None takes the six demo languages, or those found
            in the files.
        text_column: the column that holds the text; None looks for the usual names.
        configs: hub only: language to configuration, such as `{"el": "ell_Grek"}`; None looks for the language's code.
        hub_split: hub only: which split of the data set to stream.
        max_documents: hub only: how many documents to take per language. None takes as many as `tokens` need; without
            that, all with `streaming=True`, and else 20,000; what is left on the hub is then warned of.
        tokens: hub only: how many tokens of each language a training will read. From 5 million on it streams unless
            told otherwise, and what is taken is 12 characters for each.
        streaming: read by several workers into shards in the cache, from which documents and tokens are mapped into
            memory as they are needed, so that a corpus may be larger than memory. The blocks of a training are the
            same. None does so for files of 500 MB together or more, and for data sets of the hub as `tokens` says.
        num_proc: with `streaming`, how many processes read, compare and tokenise; None for one per processor.

    Records have `text`, and may have `language` (or `lang`), `id` and `split` (train, replay, dev, heldout). A text
    that is null is left out and counted; a number or a structure in its place is refused. A TXT file has one document
    per paragraph, paragraphs being divided by blank lines. A file named by a language, `el.txt` or `el/news.txt`, is
    in that language where its records do not say otherwise. Where no split is
    given, documents are dealt to train, replay and dev by the hash of their content, and what dev and replay share
    with train is dropped. What is found and not read (`left_out` of the corpus) is warned of, with the reason.

    Raises:
        UsageError: an unknown language, no text, or too few documents to divide.
        MissingError: a source that is not there or cannot be reached.
        DamagedError: a file that breaks off.

    >>> corpus = load_corpus("demo", languages=["en", "el"])  # doctest: +SKIP
    >>> corpus.documents("dev", "el")[0].language  # doctest: +SKIP
    'el'
    """
    num_workers(num_proc)  # a number that makes no sense is refused before anything is read
    if isinstance(source, str) and JOINT in source and not Path(source).expanduser().exists():
        parts = [part.strip() for part in source.split(JOINT)]
        hub = {"configs": configs, "hub_split": hub_split, "max_documents": max_documents, "tokens": tokens}
        return _joined(parts, languages, text_column=text_column, **hub, streaming=streaming, num_proc=num_proc)
    if isinstance(source, str) and source == "demo":
        return load_demo(languages if languages is not None else DEMO_LANGUAGES)
    if isinstance(source, str) and source == SMALL_WORLD:
        return load_small_world(languages)
    if not isinstance(source, str) or looks_like_path(source):
        if streaming is None:
            streaming = sum(path.stat().st_size for path, _ in list_files(source)[0]) >= STREAMED_BYTES
        if streaming:
            with Workers(num_proc) as workers:
                return prepare_files(source, languages=languages, text_column=text_column, workers=workers)
        return load_files(source, languages=languages, text_column=text_column)
    hub: dict[str, Any] = {"configs": configs or {}, "hub_split": hub_split, "max_documents": max_documents}
    needs_more = max_documents is None and tokens is not None and tokens >= STREAMED_TOKENS
    if streaming or (streaming is None and needs_more):
        options = {"languages": languages, "text_column": text_column, **hub}
        with Workers(num_proc) as workers:
            return prepare_hub(source, **options, tokens=None if max_documents else tokens, workers=workers)
    return load_hub(source, languages=languages, text_column=text_column, **hub)


def _joined(parts: Sequence[str], languages: Sequence[str] | None, **options: Any) -> Corpus:
    """Take each language from the first source that has it; the hub is asked for whatever is missing by then."""
    name = JOINT.join(parts)
    if not languages:
        raise UsageError(f"Which languages to take from {name}? Give languages=['el', ...].")
    wanted = [language.code for language in get_languages(languages)]
    taken: dict[str, Corpus] = {}
    for part in parts:
        missing = [code for code in wanted if code not in taken]
        if part == "demo":
            missing = [code for code in missing if code in TRAINED_LANGUAGES]
        elif looks_like_path(part):
            found = load_corpus(part, **options)
            taken |= {code: found for code in missing if code in found.languages}
            continue
        if missing:
            taken |= dict.fromkeys(missing, load_corpus(part, languages=missing, **options))
    if without := [code for code in wanted if code not in taken]:
        raise UsageError(f"{name} has no text in {', '.join(without)}. Name another source that does.")
    corpora = list({id(corpus): corpus for corpus in taken.values()}.values())
    return Corpus(
        name,
        tuple(wanted),
        {
            (split, code): documents
            for code in wanted
            for (split, own), documents in taken[code].texts.items()
            if own == code
        },
        sources=[source for corpus in corpora for source in corpus.sources],
        preparation={code: taken[code].preparation.get(code, {}) for code in wanted},
        left_out=[one for corpus in corpora for one in corpus.left_out],
    )
