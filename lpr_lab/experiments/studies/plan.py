"""Planning an expansion before any training: similarity per layer, a budget divided by it, and what else it could buy.

The plan is left as `plan.yaml`, settings that a recipe takes: `recipes.layer_moe(**run.documents.plan)`.
"""

from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lpr_lab.errors import UsageError, one_of
from lpr_lab.experiments.config import ALLOCATIONS, BY_SIMILARITY
from lpr_lab.method.allocation import Allocation, allocate, delta_for
from lpr_lab.method.scores.measure import measure_layer_scores
from lpr_lab.method.scores.table import KINDS, LayerScores
from lpr_lab.method.settings import ScoreSettings, num_classifiers
from lpr_lab.method.similarity import measure_similarity
from lpr_lab.method.similarity_table import SimilarityTable
from lpr_lab.model.bases.load import load_base
from lpr_lab.runs.claims import Claim, as_records
from lpr_lab.runs.find import start_run
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_codes
from lpr_lab.text.load import load_corpus

KIND = "plan"
UNITS = ("experts", "parameters")
MIN_HUMP = 1.5
"""How many times more alike languages are in the middle third of SmolLM2's layers than in the first."""


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What is measured, and how much of what is to be divided."""

    base: str = "smollm2-135m"
    corpus: str = "demo"
    original: tuple[str, ...] = ("en", "es")
    expanded: tuple[str, ...] = ("el", "hu", "tr")
    budget: int = 60
    """New experts over all layers, or their parameters (`budget_in`)."""
    budget_in: str = "experts"
    allocation: str = "similarity"
    """Which of the allocations becomes the plan."""
    rule: str = "largest_remainder"
    delta: float | None = None
    """The papers' budget, for a rule that rounds up; None for the one that comes to `budget`."""
    min_new: int = 0
    max_new: int | None = None
    top_k: int = 2
    classifiers: float = 0.2917
    """Layers that get a routing classifier: a share of all below 1 (LayerMoE's scripts have 7 of 24), or a number."""
    state: str = "mlp_input"
    tokens_per_language: int = 20_000
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("original", "expanded"):
            object.__setattr__(self, name, language_codes(getattr(self, name)))
        one_of("allocation", self.allocation, ALLOCATIONS)
        one_of("budget_in", self.budget_in, UNITS)
        if self.delta is not None and self.rule == "largest_remainder":
            raise UsageError(f"delta = {self.delta} is the budget of rounding up; give rule='round_up' with it.")
        num_classifiers(self.classifiers, 1)


def start(settings: PlanSettings, run_dir: str | Path = "", root: str | Path | None = None) -> Run:
    """Return the run to work in: the one given, the newest unfinished one with these settings, or a new one."""
    languages = ", ".join(settings.expanded)
    title = f"{settings.base}: a plan for {languages} beside {', '.join(settings.original)}"
    return start_run(
        asdict(settings),
        kind=KIND,
        slug=" ".join(settings.expanded),
        title=title,
        run_dir=run_dir,
        root=root,
        completed=lambda config: {"delta": None, **config},  # not in runs of earlier versions
    )


def measure(settings: PlanSettings, run: Run) -> SimilarityTable:
    """Measure similarity on the base, unless this run has done so; leaves it in `tables/similarity.csv`."""
    with run.working("similarity"):
        if run.phases.is_done("similarity"):
            return SimilarityTable.from_json(run.phases["similarity"])
        model, tokenizer = load_base(settings.base)
        corpus = load_corpus(settings.corpus, languages=[*settings.original, *settings.expanded])
        run.documents.write("data", corpus.manifest)
        table = measure_similarity(
            model,
            tokenizer,
            corpus,
            original=settings.original,
            expanded=settings.expanded,
            tokens_per_language=settings.tokens_per_language,
            state=settings.state,
            precision=settings.precision,
            seed=settings.seed,
        )
        run.tables.write("similarity", table.to_frame())
        run.phases.record("similarity", table.to_json())
        run.phases.mark_done("similarity")
    return table


def measure_scores(settings: PlanSettings, run: Run) -> LayerScores | None:
    """Measure the score that the plan is to divide by, unless this run has; None where it divides by similarity."""
    if settings.allocation not in KINDS:
        return None
    with run.working("scores"):
        if run.phases.is_done("scores"):
            return LayerScores.from_json(run.phases["scores"])
        model, tokenizer = load_base(settings.base)
        corpus = load_corpus(settings.corpus, languages=[*settings.original, *settings.expanded])
        scores = measure_layer_scores(
            model,
            tokenizer,
            corpus,
            settings.allocation,
            original=settings.original,
            expanded=settings.expanded,
            tokens_per_language=min(settings.tokens_per_language, ScoreSettings().tokens_per_language),
            precision=settings.precision,
            seed=settings.seed,
        )
        run.tables.write("scores", scores.to_frame())
        run.phases.record("scores", scores.to_json())
        run.phases.mark_done("scores")
    return scores


def allocations(
    settings: PlanSettings, table: SimilarityTable, scores: LayerScores | None = None
) -> dict[str, Allocation]:
    """Return what the same budget buys under each allocation, by name; by a score only where it was measured."""
    even = [1.0] * len(table.layers)
    measured = {} if scores is None else {scores.kind: scores}

    def divided(name: str) -> Allocation:
        curve, by = (even, "similarity") if name == "uniform" else (measured.get(name, table), name)
        budget: float = settings.budget
        if settings.rule != "largest_remainder" and settings.budget_in == "experts":
            budget = settings.delta or delta_for(curve, settings.budget, settings.rule, by=by, seed=settings.seed)
        return allocate(
            curve,
            budget,
            settings.rule,
            min_new=settings.min_new,
            max_new=settings.max_new,
            by=by,
            parameters_per_expert=table.expert_parameters if settings.budget_in == "parameters" else None,
            seed=settings.seed,
        )

    return {name: divided(name) for name in (*BY_SIMILARITY, *measured)}


def compare(table: SimilarityTable, plans: dict[str, Allocation], top_k: int) -> pd.DataFrame:
    """Return one row per allocation: what it adds, where, and in how many layers a router has something to choose.

    With no more experts than top-k all of them always work: such a layer's router only weighs them, and its
    load-balancing loss is constant.
    """
    thirds = np.array_split(np.arange(len(table.layers)), 3)
    rows = []
    for name, plan in plans.items():
        counts = np.array(plan.new_experts)
        first, middle, last = (int(counts[third].sum()) for third in thirds)
        rows.append(
            {
                "allocation": name,
                "new_experts": plan.total,
                "parameters": plan.parameters(table.expert_parameters),
                "first_third": first,
                "middle_third": middle,
                "last_third": last,
                "dense_layers": int((counts == 0).sum()),
                "layers_with_a_choice": int((counts + 1 > top_k).sum()),
                "layer_by_layer": " ".join(map(str, plan.new_experts)),
            }
        )
    return pd.DataFrame(rows)


def layers(settings: PlanSettings, table: SimilarityTable, plan: Allocation) -> pd.DataFrame:
    """Return one row per layer: its similarities, its new experts, and whether a classifier would go there."""
    chosen = classifier_layers(settings, table, plan)
    frame = table.curves()
    return frame.assign(new_experts=plan.new_experts, classifier=[layer in chosen for layer in table.layers])


def classifier_layers(settings: PlanSettings, table: SimilarityTable, plan: Allocation) -> tuple[int, ...]:
    """Return the layers for routing classifiers: most alike across the groups, among those that get new experts."""
    mixtures = [layer for layer, count in enumerate(plan.new_experts) if count]
    wanted = num_classifiers(settings.classifiers, len(table.layers))
    return table.most_similar_layers(min(wanted, len(mixtures)), among=mixtures)


def finish(
    settings: PlanSettings, run: Run, table: SimilarityTable, scores: LayerScores | None = None
) -> dict[str, Any]:
    """Write `plan.yaml`, the tables and the results with their claims, and mark the run finished."""
    with run.working("finish"):
        plans = allocations(settings, table, scores)
        plan = plans[settings.allocation]
        comparison = compare(table, plans, settings.top_k)
        run.tables.write("allocations", comparison)
        run.tables.write("layers", layers(settings, table, plan))
        run.documents.write_plan(
            {
                "base": settings.base,
                "corpus": settings.corpus,
                "original": settings.original,
                "expanded": settings.expanded,
                "allocation": plan.new_experts,
                "classifiers": len(classifier_layers(settings, table, plan)),
                "top_k": settings.top_k,
                "similarity_tokens": settings.tokens_per_language,
                "similarity_state": settings.state,
            }
        )
        results = {
            "schema_version": 1,
            "base": settings.base,
            "original": list(settings.original),
            "expanded": list(settings.expanded),
            "tokens": dict(zip(table.languages, table.num_tokens, strict=True)),
            "state": table.state,
            "similarity": table.similarity.tolist(),
            **({} if scores is None else {"scores": {scores.kind: list(scores.values)}}),
            "new_experts": list(plan.new_experts),
            "classifier_layers": list(classifier_layers(settings, table, plan)),
            "allocations": comparison.to_dict("records"),
            "claims": as_records(check(settings, table, plans)),
        }
        run.finish(results)
    return results


def check(settings: PlanSettings, table: SimilarityTable, plans: dict[str, Allocation]) -> list[Claim]:
    """Check what the notebook says: two exact claims about allocations, two about the demo's model and languages."""
    similarity = table.similarity
    plan = plans["similarity"].new_experts
    # Experts of unlike sizes cost unlike shares of a budget in parameters, so only layers of one size are compared.
    less_alike = [
        (a, b)
        for a, b in product(table.layers, table.layers)
        if similarity[a] < similarity[b] and table.expert_parameters[a] == table.expert_parameters[b]
    ]
    disordered = sum(plan[a] < plan[b] for a, b in less_alike)
    first, middle, _ = (part.mean() for part in np.array_split(similarity, 3))
    claims = [
        Claim(
            "in_order",
            "No layer gets fewer new experts than a layer in which languages are more alike.",
            float(disordered),
            0.0,
            disordered == 0,
            is_exact=True,
        )
    ]
    if settings.rule == "largest_remainder" and settings.budget_in == "experts":
        furthest = max(abs(other.total - settings.budget) for other in plans.values())
        text = "Every allocation spends the budget exactly."
        claims.append(Claim("budget_spent", text, float(furthest), 0.0, furthest == 0, is_exact=True))
    text = f"Languages are {MIN_HUMP:g} times as alike in the middle third of the layers as in the first."
    claims.append(Claim("hump", text, float(middle / first), MIN_HUMP, bool(middle >= MIN_HUMP * first)))
    last, highest = float(similarity[-1]), float(similarity[:-1].max())
    text = "Languages are most alike in the last layer of all, where the papers' curve is low."
    claims.append(Claim("last_layer", text, last, highest, last > highest))
    return claims
