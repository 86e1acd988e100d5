"""What a stage says it computed with is what was seen in its first step, in every stage of a process."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.training import TrainSettings
from lpr_lab.method.upcycle import upcycle

SETTINGS = TrainSettings(tokens=2 * 4 * 32, block_tokens=32, blocks_per_step=4, blocks_per_forward=2)
FULL, HALF = torch.float32, torch.bfloat16
PRECISION = {"fp32": FULL, "bf16": HALF}


class Products(TorchDispatchMode):
    """Counts matrix products by the precision that they are computed in, below everything that could pretend."""

    def __init__(self):
        super().__init__()
        self.counts = {FULL: 0, HALF: 0}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.name().split(".")[0] in ("aten::mm", "aten::addmm", "aten::_grouped_mm"):
            self.counts[result.dtype] += 1
        return result


def run_expand(model, tokenizer, corpus, out, precision):
    settings = replace(SETTINGS, precision=precision)
    return expand(model, tokenizer, corpus, languages=["el", "tr"], out=out, settings=settings)


def run_review(model, tokenizer, corpus, out, precision):
    options = {"original": ["en"], "expanded": ["el", "tr"], "settings": replace(SETTINGS, precision=precision)}
    return review(model, tokenizer, corpus, out=out, **options)


@pytest.mark.parametrize("first", PRECISION)
@pytest.mark.parametrize("second", PRECISION)
def test_the_second_stage_of_a_process_computes_in_the_precision_that_it_reports(
    first, second, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    model = upcycle(tiny_model("llama"), (1, 3))
    for number, (run, precision) in enumerate([(run_expand, first), (run_review, second), (run_review, first)]):
        with Products() as seen:
            result = run(model, tiny_tokenizer, tiny_corpus, tmp_path / str(number), precision)
        assert result["precision"] == precision
        # Routers, a small part of all products, are float32 in any precision.
        assert seen.counts[HALF] > seen.counts[FULL] if precision == "bf16" else seen.counts[HALF] == 0
