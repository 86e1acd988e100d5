"""Upcycling as a run of its own: an expansion that computes what the base computes, and what other starts would do.

Stage 1 goes on from such a run (`recipes.stage1`). How far each start is from the base is left in `equivalence.json`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel

from lpr_lab.errors import UsageError
from lpr_lab.experiments.studies.plan import KIND as PLAN
from lpr_lab.method.allocation import Allocation, uniform
from lpr_lab.method.settings import UpcycleSettings
from lpr_lab.method.upcycle import count_parameters, upcycle
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.bases.rounding import logit_tolerance
from lpr_lab.model.capture import record_routing
from lpr_lab.model.formats.save_load import save_expansion
from lpr_lab.model.init import EXPERT_INITS, ROUTER_INITS
from lpr_lab.runs.claims import Claim, as_records
from lpr_lab.runs.find import start_run
from lpr_lab.runs.run import Run
from lpr_lab.text import sample_texts

KIND = "upcycle"
_PROBE_TOKENS = 128


@dataclass(frozen=True, kw_only=True)
class UpcyclingSettings:
    """What is put on which base, and how it starts."""

    base: str = "smollm2-135m"
    quantization: str = ""
    """`nf4` packs the base's linear maps into four bits; empty leaves them whole."""
    plan: str = ""
    """Id of a run of planning, whose allocation and classifier layers are taken; empty for the next two."""
    new_experts_per_layer: int = 1
    allocation: tuple[int, ...] | None = None
    """New experts layer by layer; then `new_experts_per_layer` has no meaning."""
    upcycle: UpcycleSettings = field(
        default_factory=lambda: UpcycleSettings(router_input="token_and_mean", router_bias=True)
    )
    """By default with routers that can also be solved for."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.plan and self.allocation is not None:
            raise UsageError(f"plan = {self.plan!r} has an allocation; leave `allocation` out, or `plan`.")

    def to_config(self) -> dict[str, Any]:
        """Return every setting by the name that an experiment's configuration has for it."""
        config = {**vars(self), **vars(self.upcycle)}
        return {name: value for name, value in config.items() if name not in ("upcycle", "router_rows")}


def start(settings: UpcyclingSettings, run_dir: str | Path = "", root: str | Path | None = None) -> Run:
    """Return the run to work in: the one given, the newest unfinished one with these settings, or a new one."""
    return start_run(
        settings.to_config(),
        kind=KIND,
        slug=settings.base.rsplit("/", 1)[-1],
        title=f"{settings.base}, upcycled",
        run_dir=run_dir,
        root=root,
        parents=[settings.plan] if settings.plan else [],
    )


def make(settings: UpcyclingSettings, run_dir: str | Path = "", root: str | Path | None = None) -> Run:
    """Upcycle and compare all starts; returns the finished run.

    Example:
        >>> upcycled = make(UpcyclingSettings(base="path/to/model"))  # doctest: +SKIP
    """
    run = start(settings, run_dir, root)
    base = load(settings, run)
    write(settings, run, base)
    compare(settings, run, base)
    finish(settings, run)
    return run


def load(settings: UpcyclingSettings, run: Run) -> PreTrainedModel:
    """Load the base and settle how many new experts each layer gets; that is recorded as the phase `plan`."""
    with run.working("load"):
        facts = _planned(settings, run) if settings.plan else None
        base, _ = load_base(settings.base, quantization=settings.quantization)
        if facts is None:
            own, num_layers = settings.allocation, base.config.get_text_config().num_hidden_layers
            counts = uniform(num_layers, settings.new_experts_per_layer) if own is None else Allocation(own)
            facts = {"allocation": "uniform" if own is None else list(own), "new_experts": list(counts.new_experts)}
        run.phases.record("plan", facts)
    return base


def _planned(settings: UpcyclingSettings, run: Run) -> dict[str, Any]:
    """Return what the run of planning says, or refuse one of another kind or for another base."""
    planned = Run.open(run.path.parent, settings.plan)
    plan = planned.documents.plan
    if planned.kind != PLAN or plan is None or not planned.results:
        raise UsageError(
            f"plan = {settings.plan!r} is a run of kind {planned.kind}, {planned.status.state}; expected a finished "
            "run of the notebook 02_plan_experts."
        )
    if plan["base"] != settings.base:
        raise UsageError(f"plan = {settings.plan!r} was made for {plan['base']}, and base = {settings.base!r}.")
    layers = list(planned.results["classifier_layers"])
    counts = list(plan["allocation"])
    return {"allocation": planned.config["allocation"], "new_experts": counts, "classifier_layers": layers}


def write(settings: UpcyclingSettings, run: Run, base: PreTrainedModel) -> dict[str, int]:
    """Write the upcycled model's adapter to `checkpoint/`; returns how many parameters it has. `base` stays dense."""
    with run.working("upcycle"):
        expanded = _upcycled(settings.upcycle, settings.seed, run, base)
        if not run.phases.is_done("upcycle"):
            save_expansion(expanded, run.paths.checkpoint, {"run": run.id})
            run.phases.record("upcycle", {"parameters": count_parameters(expanded)})
            run.phases.mark_done("upcycle")
    return run.phases["upcycle"]["parameters"]


def _upcycled(settings: UpcycleSettings, seed: int, run: Run, base: PreTrainedModel) -> Any:
    """Upcycle a copy of the base, for upcycling works in place."""
    return upcycle(copy.deepcopy(base), run.phases["plan"]["new_experts"], **vars(settings), seed=seed)


def starts(settings: UpcycleSettings, new_experts: Sequence[int]) -> list[UpcycleSettings]:
    """Return the settings themselves, then each other start of routers and of experts.

    One more expert per token is among them where a layer has as many.
    """
    others = [replace(settings, router_init=how) for how in ROUTER_INITS if how != settings.router_init]
    if max(new_experts) + 1 > settings.top_k:
        others.append(replace(settings, top_k=settings.top_k + 1))
    for how in EXPERT_INITS:
        if how != settings.expert_init:
            others.append(replace(settings, expert_init=how, expert_init_amount=None))
    return [settings, *others]


def compare(settings: UpcyclingSettings, run: Run, base: PreTrainedModel) -> pd.DataFrame:
    """Compare the base with every start on a short text in four scripts; leaves it in `equivalence.json`.

    Returns:
        One row per start: expert_init, expert_init_amount, router_init, top_k, then `max_difference` and
        `mean_difference` of a logit, `same_prediction` (share of positions with the same likeliest token), and
        `original_weight` (mean weight of expert 0 over tokens and layers, with the lowest and highest layer).
    """
    with run.working("compare"):
        if not run.phases.is_done("compare"):
            probe = _probe(settings.base).to(base.device)
            with torch.no_grad():
                wanted = base(probe).logits
            variants = starts(settings.upcycle, run.phases["plan"]["new_experts"])
            rows = [
                _difference(variant, _upcycled(variant, settings.seed, run, base), probe, wanted)
                for variant in variants
            ]
            largest = float(wanted.abs().max())
            facts = {
                "probe_tokens": probe.shape[1],
                "largest_logit": largest,
                "rounding": logit_tolerance(largest),
                "precision": "fp32",
            }
            run.documents.write("equivalence", {**facts, "starts": rows})
            run.phases.mark_done("compare")
    return pd.DataFrame(run.documents.read("equivalence")["starts"])


@torch.no_grad()
def _difference(variant: UpcycleSettings, expanded: Any, probe: torch.Tensor, wanted: torch.Tensor) -> dict[str, Any]:
    with record_routing(expanded) as record:
        found = expanded(probe).logits
        weights = [float(routing.original_weight().mean()) for routing in record.routing.values()]
    apart = (found - wanted).abs()
    amount = variant.expert_init_amount
    return {
        "expert_init": variant.expert_init,
        "expert_init_amount": EXPERT_INITS[variant.expert_init] if amount is None else amount,
        "router_init": variant.router_init,
        "top_k": variant.top_k,
        "max_difference": float(apart.max()),
        "mean_difference": float(apart.mean()),
        "same_prediction": float((found.argmax(-1) == wanted.argmax(-1)).float().mean()),
        "original_weight": sum(weights) / len(weights),
        "lowest_layer": min(weights),
        "highest_layer": max(weights),
    }


def _probe(base: str) -> torch.Tensor:
    """Return our own sentences in four scripts as ids [1, tokens]."""
    from lpr_lab.model.bases.load import load_tokenizer

    ids = load_tokenizer(base)(sample_texts.PROBE, add_special_tokens=False)["input_ids"]
    return torch.tensor([ids[:_PROBE_TOKENS]])


def finish(settings: UpcyclingSettings, run: Run) -> dict[str, Any]:
    """Check the claims, write `results.json`, and mark the run finished."""
    with run.working("finish"):
        rows = run.documents.read("equivalence")["starts"]
        results = {
            "schema_version": 1,
            "base": settings.base,
            "plan": run.phases["plan"],
            "parameters": run.phases["upcycle"]["parameters"],
            "equivalence": rows,
            "claims": as_records(check(pd.DataFrame(rows), run.documents.read("equivalence")["rounding"])),
        }
        run.finish(results)
    return results


def check(table: pd.DataFrame, rounding: float) -> list[Claim]:
    """Check what the notebook says: copies change nothing, whatever routers do; experts drawn anew change much.

    Args:
        table: from `compare`.
        rounding: the largest difference of a logit that counts as none.
    """
    copies, drawn = table[table["expert_init"] == "copy"], table[table["expert_init"] == "random"]
    furthest, kept = float(copies["max_difference"].max()), float(drawn["same_prediction"].min())
    claims = [
        Claim(
            "starts_equal",
            "With experts that are copies the model computes what the base computes, however routers start and however "
            "many experts a token uses (largest difference of a logit).",
            furthest,
            rounding,
            furthest <= rounding,
            is_exact=True,
        )
    ]
    text = "With experts drawn anew it does not: the likeliest next token differs at half of the positions or more."
    claims.append(Claim("random_is_another_model", text, kept, 0.5, kept <= 0.5))
    return claims
