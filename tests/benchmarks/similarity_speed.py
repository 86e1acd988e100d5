"""Mean cosine over all token pairs: our streaming form beside the released one, at a size that one can do.

    .venv/bin/python tests/benchmarks/similarity_speed.py [rounds]

Given the states of a layer, because both forms need the same forward pass. Equal to 1e-5, or it says so and fails. The
released form wants 100,000 tokens a language, a matrix of 40 GB in float32; here it gets 50,000, a matrix of 10 GB.
"""

import sys

import numpy as np
import torch
from measuring import Row, compared, in_turns, save

from lpr_lab.method.similarity import _UnitSums
from lpr_lab.model.cosines import mean_cosines

TOKENS, WIDTH, BLOCK = 50_000, 576, 256


def main(rounds: int) -> None:
    """Measure two languages, one layer."""
    generator = torch.Generator().manual_seed(0)
    # Off-centre, as hidden states are: else every mean cosine is 0.
    languages = [torch.randn(TOKENS, WIDTH, generator=generator) + shift for shift in (0.3, 0.2)]

    def pairwise() -> float:
        """Every token of one language with every token of the other."""
        unit = [torch.nn.functional.normalize(states, dim=-1) for states in languages]
        return float((unit[0] @ unit[1].T).mean())

    def streaming() -> float:
        """The library's sums, fed block by block as a forward pass feeds them."""
        means = []
        sums = _UnitSums(1)
        for states in languages:
            sums.begin(TOKENS)
            for block in states.split(BLOCK):
                ones = torch.ones(1, len(block), dtype=torch.int64)
                batch = {"language_id": ones, "position_ids": ones}
                sums.count(batch)
                sums.expect(batch)
                sums.add(0, block[None])
            means.append(sums.means())
        return float(mean_cosines(np.stack(means), [TOKENS, TOKENS])[0, 0, 1])

    difference = abs(pairwise() - streaming())
    assert difference < 1e-5, f"the two forms differ by {difference}"
    seconds = in_turns({"streaming": streaming, "pairwise": pairwise}, rounds)
    what = f"Similarity of two languages, {TOKENS:,} tokens each, one layer"
    note = f"equal to {difference:.0e}; ours grows with N, the released form with N²"
    rows: list[Row] = [compared(what, "all pairs", seconds["streaming"], seconds["pairwise"], at_least=100, note=note)]
    save("similarity_speed", rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
