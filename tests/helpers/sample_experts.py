"""Tables of what experts do, for tests of views and dashboard: counted by the real functions from made-up routing."""

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd

from lpr_lab.measure import experts
from lpr_lab.runs.run import Run

ROLES = {"en": "original", "es": "original", "el": "expanded", "hu": "expanded", "tr": "expanded"}
STAGES = ("G1 expand", "G1 review")
HOSTILE_TOKEN = b"<img src=x onerror=boom()>"


def choices(language: str, stage: str, num_experts: int, tokens: int = 60, seed: int = 0) -> np.ndarray:
    """Make the weights [T, E] of top-2 routing: original languages on expert 0, more so after the review."""
    rng = np.random.default_rng([seed, ord(language[0]), ord(language[1]), STAGES.index(stage)])
    score = rng.normal(0, 0.6, (tokens, num_experts))
    score[:, 0] += (1.2 if stage == STAGES[0] else 3) if ROLES[language] == "original" else -2
    if num_experts > 2:
        score[:, 1 + sorted(ROLES).index(language) % (num_experts - 2)] += 1  # the last expert is left out …
        score[:, -1] -= 20  # … and idle
    weights = np.exp(score)
    if num_experts > 2:
        weights[weights < np.sort(weights, axis=1)[:, -2:-1]] = 0
    return weights / weights.sum(1, keepdims=True)


def expert_tables(sizes: Sequence[int] = (2, 2, 4, 2), stages: Sequence[str] = STAGES) -> dict[str, pd.DataFrame]:
    """Return all six tables for layers of the given numbers of experts."""
    return {name: table.copy() for name, table in _expert_tables(tuple(sizes), tuple(stages)).items()}


@cache
def _expert_tables(sizes: tuple[int, ...], stages: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    load, probability, pairs, agreement, told, tokens = [], [], {}, [], [], []
    for layer, size in enumerate(sizes):
        for stage in stages:
            profiles, documents = [], []
            for code, role in ROLES.items():
                weights = choices(code, stage, size)
                chosen, first = weights > 0, weights.argmax(1)
                profiles.append(weights.mean(0))
                documents += [(code, part.sum(0), len(part)) for part in np.split(weights, 6)]
                for expert in range(size):
                    shares = [chosen[:, expert].mean(), (first == expert).mean(), weights[:, expert].mean()]
                    load.append([stage, code, role, "heldout", layer, expert, *shares, len(weights)])
                probability.append(
                    [stage, code, role, "heldout", layer, size, 0.8 * weights[:, 0].mean(), len(weights)]
                )
                if size > 2:
                    key = (stage, "heldout", layer)
                    pairs[key] = pairs.get(key, 0) + experts.co_activation(chosen)
                if stage == stages[-1]:
                    ids = np.arange(len(weights)) % 7
                    tokens += [
                        ["heldout", code, layer, *row] for row in experts.typical_tokens(ids, first, size).tolist()
                    ]
            codes = [list(ROLES).index(code) for code, _, _ in documents]
            mass = np.stack([part for _, part, _ in documents])
            null = experts.shuffled_information(mass, np.array([n for _, _, n in documents]), np.array(codes), 20)
            bits = [experts.information(np.stack(profiles)), experts.information_ceiling(len(ROLES), size)]
            told.append([stage, "heldout", layer, *bits, null.mean(), np.quantile(null, 0.95), len(ROLES), len(codes)])
        for before, after in combinations(stages, 2):
            for code in ROLES:
                one, other = choices(code, before, size), choices(code, after, size)
                same = experts.same_choices(one > 0, other > 0), (one.argmax(1) == other.argmax(1)).mean()
                agreement.append([before, after, "heldout", code, layer, *same])
    together = [[*key, a, b, int(n[a, b])] for key, n in pairs.items() for a in range(len(n)) for b in range(a, len(n))]
    spelled = [[*row[:5], (HOSTILE_TOKEN if row[4] == 3 else f" w{row[4]}".encode()).hex(), *row[5:]] for row in tokens]
    return {
        "expert_load": pd.DataFrame(
            load, columns="stage language role dataset layer expert chosen first mass n_tokens".split()
        ),
        "original_probability": pd.DataFrame(
            probability, columns="stage language role dataset layer num_experts probability n_tokens".split()
        ),
        "expert_pairs": pd.DataFrame(together, columns="stage dataset layer expert_a expert_b n_tokens".split()),
        "expert_agreement": pd.DataFrame(
            agreement, columns="before after dataset language layer same_choices same_first".split()
        ),
        "expert_information": pd.DataFrame(
            told,
            columns="stage dataset layer bits ceiling_bits null_bits null_high_bits n_languages n_documents".split(),
        ),
        "expert_tokens": pd.DataFrame(
            spelled, columns="dataset language layer expert token_id bytes count total".split()
        ),
    }


def write_expert_tables(run: Run, **options) -> None:
    """Write them into a run, those without rows left out."""
    for name, table in expert_tables(**options).items():
        if len(table):
            run.tables.write(name, table)
