"""The tables of the page about scale are what the code says."""

import importlib.util

from lpr_lab.runs.environment import CHECKOUT


def test_the_tables_of_the_page_are_those_of_the_code(monkeypatch):
    monkeypatch.syspath_prepend(str(CHECKOUT / "docs" / "hooks"))
    path = CHECKOUT / "docs" / "hooks" / "scale_tables.py"
    spec = importlib.util.spec_from_file_location("scale_tables", path)
    assert spec is not None and spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.page(page) == page, "run `make fix` to make them anew"
    assert "yes" in page and "no | –" in page
