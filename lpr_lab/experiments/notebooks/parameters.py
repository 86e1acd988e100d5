"""The parameters of a notebook: what it declares, and the values a person gives, cast strictly to what is declared.

A notebook's parameters are the assignments of literals in its one cell tagged `parameters`. Papermill guesses the type
of a value from its looks (`nan` becomes a number, `no` becomes false, an unknown name is only warned about), writes
names into code unchecked, and its `inspect_notebook` leaves out what it cannot parse, such as `x: float | None`. Here
the declared type decides, and a name must be a declared one.
"""

import ast
import io
import json
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpr_lab.errors import DamagedError, MissingError, UsageError, did_you_mean
from lpr_lab.experiments.recipes import decided_by
from lpr_lab.storage import read_json
from lpr_lab.text.unicode import check_text
from lpr_lab.yaml_files import read_yaml

_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}
_WHAT = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": 'a list as JSON, such as \'["el", "tr"]\'',
    "dict": "a mapping as JSON, such as '{\"el\": 0.5}'",
}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter as the notebook declares it.

    Attributes:
        name: a Python name.
        type: `str`, `int`, `float`, `bool`, `list` or `dict`, from the annotation or else from the default.
        default: the literal in the notebook.
        optional: whether None is a value too.
        help: the comment beside it.
    """

    name: str
    type: str
    default: Any
    optional: bool
    help: str = ""

    def from_text(self, text: str) -> Any:
        """Cast what was typed on a command line.

        Raises:
            UsageError: the text is not of the declared type.
        """
        if self.optional and text in ("None", "none", "null"):
            return None
        if self.type == "str":
            return text
        try:
            if self.type in ("int", "float"):
                return self._adapter().validate_strings(text)
            value = json.loads(text.lower() if self.type == "bool" else text)
        except (ValueError, RecursionError):
            raise self._refusal(text) from None
        return self.checked(value)

    def checked(self, value: Any) -> Any:
        """Return a value that has a type already, from a file say, if that type is the declared one.

        Raises:
            UsageError: it is not; a whole number passes as a number, nothing else is converted.
        """
        try:
            return self._adapter().validate_python(value)
        except ValueError:
            raise self._refusal(value) from None

    def _adapter(self) -> Any:
        """Return pydantic's check of the declared type; a list holds items of the one type that its default holds."""
        from pydantic import ConfigDict, TypeAdapter

        declared: Any = _TYPES[self.type]
        items = {type(item) for item in self.default} if isinstance(self.default, list) else set()
        if len(items) == 1:
            declared = list[items.pop()]
        strictly = ConfigDict(strict=True, allow_inf_nan=False)
        return TypeAdapter(declared | None if self.optional else declared, config=strictly)

    def _refusal(self, value: Any) -> UsageError:
        shown = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        quotes = " Put quotes around text." if self.type in ("str", "list") else ""
        return UsageError(f"Parameter {self.name} is {_WHAT[self.type]}, not {shown}.{quotes}")


@dataclass(frozen=True, kw_only=True)
class NotebookFile:
    """What a notebook file declares: its path, title, kind of run (empty when it does not say), parameters and code."""

    path: Path
    title: str
    kind: str
    parameters: dict[str, Parameter]
    code: tuple[str, ...]


def read_notebook(path: Path | str) -> NotebookFile:
    """Read what a notebook declares, without running anything.

    Raises:
        MissingError: there is no such file.
        DamagedError: it is not a notebook.
        UsageError: its parameters cell is missing, doubled, or holds more than assignments of literals.
    """
    path = Path(path)
    if path.suffix != ".ipynb" or not path.is_file():
        raise MissingError(f"There is no notebook {path} (a file that ends in .ipynb).")
    content = read_json(path.resolve())
    try:
        cells = [
            (cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in content["cells"]
        ]
        language = content["metadata"].get("kernelspec", {}).get("language", "python")
        kind = str(content["metadata"].get("lpr_lab", {}).get("kind", ""))
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is not a notebook of format 4 ({error!r}).") from error
    if language != "python":
        raise UsageError(f"{path} is a notebook in {language}; only Python notebooks are run here.")
    tagged = [source for kind, source, tags in cells if kind == "code" and "parameters" in tags]
    if len(tagged) != 1:
        raise UsageError(f"{path} has {len(tagged)} cells tagged `parameters`; it needs exactly one.")
    headings = [
        line[2:] for kind, source, _ in cells if kind == "markdown" for line in source.splitlines() if line[:2] == "# "
    ]
    return NotebookFile(
        path=path.resolve(),
        title=headings[0].strip() if headings else path.stem,
        kind=kind,
        parameters=declared_parameters(tagged[0], str(path)),
        code=tuple(source for kind, source, _ in cells if kind == "code"),
    )


def declared_parameters(source: str, where: str) -> dict[str, Parameter]:
    """Return the parameters that a cell declares, in order.

    Raises:
        UsageError: the cell holds anything but `name = literal`, with or without a type.
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise UsageError(f"The parameters cell of {where} is not Python (line {error.lineno}: {error.msg}).") from error
    comments = _comments(source)
    found: dict[str, Parameter] = {}
    for statement in statements:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                annotation = ""
            case ast.AnnAssign(target=ast.Name(id=name), annotation=note, value=ast.expr() as value):
                annotation = ast.unparse(note)
            case _:
                raise UsageError(
                    f"Line {statement.lineno} of the parameters cell of {where} is not `name = literal`. "
                    "Compute in a later cell."
                )
        try:
            default = ast.literal_eval(value)
        except ValueError as error:
            raise UsageError(
                f"Parameter {name} of {where} is computed, not a literal; it would go stale when another one changes. "
                "Compute it in a later cell."
            ) from error
        type_name = annotation.replace("None", "").strip(" |").partition("[")[0] or type(default).__name__
        if type_name not in _TYPES:
            raise UsageError(
                f"Parameter {name} of {where} has the type {type_name}; give it one of {', '.join(_TYPES)}, "
                "such as `minutes: float | None = None`."
            )
        found[name] = Parameter(
            name=name,
            type=type_name,
            default=default,
            optional=default is None or "None" in annotation,
            help=comments.get(statement.end_lineno or statement.lineno, ""),
        )
    return found


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def resolve(
    declared: Mapping[str, Parameter],
    assignments: Iterable[str] = (),
    file: Path | None = None,
    values: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a value for every declared parameter: its default, overridden by the file, by values, by assignments.

    Args:
        declared: what the notebook declares.
        assignments: `name=value` as typed; what stands after the first `=` is the value, to the letter.
        file: a YAML or JSON mapping from name to value.
        values: the same, given by code.

    Raises:
        UsageError: an unknown name, a value of another type, a text without `=`, half of a character, or beside a
            preset a parameter that the preset decides.
    """
    resolved = {name: parameter.default for name, parameter in declared.items()}
    given: dict[str, Any] = {}
    if file is not None:
        content = read_yaml(file)
        if not isinstance(content, dict):
            raise UsageError(f"{file} does not hold `name: value` lines.")
        given |= content
    given |= values or {}
    for name, value in given.items():
        resolved[str(name)] = known_parameter(declared, str(name)).checked(value)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"{assignment!r} is not name=value. Write `-p {name}=…`.")
        resolved[name.strip()] = known_parameter(declared, name.strip()).from_text(text)
        given[name.strip()] = text
    if resolved.get("preset"):
        resolved |= _decided_by(resolved["preset"], {name: resolved[name] for name in given}, declared)
    for name, value in resolved.items():
        _check_texts(value, f"Parameter {name}")
    return resolved


def _check_texts(value: Any, what: str) -> None:
    """Refuse an unpaired surrogate anywhere in a value: neither a notebook nor a run directory can keep it."""
    if isinstance(value, str):
        check_text(value, what)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check_texts(key, what)
            _check_texts(item, what)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_texts(item, what)


def _decided_by(preset: str, given: Mapping[str, Any], declared: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the parameters that a preset decides, or refuse those that were given and would change nothing."""
    decided = {name: value for name, value in decided_by(preset).items() if name in declared}
    differing = [name for name in decided.keys() & given.keys() if given[name] != decided[name]]
    if differing:
        raise UsageError(
            f"preset = {preset!r} decides {', '.join(sorted(differing))}; leave that out, or change the preset's by "
            """`settings`, for example settings={"base": "smollm2-135m", "stage1": {"tokens": 61440}}."""
        )
    return decided


def known_parameter(declared: Mapping[str, Parameter], name: str) -> Parameter:
    """Return the parameter of a name, or refuse one that the notebook does not declare.

    Raises:
        UsageError: it has no such parameter; the message names the closest one.
    """
    if name not in declared:
        known = ", ".join(declared) or "none"
        raise UsageError(f"The notebook has no parameter {name!r}.{did_you_mean(name, declared)} It has: {known}.")
    return declared[name]
