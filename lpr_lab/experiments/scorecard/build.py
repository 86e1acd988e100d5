"""The scorecard of a base, made from the runs in a folder; torch-free."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lpr_lab.errors import LprError
from lpr_lab.experiments.config import completed
from lpr_lab.experiments.scorecard.plan import (
    CARDS,
    CHOSEN,
    LANGUAGES,
    NO_TASKS,
    Card,
    card_for,
    choices,
    chosen_card,
    experiment_of,
)
from lpr_lab.model.bases.made import is_made, made_folder
from lpr_lab.progress import run_through
from lpr_lab.runs.compare.paired_changes import resampled_of
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.model_ref import ModelRef
from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard import table
from lpr_lab.runs.scorecard.allocations import measured_gains
from lpr_lab.runs.scorecard.claims import CLAIMS
from lpr_lab.runs.scorecard.effects import decided_on, num_layers
from lpr_lab.runs.scorecard.find import finished_settings, key_of
from lpr_lab.runs.scorecard.instrument import check_instrument
from lpr_lab.runs.scorecard.kept_runs import source_of_saved
from lpr_lab.runs.scorecard.parts import MIN_SEEDS
from lpr_lab.runs.scorecard.verdict import row_of
from lpr_lab.storage import read_json_object

EXACT_KIND = "exact_checks"
"""Kind of the run that checks the exact claims on a base."""
_BY_RUN = ("seed", "parent")
"""Settings in which runs of one arm differ."""
AGAIN = 100
"""First seed of an arm that repeats another one."""


def base_of(run: Run) -> str:
    """Return the fingerprint of the base that a run started from; empty where it recorded none."""
    return str((run.phases.get("upcycle") or run.phases.get("baseline") or {}).get("base_fingerprint") or "")


def on_one_base(runs: Sequence[Run], fingerprint: str = "") -> list[Run]:
    """Return the runs on one base: two bases may share a name where each machine makes its own, as the small world.

    Args:
        runs: newest first.
        fingerprint: of the base; that of the newest run that recorded one when not given.

    Runs that recorded none are among them.
    """
    fingerprint = fingerprint or next(filter(None, map(base_of, runs)), "")
    return [run for run in runs if base_of(run) in ("", fingerprint)]


def find_arms(card: Card, runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Return the finished runs of each arm of a card, by seed, in the order of the plan; the newest of a seed.

    Args:
        card: what all arms share.
        runs: newest first; those on another base than the newest are left out.
    """
    by_key: dict[str, list[Run]] = {}
    for run in finished_of(card.base, runs):
        by_key.setdefault(settings_key(completed(run.config)), []).append(run)
    found: dict[str, dict[int, Run]] = {}
    for name, arm in card.arms.items():
        parent = next(iter(found.get(arm.after, {}).values()), None) if arm.after else None
        gains = measured_gains(found, arm.probes)
        if (arm.after and parent is None) or (arm.probes and gains is None):
            continue
        own: dict[int, Run] = {}
        for run in by_key.get(settings_key(completed(experiment_of(card, name, 0, parent, gains).to_config())), []):
            seed = int(run.config["seed"]) - arm.first_seed
            if 0 <= seed < AGAIN:
                own.setdefault(seed, run)
        if own:
            found[name] = dict(sorted(own.items()))
    return found


def finished_of(base: str, runs: Sequence[Run]) -> list[Run]:
    """Return the runs of a base that ended and can be read; of several bases of that name those of the newest run's."""
    return on_one_base([run for run in runs if (finished_settings(run) or {}).get("base") == base and _is_whole(run)])


def _is_whole(run: Run) -> bool:
    try:
        base_of(run)
    except LprError:
        return False
    return True


def runs_of(card: Card, root: str | Path) -> list[Run]:
    """Return every run in a folder that the scorecard of a card is made of."""
    runs = list_runs(root)
    of_arms = [run for own in find_arms(card, runs).values() for run in own.values()]
    return [*_exact_runs(card, runs)[:1], *of_arms]


class ScorecardStep(NamedTuple):
    """How far a scorecard is, in runs and claims, and once it is through, the scorecard."""

    done: int
    total: int
    result: dict[str, Any] | None = None


def build(card: Card, root: str | Path) -> dict[str, Any]:
    """Return the scorecard of the runs in a folder, JSON-able (see `runs.scorecard.table`), with progress."""
    return run_through(build_steps(card, list_runs(root)), "Computing the scorecard", "part")


def build_steps(card: Card, runs: Sequence[Run]) -> Iterator[ScorecardStep]:
    """Make the same run by run and claim by claim, since hundreds of runs take a while; the last step has it.

    Args:
        card: what all arms share.
        runs: newest first. Each keeps what was read of it.
    """
    total, done = 2 * len(runs) + len(CLAIMS) + len(card.arms), 0

    def part() -> ScorecardStep:
        nonlocal done
        done += 1
        return ScorecardStep(done - 1, total)

    for run in runs:
        yield part()
        finished_settings(run)
    arms = find_arms(card, runs)
    own = [run for by_seed in arms.values() for run in by_seed.values()]
    total = len(runs) + len(own) + len(CLAIMS) + len(arms)
    for run in own:
        yield part()
        resampled_of(ModelRef(run, ""))  # kept there: every number of the scorecard is made of these
    checks = [*_of_exact_runs(card, runs), *_of_trained_runs(arms)]
    claims, of_arms = [], []
    for claim in CLAIMS:
        yield part()
        claims.append(table.row_json(row_of(claim, arms, checks), rerun(card, claim.number)))
    for name in arms:
        yield part()
        of_arms.append(table.arm_json(name, arms))
    newest = max(own, key=lambda run: run.created, default=None)
    budget = ("stage1_tokens", "stage2_tokens", "block_tokens", "blocks_per_step", "eval_tokens_per_language")
    found = {
        "schema_version": table.SCHEMA_VERSION,
        "base": card.base,
        "corpus": card.corpus,
        "languages": {name: list(getattr(card, name)) for name in LANGUAGES},
        "budget": {name: getattr(card, name) for name in budget},
        "precision": card.precision,
        "test_set": decided_on(own),
        "layers": num_layers(own),
        "seeds_asked_for": card.seeds,
        "min_seeds": MIN_SEEDS,
        "gate": gate_of(card.base),
        "environment": {} if newest is None else environment_of(newest),
        "instrument": [check.to_json() for check in check_instrument(arms)],
        "claims": claims,
        "verdicts": table.count_verdicts(claims),
        "equal_gain": table.equal_gain_json(arms),
        "allocations": table.allocations_json(arms),
        "arms": of_arms,
        "hours": round(sum(sum(run.phases.seconds.values()) for run in own) / 3600, 2),
    }
    yield ScorecardStep(total, total, found)


def scorecard(card: Card, root: str | Path) -> tuple[dict[str, Any], str]:
    """Return the scorecard of a card, and where it is from: runs in a folder, else what came with the code.

    Of a card that was never run every row says so, where its base has one or something of it was chosen.

    Raises:
        MissingError: neither runs nor a committed one, of any other base.
    """
    return settled(build(card, root), card, root)


def settled(found: dict[str, Any], card: Card, root: str | Path) -> tuple[dict[str, Any], str]:
    """Return what to show where the runs in a folder gave a scorecard, and where it is from; see `scorecard`."""
    if found["arms"]:
        return found, f"the runs in {root}"
    if choices(card) or (card.base in CARDS and card.base not in table.saved_bases()):
        return found, "no run: none of these was made yet"
    return table.read_saved(card.base), source_of_saved(card.base)


def cards_of(runs: Sequence[Run]) -> list[Card]:
    """Return every card that there is something of: the bases' own, those that came with the code, those of runs.

    Args:
        runs: newest first; a card that is there by them alone comes in their order.
    """
    known = dict.fromkeys(card_for(base) for base in dict.fromkeys([*CARDS, *table.saved_bases()]))
    return [*known, *(card for card in _cards_that_fit(runs) if card not in known and find_arms(card, runs))]


def _cards_that_fit(runs: Sequence[Run]) -> list[Card]:
    """Return the cards that any of the runs may be of, the newest run's first."""
    settings = {run.id: of for run in runs if (of := finished_settings(run))}
    kinds = {}
    for of in settings.values():
        # One that goes on from another run has the further languages of that one's card.
        parent = of.get("parent")
        first, further = (settings.get(parent), of["expanded"]) if parent else (of, ())
        if first and not first.get("parent"):
            asked = {name: first.get(name) for name in ("base", *CHOSEN, *_ASKED)}
            kinds[key_of({**asked, "further": further})] = first, further
    cards = list(dict.fromkeys(filter(None, (_card_of(*kind) for kind in kinds.values()))))
    whole = {replace(card, further=()) for card in cards if card.further}
    return [card for card in cards if card not in whole]


_ASKED = ("eval_tokens_per_language", "similarity_tokens", "self_samples", "task_items")
"""What a card asks of all its runs, and other runs rarely do."""


def _card_of(settings: Mapping[str, Any], further: Sequence[str]) -> Card | None:
    """Return the card that a run with these settings may be of: the one with its languages, if it asks the same."""
    try:
        config = completed(settings)
        chosen = {name: config[name] for name in CHOSEN if name != "further"}
        chosen |= {"further": further, "tasks": chosen["tasks"] or (NO_TASKS,)}
        card = chosen_card(str(config["base"]), **chosen)
    except (LprError, KeyError, TypeError):  # not a run of the pipeline
        return None
    return card if all(config.get(name) == getattr(card, name) for name in _ASKED) else None


def rerun(card: Card, number: int) -> str:
    """Return the command that makes what a claim is decided from.

    >>> rerun(chosen_card("small-world", expanded=["hu", "tr"]), 15)
    'lpr-lab scorecard run --base small-world --expanded hu --expanded tr --only 15'
    """
    return f"lpr-lab scorecard run {options_of(card)} --only {number}"


def options_of(card: Card) -> str:
    """Return the options by which commands know a card."""
    given = {"base": (card.base,), **choices(card)}
    return " ".join(f"--{name} {shlex.quote(value)}" for name, values in given.items() for value in values)


def gate_of(base: str) -> dict[str, Any] | None:
    """Return what the competence gate found of a base that was made here; None for another one."""
    if not is_made(base):
        return None
    path = made_folder(base) / "gate.json"
    return read_json_object(path) if path.is_file() else None


def settings_key(config: dict[str, Any]) -> str:
    """Return the settings that all runs of one arm share, as one text."""
    return key_of({name: value for name, value in config.items() if name not in _BY_RUN})


def _exact_runs(card: Card, runs: Sequence[Run]) -> list[Run]:
    """Return the runs that made the exact checks on this base, newest first."""
    return [
        run
        for run in runs
        if run.problem is None and run.kind == EXACT_KIND and run.config.get("base") == card.base and run.results
    ]


def _of_exact_runs(card: Card, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return what the newest of them checked."""
    newest = _exact_runs(card, runs)[:1]
    return [{**check, "runs": [run.id]} for run in newest for check in run.results["checks"]]


def _of_trained_runs(arms: dict[str, dict[int, Run]]) -> list[dict[str, Any]]:
    """Return what all trained runs recorded of the start and of the base after training, as two checks."""
    started, kept = [], []
    for run in (run for own in arms.values() for run in own.values()):
        exact = run.results.get("exactness") or {}
        claims = {claim["name"]: claim for claim in run.results.get("claims") or ()}
        if "starts_equal" in claims and not run.config.get("baseline"):
            started.append((run, float(exact["start_difference"]), bool(claims["starts_equal"]["holds"])))
        if "base_untouched" in claims:
            kept.append((run, float(exact["base_difference"]), bool(claims["base_untouched"]["holds"])))
    texts = {1: "Before training, in every run that starts from copies: largest difference of a logit from the base's."}
    texts[2] = (
        "After training, in every run: largest difference of a logit between the base inside and the base before."
    )
    return [
        {
            "claim": number,
            "text": texts[number],
            "measured": max(difference for _, difference, _ in found),
            "holds": all(holds for *_, holds in found),
            "runs": [run.id for run, *_ in found],
        }
        for number, found in ((1, started), (2, kept))
        if found
    ]


def environment_of(run: Run) -> dict[str, Any]:
    """Return what a run was made with, without what changes nothing in its numbers."""
    env = run.documents.read("env")
    return {key: env[key] for key in _KEPT if key in env}


_KEPT = ("python", "processor", "instructions", "num_processors", "threads", "device", "packages", "git")
