"""Made-up scores by document for runs of tests, consistent with one another: two stages, five languages."""

import hashlib

import numpy as np
import pandas as pd

from helpers.sample_runs import results
from lpr_lab.measure.forgetting import ScoredDocuments, bootstrap_draws, change_rows, document_rows
from lpr_lab.runs.run import Run

STAGES = ("G1 expand", "G1 review")
_EFFECTS = {"en": (0.06, 0.001), "es": (0.05, -0.02), "el": (-0.24, -0.22), "hu": (-0.15, -0.13), "tr": (-0.12, -0.10)}


def scored(seed: int = 0, texts: str = "", more: float = 0.0) -> list[ScoredDocuments]:
    """Score made-up documents: stage 1 hurts the original languages, the review repairs that.

    Args:
        seed: of the scores.
        texts: another word makes other test sets of it.
        more: added to every change that the last stage makes, as a share.
    """
    rng = np.random.default_rng(seed)
    sets = []
    for dataset, count in (("heldout", 24), ("dev", 40)):
        for code, effects in _EFFECTS.items():
            sizes = np.random.default_rng(len(code) + count).integers(80, 900, count)
            base = rng.normal(2.2, 0.25, count).clip(1) * np.log(2) * sizes
            nats = {"base": base}
            for stage, effect in zip(STAGES, effects, strict=True):
                nats[stage] = base * (1 + effect + more * (stage == STAGES[-1]) + rng.normal(0, 0.03, count))
            role = "original" if code in ("en", "es") else "expanded"
            digest = hashlib.sha256(f"{dataset}{code}{texts}".encode()).hexdigest()
            ids = tuple(f"{dataset}/{code}/{number:03}" for number in range(count))
            sets.append(ScoredDocuments(code, role, dataset, digest, sizes, nats, ids))
    return sets


def write_scores(run: Run, seed: int = 0, texts: str = "", documents: bool = True, more: float = 0.0) -> None:
    """Write the tables of an evaluation at every stage; without `documents` as earlier versions did."""
    sets = scored(seed, texts, more)
    rows = document_rows(sets).rename(columns={"model": "stage"})
    draws = [bootstrap_draws(test) for test in sets]
    run.tables.write("change", change_rows(sets, draws, "base", STAGES[-1]))
    stages = []
    for test in sets:
        for name in ("base", *STAGES):
            bits = test.bits_per_byte(name)
            of = [test.language, test.role, name, test.dataset]
            stages.append([*of, bits, bits - 0.02, bits + 0.02, len(test.num_bytes)])
    columns = ["language", "role", "stage", "dataset", "bits_per_byte", "ci_low", "ci_high", "n_documents"]
    run.tables.write("stages", pd.DataFrame(stages, columns=columns))
    if documents:
        run.tables.write("documents", rows)


def finished_run(root, title: str, **scores) -> Run:
    """Make a finished run whose results are those of its made-up scores, as the pipeline writes them."""
    config = {"recipe": "x", "original": ["en", "es"], "expanded": ["el", "hu", "tr"]}
    run = Run.create(root, kind="expansion", slug="x", title=title, config=config)
    write_scores(run, **scores)
    change = run.tables.read("change")
    assert change is not None
    records, summary = change.to_dict("records"), {}
    for (dataset, role), part in change.groupby(["dataset", "role"], sort=False):
        numbers = {"mean_change_percent": float(part.change_percent.mean()), "original_weight": 0.5}
        summary.setdefault(dataset, {})[role] = numbers | {"worst_change_percent": float(part.change_percent.max())}
    run.finish({**results(), "change": records, "summary": summary})
    return run


def write_lifelong(root, **create) -> Run:
    """Make a lifelong run with retention after every stage."""
    given = {"kind": "lifelong", "slug": "tiny", "title": "el then hu", "config": {"original": ["en"]}}
    run = Run.create(root, **(given | create))
    rows = []
    for dataset in ("heldout", "dev"):
        for code, group, path in (
            ("en", "G0", (1.5, 1.52, 1.51, 1.55)),
            ("el", "G1", (2.4, 1.8, 1.85, 1.9)),
            ("hu", "G2", (3.1, 3.12, 3.1, 2.6)),
        ):
            for stage, bits in zip(("base", "G1 expand", "G1 review", "G2 expand"), path, strict=True):
                change = 100 * (bits / path[0] - 1)
                rows.append((code, group, dataset, stage, bits, 24, change, change - 1.5, change + 1.5))
    columns = "language group dataset stage bits_per_byte n_documents change_percent change_low change_high".split()
    run.tables.write("retention_by_stage", pd.DataFrame(rows, columns=columns))
    run.finish({"schema_version": 1})
    return run


def write_slices(run: Run, seed: int = 0, texts: str = "") -> None:
    """Write scores of slices that fit those of documents: each has a share of a document's bytes and nats."""
    rows = []
    for test in scored(seed, texts):
        for number, (name, share) in enumerate(_SHARES.items()):
            if name == "names" and test.language == "hu":
                continue  # as where a language has none
            more = {model: 1 + 0.02 * number * (model != "base") for model in test.nats}
            nats = {model: values * share * more[model] for model, values in test.nats.items()}
            sizes = np.maximum((test.num_bytes * share).astype(int), 1)
            whole = (test.nats, test.num_bytes) if name == "all" else (nats, sizes)
            part = ScoredDocuments(
                test.language, test.role, test.dataset, test.fingerprint, whole[1], whole[0], test.ids
            )
            table = document_rows([part])
            rows.append(table.assign(slice=name, tokens=np.maximum(table["bytes"] // 4, 1)))
    run.tables.write("slices", pd.concat(rows, ignore_index=True).rename(columns={"model": "stage"}))


_SHARES = {"all": 1.0, "digits": 0.02, "names": 0.1, "punctuation": 0.08, "first": 0.1, "rare": 0.2, "rest": 0.5}
