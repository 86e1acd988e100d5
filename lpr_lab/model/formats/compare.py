"""Whether two models compute the same: their logits on tokens drawn with a fixed seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel

from lpr_lab.errors import DamagedError
from lpr_lab.model.bases.rounding import logit_tolerance
from lpr_lab.model.peft import PeftModel
from lpr_lab.text.packing import in_mode


def probe_ids(vocabulary: int) -> torch.Tensor:
    """Return tokens [2, 16], drawn with a fixed seed.

    >>> probe_ids(400).shape
    torch.Size([2, 16])
    """
    return torch.randint(vocabulary, (2, 16), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def probe_logits(model: PeftModel | PreTrainedModel) -> torch.Tensor:
    """Return the logits [2, 16, V] of a causal LM on `probe_ids`."""
    causal_lm = cast("PreTrainedModel", model)
    ids = probe_ids(causal_lm.config.get_text_config().vocab_size).to(causal_lm.device)
    with in_mode(causal_lm, training=False):
        return causal_lm(input_ids=ids).logits


@dataclass(frozen=True)
class Difference:
    """How far the logits of two forward passes are apart.

    Attributes:
        largest: the largest difference.
        largest_logit: without its sign.
    """

    largest: float
    largest_logit: float

    @classmethod
    def of(cls, expected: torch.Tensor, found: torch.Tensor) -> "Difference":
        """Compare logits of one shape."""
        return cls(float((found.to(expected.device) - expected).abs().max()), float(expected.abs().max()))

    @property
    def is_rounding(self) -> bool:
        """Whether it is rounding in float32."""
        return self.largest <= logit_tolerance(self.largest_logit)

    def __str__(self) -> str:
        return (
            f"logits, the largest {self.largest_logit:.1f}, differ by up to {self.largest:.1e} (up to "
            f"{logit_tolerance(self.largest_logit):.1e} is rounding)."
        )


def check_written(stage: Path, model: PreTrainedModel, expected: torch.Tensor) -> float:
    """Open a model that was just written, and return by how much its logits differ.

    Args:
        stage: the folder.
        model: what was written there.
        expected: logits, from `probe_logits`.

    Raises:
        DamagedError: they differ by more than rounding in float32.
    """
    written = type(model).from_pretrained(
        stage,
        dtype=model.dtype,
        attn_implementation=model.config._attn_implementation,
        device_map={"": model.device},
    )
    apart = Difference.of(expected, probe_logits(written))
    if not apart.is_rounding:
        raise DamagedError(f"What was written does not compute the same, so nothing is kept: {apart}")
    return apart.largest
