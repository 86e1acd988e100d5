"""Corpora from data sets on the Hugging Face hub, by name: the first documents of each language, streamed once.

What was streamed is kept in the cache, so that the next load reads the same documents without a network. The hub
cannot be reached from where this project is tested: the tests put a small stand-in in the place of `datasets`.
"""

import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def load_hub(
    name: str,
    *,
    languages: Sequence[str] | None,
    text_column: str | None,
    configs: Mapping[str, str],
    hub_split: str,
    max_documents: int,
) -> Corpus:
    """Stream a data set into a corpus; see `load_corpus`.

    Raises:
        UsageError: a name that cannot be one, no languages, or no configuration for a language.
        MissingError: no such data set, or the hub cannot be reached and nothing is cached.
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
    if max_documents < 1:
        raise UsageError(f"max_documents={max_documents} takes nothing; expected at least 1.")
    configs = {get_language(code).code: config for code, config in configs.items()}
    chosen = get_languages(languages)
    records: list[Record] = []
    sources: list[dict[str, Any]] = []
    left_out: list[LeftOut] = []
    for language in chosen:
        key = [name, language.code, configs.get(language.code), hub_split, text_column, max_documents]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
        folder = cache_dir() / "corpora" / f"hub-{name.replace('/', '--')}-{language.code}-{digest}"
        if not folder.is_dir():
            with locked(folder.parent, f"fetching {name}"):
                if not folder.is_dir():
                    _stream(name, language, configs.get(language.code), hub_split, text_column, max_documents, folder)
        facts = _facts(folder)
        sources.append({key: value for key, value in facts.items() if key != "files"})
        records += [
            Record(row["text"], language.code, row["id"], None, name) for row in read_jsonl(folder / "documents.jsonl")
        ]
        if facts.get("null_records_left_out"):
            left_out.append(records_without_text(facts["null_records_left_out"], language.code))
    return make_corpus(name, records, Labels([language.code for language in chosen]), sources, left_out)


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
    import datasets
    import pyarrow
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    with hub_errors(
        "data set",
        name,
        "check hub_split and configs, or use load_corpus('demo') or your own files",
        missing=(DatasetNotFoundError,),
        undelivered=(ValueError, DatasetsError, pyarrow.ArrowException),
    ):
        chosen, filtered = (
            (config, False)
            if config is not None
            else choose_config(name, language, datasets.get_dataset_config_names(name))
        )
        rows = datasets.load_dataset(name, chosen, split=hub_split, streaming=True)
        taken: list[dict[str, str]] = []
        num_null = 0
        with progress(max_documents, f"Streaming {name}, {language.name}", unit="document") as bar:
            for number, row in _of_language(rows, language, name) if filtered else enumerate(rows):
                where = f"Record {number + 1} of {name}"
                text = read_text(row, text_column, name, where)
                num_null += text is None
                if text and text.strip():
                    taken.append({"id": id_of(row, where) or str(number), "text": text})
                    bar.update(1)
                if len(taken) == max_documents:
                    break
    facts = {
        "schema_version": 1,
        "dataset": name,
        "config": chosen,
        "split": hub_split,
        "language": language.code,
        "max_documents": max_documents,
        "fetched": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "licence": "see the data set's page on the hub",
        **({"null_records_left_out": num_null} if num_null else {}),
    }
    with (
        staged_directory(folder, sealed=facts) as stage,
        (stage / "documents.jsonl").open("w", encoding="utf-8") as file,
    ):
        for row in taken:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


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
    rows: Iterable[Mapping[str, Any]], language: Language, name: str
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (number, row) of this language; a data set without a language column is of one language."""
    for number, row in enumerate(rows):
        if any(column in row for column in LANGUAGE_COLUMNS):
            found = find_language(language_of(row, f"Record {number + 1} of {name}") or "")
            if found is None or found.code != language.code:
                continue
        yield number, row
