"""Scoring documents in bits per byte beside lm-evaluation-harness on the same texts and model.

    .venv/bin/pip install -e ".[eval]"
    .venv/bin/python tests/benchmarks/evaluation_speed.py [rounds]

Both score every token of every document once, each document by itself, float32. The harness pads a batch to its
longest document; we pack documents into blocks that do not attend across them.
"""

import sys

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from measuring import Row, compared, in_turns, save

import lpr_lab as lab
from lpr_lab.measure.bits import document_nats
from lpr_lab.text.packing import pack

TOKENS, BLOCK = 6_000, 256


def main(rounds: int) -> None:
    """Measure on SmolLM2 and held-out Greek and English."""
    base, tokenizer = lab.load_base("smollm2-135m")
    corpus = lab.load_corpus("demo", languages=["en", "el"])
    documents, total = [], 0
    pool = [
        d for pair in zip(*(corpus.documents("heldout", code) for code in ("en", "el")), strict=False) for d in pair
    ]
    for document in pool:
        length = len(tokenizer(document.text, add_special_tokens=False)["input_ids"])
        if 16 <= length <= BLOCK - 2:  # one window of either, so that both see the same context
            documents.append(document)
            total += length
        if total >= TOKENS:
            break
    harness = HFLM(pretrained=base, tokenizer=tokenizer, batch_size=4, max_length=BLOCK)
    requests = [
        Instance("loglikelihood_rolling", {}, (document.text,), index) for index, document in enumerate(documents)
    ]
    blocks = pack(documents, tokenizer, BLOCK, languages=("en", "el"))
    found: dict[str, np.ndarray] = {}

    def theirs() -> None:
        found["theirs"] = -np.array(harness.loglikelihood_rolling(requests, disable_tqdm=True))

    def ours() -> None:
        found["ours"] = document_nats(base.eval(), blocks, precision="fp32")

    seconds = in_turns({"ours": ours, "theirs": theirs}, rounds)
    apart = float(np.median(np.abs(found["ours"] / found["theirs"] - 1)))
    note = f"{len(documents)} documents, {total:,} tokens; scores differ by {apart:.1e} in the median"
    what = "Evaluation, tokens per second"
    rows: list[Row] = [
        compared(what, "lm-evaluation-harness", seconds["ours"], seconds["theirs"], at_least=1.5, note=note)
    ]
    save("evaluation_speed", rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
