"""Training steps of both stages beside full fine-tuning, and how a step grows with the experts there are.

    .venv/bin/python tests/benchmarks/step_speed.py [rounds]

On SmolLM2, 4 blocks of 256 tokens, the loop's own step with its optimiser, in turns. What is reached is compared with
what arithmetic allows (see arithmetic.py): the seconds of full fine-tuning times the ratio of operations.
"""

import gc
import sys
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from arithmetic import dense_step, expand_step, review_step, sizes, visits
from measuring import Row, compared, in_turns, save
from torch import nn

import lpr_lab as lab
from lpr_lab.method import training
from lpr_lab.method.schedule import BlockSchedule
from lpr_lab.method.terms import Term, balance_term, lm_term, lpr_term
from lpr_lab.method.training import TrainSettings
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import RoutingRecord, record_routing
from lpr_lab.model.stages import set_trainable
from lpr_lab.text.packing import PackedBlocks

BLOCK_TOKENS, BLOCKS = 256, 4
LANGUAGES = ("en", "el")


def random_schedule(vocabulary: int) -> BlockSchedule:
    """Return blocks of random tokens in two languages: a step takes the same time whatever they say."""
    generator = torch.Generator().manual_seed(0)
    blocks = {}
    for index, language in enumerate(LANGUAGES):
        ids = torch.randint(1000, vocabulary, (8, BLOCK_TOKENS), generator=generator)
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
    return BlockSchedule(blocks, blocks_per_step=BLOCKS, seed=0)


def stepper(model: nn.Module, terms: Sequence[Term], precision: str) -> Callable[[], None]:
    """Return a function that makes the loop's next step."""
    settings = TrainSettings(tokens=10**6, precision=precision, blocks_per_forward=BLOCKS)
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision="bf16" if precision == "bf16" else "no", cpu=True)
    schedule = random_schedule(40_000)
    named = list(training.trainable_parameters(model))
    optimizer = training.make_optimizer(named, settings)
    wrapped = accelerator.prepare_model(model)
    model.train()
    count = 0

    def step() -> None:
        nonlocal count
        recording = record_routing(model) if moe_layers(model) else None
        record = recording.__enter__() if recording else RoutingRecord()
        try:
            training._step(accelerator, wrapped, schedule, count, terms, settings, optimizer, record)
        finally:
            if recording:
                recording.__exit__(None, None, None)
        count += 1

    return step


def stages(rounds: int, precision: str, rows: list[Row]) -> None:
    """Stage 1 with 1 and 3 new experts and stage 2 beside full fine-tuning."""
    actions, bounds = {}, {}
    ids = torch.randint(1000, 40_000, (BLOCKS, BLOCK_TOKENS), generator=torch.Generator().manual_seed(1))
    base, _ = lab.load_base("smollm2-135m")
    of = sizes(base, BLOCK_TOKENS)
    actions["dense"] = stepper(lab.baselines.full(base), [lm_term()], precision)
    for new in (1, 3):
        model, _ = lab.load_base("smollm2-135m")
        model = lab.upcycle(model, lab.uniform(30, new))
        visited, visited_new = visits(model, ids)
        set_trainable(model, experts=True, routers=True)
        actions[f"expand {new}"] = stepper(model, [lm_term(), balance_term(model, 0.01)], precision)
        bounds[f"expand {new}"] = expand_step(of, visited, visited_new) / dense_step(of)
        if new == 1:
            reviewed, _ = lab.load_base("smollm2-135m")
            reviewed = lab.upcycle(reviewed, lab.uniform(30, 1))
            set_trainable(reviewed, experts=False, routers=True)
            actions["review"] = stepper(reviewed, [lm_term(), lpr_term(1, 0.1)], precision)
            bounds["review"] = review_step(of, visited) / expand_step(of, visited, visited_new)
    seconds = in_turns(actions, rounds)
    for new in (1, 3):
        name, bound = f"expand {new}", bounds[f"expand {new}"]
        what = f"Stage-1 step, {new} new expert{'s' if new > 1 else ''} per layer, {precision}"
        against = f"full fine-tuning step × {bound:.2f} (ratio of operations)"
        rows.append(compared(what, against, seconds[name], seconds["dense"], at_most=1.1, bound=bound))
        rows.append(compared(what, "full fine-tuning step", seconds[name], seconds["dense"]))
    note = f"operations: {bounds['review']:.2f}"
    rows.append(
        compared(
            f"Stage-2 step, {precision}", "stage-1 step", seconds["review"], seconds["expand 1"], at_most=0.8, note=note
        )
    )
    save("step_speed", rows, precision=precision)


def growth(rounds: int, rows: list[Row]) -> None:
    """A stage-1 step as experts grow from 2 to 16, on the first six layers; all sixteen in all layers take 19 GB."""
    actions = {}
    for experts in (2, 4, 8, 16):
        model, _ = lab.load_base("smollm2-135m")
        layers = model.model.layers
        del layers[6:]
        model.config.num_hidden_layers = 6
        model = lab.upcycle(model, lab.uniform(6, experts - 1))
        set_trainable(model, experts=True, routers=True)
        actions[str(experts)] = stepper(model, [lm_term(), balance_term(model, 0.01)], "fp32")
        del model
        gc.collect()
    seconds = in_turns(actions, rounds)
    for experts in ("4", "8", "16"):
        what = f"Stage-1 step, {experts} experts in each of 6 layers"
        rows.append(compared(what, "the same with 2", seconds[experts], seconds["2"], at_most=1.15))
    save("step_speed", rows)


def main(rounds: int) -> None:
    """Measure."""
    rows: list[Row] = []
    stages(rounds, "fp32", rows)
    gc.collect()
    growth(rounds, rows)
    stages(max(2, rounds // 2), "bf16", rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
