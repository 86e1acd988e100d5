"""The page of the command line, made from the program by Typer: `python docs/hooks/cli_reference.py` writes it anew.

It is committed, so that it is read without building the site; a test holds it to what the program says.
"""

from pathlib import Path

from typer import Context
from typer.cli import get_docs_for_click
from typer.main import get_command

from lpr_lab.cli import app

PAGE = Path(__file__).parents[1] / "reference" / "cli.md"
HEAD = """# Command line

Made from the program by `make fix`; the same as each command's `--help`. Results go to stdout, progress and errors to
stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something missing, 4 a comparison refused, 130 interrupted.
`lpr-lab --install-completion` lets your shell complete commands, runs, notebooks and their parameters.

"""


def reference() -> str:
    """Return the page as Markdown, without hidden commands, the same whatever terminal or machine it is made on."""
    command = get_command(app)
    command.commands = {name: inner for name, inner in command.commands.items() if not inner.hidden}
    page = get_docs_for_click(obj=command, ctx=Context(command), name="lpr-lab", title="lpr-lab", indent=1)
    return HEAD + page.rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
