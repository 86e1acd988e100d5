"""Names that the glossary gives for its terms are names of the code."""

import ast
import keyword
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def rows() -> list[tuple[str, str]]:
    """Return each term with what stands in the column `in code` of its table."""
    found, column = [], None
    for line in GLOSSARY.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else []
        if "in code" in cells:
            column = cells.index("in code")
        elif not cells:
            column = None
        elif column is not None and not set(line) <= set("|- "):
            found.append((cells[0].strip("| "), cells[column] if column < len(cells) else ""))
    return found


@pytest.fixture(scope="module")
def names() -> set[str]:
    """Every name and every text without blanks that stands in the package's code."""
    found: set[str] = set()
    for path in (ROOT / "lpr_lab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for field in ("name", "attr", "arg", "id"):
                found.add(str(getattr(node, field, "")))
            if isinstance(node, ast.alias):
                found.update(node.name.split("."))
            elif isinstance(node, ast.ImportFrom):
                found.update((node.module or "").split("."))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
                found.add(node.value)
    return found | {path.stem for path in (ROOT / "lpr_lab").rglob("*.*")}


def test_the_glossary_has_terms_and_no_term_twice():
    terms = [term for term, _ in rows()]
    assert len(terms) > 25
    assert len(set(terms)) == len(terms), sorted(term for term in terms if terms.count(term) > 1)


@pytest.mark.parametrize(("term", "code"), rows(), ids=[term for term, _ in rows()])
def test_what_the_glossary_calls_a_name_in_code_is_one(term, code, names):
    for piece in re.findall(r"`([^`]+)`", code):
        words = re.findall(r"[A-Za-z_][A-Za-z_0-9]*", re.sub(r"\.(py|csv|json|yaml|npz)\b", "", piece))
        unknown = [word for word in words if word not in names and not keyword.iskeyword(word)]
        assert not unknown, f"{term}: {', '.join(unknown)} of `{piece}` is no name in lpr_lab"
