"""Which scorecard an address of `/claims` asks for, and what it is called."""

from dataclasses import replace

from lpr_lab.dashboard.query import Query
from lpr_lab.experiments.scorecard.plan import Card, card_for, choices, chosen_card
from lpr_lab.text.languages import language_name

DEFAULT = card_for("small-world")
"""Of an address that names none."""


def card_of(query: Query) -> Card:
    """Return the card that an address asks for, of a base that is not named the first one's."""
    precision = query.precision if query.precision in ("fp32", "bf16") else ""
    original, expanded = ([code for code in codes.split(",") if code] for codes in (query.original, query.expanded))
    return chosen_card(
        query.base or DEFAULT.base, corpus=query.corpus, original=original, expanded=expanded, precision=precision
    )


def query_of(card: Card) -> Query:
    """Return the address of a card; what it shares with its base's own card is left out."""
    chosen = {name: value if isinstance(value, str) else ",".join(value) for name, value in choices(card).items()}
    return replace(Query(base=card.base), **chosen)


def name_of(card: Card) -> str:
    """Return what a card is called: its base, and what was chosen.

    >>> name_of(card_for("small-world"))
    'small-world'
    >>> name_of(chosen_card("small-world", original=["es"], expanded=["hu", "tr"]))
    'small-world (original: Spanish; expanded: Hungarian, Turkish)'
    """
    chosen = [
        f"{name}: {value if isinstance(value, str) else ', '.join(map(language_name, value))}"
        for name, value in choices(card).items()
    ]
    return card.base + (f" ({'; '.join(chosen)})" if chosen else "")
