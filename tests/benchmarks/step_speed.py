"""Training steps of both stages beside full fine-tuning, and how a step grows with the experts there are.

    .venv/bin/python tests/benchmarks/step_speed.py [rounds [part ...]]

On SmolLM2, 4 blocks of 256 tokens, the loop's own step with its optimiser, in turns. What is reached is compared with
what arithmetic allows (see arithmetic.py): the seconds of full fine-tuning times the ratio of operations.
"""

import gc
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from arithmetic import dense_step, expand_step, review_step, sizes, visits
from measuring import Row, compared, in_turns, matrix_products, peak_of, peak_share, save
from peft import PeftModel
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments

import lpr_lab as lab
from lpr_lab.method.training import train as training
from lpr_lab.method.training.compute import compute_options
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.method.training.step import Stepper
from lpr_lab.method.training.terms import Term, balance_term, lm_term, lpr_term
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import RoutingRecord, record_routing
from lpr_lab.model.experts import mix_by_loop
from lpr_lab.model.head import loss_of_states, next_token_losses
from lpr_lab.model.machine import keep_freed_memory, resolve_base_dtype, resolve_precision
from lpr_lab.model.parallel.processes import join_processes
from lpr_lab.model.stages import set_trainable
from lpr_lab.text.packing import PackedBlocks

BLOCK_TOKENS, BLOCKS = 256, 4
LANGUAGES = ("en", "el")
ALWAYS = ExitStack()
"""Compute options, which last as long as a part."""


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
    model: nn.Module,
    terms: Sequence[Term],
    precision: str,
    blocks: int = BLOCKS,
    *,
    whole_logits: bool = False,
    **ways: Any,
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
    without_logits = False
    if not whole_logits:
        without_logits = ALWAYS.enter_context(next_token_losses(model))
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
                without_logits=without_logits,
            )
            stepper.gradients(count)
            stepper.update()
        finally:
            if recording:
                recording.__exit__(None, None, None)
        count += 1

    return step


def prepared(new: int, base_dtype: torch.dtype = torch.float32) -> PeftModel:
    """Return SmolLM2 with so many new experts in every layer."""
    base, _ = lab.load_base("smollm2-135m", dtype=base_dtype)
    return lab.upcycle(base, lab.uniform(30, new))


def stages(rounds: int, precision: str, blocks: int, rows: list[Row]) -> None:
    """Stage 1 and stage 2 with 1 and 3 new experts beside full fine-tuning, each with its share of the matrix peak."""
    ids = torch.randint(1000, 40_000, (blocks, BLOCK_TOKENS), generator=torch.Generator().manual_seed(1))
    base, _ = lab.load_base("smollm2-135m")
    of, held = sizes(base, BLOCK_TOKENS), resolve_base_dtype("auto", precision)
    actions = {
        "peak": matrix_products(precision),
        "dense": stepper(lab.baselines.full(base), [lm_term()], precision, blocks),
    }
    expands, reviews = {}, {}
    for new in (1, 3):
        model = prepared(new, held)
        visited, visited_new = visits(model, ids)
        set_trainable(model, experts=True, routers=True)
        terms = [lm_term(), balance_term(model, 0.01)]
        actions[f"expand {new}"] = stepper(model, terms, precision, blocks)
        reviewed = prepared(new, held)
        set_trainable(reviewed, experts=False, routers=True)
        actions[f"review {new}"] = stepper(reviewed, [lm_term(), lpr_term(1, 0.1)], precision, blocks)
        expands[new] = expand_step(of, visited, visited_new)
        reviews[new] = review_step(of, visited)
    seconds, tokens = in_turns(actions, rounds), blocks * BLOCK_TOKENS
    shares = {"dense": peak_share(dense_step(of) * tokens, seconds["dense"], seconds["peak"])}
    for new in (1, 3):
        experts = f"{new} new expert{'s' if new > 1 else ''} per layer, {precision}, {tokens:,} tokens"
        bound = expands[new] / dense_step(of)
        against = f"full fine-tuning step × {bound:.2f} (ratio of operations)"
        of_stage1, of_stage2 = seconds[f"expand {new}"], seconds[f"review {new}"]
        what = f"Stage-1 step, {experts}"
        rows.append(compared(what, against, of_stage1, seconds["dense"], at_most=1.1, bound=bound))
        share = peak_share(expands[new] * tokens, of_stage1, seconds["peak"])
        note = f"{share} of the matrix peak, full fine-tuning {shares['dense']}; {peak_of(seconds['peak'])}"
        rows.append(compared(what, "full fine-tuning step", of_stage1, seconds["dense"], note=note))
        share = peak_share(reviews[new] * tokens, of_stage2, seconds["peak"])
        what, note = f"Stage-2 step, {experts}", f"operations: {reviews[new] / expands[new]:.2f}; {share} of the peak"
        rows.append(compared(what, "stage-1 step", of_stage2, of_stage1, at_most=0.8, note=note))
    save("step_speed", rows)


def ways_to_lose(rounds: int, rows: list[Row]) -> None:
    """A stage-1 step beside itself with whole logits, and beside itself on a base in float32, in either precision."""
    for precision in ("fp32", "bf16"):
        if precision == "bf16" and resolve_precision("auto") != "bf16":
            continue
        held = resolve_base_dtype("auto", precision)
        plain = {"plain": (held, True), "pieces": (held, False), "float32": (torch.float32, True)}
        if held == torch.float32:
            plain.pop("float32")
        actions = {"peak": matrix_products(precision)}
        for name, (dtype, whole_logits) in plain.items():
            model = prepared(1, dtype)
            set_trainable(model, experts=True, routers=True)
            terms = [lm_term(), balance_term(model, 0.01)]
            actions[name] = stepper(model, terms, precision, whole_logits=whole_logits)
        seconds = in_turns(actions, rounds)
        what = f"Stage-1 step, logits a few rows at a time, 1 new expert per layer, {precision}"
        rows.append(compared(what, "whole logits", seconds["pieces"], seconds["plain"]))
        if "float32" in seconds:
            what = (
                f"Stage-1 step, base in bfloat16 and logits a few rows at a time, 1 new expert per layer, {precision}"
            )
            against = "base in float32, whole logits (the step of before)"
            rows.append(compared(what, against, seconds["pieces"], seconds["float32"], at_least=1.5))
    save("step_speed", rows)


def head(rounds: int, rows: list[Row]) -> None:
    """Next-token loss and the gradient of its states, for 1,024 of SmolLM2's: whole logits, ours and torch's own."""
    base, _ = lab.load_base("smollm2-135m")
    base.requires_grad_(False)
    weight = base.get_output_embeddings().weight
    states = torch.randn(BLOCKS, BLOCK_TOKENS, weight.shape[1], requires_grad=True)
    ids = torch.randint(1000, 40_000, (BLOCKS, BLOCK_TOKENS))

    def of(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[], None]:
        return lambda: loss(states.flatten(0, 1), ids.flatten()).backward()

    def torchs(**options: int) -> Callable[[], None]:
        chosen = nn.LinearCrossEntropyOptions(**options)
        return of(lambda x, y: F.linear_cross_entropy(x, weight, y, reduction="sum", options=chosen))

    actions = {
        "whole": of(lambda x, y: F.cross_entropy(F.linear(x, weight), y, reduction="sum")),
        "ours": lambda: loss_of_states(base, states, ids, "sum").backward(),
        "torch": torchs(),
        "torch, 512 rows": torchs(batch_chunk_size=512),
    }
    with keep_freed_memory():
        seconds = in_turns(actions, rounds)
    what = "Next-token loss and its gradient, 1,024 states of SmolLM2, fp32"
    for name, how in (("ours", "a few rows at a time"), ("torch", "linear_cross_entropy, its own choice of rows"),
                      ("torch, 512 rows", "linear_cross_entropy, 512 rows")):  # fmt: skip
        rows.append(compared(f"{what}, {how}", "whole logits", seconds[name], seconds["whole"]))
    save("step_speed", rows)


def trainers_step(model: PreTrainedModel, precision: str) -> Callable[[], None]:
    """Return a function that makes the next step of transformers' Trainer, on the same texts as ours."""
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(), per_device_train_batch_size=BLOCKS, max_steps=10**4, bf16=precision == "bf16",
        use_cpu=not torch.cuda.is_available(), report_to=[], save_strategy="no", learning_rate=1e-5,
    )  # fmt: skip
    trainer: Any = Trainer(model, arguments)
    trainer.create_optimizer_and_scheduler(10**4)
    trainer.current_gradient_accumulation_steps = 1  # `train` sets it, and a single step reads it
    schedule, count = random_schedule(min(40_000, model.config.vocab_size), BLOCKS), 0

    def step() -> None:
        nonlocal count
        batch = schedule.batch(count)
        given = {"input_ids": batch["input_ids"], "labels": batch["input_ids"], "position_ids": batch["position_ids"]}
        trainer.training_step(model.train(), given)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        count += 1

    return step


def native(rounds: int, rows: list[Row]) -> None:
    """The step that a user would take instead: transformers' Trainer on the same mixture as a native Mixtral.

    Mixtral keeps all experts of a layer in one tensor, so expert 0 learns as well there; all else is frozen.
    """
    precision = resolve_precision("auto")
    with tempfile.TemporaryDirectory() as folder:
        lab.export(prepared(1), Path(folder) / "mixtral", "mixtral")
        mixtral = AutoModelForCausalLM.from_pretrained(Path(folder) / "mixtral", dtype=torch.float32)
    for name, parameter in mixtral.named_parameters():
        parameter.requires_grad_(".mlp." in name)
    model = prepared(1, resolve_base_dtype("auto"))
    set_trainable(model, experts=True, routers=True)
    ours = stepper(model, [lm_term(), balance_term(model, 0.01)], precision)
    seconds = in_turns({"ours": ours, "trainer": trainers_step(mixtral, precision)}, rounds)
    what = f"Stage-1 step, 1 new expert per layer, {precision}, {BLOCKS * BLOCK_TOKENS:,} tokens"
    note = "expert 0 learns there as well, all else is frozen in both"
    against = "transformers' Trainer on the same native Mixtral"
    rows.append(compared(what, against, seconds["ours"], seconds["trainer"], at_least=1.0, note=note))
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
    """A stage-1 step with its surroundings compiled, with parts run again, and by the plain loop over experts."""
    actions, ways = {}, {
        "plain": {}, "loop": {}, "compiled": {"compiled": True}, "again": {"activation_checkpointing": True},
        "experts": {"activation_checkpointing": "experts"},
    }  # fmt: skip
    for name, way in ways.items():
        model = prepared(1)
        for layer in moe_layers(model) if name == "loop" else ():
            layer.dispatch = mix_by_loop
        set_trainable(model, experts=True, routers=True)
        actions[name] = stepper(model, [lm_term(), balance_term(model, 0.01)], "fp32", **way)
    seconds = in_turns(actions, rounds)
    for what, name in (("Compiled", "compiled"), ("With activation checkpointing", "again"),
                       ("With experts run again", "experts"), ("Plain loop over experts", "loop")):  # fmt: skip
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


def bf16_blocks() -> int:
    """Return the blocks of a bf16 step: without instructions for it, a processor takes an order of magnitude longer."""
    return BLOCKS if resolve_precision("auto") == "bf16" else 1


PARTS = {
    "ways_to_compute": lambda rounds, rows: ways_to_compute(rounds, rows),
    "profile": lambda _, rows: profile(rows),
    "ways_to_lose": lambda rounds, rows: ways_to_lose(rounds, rows),
    "head": lambda rounds, rows: head(rounds, rows),
    "native": lambda rounds, rows: native(rounds, rows),
    "fp32": lambda rounds, rows: stages(rounds, "fp32", BLOCKS, rows),
    "closed_form": lambda rounds, rows: review_without_backpropagation(max(2, rounds // 2), rows),
    "growth": lambda rounds, rows: growth(rounds, BLOCKS, rows),
    "growth_of_large_steps": lambda rounds, rows: growth(max(2, rounds // 2), 4 * BLOCKS, rows),
    "bf16": lambda rounds, rows: stages(max(2, rounds // 2), "bf16", bf16_blocks(), rows),
}


def main(rounds: int, parts: Sequence[str]) -> None:
    """Measure all parts, or those named."""
    rows: list[Row] = []
    for part in parts or PARTS:
        PARTS[part](rounds, rows)
        ALWAYS.close()  # else the models of every part are held to the end: 23 GB
        gc.collect()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7, sys.argv[2:])
