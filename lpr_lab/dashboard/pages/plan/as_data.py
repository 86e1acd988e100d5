"""What page `/plan` shows, as a table and as a cell of Python."""

from pathlib import Path

import pandas as pd

from lpr_lab.dashboard.page_data import PageData
from lpr_lab.dashboard.pages.plan.costs import MAX_PER_LAYER, Plan, make_plan
from lpr_lab.dashboard.pages.plan.facts import BaseFacts
from lpr_lab.dashboard.pages.plan.page import known
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import MissingError
from lpr_lab.runs.run import Run
from lpr_lab.views import Table


def as_data(context: PageContext, run: Run, runs_dir: Path) -> PageData:
    """Return the new experts of each layer, and a cell that divides the budget as the page does.

    Raises:
        MissingError: how many layers the base has is not known.
    """
    facts = known(context)
    plan = make_plan(facts, context.query)
    if plan is None:
        raise MissingError(f"How many layers {facts.base or 'the base'} has is not known yet.")
    return PageData(_cell(facts, plan), {"allocation": lambda: _table(facts, plan)})


def _values(facts: BaseFacts, plan: Plan) -> tuple[float, ...] | None:
    similarity = facts.similarity
    return similarity.values if similarity and len(similarity.values) == len(plan.experts) else None


def _table(facts: BaseFacts, plan: Plan) -> Table:
    columns = {"layer": range(len(plan.experts)), "new_experts": plan.experts}
    values = _values(facts, plan)
    return pd.DataFrame(columns if values is None else columns | {"similarity": values})


def _cell(facts: BaseFacts, plan: Plan) -> str:
    values, count = _values(facts, plan), len(plan.experts)
    lines = ["import pandas as pd", "", "import lpr_lab as lab", ""]
    if values is not None:
        lines.append(f"similarity = {list(values)!r}")
    if plan.rule == "own":
        lines.append(f"allocation = lab.Allocation({plan.experts!r})")
    else:
        shares = f"[1.0] * {count}" if plan.rule == "uniform" or values is None else "similarity"
        by = "similarity" if plan.rule == "uniform" else plan.rule
        given = f"{shares}, {plan.budget}, {plan.rounding!r}, max_new={MAX_PER_LAYER}, by={by!r}"
        lines.append(f"allocation = lab.allocate({given})")
    columns = [f'"layer": range({count})', '"new_experts": allocation.new_experts']
    columns += [] if values is None else ['"similarity": similarity']
    lines.append(f"pd.DataFrame({{{', '.join(columns)}}})")
    return "\n".join(lines) + "\n"
