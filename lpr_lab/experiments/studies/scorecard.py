"""The code behind the notebook about claims: makes the runs of some, and keeps the table in a run of its own."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lpr_lab.errors import UsageError
from lpr_lab.experiments.scorecard.build import build
from lpr_lab.experiments.scorecard.exact import exact_run
from lpr_lab.experiments.scorecard.plan import CHOSEN, Card, chosen_card
from lpr_lab.experiments.scorecard.run import make_missing
from lpr_lab.runs.claims import Claim, as_records
from lpr_lab.runs.find import start_run
from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.claims import CLAIMS

KIND = "scorecard"
_PART_COLUMNS = ["claim", "verdict", "value", "low", "high", "seeds", "text", "why"]


@dataclass(frozen=True, kw_only=True)
class ScorecardSettings:
    """What the notebook asks for; what is empty or 0 is the card's own (see `scorecard.plan.Card`)."""

    base: str = "small-world"
    claims: tuple[int, ...] = (15,)
    seeds: int = 3
    text: dict[str, Any] = field(default_factory=dict)
    """Corpus, languages, what is asked, and budgets, by the names of a card."""

    def __post_init__(self) -> None:
        known = {claim.number for claim in CLAIMS}
        wrong = [number for number in self.claims if number not in known]
        if wrong or not self.claims or self.seeds < 1:
            raise UsageError(
                f"claims = {list(self.claims)}, seeds = {self.seeds}; expected numbers from 1 to {max(known)}, and at "
                "least one seed."
            )

    @property
    def card(self) -> Card:
        """What all arms share."""
        given: dict[str, Any] = {name: value for name, value in self.text.items() if value}
        chosen = {name: given.pop(name) for name in CHOSEN if name in given}
        own = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        return replace(chosen_card(self.base, **chosen), **own)

    @property
    def arms(self) -> list[str]:
        """The arms that the claims need."""
        wanted = {name for claim in CLAIMS if claim.number in self.claims for name in claim.arms}
        return [name for name in self.card.arms if name in wanted]


def start(settings: ScorecardSettings, run_dir: str = "", root: str | Path | None = None) -> Run:
    """Return the run that holds the table: the one given, an unfinished one with these settings, or a new one."""
    card = settings.card
    config = {"base": card.base, "claims": list(settings.claims), "seeds": settings.seeds, **_plain(card)}
    title = f"{card.base}: do claims {', '.join(map(str, settings.claims))} hold?"
    return start_run(config, kind=KIND, slug=card.base, title=title, run_dir=run_dir, root=root)


def make(settings: ScorecardSettings, run: Run) -> dict[str, Any]:
    """Make the runs that are missing, decide the claims, and finish the run with the table; returns the scorecard."""
    card, root = settings.card, run.path.parent
    with run.working("runs"):
        exact = exact_run(card, root)
        made = make_missing(card, settings.arms, settings.seeds, root)
    with run.working("decide"):
        scorecard = build(card, root)
        rows = [row for row in scorecard["claims"] if row["number"] in settings.claims]
        run.tables.write("claims", parts_of(rows))
        checks = [
            Claim(f"claim_{one['claim']}", one["text"], one["measured"], one["limit"], one["holds"], is_exact=True)
            for one in exact.results["checks"]
        ]
        results = {
            "schema_version": 1,
            "base": card.base,
            "claims": as_records(checks),
            "decided": [{name: row[name] for name in ("number", "claim", "paper", "verdict", "why")} for row in rows],
            "instrument": scorecard["instrument"],
            "runs": [one.id for one in made.runs.values()],
            "failed": [f"{name}, seed {seed}: {why}" for (name, seed), why in made.failed.items()],
        }
    run.finish(results)
    return scorecard


def parts_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the parts of claims, one per row: claim, verdict, value (points), low, high, seeds, text, why."""
    table = [[row["number"], *(part[name] for name in _PART_COLUMNS[1:])] for row in rows for part in row["parts"]]
    return pd.DataFrame(table, columns=_PART_COLUMNS)


def instrument_of(scorecard: dict[str, Any]) -> pd.DataFrame:
    """Return the checks of the instrument, one per row."""
    columns = ["name", "value", "low", "high", "seeds", "passes", "why"]
    return pd.DataFrame([[check[name] for name in columns] for check in scorecard["instrument"]], columns=columns)


def _plain(card: Card) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(card).items()
        if name != "seeds"
    }
