"""Cached generation, expanded beside base, against what the arithmetic of one token allows.

.venv/bin/python tests/benchmarks/generation_speed.py [rounds]
"""

import sys

import torch
from arithmetic import forward, sizes, visits
from measuring import Row, compared, in_turns, save

import lpr_lab as lab

NEW_TOKENS = 48


def main(rounds: int) -> None:
    """Measure on SmolLM2 with one and three new experts per layer, greedy, 48 tokens after a short prompt."""
    rows: list[Row] = []
    for new in (1, 3):
        base, tokenizer = lab.load_base("smollm2-135m")
        of = sizes(base, block_tokens=1)
        model = lab.upcycle(base, lab.uniform(30, new)).eval()
        prompt = tokenizer("The ferry leaves the harbour at noon and", return_tensors="pt")
        visited, _ = visits(model, prompt["input_ids"])

        @torch.no_grad()
        def write(model=model, prompt=prompt) -> None:
            model.generate(**prompt, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)

        def write_base(model=model, write=write) -> None:
            with model.disable_adapter():
                write()

        seconds = in_turns({"expanded": write, "base": write_base}, rounds)
        bound = forward(of, visited) / forward(of)
        what = f"Cached generation, {new} new expert{'s' if new > 1 else ''} per layer"
        against = f"base × {bound:.2f} (ratio of operations)"
        rows.append(compared(what, against, seconds["expanded"], seconds["base"], at_most=1.15, bound=bound))
        save("generation_speed", rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
