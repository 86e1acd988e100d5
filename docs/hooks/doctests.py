"""Renders doctest examples in docstrings (`>>> …`) as highlighted code."""

from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor


class _Fence(Preprocessor):
    """Put a fence around each example: from the first `>>>` to the next empty line."""

    def run(self, lines: list[str]) -> list[str]:
        fenced: list[str] = []
        inside = code = False
        for line in [*lines, ""]:
            code ^= line.lstrip().startswith(("```", "~~~"))
            if not code and not inside and line.lstrip().startswith(">>> "):
                indent = line[: len(line) - len(line.lstrip())]
                fenced.append(f"{indent}```pycon")
                inside = True
            if inside and not line.strip():
                fenced.append(f"{indent}```")
                inside = False
            fenced.append(line)
        return fenced[:-1] if fenced[-1] == "" else fenced


class _Doctests(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        md.preprocessors.register(_Fence(md), "doctests", 40)  # before fences are looked for, at 25


def on_config(config):
    """Read examples as code on every page."""
    config.markdown_extensions.append(_Doctests())
    return config
