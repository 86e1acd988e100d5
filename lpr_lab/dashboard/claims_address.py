"""Which scorecard an address of `/claims` asks for, and what it is called."""

from dataclasses import replace

from lpr_lab.dashboard.query import Query, codes
from lpr_lab.errors import UsageError
from lpr_lab.experiments.scorecard.plan import LANGUAGES, Card, card_for, choices, chosen_card
from lpr_lab.text.languages import language_name

DEFAULT = card_for("small-world")
"""Of an address that names none."""


def card_of(query: Query) -> Card:
    """Return the card that an address asks for, of a base that is not named the first one's.

    Where there cannot be such a card it is the base's own.
    """
    lists = {name: codes(getattr(query, name)) for name in (*LANGUAGES, "tasks")}
    base = query.base or DEFAULT.base
    try:
        return chosen_card(base, corpus=query.corpus, precision=query.precision, **lists)
    except UsageError:
        return card_for(base)


def query_of(card: Card) -> Query:
    """Return the address of a card; what it shares with its base's own card is left out."""
    return replace(Query(base=card.base), **{name: ",".join(values) for name, values in choices(card).items()})


def name_of(card: Card) -> str:
    """Return what a card is called: its base, and what was chosen.

    >>> name_of(card_for("small-world"))
    'small-world'
    >>> name_of(chosen_card("small-world", original=["es"], expanded=["hu", "tr"]))
    'small-world (original: Spanish; expanded: Hungarian, Turkish)'
    """
    chosen = [
        f"{name}: {', '.join(map(language_name if name in LANGUAGES else str, values))}"
        for name, values in choices(card).items()
    ]
    return card.base + (f" ({'; '.join(chosen)})" if chosen else "")
