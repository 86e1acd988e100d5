"""Deterministic order of training blocks: fixed by the seed, the same on all ranks and after a resume.

Languages take turns in the proportions asked for; within a language, blocks come in a shuffled order that is reshuffled
when all have been seen. Nothing depends on what was drawn before, so a resumed stage continues exactly where it was.
"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch

from lpr_lab.errors import UsageError
from lpr_lab.text.blocks import Blocks


class BlockSchedule:
    """The order in which blocks of several languages are trained on.

    Args:
        blocks: language code -> its packed blocks; all of one block length.
        weights: language code -> relative share of blocks; equal shares by default.
        blocks_per_step: blocks of one optimiser step, over all ranks and micro-batches.
        seed: of the shuffles.
    """

    def __init__(
        self,
        blocks: Mapping[str, Blocks],
        *,
        blocks_per_step: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if not blocks:
            raise UsageError("There is nothing to train on: no language has any blocks.")
        self.languages = tuple(blocks)
        self.blocks = dict(blocks)
        self.blocks_per_step = blocks_per_step
        self.seed = seed
        shares = np.array([(weights or {}).get(language, 1.0) for language in self.languages], dtype=float)
        self._pattern = _turns(shares / shares.sum())
        self._orders: dict[int, dict[int, np.ndarray]] = {}
        self._per_round = np.bincount(self._pattern, minlength=len(self.languages))

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimiser step, padding included."""
        return self.blocks_per_step * next(iter(self.blocks.values())).block_tokens

    def at(self, step: int) -> list[tuple[str, int]]:
        """Return (language, block index) for every block of a step (counted from 0)."""
        start = step * self.blocks_per_step
        return [self._at_place(place) for place in range(start, start + self.blocks_per_step)]

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Return the blocks of a step stacked, int64 [blocks_per_step, S] per field."""
        rows = [self.blocks[language][index] for language, index in self.at(step)]
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

    def ledger(self, steps: int) -> str:
        """Return a SHA-256 over the blocks of the first `steps` steps: equal ledgers saw the same text in one order."""
        digest = hashlib.sha256()
        for step in range(steps):
            digest.update(repr(self.at(step)).encode())
        return digest.hexdigest()

    def _at_place(self, place: int) -> tuple[str, int]:
        round_, turn = divmod(place, len(self._pattern))
        which = int(self._pattern[turn])
        drawn_before = round_ * int(self._per_round[which]) + int((self._pattern[:turn] == which).sum())
        language = self.languages[which]
        epoch, position = divmod(drawn_before, len(self.blocks[language]))
        return language, int(self._order(which, epoch)[position])

    def _order(self, which: int, epoch: int) -> np.ndarray:
        """Return the shuffled order of a language's blocks; the last two are kept, since a step may see two of them."""
        known = self._orders.setdefault(which, {})
        if epoch not in known:
            while len(known) > 1:
                del known[next(iter(known))]
            count = len(self.blocks[self.languages[which]])
            known[epoch] = np.random.default_rng([self.seed, which, epoch]).permutation(count)
        return known[epoch]


def _turns(shares: np.ndarray) -> np.ndarray:
    """Spread languages evenly over a round: at each turn the one furthest behind its share is next.

    A round is 60 turns, or more where the rarest language would have fewer than ten: it must not be rounded away.
    """
    length = max(60, math.ceil(10 / shares.min()))
    given = np.zeros(len(shares))
    turns = np.empty(length, dtype=int)
    for turn in range(length):
        turns[turn] = int(np.argmax(shares * (turn + 1) - given))
        given[turns[turn]] += 1
    return turns
