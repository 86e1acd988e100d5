"""Named experiments, as functions: each is a sequence of verbs with settings, and differs in what its name says.

    moe_lpr        upcycle -> expand (experts and routers) -> review (routers)      MoE-LPR's two stages
    layer_moe      the same on experts allocated by similarity, with classifiers    LayerMoE
    route_first    upcycle -> fit_routers (closed form) -> expand (experts only)    one stage, nothing to review
    local_review   upcycle -> expand -> local_review (routers in closed form)       the review without backpropagation
    guided_review  upcycle -> expand -> local_review -> review                      that as the start of the papers' own

The ablations of MoE-LPR, each with one thing taken away:

    no_copy             experts start at random
    no_review           stage 1 alone
    review_without_lpr  routers reviewed by the language-model loss alone
    one_stage           replay and the LPR loss in stage 1, experts and routers together, no review

And what the method is compared with, each trained in one stage on as many tokens as both stages have (`_baseline`):

    full                every weight, on the new languages alone
    full_replay         with 5 % replay; full_replay_1 with 1 %
    interpolate         halfway between the base and `full`
    lora                low-rank updates of rank 8; lora_64 of rank 64
    llama_pro           new blocks between the old ones
    lora_moe            a mixture of low-rank experts on every map of the MLPs
    sparse_moe          a mixture of experts of which everything learns
    ssu                 every column but those that matter most to the original languages
    lape                neurons that fire for the expanded languages alone

A variant is a recipe with settings replaced: `recipes.route_first(base="path/to/model", expanded=("el",))`. A further
language group goes on from a finished run: `recipes.further(run, expanded=("el",))`.

Each stage can be a run of its own, too: `stage1` trains what an upcycled run holds, `stage2` reviews what a stage-1 run
holds. With the same settings they end with the very weights of `moe_lpr`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lpr_lab.errors import DamagedError, MissingError, UsageError, one_of
from lpr_lab.experiments.config import BEGINNING, STAGES, Experiment, typed
from lpr_lab.method.paper_settings import CLASSIFIER_LAYERS, NEW_EXPERTS_G1, PRESETS
from lpr_lab.method.settings import UpcycleSettings
from lpr_lab.runs.model_ref import tuned_as
from lpr_lab.runs.run import Run


def moe_lpr(**changes: Any) -> Experiment:
    """The papers' own recipe (MoE-LPR §2.3-2.4): both stages by gradient, routers without bias on the token alone."""
    return _with(changes, recipe="moe_lpr", steps=("expand", "review"))


def layer_moe(**changes: Any) -> Experiment:
    """LayerMoE: two new experts per layer on average, where languages differ most; classifiers where they are alike.

    The share of layers that have a classifier is that of the released scripts for Qwen1.5-1.8B, 7 of 24.
    """
    own = {"new_experts_per_layer": 2, "allocation": "similarity", "classifiers": _CLASSIFIER_SHARE}
    return moe_lpr(**{"recipe": "layer_moe", **own, **changes})


def route_first(**changes: Any) -> Experiment:
    """Routers fitted in closed form before stage 1 and kept; then only experts learn (ours, see docs/log.md)."""
    own = {"router_input": "token_and_mean", "router_bias": True}
    return _with(changes, recipe="route_first", steps=("fit_routers", "expand"), **own)


def local_review(**changes: Any) -> Experiment:
    """Stage 1 by gradient as in the papers, then routers fitted in closed form in place of stage 2 (ours)."""
    own = {"router_input": "token_and_mean", "router_bias": True, "fit_divide": "as_is"}
    return _with(changes, recipe="local_review", steps=("expand", "local_review"), **own)


def guided_review(**changes: Any) -> Experiment:
    """The papers' two stages with the local review between them: stage 2 starts from fitted routers (ours)."""
    return local_review(**{"recipe": "guided_review", "steps": ("expand", "local_review", "review"), **changes})


def no_copy(**changes: Any) -> Experiment:
    """MoE-LPR with experts that start at random, not as copies (its ablation "w/o expert-copy")."""
    return moe_lpr(**{"recipe": "no_copy", "expert_init": "random", **changes})


def no_review(**changes: Any) -> Experiment:
    """MoE-LPR's stage 1 alone (its ablation "w/o review"); what a review would cost is not spent otherwise."""
    return moe_lpr(**{"recipe": "no_review", "steps": ("expand",), **changes})


def review_without_lpr(**changes: Any) -> Experiment:
    """MoE-LPR with a review by the language-model loss alone (its ablation "w/o LPR"); the LPR loss is logged."""
    return moe_lpr(**{"recipe": "review_without_lpr", "lpr_coef": 0.0, **changes})


def one_stage(**changes: Any) -> Experiment:
    """MoE-LPR's ablation "one-stage": the text and the losses of both stages at once, experts and routers together."""
    return moe_lpr(**{"recipe": "one_stage", "steps": ("one_stage",), **changes})


def full(**changes: Any) -> Experiment:
    """Full fine-tuning on the new languages alone: what forgets most."""
    return _baseline("full", changes, finetune_replay_share=0.0)


def full_replay(**changes: Any) -> Experiment:
    """Full fine-tuning with replay of the original languages, 5 % unless `finetune_replay_share` says otherwise."""
    return _baseline("full", changes, recipe="full_replay", finetune_replay_share=0.05)


def full_replay_1(**changes: Any) -> Experiment:
    """Full fine-tuning with 1 % replay, which practitioners say is enough."""
    return full_replay(**{"recipe": "full_replay_1", "finetune_replay_share": 0.01, **changes})


def interpolate(**changes: Any) -> Experiment:
    """Full fine-tuning, and then weights between the base's and the tuned ones, halfway by default."""
    return _baseline("interpolate", changes, finetune_replay_share=0.0, steps=("finetune", "interpolate"))


def lora(**changes: Any) -> Experiment:
    """Low-rank updates of rank 8 on all linear maps (MoE-LPR's row "LoRA")."""
    return _baseline("lora", changes)


def lora_64(**changes: Any) -> Experiment:
    """Low-rank updates of rank 64: better on new languages, the paper says, and worse on old ones."""
    return _baseline("lora", changes, recipe="lora_64", lora_rank=64)


def llama_pro(**changes: Any) -> Experiment:
    """New decoder blocks between the frozen old ones (MoE-LPR's row "LLaMA-Pro"); the base is held in float32."""
    return _baseline("llama_pro", changes, base_dtype="float32")


def lora_moe(**changes: Any) -> Experiment:
    """A mixture of 8 low-rank experts of rank 180 on every map of the MLPs (MoE-LPR's row "LoRAMoE")."""
    return _baseline("lora_moe", changes, lora_rank=180)


def sparse_moe(**changes: Any) -> Experiment:
    """Upcycled, and then everything learns, expert 0 too (MoE-LPR's row "MoE")."""
    return _baseline("sparse_moe", changes)


def ssu(**changes: Any) -> Experiment:
    """Column freezing by importance to the original languages (SSU), on the new ones alone, in float32."""
    return _baseline("ssu", changes, finetune_replay_share=0.0, base_dtype="float32")


def lape(**changes: Any) -> Experiment:
    """Neurons that fire for the expanded languages alone (LAPE), 1 % of all, trained on those languages alone."""
    return _baseline("lape", changes, finetune_replay_share=0.0)


def _baseline(kind: str, changes: Mapping[str, Any], **own: Any) -> Experiment:
    """Return a baseline's experiment: in one stage, on as many tokens as both stages of the method have together."""
    return _with(changes, **{"recipe": kind, "steps": ("finetune",), "baseline": kind, **own})


def _with(changes: Mapping[str, Any], **own: Any) -> Experiment:
    """Return an experiment with a recipe's own settings, where no change replaces them."""
    given = {**own, **changes}
    begun = Experiment.begin(**{name: given.pop(name) for name in BEGINNING if name in given})
    return begun.with_settings(**given)


def further(run: Run | str | Path, **changes: Any) -> Experiment:
    """Return the next language group's experiment: all settings of a finished run, whose model it goes on from.

    Args:
        run: the run, or its directory.
        changes: at least `expanded`, the languages of the new group. The share of replay falls with the number of
            languages taught so far, as in the papers, unless it is among them.

    Raises:
        UsageError: no `expanded`, or the run has no weights.
    """
    run = run if isinstance(run, Run) else Run(Path(run))
    if run.problem:
        raise DamagedError(run.problem)
    if tuned_as(run):
        raise UsageError(f"Run {run.id} trained a baseline ({tuned_as(run)}); only an expansion takes a further group.")
    if not changes.get("expanded"):
        raise UsageError("A further group needs its languages, for example recipes.further(run, expanded=('el',)).")
    if not run.paths.has_checkpoint:
        raise MissingError(f"Run {run.id} has no weights to go on from; finish it first, or make it again.")
    return settings_of_further(run, **changes)


def settings_of_further(run: Run, **changes: Any) -> Experiment:
    """Return what `further` does, also of a run whose weights are not here: to find runs that went on from it."""
    before = Experiment.from_config(run.config)
    own: dict[str, Any] = {
        "parent": run.id,
        "earlier": (*before.earlier, *before.expanded),
        "replay_share": _diluted(before.review.replay_share, before, len(changes["expanded"])),
        "delta": None,  # that of a first expansion counts expert 0, and this one's does not
    }
    return before.with_settings(**{**own, **changes})


def _diluted(replay_share: float, before: Experiment, num_new: int) -> float:
    """Return the share of replay in a further review, where original languages keep their weight beside each other one.

    The papers' 50k documents per original language to 100k per expanded one are 1/3 with three languages of each, and
    1/5 with three more.
    """
    taught = len(before.earlier) + len(before.expanded)
    if replay_share == 1:
        return 1.0
    odds = replay_share / (1 - replay_share) * taught / (taught + num_new)
    return odds / (1 + odds)


def stage1(run: Run, **changes: Any) -> Experiment:
    """Stage 1 as a run of its own, on an upcycled run (`upcycling.make`); `changes` say on which text."""
    made = run.config
    own = {
        name: made[name] for name in ("base", "base_dtype", "quantization", *vars(UpcycleSettings())) if name in made
    }
    own |= {"from_run": run.id, "allocation": tuple(run.phases["plan"]["new_experts"])}
    return _with(changes, recipe="stage1", steps=("expand",), **own)


def stage2(run: Run, how: str = "review", **changes: Any) -> Experiment:
    """Stage 2 as a run of its own, on a stage-1 run.

    Args:
        run: the run of stage 1, whose settings it keeps.
        how: `review`, by gradient as in the papers, or `local_review`, in closed form.
        changes: of settings.
    """
    one_of("how", how, REVIEWS)
    layers = run.phases["plan"].get("classifier_layers", ())
    own = {"recipe": "stage2", "steps": (how,), "from_run": run.id, "classifiers": len(layers), "fit_divide": "as_is"}
    return Experiment.from_config(run.config).with_settings(**{**own, **changes})


REVIEWS = ("review", "local_review")
_OF_BOTH_STAGES = ("learning_rate", "router_learning_rate", "blocks_per_step", "max_minutes")
_CLASSIFIER_SHARE = len(CLASSIFIER_LAYERS) / len(NEW_EXPERTS_G1)
"""7 / 24; how many layers is left to choose, and this is what LayerMoE chose for Qwen1.5-1.8B."""

RECIPES: dict[str, Callable[..., Experiment]] = {
    "route_first": route_first,
    "moe_lpr": moe_lpr,
    "layer_moe": layer_moe,
    "local_review": local_review,
    "guided_review": guided_review,
    "no_copy": no_copy,
    "no_review": no_review,
    "review_without_lpr": review_without_lpr,
    "one_stage": one_stage,
    "full": full,
    "full_replay": full_replay,
    "full_replay_1": full_replay_1,
    "interpolate": interpolate,
    "lora": lora,
    "lora_64": lora_64,
    "llama_pro": llama_pro,
    "lora_moe": lora_moe,
    "sparse_moe": sparse_moe,
    "ssu": ssu,
    "lape": lape,
}


def from_notebook(
    recipe: str, parameters: Mapping[str, Any], preset: str = "", settings: Mapping[str, Any] | None = None
) -> Experiment:
    """Return the experiment that a notebook's parameters describe. What comes later wins.

    Args:
        recipe: by name; a preset has its own.
        parameters: see `settings_of`; and `find_learning_rate`, whether a range test is to find the rate of experts
            first, so that the run that is made records it (see `controls.learning_rate`).
        preset: one of the papers' own runs, by name (`paper_settings.PRESETS`); wall-clock caps stay as they are.
        settings: any settings, as plain values (see `config.changed`).

    Raises:
        UsageError: no such recipe, preset or setting.
    """
    parameters = dict(parameters)
    finds_rate = bool(parameters.pop("find_learning_rate", False))
    if finds_rate and parameters.get("learning_rate") is not None:
        raise UsageError(f"learning_rate = {parameters['learning_rate']}, and find_learning_rate asks for another one.")
    values = settings_of(parameters)
    if preset:
        recipe, own = _preset(preset)
        capped = {name: asdict(own[name]) | {"max_minutes": values.get(name, {}).get("max_minutes")} for name in STAGES}
        values |= {**own, **capped}
    given = typed(settings or {})
    for name in STAGES:
        if isinstance(given.get(name), Mapping):
            given[name] = values.get(name, {}) | given[name]
    experiment = named(recipe, **values | given)
    if finds_rate:
        from lpr_lab.experiments.controls.learning_rate import with_found_rate

        return with_found_rate(experiment)[0]
    return experiment


def settings_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that flat parameters of a notebook mean, as recipes take them.

    Args:
        parameters: settings by name, and instead of the budgets `stage1_tokens`, `stage2_tokens` and what is the same
            in both: `learning_rate`, `router_learning_rate`, `blocks_per_step`, `max_minutes`. None leaves a setting as
            it is.

    >>> settings_of({"base": "my/model", "stage1_tokens": 4096, "max_minutes": 5.0})
    {'base': 'my/model', 'stage1': {'tokens': 4096, 'max_minutes': 5.0}}
    """
    values = {name: value for name, value in parameters.items() if value is not None}
    shared = {name: values.pop(name) for name in _OF_BOTH_STAGES if name in values}
    tokens = {name: values.pop(f"{name}_tokens") for name in STAGES if f"{name}_tokens" in values}
    return values | {name: {"tokens": number, **shared} for name, number in tokens.items()}


def decided_by(preset: str) -> dict[str, Any]:
    """Return what a preset decides, by the names that notebooks have for it, as plain values.

    Raises:
        UsageError: no such preset.
    """
    recipe, own = _preset(preset)
    stage1, stage2 = (own[name] for name in STAGES)
    decided = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
    if isinstance(own["allocation"], str):
        decided["allocation"] = None  # a notebook's is a list, or none
    return {
        **{name: value for name, value in decided.items() if name not in STAGES},
        "recipe": recipe,
        "stage1_tokens": stage1.tokens,
        "stage2_tokens": stage2.tokens,
        "learning_rate": stage1.learning_rate,
        "router_learning_rate": stage1.router_learning_rate,
    }


def _preset(name: str) -> tuple[str, Mapping[str, Any]]:
    one_of("preset", name, PRESETS)
    return PRESETS[name]


def named(recipe: str, /, **changes: Any) -> Experiment:
    """Return a recipe by name with fields replaced.

    Raises:
        UsageError: no such recipe, with the closest one.
    """
    one_of("recipe", recipe, RECIPES)
    return RECIPES[recipe](**changes)
