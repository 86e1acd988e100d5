"""The tokens of held-out text by which an expert is known: where it weighs most, and where leaving it out shows most.

The tables hold places and numbers, no text, so a run may keep them; the tokens are held beside them in memory. No torch
here: the dashboard reads this.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lpr_lab.errors import MissingError
from lpr_lab.text.graphemes import text_spans

if TYPE_CHECKING:
    import pandas as pd

WEIGHT, BITS = "weight", "bits"
CONTEXT_COLUMNS = (
    "stage dataset language layer expert by rank document position token_id bytes weight bits change_bits".split()
)
NEIGHBOUR_COLUMNS = "stage dataset layer expert rank other_layer other_expert correlation n_tokens".split()
EFFECT_COLUMNS = "stage dataset language layer expert change_bits ci_low ci_high n_documents n_tokens".split()

Tokens = Mapping[tuple[str, str], list[bytes | None]]
"""(language, document id) -> bytes of each token, the separator (None) first; ids may stand in several languages."""


class InSentence(NamedTuple):
    """A token and the tokens around it, as text; bytes that make no whole character show as such: `⟨E0 A6⟩`."""

    before: str
    token: str
    after: str


@dataclass(frozen=True)
class ExpertContexts:
    """What experts do in held-out text.

    Attributes:
        contexts: one row per token that an expert is known by. `by` says which list it stands in: `weight`, the most
            weight first, or `bits`, the largest change first, whatever its sign. `rank` counts from 1 within stage,
            dataset, language, layer, expert and list; each document gives one token at most. `position` is the token's
            place in its document as `trace` counts, the separator being 0, and `bytes` its UTF-8 as hex digits.
            `weight` is the expert's, `bits` what the token costs with the model as it is, and `change_bits` how many
            more it costs without the expert; NaN for experts that were not left out.
        neighbours: the experts whose weights rise and fall with those of an expert, the closest first: Pearson's
            correlation over all text tokens that were read, every language together.
        effects: of each expert that was left out, language by language: how many bits more a token costs without it,
            the mean over all text tokens, with its 95 % interval over documents. No rows where none was left out.
        tokens: of all documents that were read. Not for a run's folder.
    """

    contexts: "pd.DataFrame"
    neighbours: "pd.DataFrame"
    effects: "pd.DataFrame"
    tokens: Tokens

    def of(self, layer: int, expert: int, by: str = WEIGHT) -> "pd.DataFrame":
        """Return the contexts of one expert in one list, language by language.

        Raises:
            MissingError: there are none, because the layer has no such expert, no token went there, it was not left
                out, or leaving it out changed nothing.
        """
        table = self.contexts
        mine = table[(table["layer"] == layer) & (table["expert"] == expert)]
        found = mine[mine["by"] == by]
        if found.empty:
            why = "no token went there, or there is no such expert"
            if by == BITS and not mine.empty:
                was_left_out = mine["change_bits"].notna().any()
                why = (
                    "leaving it out changed no token" if was_left_out else "leave it out: effects_of=[(layer, expert)]"
                )
            raise MissingError(f"Layer {layer}, expert {expert} has no contexts by {by}: {why}.")
        return found.reset_index(drop=True)

    def in_sentence(self, language: str, document: str, position: int, width: int = 12) -> InSentence:
        """Return a token with `width` tokens on either side, and those more that complete a character at the ends.

        Raises:
            MissingError: the document was not read, or has no such token.
        """
        pieces = self.tokens.get((language, document))
        if pieces is None or not 1 <= position < len(pieces):
            raise MissingError(f"Token {position} of document {document!r} ({language}) was not read.")
        start, end = max(1, position - width), min(len(pieces), position + 1 + width)
        while start > 1 and _continues(pieces[start]):
            start -= 1
        while end < len(pieces) and _continues(pieces[end]):
            end += 1
        parts = pieces[start:position], [pieces[position]], pieces[position + 1 : end]
        return InSentence(*("".join(span.text for span in text_spans(part)) for part in parts))


def _continues(piece: bytes | None) -> bool:
    """Whether a token begins inside a character of UTF-8."""
    return bool(piece) and piece[0] & 0xC0 == 0x80
