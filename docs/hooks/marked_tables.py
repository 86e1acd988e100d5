"""Tables that a page keeps between two marks, `<!-- name: start -->` and `<!-- name: end -->`, to be made anew."""

from collections.abc import Iterable, Mapping, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table as lines of Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def with_tables(text: str, tables: Mapping[str, Sequence[str]]) -> str:
    """Return a page with every table that it has marks for made anew, by the name in the marks."""
    for name, lines in tables.items():
        start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
        if start in text:
            before, _, rest = text.partition(start)
            text = "\n".join([f"{before}{start}\n", *lines, f"\n{end}{rest.partition(end)[2]}"])
    return text
