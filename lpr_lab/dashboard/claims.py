"""The address `/claims`: "Do the claims hold?", the scorecard of the runs in the folder or of those that came along.

A document like `/concepts`: made on the server, without a session and without a script beside that of every page.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from lpr_lab.dashboard import about, shell
from lpr_lab.dashboard.claims_address import card_of, name_of, query_of
from lpr_lab.dashboard.claims_document import Link, document, made_or_waiting, stamps_of
from lpr_lab.dashboard.making import PATIENCE, Documents, DocumentStep
from lpr_lab.dashboard.query import Query
from lpr_lab.errors import LprError
from lpr_lab.experiments.each_language.table import FACTS, language_table
from lpr_lab.experiments.scorecard.build import build_steps, cards_of, settled
from lpr_lab.experiments.scorecard.plan import Card, card_for
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run, run_folders
from lpr_lab.text.languages import language_name
from lpr_lab.text.splits import TEST_SETS
from lpr_lab.views.html.forest import SIGNS
from lpr_lab.views.html.templates import render
from lpr_lab.views.names import dataset_in_words
from lpr_lab.views.numbers import NOT_MEASURED, count, percent, points, points_and_ends, size

PATH = about.CLAIMS
BASES = f"{PATH}/bases"
"""All bases side by side, see `claims_bases`."""
TITLE = "Do the claims hold?"
_CHANGES = {
    "expanded": "Expanded",
    "reviewed": "Reviewed originals",
    "unreviewed": "Unreviewed originals",
    "kl_self": "KL to the base, %",
    "choice_expanded": "Right continuations, expanded",
    "choice_original": "Right continuations, originals",
    "expanded_less_moe_lpr": "Expanded, beside moe_lpr",
    "original_less_moe_lpr": "Originals, beside moe_lpr",
}
_WEIGHTS = {
    "weight_reviewed": "Expert 0 on reviewed",
    "weight_unreviewed": "Expert 0 on unreviewed",
    "weight_expanded": "Expert 0 on expanded",
}
_COSTS: Mapping[str, Callable[[float], str]] = {
    "trained_parameters": count,
    "active_parameters": count,
    "file_bytes": size,
    "tokens_per_second": count,
    "peak_memory_bytes": size,
    "seconds": lambda value: f"{value:.0f} s",
}
_ARM_COLUMNS = (
    "Seeds",
    *_CHANGES.values(),
    *_WEIGHTS.values(),
    "Trained parameters",
    "Active parameters",
    "File",
    "Tokens a second",
    "Peak memory",
    "A run took",
)
_WAYS = 3
"""Ways to divide a budget that are drawn, of a rule that has a new one for every seed."""


def claims_route(runs_dir: Path) -> Route:
    """Return the route of `/claims`; `?base=` and what else makes a card choose a scorecard."""
    documents = Documents(claims_steps)

    def page(query: Query) -> Markup:
        card = card_of(query)
        making = documents.of(runs_dir, card, stamps_of(runs_dir))
        top = shell.head(TITLE, f"The scorecard of {name_of(card)} is being computed.", query=query_of(card))
        return made_or_waiting(making, PATIENCE, TITLE, top)

    async def answer(request: Request) -> HTMLResponse:
        return HTMLResponse(await run_in_threadpool(page, Query.parse(dict(request.query_params))))

    return Route(PATH, answer, methods=["GET"])


def claims_steps(runs_dir: Path, card: Card, stamps: tuple[Any, ...] = ()) -> Iterator[DocumentStep]:
    """Make the page step by step, since hundreds of runs take a while to read; the last step has it.

    Args:
        runs_dir: the folder of runs.
        card: whose scorecard.
        stamps: of the runs; a page is made anew when one of them is another.
    """
    body, top = Markup(), shell.head(TITLE, "Nothing was measured on this base yet.")
    runs: Sequence[Run] = ()
    try:
        runs = list_runs(runs_dir)
        for step in build_steps(card, runs):
            yield DocumentStep(step.done, step.total)
            if step.result is not None:
                found, source = settled(step.result, card, runs_dir)
                verdicts = _counted(found["verdicts"])
                finding = f"Of {len(found['claims'])} claims of the two papers {verdicts}, on {name_of(card)}."
                top = shell.head(TITLE, finding, query=query_of(card))
                body = render("dashboard/claims_card.html.j2", **_values(found, source, runs_dir))
                body += _equal_gain(found["equal_gain"]) + _allocations(found["allocations"])
    except LprError as error:
        body = shell.card("No scorecard", str(error))
    body += _each_language(card.base, runs_dir)
    yield DocumentStep(1, 1, document(TITLE, top, body, links_of(runs, card)))


def links_of(runs: Sequence[Run], card: Card | None = None) -> list[Link]:
    """Return every card that there is something of, and the page that has them side by side.

    Args:
        runs: newest first.
        card: the one that is shown; None for all together.
    """
    own = [] if card is None else [card_for(card.base), card]
    cards = dict.fromkeys([*cards_of(runs), *own])
    links = [(name_of(one), query_of(one).link(PATH), one == card) for one in cards]
    return [*links, ("side by side", BASES, card is None)]


def _counted(verdicts: Mapping[str, int]) -> str:
    """Return how many claims have which verdict.

    >>> _counted({"holds": 1, "fails": 2, "not decidable here": 0})
    '1 holds, 2 fail and 0 are not decidable here'
    """
    holds, fails, undecided = verdicts.values()
    words = [f"{holds} {'holds' if holds == 1 else 'hold'}", f"{fails} {'fails' if fails == 1 else 'fail'}"]
    return f"{', '.join(words)} and {undecided} {'is' if undecided == 1 else 'are'} not decidable here"


def _values(card: Mapping[str, Any], source: str, runs_dir: Path) -> dict[str, Any]:
    here = {folder.name for folder in run_folders(runs_dir)}
    arms = {arm["arm"]: arm for arm in card["arms"]}
    return {
        "card": card,
        "source": source,
        "test_set": dataset_in_words(card.get("test_set") or TEST_SETS[0]),
        "gate": _gate(card.get("gate")),
        "languages": [
            (role, ", ".join(language_name(code) for code in codes))
            for role, codes in card["languages"].items()
            if codes
        ],
        "instrument": [{**check, **_numbers(check)} for check in card["instrument"]],
        "claims": [_claim(row, arms, here) for row in card["claims"]],
        "arms": [_arm(arm, here) for arm in card["arms"]],
        "arm_columns": _ARM_COLUMNS,
        "glyphs": SIGNS,
        "environment": _environment(card.get("environment") or {}),
    }


def _claim(row: Mapping[str, Any], arms: Mapping[str, Any], here: set[str]) -> dict[str, Any]:
    parts = [{**part, **_numbers(part), "range": range_words(part["above"], part["below"])} for part in row["parts"]]
    needed = dict.fromkeys(name for part in row["parts"] for name in part["arms"])
    of_arms = [(name, _links(arms[name]["runs"].items(), here)) for name in needed if name in arms]
    of_checks = [run for check in row["checks"] for run in check["runs"]]
    return {
        **row,
        "parts": parts,
        "reach": _reach(row["parts"]),
        "of_arms": of_arms,
        "num_checked": len(set(of_checks)),
    }


def _arm(arm: Mapping[str, Any], here: set[str]) -> dict[str, Any]:
    cells = [arm["arm"], str(arm["seeds"])]
    for name in _CHANGES:
        cells.append(with_interval(arm[name]) if arm.get(name) else NOT_MEASURED)
    for name in _WEIGHTS:
        cells.append(_plain((arm.get(name) or {"value": None})["value"]))
    cells += [_cost(arm.get(name), said) for name, said in _COSTS.items()]
    return {"cells": cells, "runs": _links(arm["runs"].items(), here)}


def _cost(value: float | None, said: Callable[[float], str]) -> str:
    return NOT_MEASURED if value is None else said(value)


def _equal_gain(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Return what each method forgets where it gained what MoE-LPR did; empty where none has several rates."""
    if not rows:
        return Markup()
    shown = [{**row, "method": row["method"].replace("_", " "), "number": with_interval(row["more"])} for row in rows]
    return render("dashboard/equal_gain.html.j2", rows=shown, reach=_reach(row["more"] for row in rows))


def _reach(effects: Iterable[Mapping[str, Any]]) -> float:
    """Return how far from zero any of the numbers, or of the ends of their intervals, is."""
    ends = [of[end] for of in effects for end in ("value", "low", "high")]
    return max((abs(end) for end in ends if end is not None), default=0.0)


def _allocations(found: Mapping[str, Any]) -> Markup:
    """Return the comparison of rules that divide experts over the layers; empty where none was run."""
    if not found["rules"]:
        return Markup()
    numbers = ("expanded", "original", "expanded_less_uniform", "original_less_uniform")
    rules = [
        {
            "rule": row["rule"],
            "experts": row["experts"][:_WAYS],
            "more": max(len(row["experts"]) - _WAYS, 0),
            "seeds": row["expanded"]["seeds"],
            "new": row["expanded_less_uniform"],
            **{name: with_interval(row[name]) for name in numbers},
        }
        for row in found["rules"]
    ]
    scores = [
        {
            "score": row["score"].replace("_", " "),
            "values": row["values"],
            "words": " ".join(f"{value:.3g}" for value in row["values"]),
            "correlation": NOT_MEASURED if row["correlation"] is None else _correlation(row["correlation"]),
        }
        for row in found["scores"]
    ]
    reach = _reach(row["new"] for row in rules)
    return render("dashboard/allocations.html.j2", rules=rules, scores=scores, reach=reach)


def _each_language(base: str, runs_dir: Path) -> Markup:
    """Return the table of languages that a base was taught one at a time; empty where there is none."""
    try:
        table, source = language_table(base, runs_dir)
    except LprError:
        return Markup()
    here = {folder.name for folder in run_folders(runs_dir)}
    rows = [
        {
            "name": row["name"],
            "script": row["script"],
            "cells": [with_interval(row[name]) if name in row else NOT_MEASURED for name in ("gain", "cost")]
            + [_plain(row["weight"]["value"] if "weight" in row else None)]
            + [_plain(row[name]) for name in FACTS],
            "runs": _links(row["runs"].items(), here),
        }
        for row in sorted(table["rows"], key=lambda row: row["gain"]["value"] if "gain" in row else 0.0)
    ]
    related = [
        f"{'The change of a language' if one['of'] == 'gain' else 'The change of original languages'} and "
        f"{FACTS[one['with']]}: rank correlation {_correlation(one)} over {one['languages']} languages"
        for one in table["relations"]
        if one["value"] is not None
    ]
    words = {"base": base, "recipe": table["recipe"].replace("_", " "), "tokens": f"{table['tokens']:,}"}
    original = ", ".join(map(language_name, table["original"]))
    return render(
        "dashboard/each_language.html.j2", rows=rows, relations=related, source=source, original=original, **words
    )


def _correlation(one: Mapping[str, Any]) -> str:
    interval = "no interval" if one["low"] is None else f"{points(one['low'])} to {points(one['high'])}"
    return f"{points(one['value'])} ({interval})"


def _plain(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.2f}"


def _links(runs: Any, here: set[str]) -> list[Markup]:
    """Return the runs by seed: a link where the run is in this folder, else its seed alone."""
    linked = Markup('<a href="{}">{}</a>')
    return [
        linked.format(Query(run=run).link("/"), seed) if run in here else Markup("{}").format(seed)
        for seed, run in runs
    ]


def _numbers(of: Mapping[str, Any]) -> dict[str, str]:
    ends = NOT_MEASURED if of["low"] is None else f"{points(of['low'])} to {points(of['high'])}"
    return {"points": points(of["value"]), "interval": ends}


def with_interval(of: Mapping[str, Any]) -> str:
    """Return a number with the ends of its interval, where it has one."""
    return points_and_ends(of["value"], of["low"], of["high"])


def range_words(above: float | None, below: float | None) -> str:
    """Return where a number has to lie, in words.

    >>> range_words(None, 0.0), range_words(-1.0, 1.0), range_words(0.95, None)
    ('below 0', 'between -1 and 1', 'above 0.95')
    """
    if above is not None and below is not None:
        return f"between {above:g} and {below:g}"
    return f"above {above:g}" if above is not None else f"below {below:g}"


def _gate(gate: Mapping[str, Any] | None) -> str:
    if gate is None:
        return ""
    found = [
        f"{language_name(code)} {row['below_ngram_percent']:.0f} % below a 5-gram model, {percent(row['swaps_found'])} "
        "of swapped words found"
        for code, row in gate["languages"].items()
    ]
    passes = "passes" if gate["passes"] else "does not pass"
    return f"The base {passes} the competence gate: {'; '.join(found)}."


def _environment(env: Mapping[str, Any]) -> list[tuple[str, str]]:
    packages: Mapping[str, str] = env.get("packages") or {}
    kept: Sequence[str] = ("torch", "transformers", "peft")
    rows = [("Python", str(env.get("python", ""))), ("Processor", str(env.get("processor", "")))]
    rows += [(name, str(packages[name])) for name in kept if packages.get(name)]
    commit = (env.get("git") or {}).get("commit", "")
    return [row for row in [*rows, ("Commit", str(commit)[:12])] if row[1]]
