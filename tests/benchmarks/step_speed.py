"""Training steps of both stages beside full fine-tuning, and how a step grows with the experts there are.

    .venv/bin/python tests/benchmarks/step_speed.py [rounds [part ...]]

On SmolLM2, 4 blocks of 256 tokens, the loop's own step with its optimiser, in turns. What is reached is compared with
what arithmetic allows (see arithmetic.py): the seconds of full fine-tuning times the ratio of operations.
"""

import gc
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from arithmetic import dense_step, expand_step, review_step, sizes, visits
from measuring import Row, compared, in_turns, save
from peft import PeftModel
from torch import nn

import lpr_lab as lab
from lpr_lab.method.training import train as training
from lpr_lab.method.training.compute import compute_options
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.method.training.step import Stepper
from lpr_lab.method.training.terms import Term, balance_term, lm_term, lpr_term
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import RoutingRecord, record_routing
from lpr_lab.model.machine import keep_freed_memory
from lpr_lab.model.parallel.processes import join_processes
from lpr_lab.model.stages import set_trainable
from lpr_lab.text.packing import PackedBlocks

BLOCK_TOKENS, BLOCKS = 256, 4
LANGUAGES = ("en", "el")
ALWAYS = ExitStack()
"""Compute options, which last as long as this process."""


def random_schedule(vocabulary: int, blocks_per_step: int) -> BlockSchedule:
    """Return blocks of random tokens in two languages: a step takes the same time whatever they say."""
    generator = torch.Generator().manual_seed(0)
    blocks = {}
    for index, language in enumerate(LANGUAGES):
        ids = torch.randint(1000, vocabulary, (16, BLOCK_TOKENS), generator=generator)
        blocks[language] = PackedBlocks(
            input_ids=ids,
            targets=ids.roll(-1, 1),
            position_ids=torch.arange(BLOCK_TOKENS).expand_as(ids).contiguous(),
            language_id=torch.full_like(ids, index),
            document_index=torch.zeros_like(ids),
            languages=LANGUAGES,
            separator_id=0,
            num_documents=1,
        )
    return BlockSchedule(blocks, blocks_per_step=blocks_per_step, seed=0)


def stepper(
    model: nn.Module, terms: Sequence[Term], precision: str, blocks: int = BLOCKS, **ways: bool
) -> Callable[[], None]:
    """Return a function that makes the loop's next step, computed in the given ways."""
    settings = TrainSettings(tokens=10**6, precision=precision, blocks_per_step=blocks, blocks_per_forward=blocks)
    settings = training.train_settings(settings, model, settings.tokens)
    ALWAYS.enter_context(keep_freed_memory())  # as `train` does
    schedule = random_schedule(40_000, blocks)
    named = list(training.trainable_parameters(model))
    optimizer = training.make_optimizer(named, settings)
    model.train()
    ALWAYS.enter_context(compute_options(model, **ways))
    count = 0

    def step() -> None:
        nonlocal count
        recording = record_routing(model) if moe_layers(model) else None
        record = recording.__enter__() if recording else RoutingRecord()
        try:
            stepper = Stepper(
                model,
                schedule,
                terms,
                optimizer,
                record,
                join_processes(),
                blocks_per_forward=settings.blocks_per_forward,
                is_bf16=precision == "bf16",
            )
            stepper.gradients(count)
            stepper.update()
        finally:
            if recording:
                recording.__exit__(None, None, None)
        count += 1

    return step


def prepared(new: int) -> PeftModel:
    """Return SmolLM2 with so many new experts in every layer."""
    base, _ = lab.load_base("smollm2-135m")
    return lab.upcycle(base, lab.uniform(30, new))


def stages(rounds: int, precision: str, blocks: int, rows: list[Row]) -> None:
    """Stage 1 and stage 2 with 1 and 3 new experts beside full fine-tuning."""
    ids = torch.randint(1000, 40_000, (blocks, BLOCK_TOKENS), generator=torch.Generator().manual_seed(1))
    base, _ = lab.load_base("smollm2-135m")
    of = sizes(base, BLOCK_TOKENS)
    actions = {"dense": stepper(lab.baselines.full(base), [lm_term()], precision, blocks)}
    expands, reviews = {}, {}
    for new in (1, 3):
        model = prepared(new)
        visited, visited_new = visits(model, ids)
        set_trainable(model, experts=True, routers=True)
        terms = [lm_term(), balance_term(model, 0.01)]
        actions[f"expand {new}"] = stepper(model, terms, precision, blocks)
        reviewed = prepared(new)
        set_trainable(reviewed, experts=False, routers=True)
        actions[f"review {new}"] = stepper(reviewed, [lm_term(), lpr_term(1, 0.1)], precision, blocks)
        expands[new] = expand_step(of, visited, visited_new)
        reviews[new] = review_step(of, visited) / expands[new]
    seconds = in_turns(actions, rounds)
    for new in (1, 3):
        experts = f"{new} new expert{'s' if new > 1 else ''} per layer, {precision}, {blocks * BLOCK_TOKENS:,} tokens"
        bound = expands[new] / dense_step(of)
        against = f"full fine-tuning step × {bound:.2f} (ratio of operations)"
        of_stage1 = seconds[f"expand {new}"]
        what = f"Stage-1 step, {experts}"
        rows.append(compared(what, against, of_stage1, seconds["dense"], at_most=1.1, bound=bound))
        rows.append(compared(what, "full fine-tuning step", of_stage1, seconds["dense"]))
        what, note = f"Stage-2 step, {experts}", f"operations: {reviews[new]:.2f}"
        rows.append(compared(what, "stage-1 step", seconds[f"review {new}"], of_stage1, at_most=0.8, note=note))
    save("step_speed", rows)


def review_without_backpropagation(rounds: int, rows: list[Row]) -> None:
    """The closed-form review of two languages, solving included, beside as many tokens of stage-1 steps."""
    model, tokenizer = prepared(1), lab.load_base("smollm2-135m")[1]
    fitted = lab.upcycle(lab.load_base("smollm2-135m")[0], lab.uniform(30, 1), router_bias=True)
    corpus = lab.load_corpus("demo", languages=list(LANGUAGES))
    set_trainable(model, experts=True, routers=True)
    step = stepper(model, [lm_term(), balance_term(model, 0.01)], "fp32", BLOCKS)
    tokens = 4096
    settings = lab.FitSettings(tokens_per_language=tokens, precision="fp32")

    def local() -> None:
        lab.fit_routers(fitted, tokenizer, corpus, original=["en"], expanded=["el"], settings=settings)

    def trained() -> None:
        for _ in range(2 * tokens // (BLOCKS * BLOCK_TOKENS)):
            step()

    seconds = in_turns({"local": local, "trained": trained}, rounds)
    what = f"Review in closed form, {2 * tokens:,} tokens, fp32"
    rows.append(compared(what, "stage-1 steps of as many tokens", seconds["local"], seconds["trained"], at_most=0.45))
    save("step_speed", rows)


def small_step(num_layers: int, new: int, blocks: int = BLOCKS) -> Callable[[], None]:
    """Return the stage-1 step of SmolLM2's first layers with so many new experts in each."""
    model, _ = lab.load_base("smollm2-135m")
    del model.model.layers[num_layers:]
    model.config.num_hidden_layers = num_layers
    model = lab.upcycle(model, lab.uniform(num_layers, new))
    set_trainable(model, experts=True, routers=True)
    return stepper(model, [lm_term(), balance_term(model, 0.01)], "fp32", blocks)


def growth(rounds: int, blocks: int, rows: list[Row]) -> None:
    """A stage-1 step as experts grow from 2 to 16, on the first six layers; all sixteen in all layers take 19 GB."""
    actions = {str(experts): small_step(6, experts - 1, blocks) for experts in (2, 4, 8, 16)}
    seconds = in_turns(actions, rounds)
    for experts in ("4", "8", "16"):
        what = f"Stage-1 step, {experts} experts in each of 6 layers, {blocks * BLOCK_TOKENS:,} tokens"
        rows.append(compared(what, "the same with 2", seconds[experts], seconds["2"], at_most=1.15))
    save("step_speed", rows)


def ways_to_compute(rounds: int, rows: list[Row]) -> None:
    """A stage-1 step with its surroundings compiled, and with activations made again, beside a plain one."""
    actions = {}
    for name, way in {"plain": {}, "compiled": {"compiled": True}, "again": {"activation_checkpointing": True}}.items():
        model = prepared(1)
        set_trainable(model, experts=True, routers=True)
        actions[name] = stepper(model, [lm_term(), balance_term(model, 0.01)], "fp32", **way)
    seconds = in_turns(actions, rounds)
    for what, name in (("Compiled", "compiled"), ("With activation checkpointing", "again")):
        text = f"{what}: stage-1 step, 1 new expert per layer, fp32, {BLOCKS * BLOCK_TOKENS:,} tokens"
        rows.append(compared(text, "the plain step", seconds[name], seconds["plain"]))
    save("step_speed", rows)


def profile(rows: list[Row]) -> None:
    """Where a stage-1 step's time goes."""
    step = small_step(30, 1)
    step()
    with torch.profiler.profile() as seen:
        step()
    own = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in seen.key_averages()}
    total = sum(own.values())
    share = 100 * own.pop("mm") / total
    largest = sorted(own.items(), key=lambda item: -item[1])[:6]
    note = "next: " + ", ".join(f"{name.strip('_')} {100 * time / total:.1f} %" for name, time in largest)
    what = "Matrix products' share of a stage-1 step, 1 new expert per layer, fp32"
    rows.append(Row(what, "the whole step", "–", share, share, share, None, " %", note))
    save("step_speed", rows)


PARTS = {
    "ways_to_compute": lambda rounds, rows: ways_to_compute(rounds, rows),
    "profile": lambda _, rows: profile(rows),
    "fp32": lambda rounds, rows: stages(rounds, "fp32", BLOCKS, rows),
    "closed_form": lambda rounds, rows: review_without_backpropagation(max(2, rounds // 2), rows),
    "growth": lambda rounds, rows: growth(rounds, BLOCKS, rows),
    "growth_of_large_steps": lambda rounds, rows: growth(max(2, rounds // 2), 4 * BLOCKS, rows),
    # Without instructions for it, a processor takes an order of magnitude longer in bf16.
    "bf16": lambda rounds, rows: stages(max(2, rounds // 2), "bf16", 1, rows),
}


def main(rounds: int, parts: Sequence[str]) -> None:
    """Measure all parts, or those named."""
    rows: list[Row] = []
    for part in parts or PARTS:
        PARTS[part](rounds, rows)
        gc.collect()
    ALWAYS.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7, sys.argv[2:])
