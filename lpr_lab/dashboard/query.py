"""What a page's address asks for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from lpr_lab.dashboard.parameters import ADDRESS
from lpr_lab.errors import UsageError
from lpr_lab.runs.run import RUN_ID_PATTERN

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
_STAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,80}")
_TAG = re.compile(r"[^\s,<>\"'&]{1,40}")
_PRINTED = re.compile(r"[^\x00-\x1f\x7f]{1,4000}")
"""Names and values of settings, ids, folders, in any script; they are compared, and no file of that name is opened."""
_CAUSE = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}\.[0-9]{1,9})?")
_GUESS = re.compile(r"(base|expanded)(\.[0-9]{1,9}\.[0-9]{1,9})?")
_MAX_LISTED = 512
_PATTERNS = {
    "run": RUN_ID_PATTERN,
    "run2": RUN_ID_PATTERN,
    "stage": _STAGE,
    "stage2": _STAGE,
    "tag": _TAG,
    "cause": _CAUSE,
    "guess": _GUESS,
    "sitting": re.compile(r"[0-9a-f]{32}"),
    **dict.fromkeys(("base", "corpus", "where", "sort", "by"), _PRINTED),
}
_LISTS = ("langs", "runs", "original", "unreviewed", "expanded", "further", "tasks")
_ROWS = {"experts": re.compile(r"[0-9A-Za-z.,+ -]{0,8000}"), "similarity": re.compile(r"[0-9A-Za-z.,+ -]{0,20000}")}
"""Numbers one after the other, as they came: the page Plan reads them and says what is wrong with them."""


@dataclass(frozen=True)
class Query:
    """The query of an address, read leniently: what is malformed is as if it were not there.

    One field for each key of an address (docs/reference), since links lead from page to page and keep what both know.

    >>> Query.parse({"run": "../etc", "langs": "el,en", "layer": "3"})  # doctest: +ELLIPSIS
    Query(run='', run2='', ... langs='el,en', ... layer=3, ...)
    """

    run: str = ""
    """Run id."""
    run2: str = ""
    """Id of the run it is compared with."""
    stage: str = ""
    """Stage of the run's model, such as `G1 review`; empty for the newest."""
    stage2: str = ""
    """Stage that it is compared with."""
    base: str = ""
    """Name, hub id or folder of a base model."""
    corpus: str = ""
    """Text that a scorecard is made on, where it is not its base's own."""
    original: str = ""
    """Original languages of a scorecard, with commas between them, where they are not its base's own."""
    unreviewed: str = ""
    """Languages of its base that nothing reads."""
    expanded: str = ""
    """Its expanded languages."""
    further: str = ""
    """Those of its second group."""
    precision: str = ""
    """What its arms compute in, where that is not its base's own."""
    tasks: str = ""
    """What it asks beside bits per byte, with commas between, or `none`, where that is not what is asked anyway."""
    lang: str = ""
    """Language code."""
    langs: str = ""
    """Language codes, with commas between them."""
    text: str = ""
    """Name of a stored example, trace or prompt."""
    data: str = ""
    """Data set, such as `heldout`."""
    layer: int | None = None
    expert: int | None = None
    tok: int | None = None
    doc: int | None = None
    """Document of a test set, by its place there."""
    cause: str = ""
    """Of the causal map the expert that layers are switched to, or `expert.layer.token` for one of its cells."""
    guess: str = ""
    """Whose guesses of every layer are shown, or `model.layer.token` for one cell: `expanded.12.5`."""
    segment: str = ""
    """Of texts in many languages which one: `sample`, one of the corpus, or `own-…` for one that was pasted."""
    mode: str = ""
    """`reading` or `tokens`."""
    view: str = ""
    """What colour says in the token strip, or which number the curves show."""
    seed: int | None = None
    sitting: str = ""
    """Id of a sitting of blind judgements."""
    kind: str = ""
    """Runs of one kind only."""
    state: str = ""
    """Runs in one state only."""
    tag: str = ""
    """Runs with one tag only."""
    where: str = ""
    """Conditions on settings and results of runs (see `lpr_lab.runs.selection`)."""
    sort: str = ""
    """What runs are ordered by, `-` before it for the largest first."""
    by: str = ""
    """The setting or result whose values the list of runs offers."""
    runs: str = ""
    """Ids of runs to compare, with commas between them."""
    experts: str = ""
    """New experts per layer, with commas between them."""
    rule: str = ""
    """How a budget of experts is divided."""
    round: str = ""
    """How parts of experts become whole ones."""
    budget: int | None = None
    """Experts to divide."""
    topk: int | None = None
    tokens: int | None = None
    """Tokens of training that a plan is reckoned for."""
    similarity: str = ""
    """How alike languages are, layer by layer, with commas between the numbers."""

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes in `langs`."""
        return codes(self.langs)

    @property
    def compared(self) -> tuple[str, ...]:
        """The ids in `runs`."""
        return codes(self.runs)

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> "Query":
        """Read a query; unknown keys and malformed values are left out."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            raw = str(params.get(field.name, ""))
            if field.name in ADDRESS:
                values[field.name] = _number(field.name, raw)
            elif field.name in _ROWS:
                values[field.name] = raw if _ROWS[field.name].fullmatch(raw) else ""
            elif field.name in _LISTS:
                values[field.name] = _list(raw)
            else:
                pattern = _PATTERNS.get(field.name, _NAME)
                values[field.name] = raw if pattern.fullmatch(raw) else ""
        return cls(**values)

    def urlencode(self, **changes: Any) -> str:
        """Return this query as text with some values changed, without what is empty."""
        changed = replace(self, **changes)
        values = {field.name: getattr(changed, field.name) for field in fields(self)}
        return urlencode({key: value for key, value in values.items() if value not in ("", None)}, safe=",")

    def link(self, page: str, **changes: Any) -> str:
        """Return the address of a page with this query; `page` is `/`, `/routing` and so on."""
        query = self.urlencode(**changes)
        return f"{page}?{query}" if query else page


def codes(listed: str) -> tuple[str, ...]:
    """Return what a list of an address names: codes of languages, or ids of runs.

    >>> codes("el,tr"), codes("")
    (('el', 'tr'), ())
    """
    return tuple(filter(None, listed.split(",")))


def refused(params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the numbers of a query, in sentences; `Query.parse` leaves them out."""
    said = []
    for name, number in ADDRESS.items():
        raw = str(params.get(name, ""))
        if raw:
            try:
                number.read_text(raw)
            except UsageError as error:
                said.append(f"{error} The address asks for it; it was left out.")
    return said


def _number(name: str, raw: str) -> int | None:
    if not raw:
        return None
    try:
        return ADDRESS[name].read_text(raw)
    except UsageError:
        return None


def _list(raw: str) -> str:
    names = raw.split(",") if len(raw) <= 100 * _MAX_LISTED else []
    return ",".join(name for name in names[:_MAX_LISTED] if _NAME.fullmatch(name))
