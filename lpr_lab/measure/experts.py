"""Statistics of expert load: balance, idle experts, information about language, co-activation, change between stages.

Numbers are per layer, because layers differ in how many experts they have. Languages weigh the same, however much text
of each was read. No torch here: the dashboard computes these from stored tables.

Letters: A languages, D documents, E experts, K chosen per token, T tokens, X vocabulary entries.
"""

from typing import Any

import numpy as np
import pandas as pd

Table = Any
"""A `pandas.DataFrame`; the type pandas declares for itself is lost at the first filter."""

IDLE_SHARE = 0.01
"""An expert that carries less than this part of its even share is idle."""

NUMBERS = ("mass", "chosen", "first")
"""How load can be counted, all per token: mean weight (sums to 1 over experts), share of tokens that have the expert
among their K (sums to K), share of tokens whose first choice it is (sums to 1)."""


def even_load(number: str, num_experts: int, top_k: int) -> float:
    """Return what each expert would get if load were even: K/E of the tokens, or 1/E of weight and first choices.

    >>> even_load("chosen", 4, 2), even_load("mass", 4, 2)
    (0.5, 0.25)
    """
    return (min(top_k, num_experts) if number == "chosen" else 1) / num_experts


def normalised_entropy(load: np.ndarray) -> float:
    """Return the entropy of a load [E] over its greatest possible value: 1 is even, 0 is all on one expert.

    Any positive multiple of a load has the same entropy. NaN where there is no choice (one expert) or no load.

    >>> normalised_entropy(np.array([1.0, 1.0])), normalised_entropy(np.array([1.0, 0.0]))
    (1.0, 0.0)
    """
    load = np.asarray(load, dtype=np.float64)
    if load.size < 2 or load.sum() <= 0:
        return float("nan")
    share = load / load.sum()
    seen = share[share > 0]
    return float(-(seen * np.log(seen)).sum() / np.log(load.size)) + 0.0


def max_over_mean(load: np.ndarray) -> float:
    """Return how much more than the mean the busiest of E experts carries: 1 is even, E is all on one expert."""
    load = np.asarray(load, dtype=np.float64)
    return float(load.max() / load.mean()) if load.size and load.sum() > 0 else float("nan")


def is_idle(load: np.ndarray) -> np.ndarray:
    """Return which of E experts carry less than `IDLE_SHARE` of an even share, bool [E]."""
    load = np.asarray(load, dtype=np.float64)
    return load < IDLE_SHARE * load.sum() / load.size


def information(profiles: np.ndarray) -> float:
    """Return the mutual information of language and expert in bits, from the mean weights [A, E] of each language.

    How many bits the expert of a token tells about its language, when the languages are equally frequent and the
    expert is drawn by its weight. 0 when all languages use the experts alike, `information_ceiling` at most.
    """
    profiles = np.asarray(profiles, dtype=np.float64)
    given = profiles / profiles.sum(-1, keepdims=True)
    return float(_entropy_bits(given.mean(-2)) - _entropy_bits(given).mean(-1))


def information_ceiling(num_languages: int, num_experts: int) -> float:
    """Return the most bits that an expert can tell about a language: the smaller of log2 A and log2 E."""
    return float(np.log2(min(num_languages, num_experts)))


def shuffled_information(
    mass: np.ndarray, tokens: np.ndarray, language: np.ndarray, draws: int = 200, seed: int = 0
) -> np.ndarray:
    """Return what `information` is when documents are dealt to languages by chance, float [draws].

    With finite text it is above 0 even where language and expert have nothing to do with one another. Whole documents
    are shuffled, because tokens of one document are alike for other reasons than their language.

    Args:
        mass: weight of each expert summed over the tokens of a document, [D, E].
        tokens: tokens of each document, [D].
        language: number of each document's language, int [D].
        draws: how many shuffles.
        seed: of the shuffles.
    """
    mass, tokens = np.asarray(mass, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    members = (np.asarray(language)[None, :] == np.unique(language)[:, None]).astype(np.float64)
    generator = np.random.default_rng(seed)
    found = np.empty(draws)
    for draw in range(draws):
        dealt = members[:, generator.permutation(len(tokens))]
        found[draw] = information((dealt @ mass) / (dealt @ tokens)[:, None])
    return found


def co_activation(chosen: np.ndarray) -> np.ndarray:
    """Return in how many tokens two experts were chosen together, int [E, E]; the diagonal counts each expert.

    All pairs count, not only neighbours in rank. Off the diagonal a row sums to K - 1 times its diagonal.

    Args:
        chosen: bool [T, E].
    """
    flags = np.asarray(chosen).astype(np.float32)
    return np.rint(flags.T @ flags).astype(np.int64)


def given_expert(pairs: np.ndarray) -> np.ndarray:
    """Return P(column chosen | row chosen) from the counts of `co_activation`, float [E, E]; NaN for unused rows."""
    own = np.diagonal(pairs).astype(np.float64)[:, None]
    return np.divide(pairs, own, out=np.full(pairs.shape, np.nan), where=own > 0)


def same_choices(before: np.ndarray, after: np.ndarray) -> float:
    """Return the mean share of a token's chosen experts that two stages have in common: 1 when they route alike.

    Called router saturation where `after` is the last of many checkpoints (OLMoE). By chance it is K/E.

    Args:
        before: bool [T, E1]; experts keep their numbers from stage to stage, and later stages may have more.
        after: bool [T, E2].
    """
    common = min(before.shape[1], after.shape[1])
    shared = (before[:, :common] & after[:, :common]).sum(1)
    return float((shared / np.maximum(np.maximum(before.sum(1), after.sum(1)), 1)).mean())


def typical_tokens(token_ids: np.ndarray, expert: np.ndarray, num_experts: int, top: int = 8) -> np.ndarray:
    """Return the tokens that each expert gets more often than their language as a whole, most typical first.

    Typical is what adds most to the log-likelihood ratio against routing that ignores the token:
    n(x, e) · ln(n(x, e) / (n(x) · P(e))), so neither rare tokens nor those that go everywhere come first.

    Args:
        token_ids: int [T], of one language.
        expert: the expert that each of them went to first, int [T].
        num_experts: E.
        top: at most so many per expert; tokens that an expert got fewer than three times are left out.

    Returns:
        int [rows, 4]: expert, token id, how often that expert got it, how often it occurred.
    """
    known, place = np.unique(token_ids, return_inverse=True)
    counts = np.bincount(place * num_experts + expert, minlength=len(known) * num_experts).reshape(-1, num_experts)
    totals = counts.sum(1)
    expected = totals[:, None] * (counts.sum(0) / max(counts.sum(), 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(counts >= 3, counts * np.log(counts / expected), -np.inf)
    rows = []
    for number in range(num_experts):
        order = np.lexsort((-counts[:, number], -weight[:, number].round(6)))[:top]
        rows += [
            (number, known[entry], counts[entry, number], totals[entry])
            for entry in order
            if np.isfinite(weight[entry, number])
        ]
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def _entropy_bits(share: np.ndarray) -> np.ndarray:
    return -(share * np.log2(np.where(share > 0, share, 1))).sum(-1)


# ---------------------------------------------------------------------------------------- tables of whole models


def profiles(load: Table, number: str = "mass") -> tuple[list[str], dict[int, np.ndarray]]:
    """Return the languages of a table of one stage and data set, in its order, and layer -> what each sends, [A, E]."""
    codes = list(dict.fromkeys(load["language"]))
    if not codes:
        return [], {}
    ordered = load.sort_values(["layer", "expert"], kind="stable")
    place = ordered["language"].map({code: row for row, code in enumerate(codes)}).to_numpy()
    layers, experts = ordered["layer"].to_numpy(), ordered["expert"].to_numpy()
    values = ordered[number].to_numpy(dtype=np.float64)
    found = {}
    for part in np.split(np.arange(len(layers)), np.flatnonzero(np.diff(layers)) + 1):
        given = np.zeros((len(codes), int(experts[part].max()) + 1))
        given[place[part], experts[part]] = values[part]
        found[int(layers[part[0]])] = given
    return codes, found


def by_layer(load: Table, number: str = "mass") -> dict[int, np.ndarray]:
    """Return layer -> load [E], the mean over the languages in a table of one stage and data set."""
    return {layer: given.mean(0) for layer, given in profiles(load, number)[1].items()}


def balance(load: Table, number: str = "mass") -> Table:
    """Return per layer: experts, evenness (normalised entropy), max_over_mean, idle experts, language bits, ceiling.

    Args:
        load: one stage and data set; columns language, layer, expert, mass and what `number` names.
        number: one of `NUMBERS`. The bits always go by weight.
    """
    rows = []
    loads, (codes, weights) = by_layer(load, number), profiles(load)
    for layer, values in loads.items():
        given = weights[layer]
        rows.append(
            {
                "layer": layer,
                "experts": len(values),
                "evenness": normalised_entropy(values),
                "max_over_mean": max_over_mean(values),
                "idle": int(is_idle(values).sum()),
                "bits": information(given) if len(codes) > 1 else float("nan"),
                "ceiling_bits": information_ceiling(*given.shape),
            }
        )
    return pd.DataFrame(rows)
