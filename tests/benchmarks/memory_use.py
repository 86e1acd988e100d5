"""Peak memory of training, of comparing base and expanded, and of similarity, each in a process of its own.

    .venv/bin/python tests/benchmarks/memory_use.py [part ...]

The part `kept` is counted, not measured: the tensors that a step keeps for its backward pass.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from measuring import Row, kept_for_backward, peak_mib, save

BASE = "smollm2-135m"
Start = Callable[[], None]


def dense_training(start: Start, **ways: Any) -> None:
    """Three steps of full fine-tuning, beyond the model."""
    import step_speed

    import lpr_lab as lab
    from lpr_lab.method.training.terms import lm_term
    from lpr_lab.model.machine import resolve_precision

    base, _ = lab.load_base(BASE)
    start()
    step = step_speed.stepper(base.requires_grad_(True), [lm_term()], resolve_precision("auto"), **ways)
    for _ in range(3):
        step()
    step_speed.ALWAYS.close()


def expansion_training(start: Start, **ways: Any) -> None:
    """Three steps of stage 1 with one new expert per layer, the experts included."""
    import step_speed

    import lpr_lab as lab
    from lpr_lab.method.training.terms import balance_term, lm_term
    from lpr_lab.model.machine import resolve_base_dtype, resolve_precision
    from lpr_lab.model.stages import set_trainable

    base, _ = lab.load_base(BASE, dtype=resolve_base_dtype("auto"))
    start()
    model = lab.upcycle(base, lab.uniform(30))
    set_trainable(model, experts=True, routers=True)
    step = step_speed.stepper(model, [lm_term(), balance_term(model, 0.01)], resolve_precision("auto"), **ways)
    for _ in range(3):
        step()
    step_speed.ALWAYS.close()


def dense_training_again(start: Start) -> None:
    """The first with activation checkpointing."""
    dense_training(start, activation_checkpointing=True)


def expansion_training_again(start: Start) -> None:
    """The second with activation checkpointing."""
    expansion_training(start, activation_checkpointing=True)


def dense_training_whole(start: Start) -> None:
    """The first with whole logits, as other trainers make them."""
    dense_training(start, whole_logits=True)


def expansion_training_whole(start: Start) -> None:
    """The second with whole logits."""
    expansion_training(start, whole_logits=True)


def expansion_training_experts(start: Start) -> None:
    """The second with each expert run again."""
    expansion_training(start, activation_checkpointing="experts")


def count_kept(rows: list[Row]) -> None:
    """What the forward pass of a step keeps for the backward pass: full fine-tuning, and stage 1 in its ways.

    Counted, not measured: it says where memory goes, whatever the allocator makes of it, on a busy machine, too.
    """
    import step_speed

    import lpr_lab as lab
    from lpr_lab.method.training.compute import compute_options
    from lpr_lab.model.experts import mix, mix_by_loop
    from lpr_lab.model.mixture import all_layers
    from lpr_lab.model.stages import set_trainable

    ids = step_speed.random_schedule(40_000, step_speed.BLOCKS).batch(0)["input_ids"]
    tokens = ids.numel()
    base, _ = lab.load_base(BASE)
    base.requires_grad_(True)
    dense, of_dense = kept_for_backward(base, lambda: base.base_model(ids, use_cache=False))
    model = lab.upcycle(base, lab.uniform(30))
    set_trainable(model, experts=True, routers=True)
    decoder = model.get_base_model().base_model
    ways: dict[str, Any] = {"plain loop": False, "as it trains": False, "experts run again": "experts"}
    rows.append(_kept_row("Full fine-tuning", dense, dense, of_dense, tokens))
    for name, again in ways.items():
        for layer in all_layers(model):
            layer.dispatch = mix_by_loop if name == "plain loop" else mix
        with compute_options(model.train(), activation_checkpointing=again):
            stage1, of_stage1 = kept_for_backward(model, lambda: decoder(ids, use_cache=False))
        rows.append(_kept_row(f"Stage 1, {name}", stage1, dense, of_stage1, tokens))
    save("memory_use", rows)


def _kept_row(what: str, mib: float, dense: float, by_place: dict[str, float], tokens: int) -> Row:
    largest = ", ".join(f"{size:,.0f} {place}" for place, size in list(by_place.items())[:8])
    per_layer = mib * 1024 / tokens / 30
    note = f"{mib:,.0f} MiB, {per_layer:.1f} KiB per token and layer; largest: {largest}"
    ratio = mib / dense
    return Row(f"{what}: kept for the backward pass, {tokens:,} tokens", "full fine-tuning", "–", ratio, ratio, ratio,
               None, note=note)  # fmt: skip


def _all_imported() -> Any:
    """Return the library with all that either side of the comparison imports, which is not what is compared."""
    import peft
    import transformers

    import lpr_lab as lab

    del peft, transformers
    _ = lab.load_base, lab.upcycle, lab.uniform, lab.generate_pair
    return lab


def loaded(start: Start) -> None:
    """Hold an expanded model and continue a prompt with it."""
    import torch

    lab = _all_imported()
    start()
    base, tokenizer = lab.load_base(BASE)
    model = lab.upcycle(base, lab.uniform(30))
    with torch.no_grad():
        model.generate(**tokenizer("The ferry", return_tensors="pt"), max_new_tokens=16, do_sample=False)


def compared_models(start: Start) -> None:
    """Hold base and expanded model and continue a prompt with both."""
    lab = _all_imported()
    start()
    base, tokenizer = lab.load_base(BASE)
    model = lab.upcycle(base, lab.uniform(30))
    for _ in lab.generate_pair(model, tokenizer, "The ferry", max_new_tokens=16):
        pass


def streaming_similarity(start: Start, tokens: int) -> None:
    """Similarity of two languages, all layers, beyond the model and one forward pass of it."""
    import torch

    import lpr_lab as lab

    base, tokenizer = lab.load_base(BASE)
    corpus = lab.load_corpus("demo", languages=["en", "el"])
    base.base_model(input_ids=torch.ones(1, 256, dtype=torch.long), use_cache=False)
    lab.measure_similarity(base, tokenizer, corpus, original=["en"], expanded=["el"], tokens_per_language=512)
    start()
    lab.measure_similarity(base, tokenizer, corpus, original=["en"], expanded=["el"], tokens_per_language=tokens)


def pairwise_similarity(start: Start, tokens: int) -> None:
    """The released form for one layer: keep every state, normalise, multiply all with all."""
    import torch

    start()
    states = [torch.randn(tokens, 576) for _ in range(2)]
    unit = [torch.nn.functional.normalize(x, dim=-1) for x in states]
    float((unit[0] @ unit[1].T).mean())


def _row(what: str, against: str, of: float, to: float, reach: float | None, note: str) -> Row:
    holds = None if reach is None else of <= reach * to
    return Row(what, against, "–" if reach is None else f"≤ {reach:g}×", of / to, of / to, of / to, holds, note=note)


def training(rows: list[Row]) -> None:
    """Peak memory of stage 1 beside full fine-tuning, each in the ways that it can be trained."""
    what, against = "Peak memory of stage 1", "full fine-tuning"
    dense, expansion = peak_mib(dense_training), peak_mib(expansion_training)
    note = f"{expansion:,.0f} against {dense:,.0f} MiB beyond the loaded base, 1,024 tokens a step"
    rows.append(_row(what, against, expansion, dense, 0.6, note))
    again = peak_mib(expansion_training_experts)
    rows.append(
        _row(f"{what}, experts run again", against, again, dense, 0.6, f"{again:,.0f} against {dense:,.0f} MiB")
    )
    save("memory_use", rows)


def training_otherwise(rows: list[Row]) -> None:
    """The same with whole logits, and with whole layers run again."""
    what, against = "Peak memory of stage 1", "full fine-tuning"
    expansion = peak_mib(expansion_training)
    whole_dense, whole = peak_mib(dense_training_whole), peak_mib(expansion_training_whole)
    note = f"{expansion:,.0f} against {whole_dense:,.0f} MiB"
    rows.append(_row(what, f"{against} with whole logits", expansion, whole_dense, 0.6, note))
    note = f"{expansion:,.0f} against {whole:,.0f} MiB"
    rows.append(_row(what, "stage 1 with whole logits", expansion, whole, None, note))
    dense, expansion = peak_mib(dense_training_again), peak_mib(expansion_training_again)
    note = f"{expansion:,.0f} against {dense:,.0f} MiB"
    rows.append(_row(f"{what}, activation checkpointing", f"{against} with it", expansion, dense, 0.6, note))
    save("memory_use", rows)


def comparing(rows: list[Row]) -> None:
    """Peak memory of comparing two models."""
    one, both = peak_mib(loaded), peak_mib(compared_models)
    note = f"{both:,.0f} against {one:,.0f} MiB"
    rows.append(_row("Peak memory of comparing two models", "one model", both, one, 1.1, note))
    save("memory_use", rows)


def similarity(rows: list[Row]) -> None:
    """Memory of similarity by sums, and by the released form."""
    tokens = 20_000
    streaming, pairwise = peak_mib(streaming_similarity, tokens), peak_mib(pairwise_similarity, tokens)
    kept = 2 * 30 * 576 * 4 / 2**20
    # What the method itself keeps is L x D per language; what the process grew by is mostly the forward pass.
    matrix = 30 * tokens**2 * 4 / 2**20
    note = (
        f"{kept:.2f} MiB of sums for 2 languages and 30 layers; 30 matrices of {tokens:,} × {tokens:,} would be "
        f"{matrix:,.0f} MiB. Seen: the process grew by {streaming:.1f} MiB, that of one layer's matrix by "
        f"{pairwise:,.0f} MiB"
    )
    rows.append(
        Row("Memory of similarity", "all pairs at once", "≥ 1000× less", matrix / kept, matrix / kept, matrix / kept,
            matrix >= 1000 * kept, note=note)
    )  # fmt: skip
    save("memory_use", rows)


PARTS: dict[str, Callable[[list[Row]], None]] = {
    "kept": count_kept,
    "training": training,
    "training_otherwise": training_otherwise,
    "comparing": comparing,
    "similarity": similarity,
}


def main(parts: Sequence[str]) -> None:
    """Measure all parts, or those named."""
    rows: list[Row] = []
    for part in parts or PARTS:
        PARTS[part](rows)


if __name__ == "__main__":
    main(sys.argv[1:])
