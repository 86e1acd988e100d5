"""HTML of a plan: summary, costs, warnings, and the commands that carry it out."""

import base64
import shlex
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.plan.costs import Costs, Plan
from lpr_lab.dashboard.pages.plan.facts import FEW_TOKENS, BaseFacts
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.shell import notice
from lpr_lab.model.bases.embedded import EMBEDDED, learning_rates
from lpr_lab.model.bases.made import is_made
from lpr_lab.runs.run import Run
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import NOT_MEASURED, count, duration, percent
from lpr_lab.wording import counted
from lpr_lab.yaml_files import dump_yaml

NOTEBOOK = "00_quickstart"


def finding(facts: BaseFacts, plan: Plan, cost: Costs) -> Markup:
    """Return the page's answer in a sentence."""
    low, high = min(plan.experts), max(plan.experts)
    each = f"{low} in each of {len(plan.experts)} layers" if low == high else f"{low} to {high} per layer"
    text = Markup('<span class="lpr-expanded">{}</span>, {}').format(counted(cost.new_experts, "new expert"), each)
    if cost.added is not None:
        text += f", are {_big(cost.added)} parameters"
        if cost.added_share:
            text += f": {_relative(cost.added_share)} {facts.base} itself"
    more = _where(facts, plan)
    return Markup('{}.<span class="lpr-more">{}</span>').format(text, more) if more else text + "."


def _relative(share: float) -> str:
    return f"{percent(share)} of" if share < 1.95 else f"{share:.1f} times"


def _where(facts: BaseFacts, plan: Plan) -> str:
    """Say where the experts went, in thirds of the depth."""
    thirds = [sum(part) for part in _thirds(plan.experts)]
    if min(plan.experts) == max(plan.experts):
        return ""
    names = ("first", "middle", "last")
    parts = ", ".join(f"{value} in the {name}" for name, value in zip(names, thirds, strict=True))
    text = f"By thirds of the depth: {parts}."
    if facts.similarity and plan.rule == "similarity":
        means = [sum(part) / len(part) for part in _thirds(facts.similarity.values) if part]
        if len(means) == 3:
            text += f" Languages are least alike in the {names[means.index(min(means))]} third."
    return text


def _thirds(values: Sequence[Any]) -> list[Sequence[Any]]:
    cuts = [round(len(values) * part / 3) for part in range(4)]
    return [values[start:end] for start, end in pairwise(cuts)]


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    """Return a number in the first of these units that it reaches; empty where it reaches none."""
    return next((f"{value / size:.3g} {unit}" for size, unit in units if value >= size), "")


def _big(value: float) -> str:
    return _scaled(value, ((1e9, "billion"), (1e6, "million"))) or count(value)


def _bytes(value: float | None) -> str:
    return NOT_MEASURED if value is None else _scaled(value, ((1e9, "GB"), (1e6, "MB"))) or f"{value / 1e3:.3g} kB"


def warnings(facts: BaseFacts, plan: Plan, cost: Costs) -> list[Markup]:
    """Return what to think about before training, as notices."""
    said, layers = [], len(plan.experts)
    if plan.problem:
        said.append(notice("bad", plan.problem))
    if cost.new_experts < layers:
        said.append(
            notice(
                "warn",
                f"The budget of {cost.new_experts} is smaller than the number of layers: {cost.dense_layers} of "
                f"{layers} layers get no new expert and stay as they are.",
            )
        )
    elif cost.dense_layers:
        layer = "layer gets" if cost.dense_layers == 1 else "layers get"
        said.append(notice("info", f"{cost.dense_layers} of {layers} {layer} no new expert."))
    if plan.rounding == "round_up" and plan.rule != "own":
        said.append(
            notice(
                "info",
                f"The paper's formula counts expert 0 of every layer and rounds up: δ = {plan.budget} comes to "
                f"{counted(cost.new_experts, 'new expert')}.",
            )
        )
    if cost.without_choice:
        said.append(
            notice(
                "info",
                f"In {cost.without_choice} layers there are no more experts than the {plan.top_k} that work on a "
                "token: a router only weighs them there.",
            )
        )
    similarity = facts.similarity
    if similarity and similarity.num_tokens and similarity.num_tokens < FEW_TOKENS and plan.rule not in ("uniform",):
        said.append(
            notice(
                "warn",
                f"Similarity was measured on {count(similarity.num_tokens)} tokens per language (the papers: "
                f"{count(100_000)}). Layers that differ little may change places with more.",
            )
        )
    return said


def render_costs(facts: BaseFacts, plan: Plan, cost: Costs) -> Markup:
    """Return the cost card."""
    unknown = "no finished run has told the size of an expert"
    active = f"of {_short(cost.base)} in the base, with top-{plan.top_k}" if cost.active else unknown
    sizes = cost.adapter_bytes or {}
    small = f"bfloat16; {_bytes(sizes['float32'])} float32" if sizes else unknown
    memory = f"weights, gradients, AdamW; without activations. To use it: {_bytes(cost.use_bytes)}"
    tiles = (
        ("Parameters added", _short(cost.added), _share_note(cost) or unknown),
        ("At work on a token", _short(cost.active), active),
        ("Adapter file", _bytes(sizes.get("bfloat16")), small),
        ("Memory to train", _bytes(cost.train_bytes), memory if cost.train_bytes else unknown),
        ("Time of stage 1", *_time(facts, plan, cost)),
    )
    return render("dashboard/pages/plan/costs.html.j2", tiles=tiles, warnings=warnings(facts, plan, cost))


def _share_note(cost: Costs) -> str:
    if cost.added is None:
        return ""
    return counted(cost.new_experts, "expert") + (f"; the base has {_short(cost.base)}" if cost.base else "")


def _short(value: float | None) -> str:
    return NOT_MEASURED if value is None else _scaled(value, ((1e9, "B"), (1e6, "M"))) or count(value)


def _time(facts: BaseFacts, plan: Plan, cost: Costs) -> tuple[str, str | Markup]:
    """Return how long stage 1 takes, and what that rests on."""
    if facts.speed is None or cost.seconds is None:
        return "not measured", f"no finished run on {facts.base or 'this base'} trained"
    link = Markup('<a href="/?{}">this run</a>').format(Query(run=facts.speed.run).urlencode())
    where = f" ({facts.speed.where})" if facts.speed.where else ""
    rate = Markup("{:.0f} a second, as measured in {}{}").format(facts.speed.tokens_per_second, link, where)
    return f"≈ {duration(cost.seconds)}", Markup("for {} tokens at {}").format(count(plan.tokens), rate)


def as_yaml(facts: BaseFacts, plan: Plan, run: Run | None) -> str:
    """Return the plan as parameters that the notebook takes."""
    values: dict[str, Any] = {"base": facts.base} if facts.base else {}
    for name in ("corpus", "original", "expanded"):
        if run is not None and run.config.get(name):
            values[name] = run.config[name]
    values |= {"top_k": plan.top_k, "stage1_tokens": plan.tokens}
    # On one line, where people can read it.
    return f"{dump_yaml(values)}allocation: [{', '.join(map(str, plan.experts))}]\n"


def _rates(base: str) -> str:
    """Say at which rates a base learns where none is given."""
    experts, routers = learning_rates(base)
    known = (
        f"what suits {base}"
        if base in EMBEDDED or is_made(base)
        else "a guess for this base; a few short runs find better ones"
    )
    return f"Experts learn at {experts:g} and routers at {routers:g}: {known}."


def render_export(facts: BaseFacts, plan: Plan, run: Run | None) -> Markup:
    """Return the plan to copy or save, and the command that carries it out."""
    text = as_yaml(facts, plan, run)
    base = f"-p {shlex.quote(f'base={facts.base}')} " if facts.base else ""
    allocation = f"allocation=[{','.join(map(str, plan.experts))}]"
    return render(
        "dashboard/pages/plan/export.html.j2",
        text=text,
        file=base64.b64encode(text.encode()).decode(),
        with_file=shell.command(f"lpr-lab run {NOTEBOOK} -f plan.yaml"),
        without_file=shell.command(f"lpr-lab run {NOTEBOOK} {base}-p '{allocation}' -p top_k={plan.top_k}"),
        rates=_rates(facts.base),
    )
