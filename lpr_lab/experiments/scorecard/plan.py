"""The plan of the scorecard: which arms, which of them a claim needs, and the experiment of an arm with a seed.

An arm is a recipe with settings; a card is the base, the text and the budget on which all arms are compared. A run
belongs to an arm by its settings alone, so one that was made otherwise counts as well. Torch-free.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lpr_lab.errors import UsageError, one_of
from lpr_lab.experiments import recipes
from lpr_lab.experiments.config import Experiment
from lpr_lab.measure.tasks import kinds
from lpr_lab.method.allocation import allocate
from lpr_lab.method.scores.table import LayerScores
from lpr_lab.method.training.budget import StageBudget
from lpr_lab.model.bases.made import SMALL_WORLD, is_made
from lpr_lab.runs.scorecard import instrument
from lpr_lab.runs.scorecard.allocations import MEASURED_GAIN, ORACLE, PER_LAYER, probe_of
from lpr_lab.runs.scorecard.parts import MIN_SEEDS
from lpr_lab.text.languages import language_codes


@dataclass(frozen=True, kw_only=True)
class Card:
    """On what the arms of a scorecard are compared: everything that all of them share."""

    base: str
    corpus: str
    original: tuple[str, ...]
    unreviewed: tuple[str, ...] = ()
    """Languages of the base that nothing replays."""
    expanded: tuple[str, ...]
    further: tuple[str, ...]
    """The second group of languages, of claim 22; where it is empty, no arm has one."""
    stage1_tokens: int
    stage2_tokens: int
    block_tokens: int = 256
    blocks_per_step: int = 4
    eval_tokens_per_language: int = 2048
    similarity_tokens: int = 20_000
    seeds: int = 3
    """How many the card asks for."""
    instrument_seeds: int = 0
    """Of the arms by which the instrument is checked, where these are to be more than `seeds`."""
    probed_layers: int = 0
    """Layers of the base, where one expert is tried in each alone: a run for each, so only of a small base."""
    precision: str = "fp32"
    """What all arms compute in, on every machine: `auto` would compare runs of two precisions."""
    self_samples: int = 16
    """Of the base, for the distance from it on its own ground (KL_self)."""
    self_sample_tokens: int = 64
    tasks: tuple[str, ...] = ()
    """Asked of every stage beside bits per byte."""
    task_items: int = 25

    @property
    def arms(self) -> Mapping[str, "Arm"]:
        """All arms by name.

        `ARMS`, without the second group where none is named; and where layers are probed one for each, and one that
        divides by the probes.
        """
        arms = {name: arm for name, arm in ARMS.items() if self.further or not arm.after}
        if not self.probed_layers:
            return arms
        layers = range(self.probed_layers)
        alone = {probe_of(one): tuple(int(one == other) for other in layers) for one in layers}
        probes = {name: Arm(recipe="moe_lpr", settings={"allocation": new}, on_dev=True) for name, new in alone.items()}
        return {**arms, **probes, ORACLE: Arm(recipe="moe_lpr", probes=tuple(probes))}


_SMOLLM2 = Card(
    base="smollm2-135m",
    corpus="demo",
    original=("en", "es"),
    expanded=("el", "hu", "tr"),
    further=("de",),
    stage1_tokens=61_440,
    stage2_tokens=20_480,
    eval_tokens_per_language=4096,
    precision="bf16",  # as the papers train, and several times as quick where it is native
    tasks=("choice",),
)

CARDS: Mapping[str, Card] = {
    SMALL_WORLD: Card(
        base=SMALL_WORLD,
        corpus="small-world",
        original=("en",),
        unreviewed=("es",),
        expanded=("hu", "qac_Latn"),
        further=("tr",),
        stage1_tokens=12_288,
        stage2_tokens=4_096,
        blocks_per_step=1,
        eval_tokens_per_language=2048,
        similarity_tokens=2048,
        seeds=10,
        instrument_seeds=24,  # ten are too few to see 1 % of forgetting
        probed_layers=5,
    ),
    "smollm2-135m": _SMOLLM2,
    "gemma3-270m": replace(
        _SMOLLM2,
        base="gemma3-270m",
        stage1_tokens=30_720,  # as much text: its tokens are about twice as long in the new languages
        stage2_tokens=10_240,
        blocks_per_step=2,  # and as many steps
        eval_tokens_per_language=2048,
        similarity_tokens=10_000,
        precision="fp32",  # the quicker one on most processors
        seeds=1,
    ),
}
"""By name of the base; of another base, see `card_for`."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of training that the scorecard compares."""

    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the recipe, by flat names."""
    rate: float = 1.0
    """Learning rate of experts (of a baseline, of all), as a share of what suits the base."""
    holds_routers: bool = False
    """Whether routers stay as they begin, at as good as equal weights, in stage 1."""
    stage2: float = 1.0
    """Tokens of stage 2, as a share of the card's."""
    after: str = ""
    """The arm whose run it goes on from, with the card's second group of languages."""
    first_seed: int = 0
    """Of this arm; another one repeats an arm with other seeds."""
    on_dev: bool = False
    """Whether dev text is measured beside held-out text: for what another arm's plan is made of."""
    probes: tuple[str, ...] = ()
    """Arms by whose gains on dev text its experts are divided over the layers, one arm for each."""


_RATES = {
    "thirtieth of the rate": 1 / 30,
    "tenth of the rate": 1 / 10,
    "third of the rate": 1 / 3,
    "three times the rate": 3.0,
}


def _at_rates(recipe: str, *rates: str, **settings: Any) -> "dict[str, Arm]":
    """Return a recipe at other rates than the one that suits it, as points of its curve at equal gain."""
    return {f"{recipe}, {rate}": Arm(recipe=recipe, settings=settings, rate=_RATES[rate]) for rate in rates}


_AS_GOOD_AS_NONE = 1e-12
"""A learning rate at which nothing that is read in float32 changes."""
_MEANS = {"fit_solver": "means", "router_bias": False}
"""Routers from the mean states of language groups, without a constant, as DUME has them."""
_AS_THE_REVIEW = {"finetune_replay_share": None}
"""As much replay as the review has, not the 5 % of the recipe's own: what the paper gave its baselines."""

ARMS: Mapping[str, Arm] = {
    # First: what most claims need, and the controls.
    "moe_lpr": Arm(recipe="moe_lpr"),
    "review_without_lpr": Arm(recipe="review_without_lpr"),
    "full_replay": Arm(recipe="full_replay", settings=_AS_THE_REVIEW),
    "no_copy": Arm(recipe="no_copy"),
    "moe_lpr again": Arm(recipe="moe_lpr", first_seed=100),
    "one_stage": Arm(recipe="one_stage"),
    "sparse_moe": Arm(recipe="sparse_moe"),
    "old-only": Arm(recipe="moe_lpr", settings={"control": "old_only"}),
    "second group": Arm(recipe="moe_lpr", after="moe_lpr"),
    "lora": Arm(recipe="lora"),
    "llama_pro": Arm(recipe="llama_pro"),
    # Second: how much review, how many experts, classifiers, equal gain, the rest of the paper's table.
    "quarter of the review": Arm(recipe="moe_lpr", stage2=1 / 4),
    "three times the review": Arm(recipe="moe_lpr", stage2=3),
    "full": Arm(recipe="full"),
    "2 experts": Arm(recipe="moe_lpr", settings={"new_experts_per_layer": 2}),
    "5 experts": Arm(recipe="moe_lpr", settings={"new_experts_per_layer": 5}),
    **_at_rates(*("full_replay", "third of the rate", "tenth of the rate", "thirtieth of the rate"), **_AS_THE_REVIEW),
    **_at_rates("moe_lpr", "third of the rate", "three times the rate"),
    "layer_moe": Arm(recipe="layer_moe"),
    "layer_moe, no classifier": Arm(recipe="layer_moe", settings={"classifiers": 0}),
    "lora_moe": Arm(recipe="lora_moe"),
    # Third: kin of the method, and what is not in the paper's table.
    "route_first": Arm(recipe="route_first"),
    "route_first, tokens alone": Arm(recipe="route_first", settings={"router_input": "token"}),
    "route_first, means": Arm(recipe="route_first", settings=_MEANS),
    "route_first, 2 experts": Arm(recipe="route_first", settings={"new_experts_per_layer": 2}),
    "local_review": Arm(recipe="local_review"),
    "local_review, means": Arm(recipe="local_review", settings=_MEANS),
    "moe_lpr, running mean": Arm(recipe="moe_lpr", settings={"router_input": "token_and_mean"}),
    "moe_lpr, running mean and bias": Arm(
        recipe="moe_lpr", settings={"router_input": "token_and_mean", "router_bias": True}
    ),
    "guided_review": Arm(recipe="guided_review"),
    "full_replay_1": Arm(recipe="full_replay_1"),
    "ssu": Arm(recipe="ssu"),
    "lape": Arm(recipe="lape"),
    "interpolate": Arm(recipe="interpolate"),
    "lora_64": Arm(recipe="lora_64"),
    **_at_rates("lora_64", "tenth of the rate"),
    **_at_rates("lora_moe", "tenth of the rate"),
    # Fourth: other rules for which layers get the experts (see `runs.scorecard.allocations`).
    **{
        f"layer_moe, {rule.replace('_', ' ')}": Arm(recipe="layer_moe", settings={"classifiers": 0, "allocation": rule})
        for rule in ("inverse", "random", "first", "last", "neurons", "gradient", "predicted_gain")
    },
    "layer_moe, attention outputs": Arm(
        recipe="layer_moe", settings={"classifiers": 0, "similarity_state": "attention_output"}
    ),
    # Fifth: other points of what is compared at equal gain (see `runs.scorecard.equal_gain`), and an average of two.
    **_at_rates("lora", "third of the rate", "tenth of the rate"),
    **_at_rates("lora_moe", "thirtieth of the rate"),
    **_at_rates("sparse_moe", "tenth of the rate", "thirtieth of the rate"),
    **_at_rates("llama_pro", "three times the rate"),
    **_at_rates("route_first", "third of the rate", "three times the rate"),
    **_at_rates("layer_moe", "third of the rate", "three times the rate"),
    **_at_rates("ssu", "tenth of the rate", "thirtieth of the rate"),
    "interpolate, a quarter": Arm(recipe="interpolate", settings={"interpolation_weight": 0.25}),
    "interpolate, a tenth": Arm(recipe="interpolate", settings={"interpolation_weight": 0.1}),
    "no_review, routers held": Arm(recipe="no_review", holds_routers=True),
}
"""In the order in which they are trained: what most claims need comes first. See `Card.arms` for those of one base."""


def card_for(base: str = SMALL_WORLD, **changes: Any) -> Card:
    """Return the card of a base, settings replaced.

    A small world of another seed has the small world's, with as few seeds of an arm as decide a claim; any other base
    that has none of its own has that of SmolLM2, in float32.
    """
    return replace(CARDS.get(base) or _card_like_another(base), **changes)


def _card_like_another(base: str) -> Card:
    if is_made(base):
        return replace(CARDS[SMALL_WORLD], base=base, seeds=MIN_SEEDS, instrument_seeds=0, probed_layers=0)
    return replace(_SMOLLM2, base=base, seeds=1, precision="fp32")


LANGUAGES = ("original", "unreviewed", "expanded", "further")
"""The groups of a card."""
CHOSEN = ("corpus", *LANGUAGES, "precision", "tasks")
"""What of a card somebody may choose: options of the commands, and keys of the address of the page."""
NO_TASKS = "none"
"""Said for the tasks by somebody who wants none, where the card asks some."""


def chosen_card(
    base: str,
    *,
    corpus: str | None = None,
    original: Iterable[str] | None = None,
    unreviewed: Iterable[str] | None = None,
    expanded: Iterable[str] | None = None,
    further: Iterable[str] | None = None,
    precision: str | None = None,
    tasks: Iterable[str] | None = None,
) -> Card:
    """Return the card of a base with what somebody chose of it; what is empty or None stays the base's own.

    Args:
        base: name, hub id or folder.
        corpus: `demo`, files, a folder or a hub data set, as `load_corpus` takes them.
        original: languages that reviews and replay read.
        unreviewed: languages of the base that nothing reads; those of the card only beside its own original ones.
        expanded: languages that are taught.
        further: those of the second group; those of the card only on its own text, and where nothing else reads them.
        precision: fp32 or bf16, of all arms.
        tasks: asked beside bits per byte; `none` for none. Of other text than the base's own they are asked only
            where they are named here.

    Raises:
        UsageError: a precision or a task that there is not, or a language in two groups.
    """
    if precision:
        one_of("precision", precision, ("fp32", "bf16"))
    own = _own_card(base, corpus)
    groups = dict(zip(LANGUAGES, (original, unreviewed, expanded, further), strict=True))
    changes: dict[str, Any] = {
        name: tuple(dict.fromkeys(language_codes(codes))) for name, codes in groups.items() if codes
    }
    if precision:
        changes["precision"] = precision
    if tasks:
        asked = tuple(dict.fromkeys(tasks))
        for task in asked:
            one_of("task", task, (*kinds.NAMES, NO_TASKS))
        changes["tasks"] = tuple(task for task in asked if task != NO_TASKS)
    card = replace(_beside(own, changes), **changes)
    named = [code for name in LANGUAGES for code in getattr(card, name)]
    if twice := sorted({code for code in named if named.count(code) > 1}):
        known = "; ".join(f"{name}: {', '.join(getattr(card, name)) or 'none'}" for name in LANGUAGES)
        raise UsageError(f"{', '.join(twice)} cannot be in two groups of a scorecard's languages. They are {known}.")
    return card


def choices(card: Card) -> dict[str, tuple[str, ...]]:
    """Return what of a card was chosen: the values of all of `CHOSEN` in which it differs from the base's own."""
    own = _beside(_own_card(card.base, card.corpus), {name: getattr(card, name) for name in CHOSEN})
    own = replace(own, corpus=card_for(card.base).corpus)
    found = {name: getattr(card, name) for name in CHOSEN if getattr(card, name) != getattr(own, name)}
    return {name: (value,) if isinstance(value, str) else value or (NO_TASKS,) for name, value in found.items()}


def _own_card(base: str, corpus: str | None) -> Card:
    """Return the card of a base on a text: its own, or one of which it is not known what there is in it.

    It need not have the second group's languages, nor be translations, among which continuations are chosen.
    """
    own = card_for(base)
    return replace(own, corpus=corpus, further=(), tasks=()) if corpus and corpus != own.corpus else own


def _beside(own: Card, chosen: Mapping[str, Any]) -> Card:
    """Return a card without those of its languages that do not go with the chosen ones."""
    original, expanded = (chosen.get(name) or getattr(own, name) for name in ("original", "expanded"))
    unreviewed = own.unreviewed if original == own.original and not {*own.unreviewed} & {*expanded} else ()
    taken = {*original, *expanded, *(chosen.get("unreviewed") or unreviewed)}
    return replace(own, unreviewed=unreviewed, further=tuple(code for code in own.further if code not in taken))


def experiment_of(
    card: Card, name: str, seed: int, parent: Any = None, gains: Sequence[float] | None = None
) -> Experiment:
    """Return the experiment of an arm with a seed.

    Args:
        card: what all arms share.
        name: of the arm.
        seed: 0 or more; an arm that repeats another one with other seeds adds its own first one.
        parent: the run it goes on from, of an arm that has one.
        gains: of one expert in each layer (`measured_gains`), of an arm that divides by them.
    """
    one_of("arm", name, tuple(card.arms))
    arm = card.arms[name]
    if arm.after:
        assert parent is not None, f"the arm {name!r} goes on from a run of {arm.after!r}"
        return recipes.settings_of_further(parent, expanded=card.further, seed=seed)
    settings = _settings(card, arm) | {"seed": arm.first_seed + seed}
    if arm.probes:
        assert gains is not None, f"the arm {name!r} divides experts by what its probes gained"
        scores = LayerScores(kind=MEASURED_GAIN, values=tuple(gains))
        settings["allocation"] = allocate(scores, PER_LAYER * len(gains)).new_experts
    return recipes.RECIPES[arm.recipe](**settings)


def _settings(card: Card, arm: Arm) -> dict[str, Any]:
    batch = {"block_tokens": card.block_tokens, "blocks_per_step": card.blocks_per_step}
    one_step = card.block_tokens * card.blocks_per_step
    stage1, stage2 = card.stage1_tokens, max(round(card.stage2_tokens * arm.stage2), one_step)
    rate: dict[str, Any] = {}
    if arm.rate != 1:
        suits = recipes.RECIPES[arm.recipe](base=card.base).resolved().stage1.learning_rate
        assert suits is not None
        rate = {"learning_rate": suits * arm.rate}
    if arm.holds_routers:
        rate["router_learning_rate"] = _AS_GOOD_AS_NONE
    return {
        "base": card.base,
        "corpus": card.corpus,
        "original": card.original,
        "unreviewed": card.unreviewed,
        "expanded": card.expanded,
        "stage1": StageBudget(tokens=stage1, **batch, **rate),
        "stage2": StageBudget(tokens=stage2, **batch),
        "eval_tokens_per_language": card.eval_tokens_per_language,
        "similarity_tokens": card.similarity_tokens,
        "precision": card.precision,
        "self_samples": card.self_samples,
        "self_sample_tokens": card.self_sample_tokens,
        "tasks": card.tasks,
        "task_items": card.task_items,
        **arm.settings,
    }


def jobs(card: Card, names: Iterable[str], seeds: int) -> list[tuple[str, int]]:
    """Return (arm, seed) in the order in which they are trained.

    The first three seeds of every arm come before the others, because with these a claim can be decided, and what an
    arm goes on from, or is planned by (three seeds of it), comes before the arm. The arms of the instrument have at
    least as many seeds as the card asks for them, where all that the card asks for is made.
    """
    arms, wanted = card.arms, set(names)
    probes = {probe for name in wanted for probe in arms[name].probes}
    wanted |= probes | {arms[name].after for name in wanted if arms[name].after}
    first = {name: range(MIN_SEEDS if name in probes else min(seeds, MIN_SEEDS)) for name in arms if name in wanted}
    planned = [(name, seed) for name, own in first.items() for seed in own]
    planned += [(name, seed) for name in first for seed in range(MIN_SEEDS, seeds)]
    if seeds < card.seeds:
        return planned
    further = range(seeds, card.instrument_seeds)
    return planned + [(name, seed) for name in instrument.PAIR if name in wanted for seed in further]
