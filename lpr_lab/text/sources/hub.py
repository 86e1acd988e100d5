"""Corpora from data sets on the Hugging Face hub, by name: the first documents of each language, streamed once.

What was streamed is kept in the cache, so that the next load reads the same documents without a network. The hub
cannot be reached from where this project is tested: the tests put a small stand-in in the place of `datasets`.
"""

import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from lpr_lab.errors import DamagedError, UsageError, did_you_mean
from lpr_lab.fetching import HUB_NAME, hub_errors, locked
from lpr_lab.progress import progress
from lpr_lab.storage import cache_dir, read_jsonl, staged_directory, verify
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.languages import Language, find_language, get_language, get_languages
from lpr_lab.text.sources.files import make_corpus, records_without_text
from lpr_lab.text.sources.folders import LeftOut
from lpr_lab.text.sources.rows import LANGUAGE_COLUMNS, Labels, Record, id_of, language_of, read_text

IN_MEMORY = 20_000
"""Documents of each language that are taken where nobody says how many, and that are kept in memory."""


def load_hub(
    name: str,
    *,
    languages: Sequence[str] | None,
    text_column: str | None,
    configs: Mapping[str, str],
    hub_split: str,
    max_documents: int | None,
) -> Corpus:
    """Stream the first documents of a data set into a corpus in memory; see `load_corpus`.

    Raises:
        UsageError: a name that cannot be one, no languages, or no configuration for a language.
        MissingError: no such data set, or the hub cannot be reached and nothing is cached.
    """
    chosen = check_request(name, languages, max_documents)
    limit = IN_MEMORY if max_documents is None else max_documents
    configs = {get_language(code).code: config for code, config in configs.items()}
    records: list[Record] = []
    sources: list[dict[str, Any]] = []
    left_out: list[LeftOut] = []
    for language in chosen:
        key = [name, language.code, configs.get(language.code), hub_split, text_column, limit]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
        folder = cache_dir() / "corpora" / f"hub-{name.replace('/', '--')}-{language.code}-{digest}"
        if not folder.is_dir():
            with locked(folder.parent, f"fetching {name}"):
                if not folder.is_dir():
                    _stream(name, language, configs.get(language.code), hub_split, text_column, limit, folder)
        facts = _facts(folder)
        sources.append({key: value for key, value in facts.items() if key != "files"})
        rows = read_jsonl(folder / "documents.jsonl")
        records += [Record(row["text"], language.code, row["id"], None, name) for row in rows]
        if facts.get("null_records_left_out"):
            left_out.append(records_without_text(facts["null_records_left_out"], language.code))
        if max_documents is None and facts.get("more_on_the_hub", len(rows) == limit):
            left_out.append(
                LeftOut(
                    f"all but {limit:,} documents in {language.code!r}",
                    "streaming=True takes all of them, max_documents=... another number",
                )
            )
    return make_corpus(name, records, Labels([language.code for language in chosen]), sources, left_out)


def check_request(name: str, languages: Sequence[str] | None, max_documents: int | None) -> tuple[Language, ...]:
    """Return the languages to take from a data set, or refuse before the hub is asked.

    Raises:
        UsageError: a name that cannot be one, no languages, or a number of documents that takes nothing.
    """
    if not HUB_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no corpus; expected 'demo', a file such as 'el.jsonl' or 'el.txt', or a hub data set such "
            "as 'org/name'."
        )
    if "/" not in name and did_you_mean(name, ["demo"]):
        raise UsageError(f"There is no corpus {name!r}.{did_you_mean(name, ['demo'])}")
    if not languages:
        raise UsageError(f"Which languages to take from {name}? Give languages=['el', ...].")
    if max_documents is not None and max_documents < 1:
        raise UsageError(f"max_documents={max_documents} takes nothing; expected at least 1.")
    return tuple(get_languages(languages))


def _facts(folder: Path) -> dict[str, Any]:
    try:
        return verify(folder)
    except DamagedError as error:
        raise DamagedError(f"{error} Delete {folder} and run the same command again to fetch it anew.") from None


def _stream(
    name: str,
    language: Language,
    config: str | None,
    hub_split: str,
    text_column: str | None,
    max_documents: int,
    folder: Path,
) -> None:
    """Write the first `max_documents` of one language into `folder`."""
    taken: list[dict[str, str]] = []
    num_null, more = 0, False
    with delivered(name), progress(max_documents, f"Streaming {name}, {language.name}", unit="document") as bar:
        chosen, rows = open_rows(name, language, config, hub_split)
        for number, row in rows(0):
            if len(taken) == max_documents:
                more = True  # which somebody should know who did not say how many to take
                break
            where = f"Record {number + 1} of {name}"
            text = read_text(row, text_column, name, where)
            num_null += text is None
            if text and text.strip():
                taken.append({"id": id_of(row, where) or str(number), "text": text})
                bar.update(1)
    facts = {
        "schema_version": 1,
        **describe_dataset(name, chosen, hub_split, language),
        "max_documents": max_documents,
        "more_on_the_hub": more,
        **({"null_records_left_out": num_null} if num_null else {}),
    }
    with (
        staged_directory(folder, sealed=facts) as stage,
        (stage / "documents.jsonl").open("w", encoding="utf-8") as file,
    ):
        for row in taken:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def describe_dataset(name: str, config: str | None, hub_split: str, language: Language) -> dict[str, Any]:
    """Return a data set's entry among the sources of a manifest."""
    return {
        "dataset": name,
        "config": config,
        "split": hub_split,
        "language": language.code,
        "fetched": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "licence": "see the data set's page on the hub",
    }


@contextmanager
def delivered(name: str) -> Iterator[None]:
    """Turn what goes wrong with a data set of the hub into one sentence."""
    import pyarrow
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    with hub_errors(
        "data set",
        name,
        "check hub_split and configs, or use load_corpus('demo') or your own files",
        missing=(DatasetNotFoundError,),
        undelivered=(ValueError, DatasetsError, pyarrow.ArrowException),
    ):
        yield


class Rows:
    """The rows of one language of a data set, as they come from the hub."""

    def __init__(self, dataset: Any, language: Language, name: str, is_filtered: bool) -> None:
        """Take rows of `dataset`, those of the language alone where it `is_filtered`."""
        self._dataset, self._language, self._name, self._is_filtered = dataset, language, name, is_filtered

    def __call__(self, begin: int, state: Any = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield (number, row) from row `begin` on.

        Args:
            begin: rows that came before.
            state: what `state` returned after them; without it they are read once more and passed over.
        """
        rows = self._dataset
        if state is not None:
            rows.load_state_dict(state)
        numbered = enumerate(rows, start=begin) if state is not None else islice(enumerate(rows), begin, None)
        return _of_language(numbered, self._language, self._name) if self._is_filtered else numbered

    def state(self) -> Any:
        """Return where the data set is, as JSON can hold it; None for one that does not know."""
        return self._dataset.state_dict() if hasattr(self._dataset, "state_dict") else None


def open_rows(name: str, language: Language, config: str | None, hub_split: str) -> tuple[str, Rows]:
    """Return the configuration of a data set that has a language, and its rows."""
    import datasets

    chosen, is_filtered = config, False
    if chosen is None:
        chosen, is_filtered = choose_config(name, language, datasets.get_dataset_config_names(name))
    return chosen, Rows(
        datasets.load_dataset(name, chosen, split=hub_split, streaming=True), language, name, is_filtered
    )


def choose_config(name: str, language: Language, available: Sequence[str]) -> tuple[str, bool]:
    """Return the configuration for a language, and whether its rows must be filtered by a language column.

    A configuration fits by the language's codes (`el`, `ell_Grek`, `ell`), alone or after a date or prefix
    (`20231101.el`); of several, the last in order, which is the newest date.

    Raises:
        UsageError: none fits, and there is more than one.
    """
    codes = {language.code, language.flores, language.flores.replace("_", "-"), language.flores[:3]}
    codes = {code.lower() for code in codes}
    exact = [config for config in available if config.lower() in codes]
    dated = [config for config in available if re.split(r"[.\-_]", config.lower())[-1] in codes]
    if exact or dated:
        return max(exact or dated), False
    if len(available) == 1:
        return available[0], True
    listed = ", ".join(available[:12]) + (", …" if len(available) > 12 else "")
    raise UsageError(
        f"{name} has no configuration that is plainly {language.name}; it has {listed}. "
        f"Name it with configs={{{language.code!r}: '...'}}."
    )


def _of_language(
    rows: Iterable[tuple[int, Mapping[str, Any]]], language: Language, name: str
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (number, row) of this language; a data set without a language column is of one language."""
    for number, row in rows:
        if any(column in row for column in LANGUAGE_COLUMNS):
            found = find_language(language_of(row, f"Record {number + 1} of {name}") or "")
            if found is None or found.code != language.code:
                continue
        yield number, row
