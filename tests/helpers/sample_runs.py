"""Run directories for tests of views and dashboard: written by the real code, filled with made-up numbers, no torch.

The sentences were written for these tests. Tokens are cut by bytes in a fixed pseudo-random way, so that characters,
vowel signs and emoji are split as byte-level vocabularies split them.
"""

import copy
import functools
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import sentences
from lpr_lab.experiments import recipes
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.method.similarity_table import SimilarityTable
from lpr_lab.runs import claims
from lpr_lab.runs.environment import describe
from lpr_lab.runs.run import Run

SENTENCES = {code: sentences.SENTENCES[code] for code in ("en", "es", "el", "hu", "tr", "ar", "bn", "zh")}
MIXED = "She said שלום, then مرحبا — a 👨‍👩‍👧‍👦 family 🇬🇷!\n\tTwice."
HOSTILE = "<script>boom()</script> ${boom()} `boom` \\u \\x &amp; {{boom}} <img src=x onerror=boom()> \x07"
PAIRS = [
    ("el", "Μια φορά κι έναν καιρό", ", υπήρχε ένα μικρό μικρό μικρό", ", υπήρχε ένα χωριό δίπλα στη θάλασσα.", 9),
    ("hu", "Egyszer volt, hol nem volt,", " a kis kis kis", " élt egyszer egy öreg halász.", 1),
    ("en", "Once upon a time", ", there was a small house.", ", there was a small house.", None),
    ("ar", "كان يا ما كان", " في في في", " في قديم الزمان صيّاد.", 2),
]
ORIGINAL = ("en", "es")
EXPANDED = ("el", "hu", "tr")


def cut(text: str, seed: int = 0) -> list[bytes]:
    """Cut a text into pieces of bytes: whole short words, and others anywhere, also inside characters."""
    rng = random.Random(seed)
    pieces = []
    for word in re.findall(r"\s?\S+|\s+", text):
        data = word.encode()
        while data:
            size = len(data) if len(data) <= 4 else rng.choice((2, 3, 4, 5, 6))
            pieces.append(data[:size])
            data = data[size:]
    return pieces


def make_trace(
    text: str, language: str | None = None, *, num_layers: int = 30, num_experts: int = 2, seed: int = 0
) -> RoutingTrace:
    """Make a trace in which original languages go to expert 0 and all others to new experts, with some noise."""
    rng = np.random.default_rng(seed)
    token_bytes: list[bytes | None] = [None, *cut(text, seed)]
    count = len(token_bytes)
    center = 0.97 if language in ORIGINAL else 0.04
    depth = np.linspace(-1, 1, num_layers)[:, None]
    original = np.clip(
        center + rng.normal(0, 0.03, (num_layers, count)) - 0.06 * np.sign(center - 0.5) * depth**2, 0, 1
    )
    layers = np.arange(num_layers)
    experts = np.full(num_layers, num_experts)
    if num_experts > 2:
        experts = 2 + (layers * 7) % (num_experts - 1)
    other = np.stack([rng.integers(1, experts[row], count) for row in range(num_layers)])
    first_is_original = original >= 0.5
    ids = np.stack([np.where(first_is_original, 0, other), np.where(first_is_original, other, 0)], axis=-1)
    weights = np.stack([np.maximum(original, 1 - original), np.minimum(original, 1 - original)], axis=-1)
    base = -np.abs(rng.normal(4, 2, count))
    gain = rng.normal(0.0 if language in ORIGINAL else 1.2, 0.8, count)
    base[0] = np.nan
    return RoutingTrace(
        text=text,
        language=language,
        token_ids=[int(value) for value in rng.integers(0, 49152, count)],
        token_bytes=token_bytes,
        layers=layers,
        num_experts=experts,
        expert_ids=ids.astype(np.int64),
        expert_weights=weights.astype(np.float32),
        original_weight=original.astype(np.float32),
        log_prob=np.minimum(base + gain, -0.01),
        base_log_prob=base,
        model={"base": "smollm2-135m", "top_k": 2},
    )


def change_table() -> pd.DataFrame:
    rows = [
        ("en", "original", "dev", 1.512, 1.508, -0.26, -0.61, 0.08, 40, "no clear change"),
        ("es", "original", "dev", 2.214, 2.190, -1.08, -1.52, -0.66, 40, "better"),
        ("el", "expanded", "dev", 2.103, 1.571, -25.3, -26.4, -24.1, 40, "better"),
        ("hu", "expanded", "dev", 3.260, 2.760, -15.3, -16.2, -14.5, 40, "better"),
        ("tr", "expanded", "dev", 2.880, 2.486, -13.7, -14.6, -12.7, 40, "better"),
        ("en", "original", "heldout", 1.494, 1.499, 0.33, 0.05, 0.62, 24, "worse"),
        ("es", "original", "heldout", 2.233, 2.207, -1.16, -1.71, -0.60, 24, "better"),
        ("el", "expanded", "heldout", 2.119, 1.658, -21.8, -23.0, -20.4, 24, "better"),
        ("hu", "expanded", "heldout", 3.372, 2.948, -12.6, -13.7, -11.4, 24, "better"),
        ("tr", "expanded", "heldout", 2.913, 2.617, -10.2, -11.4, -8.9, 24, "better"),
    ]
    columns = "language role dataset before after change_percent ci_low ci_high n_documents verdict".split()
    return pd.DataFrame(rows, columns=columns).assign(test_set=lambda table: [f"{i:016x}" for i in range(len(table))])


def load_table(num_layers: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = []
    for code in ORIGINAL + EXPANDED:
        role = "original" if code in ORIGINAL else "expanded"
        for layer in range(num_layers):
            mass = float(np.clip((0.97 if role == "original" else 0.03) + rng.normal(0, 0.015), 0, 1))
            for expert, value in ((0, mass), (1, 1 - mass)):
                rows.append((code, role, "heldout", layer, expert, 0.5, value, 3072))
    return pd.DataFrame(rows, columns="language role dataset layer expert share mass n_tokens".split())


def log_training(run: Run, stage: str = "expand", steps: int = 60) -> None:
    for step in range(1, steps + 1, max(steps // 30, 1)):
        numbers = {"lm_loss": 2.9 * step**-0.12, "tokens_per_second": 900 + step % 7, "learning_rate": 3e-4}
        run.metrics.log({"step": step, "tokens": step * 1024, "t": step * 1.1, **numbers}, stage=stage)


def weight_table() -> pd.DataFrame:
    load = load_table()
    rows = load[load.expert == 0].groupby(["dataset", "role", "language"], sort=False)["mass"]
    return rows.mean().reset_index(name="original_weight")


def results() -> dict[str, Any]:
    """What the pipeline writes at the end of an expansion."""
    return copy.deepcopy(_results())


@functools.cache
def _results() -> dict[str, Any]:
    change, weights = change_table(), weight_table()
    summary = {
        dataset: {
            role: {
                "mean_change_percent": float(part.change_percent.mean()),
                "worst_change_percent": float(part.change_percent.max()),
                "original_weight": float(weights[weights.role == role].original_weight.mean()),
            }
            for role, part in rows.groupby("role", sort=False)
        }
        for dataset, rows in change.groupby("dataset", sort=False)
    }
    exactness = {"start_difference": 3.5e-5, "base_difference": 0.0, "largest_logit": 31.2}
    return {
        "schema_version": 1,
        "recipe": "route_first",
        "base": "smollm2-135m",
        "original": list(ORIGINAL),
        "expanded": list(EXPANDED),
        "summary": summary,
        "claims": claims.as_records(claims.check(change, weights, exactness)),
        "change": change.to_dict("records"),
        "routing": {"original_weight": weights.to_dict("records")},
        "exactness": exactness,
        "parameters": {"new": 79_626_240, "total": 214_141_248},
    }


_environment = functools.cache(describe)  # which asks git, in processes of its own


def make_run(root: Path, *, finished: bool = True, **create: Any) -> Run:
    """Make a complete run like the demo's, without weights."""
    given: dict[str, Any] = {
        "kind": "expansion",
        "slug": "route-first el hu tr",
        "title": "smollm2-135m: el, hu, tr beside en, es",
        "config": recipes.route_first().to_config(),
    }
    run = Run.create(root, **(given | create))
    run.documents.write("env", _environment())
    for code, text in SENTENCES.items():
        run.traces.write(code, make_trace(text, code))
    run.traces.write("mixed", make_trace(MIXED))
    run.tables.write("change", change_table())
    run.tables.write("load", load_table())
    for phase in ("prepare", "fit_routers", "expand", "save", "measure", "show"):
        run.phases.mark_done(phase)
    seconds = {"prepare": 21.4, "fit_routers": 48.0, "expand": 402.2, "measure": 96.1, "show": 14.9}
    run.phases.record("seconds", seconds)
    log_training(run)
    for language, prompt, base, expanded, diverged_at in PAIRS:
        record = {"language": language, "prompt": prompt, "base": base, "expanded": expanded}
        record |= {"diverged_at": diverged_at, "max_new_tokens": 32, "temperature": 0.0, "seed": 0}
        run.generations.append(record)
    if finished:
        run.finish(results())
    return run


def similarity_table(num_layers: int = 30, tokens: int = 20_000) -> SimilarityTable:
    """Make similarities with a hump in the middle, more alike between expanded languages than across."""
    languages = ORIGINAL + EXPANDED
    hump = 0.12 + 0.5 * np.sin(np.pi * np.arange(num_layers) / (num_layers - 1))
    pairs = np.repeat(hump[:, None, None], len(languages), 1).repeat(len(languages), 2)
    pairs[:, 2:, 2:] += 0.1
    return SimilarityTable(
        original=ORIGINAL,
        expanded=EXPANDED,
        pairs=pairs,
        num_tokens=(tokens,) * len(languages),
        expert_parameters=(2_654_208,) * num_layers,
        state="mlp_input",
    )


def make_plan_run(root: Path, *, tokens: int = 20_000, num_layers: int = 30) -> Run:
    """Make a run of the planning notebook, as far as the dashboard reads it."""
    config = {"base": "smollm2-135m", "corpus": "demo", "original": list(ORIGINAL), "expanded": list(EXPANDED)}
    run = Run.create(root, kind="plan", slug="el hu tr", title="smollm2-135m: a plan", config={**config, "budget": 60})
    table = similarity_table(num_layers, tokens)
    run.tables.write("similarity", table.to_frame())
    run.phases.record("similarity", table.to_json())
    run.finish({"schema_version": 1, **config, "tokens": dict.fromkeys(table.languages, tokens)})
    return run
