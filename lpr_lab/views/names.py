"""What roles, data sets and experts are called on screen."""

from lpr_lab.text.splits import in_order
from lpr_lab.views import Table

ROLES = {"original": "Original languages", "expanded": "Expanded languages"}


def dataset_name(name: str) -> str:
    """Return what a data set is called for people."""
    return {"dev": "Dev text, same genre as training", "heldout": "Held-out text, another genre"}.get(name, name)


def dataset_in_words(name: str) -> str:
    """Return the same for the middle of a sentence."""
    words = {"dev": "dev text of the same genre as that of training", "heldout": "held-out text of another genre"}
    return words.get(name, name)


def datasets(table: Table) -> list[str]:
    """Return the data sets of a table, held-out text first."""
    return in_order(table["dataset"])


def expert_name(expert: int) -> str:
    """Return what an expert is called: `expert 0, the original`, or `expert 2`."""
    return "expert 0, the original" if expert == 0 else f"expert {expert}"
