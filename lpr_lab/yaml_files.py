"""Read and write YAML so that text stays text for every reader, also `no` (Norwegian) and what looks like a number.

YAML 1.1 reads `no` as false, `1:30` as 90 and a bare date as a date; a language code must survive all that. So values
that are text are always written in quotes, and on reading only `true` and `false` are booleans (YAML 1.2).
"""

import copy
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.composer import ComposerError

from lpr_lab.errors import DamagedError, MissingError, UsageError

MAX_BYTES = 1_000_000  # far above any settings file; a bound on what the parser is given


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value.isidentifier():
                key.style = None  # plain unless that would change its type: the emitter still quotes `no`
        return node


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


# The parser in C where PyYAML has it: a folder of seven hundred runs is read in a second instead of seven.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict] = {}  # filled below with the YAML 1.2 core schema

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        _refuse_aliases(node)
        return node

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float | str:
        """Return the number, or the text where no float is so large: 12e4567 is a name."""
        number = super().construct_yaml_float(node)
        return node.value if math.isinf(number) and "inf" not in node.value.lower() else number


for _tag, _pattern, _first in [
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
]:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _refuse_aliases(document: yaml.Node | None) -> None:
    """Refuse a document of which a node is in two places: a few nested aliases expand to gigabytes."""
    seen, left = set(), [] if document is None else [document]
    while left:
        node = left.pop()
        if id(node) in seen:
            raise ComposerError(None, None, "aliases (*name) are not accepted", node.start_mark)
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            left += [one for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            left += node.value


def dump_yaml(value: Any) -> str:
    """Return a JSON-able value as YAML in which every text value is quoted; keys keep their order.

    >>> print(dump_yaml({"expanded": ["no"], "seed": 0}), end="")
    expanded:
    - "no"
    seed: 0
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)


def parse_yaml(text: str, name: str) -> Any:
    """Read YAML 1.2 scalars, lists and mappings; `name` says in errors where the text came from.

    Raises:
        DamagedError: it is not YAML, or it uses aliases, or it is too large to be a settings file.
    """
    if len(text) > MAX_BYTES:
        raise DamagedError(f"{name} has {len(text):,} characters; a settings file has at most {MAX_BYTES:,}.")
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds no objects
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DamagedError(f"{name} is not readable as YAML ({reason}).") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file, naming it when it is missing or damaged.

    A file is parsed once for as long as it stays as it is; what is returned is the caller's to change.
    """
    try:
        found = path.stat()
        return copy.deepcopy(_parsed_file(path, (found.st_mtime_ns, found.st_size, found.st_ino)))
    except FileNotFoundError as error:
        raise MissingError(f"{path} is missing.") from error


@lru_cache(maxsize=4096)
def _parsed_file(path: Path, stamp: tuple[int, ...]) -> Any:
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path} is not UTF-8 text ({error}).") from error


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they come back from JSON (tuples as lists, keys as text), or refuse what JSON cannot hold.

    Raises:
        UsageError: it holds a path, a NaN, a class and the like.
    """
    try:
        return json.loads(json.dumps(dict(settings), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"The settings of a run hold text, numbers, booleans, lists and mappings: {error}.") from error
