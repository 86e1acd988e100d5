"""Streams a data set of the hub into shards; a stream that broke off goes on after what has arrived."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lpr_lab.fetching import locked
from lpr_lab.progress import progress
from lpr_lab.storage import verify
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.languages import Language, get_language
from lpr_lab.text.shards.documents import SHARD_BYTES, write_unit
from lpr_lab.text.shards.pool import Workers
from lpr_lab.text.shards.prepare import LEFT_OVERS, corpus_folder, open_corpus
from lpr_lab.text.sources.hub import Rows, check_request, delivered, describe_dataset, open_rows
from lpr_lab.text.sources.rows import Labels, Record, id_of, read_text

CHARACTERS_PER_TOKEN = 12
"""Taken for each token that a training will read: 6, half as much again, and the fifth that is not in `train`."""


def prepare_hub(
    name: str,
    *,
    languages: Sequence[str] | None,
    text_column: str | None,
    configs: Mapping[str, str],
    hub_split: str,
    max_documents: int | None,
    tokens: int | None,
    workers: Workers,
) -> Corpus:
    """Stream a data set into shards in the cache, and return the corpus; see `load_corpus`.

    One process reads, for the network sets the pace; dividing and tokenising are the workers'.

    Args:
        name: of the data set.
        languages: which to take.
        text_column: the column that holds the text.
        configs: language -> configuration.
        hub_split: split of the data set.
        max_documents: per language; None for all, or as many as `tokens` need.
        tokens: of each language that a training will read; None where nobody said.
        workers: who divides.
    """
    chosen = check_request(name, languages, max_documents)
    configs = {get_language(code).code: config for code, config in configs.items()}
    codes = [language.code for language in chosen]
    folder = corpus_folder("hub", [name, codes, configs, hub_split, text_column, max_documents, tokens])
    sources = []
    number = 0
    with locked(folder, f"fetching {name}", left_overs=LEFT_OVERS):
        for language in chosen:
            stream = _Stream(name, language, configs.get(language.code), hub_split, text_column, max_documents, tokens)
            number = stream.fetch(folder / "documents", number)
            sources.append(stream.source)
    return open_corpus(folder, name, codes, sources, [], workers)


class _Stream:
    """One language of a data set on its way into units of `SHARD_BYTES`."""

    def __init__(
        self,
        name: str,
        language: Language,
        config: str | None,
        hub_split: str,
        text_column: str | None,
        max_documents: int | None,
        tokens: int | None,
    ) -> None:
        self.name, self.language, self.config, self.hub_split = name, language, config, hub_split
        self.text_column, self.max_documents = text_column, max_documents
        self.tokens = tokens
        self.source: dict[str, Any] = {}
        self.records = self.taken = self.characters = 0

    def fetch(self, folder: Path, number: int) -> int:
        """Write the units that are missing, from `number` on; returns the number after the last one."""
        last: dict[str, Any] = {}
        while not last.get("is_last") and (unit := folder / f"{number:06}").is_dir():
            last = verify(unit)["hub"]
            number += 1
        self.records, self.taken, self.characters = (last.get(name, 0) for name in ("records", "taken", "characters"))
        self.source = last.get("source", {})
        if last.get("is_last"):
            return number
        label = f"Streaming {self.name}, {self.language.name}"
        with delivered(self.name), progress(self.max_documents, label, "document", initial=self.taken) as bar:
            config, rows = open_rows(self.name, self.language, self.config, self.hub_split)
            self.source = self.source or {
                **describe_dataset(self.name, config, self.hub_split, self.language),
                "max_documents": self.max_documents,
                "tokens": self.tokens,
            }
            numbered = rows(self.records, last.get("state"))
            hub: dict[str, Any] = {"is_last": False}
            while not hub["is_last"]:
                labels = Labels([self.language.code])
                records = self._records(numbered, rows, labels, hub, bar)
                write_unit(records, labels, self.name, self.name, folder / f"{number:06}", {"hub": hub})
                number += 1
        return number

    def _records(
        self,
        numbered: Iterator[tuple[int, Mapping[str, Any]]],
        rows: Rows,
        labels: Labels,
        hub: dict[str, Any],
        bar: Any,
    ) -> Iterator[Record]:
        """Yield the records of one unit, and note in `hub` where it ended."""
        size = 0
        more = True
        while size < SHARD_BYTES and not self._has_enough():
            following = next(numbered, None)
            if following is None:
                more = False
                break
            number, row = following
            self.records = number + 1
            where = f"Record {number + 1} of {self.name}"
            text = read_text(row, self.text_column, self.name, where)
            code = labels.code(self.language.code, where)
            assert code is not None
            yield Record(text or "", code, id_of(row, where) or str(number), None, self.name, is_null=text is None)
            if text and text.strip():
                self.taken += 1
                self.characters += len(text)
                size += len(text.encode())
                bar.update(1)
        hub |= {"records": self.records, "taken": self.taken, "characters": self.characters, "source": self.source}
        hub["is_last"] = not more or self._has_enough()
        hub["state"] = None if hub["is_last"] else rows.state()

    def _has_enough(self) -> bool:
        if self.max_documents is not None:
            return self.taken >= self.max_documents
        return self.tokens is not None and self.characters >= CHARACTERS_PER_TOKEN * self.tokens
