"""What finished runs measured of a base: layers, size of an expert, similarity of languages, training speed.

No model is loaded for any of it; what no run has found is unknown and said to be.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lpr_lab.dashboard.parameters import MAX_LAYERS
from lpr_lab.errors import LprError
from lpr_lab.method.scores.table import KINDS, LayerScores
from lpr_lab.runs.run import Run
from lpr_lab.wording import counted

FEW_TOKENS = 10_000
"""Similarity from fewer tokens of a language is said to be rough; the papers measured 100,000."""


@dataclass(frozen=True)
class Similarity:
    """How alike languages look, layer by layer: what an allocation divides by.

    Attributes:
        values: the mean of the two below, or the first where there is no second.
        expanded_to_original: empty when typed.
        between_expanded: empty with one expanded language, or when typed.
        num_tokens: fewest tokens of a language; None when unknown.
        run: id of the run that measured it; empty when typed.
    """

    values: tuple[float, ...]
    expanded_to_original: tuple[float, ...] = ()
    between_expanded: tuple[float, ...] = ()
    num_tokens: int | None = None
    run: str = ""


@dataclass(frozen=True)
class Speed:
    """Training speed as measured by one run."""

    tokens_per_second: float
    run: str
    title: str
    where: str
    """Processor or device, and what was trained."""


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base; None for what no run has found.

    Attributes:
        base: its name.
        expert_parameters: parameters of one new expert, layer by layer.
        base_parameters: of the dense model.
        router_row: parameters of a router per expert.
        scores: by kind, scores of layers that runs were planned by (`method.scores`).
    """

    base: str
    num_layers: int | None = None
    expert_parameters: tuple[int, ...] | None = None
    base_parameters: int | None = None
    router_row: float | None = None
    similarity: Similarity | None = None
    speed: Speed | None = None
    scores: Mapping[str, LayerScores] = field(default_factory=dict)


def base_of(run: Run) -> str:
    """Return the name of a run's base, or empty."""
    return str(run.results.get("base") or run.config.get("base") or "")


def facts_of(run: Run, runs: Iterable[Run]) -> BaseFacts:
    """Gather what is known of a run's base, from this run first and then from all others on the same base."""
    base = base_of(run)
    facts = BaseFacts(base)
    if not base:
        return facts
    candidates = [run, *(other for other in runs if other.id != run.id)]
    for other in candidates:
        if other.problem is not None:
            continue
        try:
            if base_of(other) == base:
                facts = _with(facts, other)
        except (LprError, KeyError, TypeError, ValueError, ZeroDivisionError):
            continue  # a damaged run tells nothing; its own page says why
        if None not in (facts.expert_parameters, facts.base_parameters, facts.similarity, facts.speed):
            break
    return replace(facts, scores=_scores(base, candidates))


def _scores(base: str, runs: Iterable[Run]) -> dict[str, LayerScores]:
    """Return the scores that runs on a base were planned by, of each kind the first that is found."""
    found: dict[str, LayerScores] = {}
    for run in runs:
        try:
            kind = run.config.get("allocation") if run.problem is None and base_of(run) == base else None
            if isinstance(kind, str) and kind in KINDS and kind not in found and run.phases.get("scores"):
                found[kind] = LayerScores.from_json(run.phases["scores"])
        except LprError:
            continue  # its own page says why
    return found


def _with(facts: BaseFacts, run: Run) -> BaseFacts:
    """Add what one run tells to what is known."""
    results, phases = run.results, run.phases
    measured = phases.get("similarity") or {}
    experts = _new_experts(run, results, phases)
    counts = results.get("parameters") or {}
    if facts.expert_parameters is None and measured.get("expert_parameters"):
        sizes = tuple(int(size) for size in measured["expert_parameters"])
        facts = replace(facts, expert_parameters=sizes, num_layers=len(sizes))
    if facts.num_layers is None and experts:
        facts = replace(facts, num_layers=len(experts))
    if experts and not run.config.get("parent") and counts.get("new_experts"):
        if facts.expert_parameters is None:
            facts = replace(facts, expert_parameters=(counts["new_experts"] // sum(experts),) * len(experts))
        if facts.base_parameters is None:
            rows = sum(count + 1 for count in experts if count)
            row = counts.get("routers", 0) / rows
            facts = replace(facts, base_parameters=int(counts["base"]), router_row=row)
    if facts.similarity is None:
        facts = replace(facts, similarity=_similarity(run, measured))
    if facts.speed is None:
        facts = replace(facts, speed=_speed(run, phases, experts))
    return facts


def _new_experts(run: Run, results: dict[str, Any], phases: Mapping[str, Any]) -> list[int]:
    """Return a run's new experts per layer; empty when it does not say."""
    plan = results.get("plan") or phases.get("plan") or {}
    if plan.get("new_experts"):
        return [int(count) for count in plan["new_experts"]]
    per_layer = run.config.get("new_experts_per_layer") or 0
    load = run.tables.read("load") if per_layer and run.config.get("allocation", "uniform") == "uniform" else None
    if load is None or load.empty:
        return []
    return [int(per_layer)] * (int(load["layer"].max()) + 1)


def _similarity(run: Run, measured: dict[str, Any]) -> Similarity | None:
    table = run.tables.read("similarity")
    if table is None or table.empty:
        return None
    means = table[table["roles"].isin(["mixed", "expanded"])].pivot_table(
        index="layer", columns="roles", values="similarity", aggfunc="mean"
    )
    across = tuple(float(value) for value in means["mixed"])
    between = tuple(float(value) for value in means["expanded"]) if "expanded" in means else ()
    both = tuple((a + b) / 2 for a, b in zip(across, between, strict=True)) if between else across
    counts = measured.get("num_tokens") or run.results.get("tokens") or {}
    counts = list(counts.values()) if isinstance(counts, dict) else counts
    asked = run.config.get("tokens_per_language") or run.config.get("similarity_tokens")
    tokens = min(counts) if counts else asked
    return Similarity(both, across, between, int(tokens) if tokens else None, run.id)


def _speed(run: Run, phases: Mapping[str, Any], experts: Sequence[int]) -> Speed | None:
    if run.status.state != "finished":
        return None
    value = (phases.get("expand") or {}).get("tokens_per_second")
    if not isinstance(value, int | float) or value <= 0:
        return None
    made_with = run.documents.read("env")
    where = [str(made_with.get("device") or "")]
    if where == ["cpu"]:
        where = [f"{made_with.get('threads', '?')} threads of {made_with.get('processor', 'the processor')}"]
    if experts:
        low, high = min(experts), max(experts)
        each = counted(low, "new expert") if low == high else f"{low} to {high} new experts"
        where.append(f"{each} per layer")
    return Speed(float(value), run.id, run.title, ", ".join(filter(None, where)))


def parse_similarity(text: str) -> tuple[float, ...]:
    """Read a typed or pasted list: one number above 0 per layer, with anything but digits between them.

    Raises:
        ValueError: something is no number, or not above 0; the message says what.
    """
    values = []
    for number, word in enumerate(text.replace(",", " ").replace(";", " ").split()):
        try:
            value = float(word)
        except ValueError as error:
            raise ValueError(
                f"“{word[:20]}” is no number; give one number per layer, such as 0.31 0.42 0.40."
            ) from error
        if not 0 < value < float("inf"):
            raise ValueError(f"Layer {number} has {word[:20]}; similarities are above 0.")
        values.append(value)
    if len(values) > MAX_LAYERS:
        raise ValueError(f"That is {len(values)} numbers; at most {MAX_LAYERS} layers are planned.")
    return tuple(values)
