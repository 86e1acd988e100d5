"""The tables of `docs/scale.md`, made by `lpr_lab.method.costs`: `python docs/hooks/scale_tables.py` writes them anew.

They are committed, so that they are read without building the site; a test holds them to the code.
"""

from pathlib import Path

from marked_tables import table, with_tables

from lpr_lab.method.costs.estimate import (
    DEVICE_BYTES,
    REVIEW_TOKENS_PER_LANGUAGE,
    TOKENS_PER_LANGUAGE,
    Speed,
    device_hours,
    step_ratio,
    tokens_per_second,
)
from lpr_lab.method.costs.memory import LEARNT_BYTES, Setup, training_memory
from lpr_lab.method.costs.shape import BASES, Expansion

PAGE = Path(__file__).parents[1] / "scale.md"
LARGE = ("Qwen1.5-1.8B", "Llama-3.1-8B", "Llama-3.1-70B")
PLANS = {"LayerMoE": 2, "MoE-LPR": 5}
"""New experts per layer: 48 in 24 layers on average, and 5 in each."""
MACHINES = ((1, "none"), (8, "ddp"), (8, "fsdp2"), (64, "ddp"), (64, "fsdp2"))
GB = 1e9


def expansion(base: str, new_experts: int) -> Expansion:
    """Return a base with so many new experts in every layer."""
    return Expansion(BASES[base], (new_experts,) * BASES[base].layers)


def sizes() -> list[str]:
    """Return what each expansion adds, and what a step of it computes."""
    rows = []
    for name in BASES:
        for paper, count in PLANS.items():
            plan = expansion(name, count)
            learnt = f"{LEARNT_BYTES * plan.learnt / GB:,.1f}"
            base = f"{plan.base.parameters / 1e9:.3g}"
            rows.append(
                [name, base, f"{count} ({paper})", f"{plan.learnt / 1e9:.3g}", learnt, f"{step_ratio(plan):.2f}"]
            )
    head = ["base", "parameters, billions", "new experts per layer", "that learn, billions"]
    return table(
        [*head, "weights, gradients and moments of these, GB", "operations of a step / full fine-tuning"], rows
    )


def memory(paper: str) -> list[str]:
    """Return what one device holds, and how fast a step is, for each base on 1, 8 and 64 devices."""
    rows = []
    for name in LARGE:
        plan = expansion(name, PLANS[paper])
        for devices, sharding in MACHINES:
            found = training_memory(plan, Setup(devices=devices, sharding=sharding))
            parts = (found.base, found.experts + found.gradients + found.moments, found.gathered, found.activations)
            cells = [f"{part / GB:,.1f}" for part in (*parts, found.logits, found.total)]
            fits = found.total < DEVICE_BYTES
            speed = tokens_per_second(plan, Speed(devices=devices))
            rows.append(
                [name, str(devices), sharding, *cells, "yes" if fits else "no", f"{speed:,.0f}" if fits else "–"]
            )
    head = ["base", "GPUs", "sharding", "base, GB", "experts, GB", "copies, GB", "activations, GB", "logits, GB"]
    return table([*head, "in all, GB", "fits 80 GB", "tokens/s"], rows)


def choices() -> list[str]:
    """Return what each choice takes, one after the other, for the papers' base on one device."""
    plan = expansion(LARGE[0], PLANS["LayerMoE"])
    steps = {
        "base in float32, layers kept, logits materialised": Setup(base_in="float32", checkpointing=False, logits=True),
        "… logits never materialised": Setup(base_in="float32", checkpointing=False),
        "… activation checkpointing": Setup(base_in="float32"),
        "… base in bfloat16": Setup(),
        "… base in four bits": Setup(base_in="nf4"),
    }
    rows = []
    for what, setup in steps.items():
        found = training_memory(plan, setup)
        rest = found.experts + found.gradients + found.moments + found.gathered
        parts = (found.base, rest, found.activations, found.logits, found.total)
        rows.append([what, *(f"{part / GB:,.1f}" for part in parts)])
    head = ["each line changes one thing", "base, GB", "experts and copies, GB", "activations, GB", "logits, GB"]
    return table([*head, "in all, GB"], rows)


def hours() -> list[str]:
    """Return what a language costs with the papers' budgets of tokens."""
    rows = []
    for name in LARGE:
        for paper, count in PLANS.items():
            plan, tokens = expansion(name, count), TOKENS_PER_LANGUAGE[paper]
            work = device_hours(plan, tokens, Speed(), review_tokens=REVIEW_TOKENS_PER_LANGUAGE)
            quick = device_hours(plan, tokens, Speed(), review_tokens=REVIEW_TOKENS_PER_LANGUAGE, checkpointing=False)
            days = [f"{work / devices / 24:,.1f}" if fits(plan, devices) else "–" for devices in (1, 8, 64)]
            rows.append([name, f"{paper}, {tokens / 1e9:.1f}", f"{work:,.0f}", f"{quick:,.0f}", *days])
    head = ["base", "as in, billion tokens", "GPU hours", "without checkpointing", "days on 1", "on 8", "on 64"]
    return table(head, rows)


def fits(plan: Expansion, devices: int) -> bool:
    """Whether a step fits devices of 80 GB, sharded where there are several."""
    setup = Setup(devices=devices, sharding="none" if devices == 1 else "fsdp2")
    return training_memory(plan, setup).total < DEVICE_BYTES


def page(text: str) -> str:
    """Return the page with every table made anew, between its two marks."""
    tables = {
        "sizes": sizes(),
        "memory-layer-moe": memory("LayerMoE"),
        "memory-moe-lpr": memory("MoE-LPR"),
        "choices": choices(),
        "hours": hours(),
    }
    return with_tables(text, tables)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
