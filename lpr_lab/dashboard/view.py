"""What a page's address asks for: the state of every page, readable, shareable and never trusted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from lpr_lab.experiments.runs import RUN_ID_PATTERN

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")


@dataclass(frozen=True)
class View:
    """The query of an address, read leniently: what is malformed is as if it were not there."""

    run: str = ""
    """Run id."""
    lang: str = ""
    """Language code."""
    text: str = ""
    """Name of a stored example, trace or prompt."""
    data: str = ""
    """Data set, such as `heldout`."""
    layer: int | None = None
    tok: int | None = None
    mode: str = ""
    """`reading` or `tokens`."""
    view: str = ""
    """What colour says in the token strip, or which number the curves show."""
    seed: int | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, Any]) -> "View":
        """Read a query; unknown keys and malformed values are left out."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            raw = str(query.get(field.name, ""))
            if field.name in ("layer", "tok", "seed"):
                values[field.name] = int(raw) if re.fullmatch(r"\d{1,9}", raw) else None
            else:
                pattern = RUN_ID_PATTERN if field.name == "run" else _NAME
                values[field.name] = raw if pattern.fullmatch(raw) else ""
        return cls(**values)

    def to_query(self, **changes: Any) -> str:
        """Return the query of this view with some values changed, without what is empty."""
        view = replace(self, **changes)
        values = {field.name: getattr(view, field.name) for field in fields(self)}
        return urlencode({key: value for key, value in values.items() if value not in ("", None)})

    def link(self, page: str, **changes: Any) -> str:
        """Return the address of a page with this view; `page` is `/`, `/routing` and so on."""
        query = self.to_query(**changes)
        return f"{page}?{query}" if query else page
