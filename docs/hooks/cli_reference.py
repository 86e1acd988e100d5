"""The page of the command line, made from the program: `python docs/hooks/cli_reference.py` writes it anew.

It is committed, so that it is read without building the site; a test holds it to what the program says.
"""

import inspect
from pathlib import Path
from typing import Any

import typer

from lpr_lab.cli import app

PAGE = Path(__file__).parents[1] / "reference" / "cli.md"
HEAD = """# Command line

Made from the program by `make fix`; the same as each command's `--help`. Results go to stdout, progress and errors to
stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something missing, 4 a comparison refused, 130 interrupted.
`lpr-lab --install-completion` lets your shell complete commands, runs, notebooks and their parameters.
"""


def reference() -> str:
    """Return the page as Markdown, the same whatever terminal or machine it is made on."""
    command = typer.main.get_command(app)
    return "\n".join([HEAD, *_sections(command, "lpr-lab")]).rstrip() + "\n"


def _sections(command: Any, path: str) -> list[str]:
    lines = [f"## {path}\n", _text(command.help), ""]
    commands = getattr(command, "commands", None)
    if commands is None:
        usage = [_metavar(param) for param in command.params if param.param_type_name == "argument"]
        lines += ["    " + " ".join([path, *usage, "[OPTIONS]"]), "", *_table(command)]
    for name, inner in (commands or {}).items():
        if not inner.hidden:
            lines += _sections(inner, f"{path} {name}")
    return lines


def _table(command: Any) -> list[str]:
    params = [param for param in command.params if not param.hidden]
    rows = [[_names(param), _cell(_text(param.help)), _default(param)] for param in params]
    if not rows:
        return []
    return ["| name | meaning | default |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), ""]


def _names(param) -> str:
    if param.param_type_name == "argument":
        return f"`{_metavar(param)}`"
    names = " ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
    return names if param.is_flag else f"{names} `{_metavar(param)}`"


def _metavar(param) -> str:
    if param.metavar:
        return param.metavar
    if param.param_type_name == "argument":
        return param.name.upper()
    kind = param.type_descriptor.annotation
    return {int: "NUMBER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def _default(param) -> str:
    if isinstance(param.show_default, str):
        return _cell(param.show_default)
    if param.required:
        return "required"
    return "" if param.default in (None, False, ()) or callable(param.default) else f"`{param.default}`"


def _text(text: str | None) -> str:
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _cell(text: str) -> str:
    return text.replace("\n\n", " ").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
