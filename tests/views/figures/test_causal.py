"""The figure of what layers do to languages: every number of the table, brackets for what may be chance."""

import pandas as pd

from lpr_lab.views.figures.causal import causal_by_layer, causal_finding

ROWS = [
    ("el", "expanded", 0, 0, 0.5, 0.3, 0.7),
    ("el", "expanded", 3, 0, 1.25, 1.0, 1.5),
    ("en", "original", 0, 0, -0.1, -0.2, 0.1),
    ("en", "original", 3, 0, 0.02, -0.1, 0.2),
    ("el", "expanded", 3, 1, 9.0, 8.0, 10.0),
]
TABLE = pd.DataFrame(ROWS, columns="language role layer expert change_bits ci_low ci_high".split())


def test_original_languages_come_first_layer_0_is_on_top_and_unclear_cells_are_in_brackets():
    (cells,) = causal_by_layer(TABLE).data
    assert list(cells.x) == ["English", "Greek"] and list(cells.y) == ["0", "3"]
    assert [list(row) for row in cells.z] == [[-0.1, 0.5], [0.02, 1.25]]
    assert [list(row) for row in cells.text] == [["(-0.10)", "+0.50"], ["(+0.02)", "+1.25"]]
    assert (cells.zmin, cells.zmax) == (-1.25, 1.25)


def test_the_finding_names_the_dearest_layer_of_each_kind_and_what_may_be_chance():
    said = causal_finding(TABLE)
    assert "+1.250 bits per token on Greek in layer 3" in said
    assert "English in layer 3, which may be chance" in said
