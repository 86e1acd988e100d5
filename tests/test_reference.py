"""The reference names what there is: every command, every part of an address, every environment variable."""

import importlib.util
import re
from dataclasses import fields

from lpr_lab.dashboard.query import Query
from lpr_lab.runs.environment import CHECKOUT

HOOK = CHECKOUT / "docs" / "hooks" / "cli_reference.py"
PAGES = CHECKOUT / "docs" / "reference"


def test_the_page_of_the_command_line_is_what_the_program_says(monkeypatch):
    spec = importlib.util.spec_from_file_location("cli_reference", HOOK)
    assert spec is not None and spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        assert page.PAGE.read_text(encoding="utf-8") == page.reference(), "run `make fix` to make it anew"


def test_every_part_of_an_address_is_named():
    page = (PAGES / "addresses.md").read_text(encoding="utf-8")
    assert {field.name for field in fields(Query)} <= set(re.findall(r"`(\w+)`", page))


def test_every_environment_variable_is_named():
    page = (PAGES / "settings.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (CHECKOUT / "lpr_lab").rglob("*.py"))
    assert set(re.findall(r"LPR_LAB_[A-Z_]+", code)) <= set(re.findall(r"LPR_LAB_[A-Z_]+", page))
