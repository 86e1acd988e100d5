"""Speed, and the cost of a language, on so many devices: operations divided by a share of a device's peak."""

from dataclasses import dataclass

from lpr_lab.errors import UsageError
from lpr_lab.method import paper_settings as paper
from lpr_lab.method.costs.operations import dense_step, expand_step, forward, review_step
from lpr_lab.method.costs.shape import Expansion

PEAK = 989e12
"""Operations per second of an H100 (SXM) in dense bf16, as its maker says."""
SHARE = 0.3
"""Share of that peak that a step is taken to reach. An assumption: Llama 3's paper reports 0.38 to 0.43 for its dense
training, a mixture sorts and gathers besides, and nothing was measured on a GPU here."""
DEVICE_BYTES = 80e9
TOKENS_PER_LANGUAGE = {
    "MoE-LPR": paper.MOE_LPR_STAGE1.tokens // len(paper.G1),
    "LayerMoE": paper.LAYER_MOE_STAGE1.tokens // len(paper.G1),
}
"""Of stage 1, in the papers."""
REVIEW_TOKENS_PER_LANGUAGE = paper.MOE_LPR_STAGE2.tokens // len(paper.G1)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What a machine is taken to reach.

    Attributes:
        peak: operations per second of one device.
        share: of it, that a step reaches.
        devices: how many work on one step; their exchange is part of the share.
    """

    peak: float = PEAK
    share: float = SHARE
    devices: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.peak <= 0 or self.devices < 1:
            raise UsageError(
                f"share = {self.share}, peak = {self.peak}, devices = {self.devices}; expected a share above 0 and "
                "up to 1, a peak above 0 and at least one device."
            )

    @property
    def operations(self) -> float:
        """Per second, all devices together."""
        return self.peak * self.share * self.devices


def step_operations(expansion: Expansion, block_tokens: int = 1024, *, checkpointing: bool = True) -> float:
    """Return operations per token of stage 1; checkpointing runs the layers forward once more, the head not."""
    sizes = expansion.base.sizes(block_tokens)
    again = forward(sizes, expansion.visited) - 2.0 * expansion.base.vocabulary * expansion.base.width
    return expand_step(sizes, expansion.visited, expansion.visited_new) + checkpointing * again


def tokens_per_second(
    expansion: Expansion, speed: Speed, block_tokens: int = 1024, *, checkpointing: bool = True
) -> float:
    """Return tokens per second of stage 1."""
    return speed.operations / step_operations(expansion, block_tokens, checkpointing=checkpointing)


def device_hours(
    expansion: Expansion, tokens: int, speed: Speed, *, review_tokens: int = 0, checkpointing: bool = True
) -> float:
    """Return device hours of so many tokens of stage 1, and of stage 2 after it."""
    review = review_step(expansion.base.sizes(512), expansion.visited)
    work = tokens * step_operations(expansion, checkpointing=checkpointing) + review_tokens * review
    return work / speed.operations * speed.devices / 3600


def step_ratio(expansion: Expansion, block_tokens: int = 1024) -> float:
    """Return operations of a step of stage 1 over those of full fine-tuning, both without checkpointing."""
    return step_operations(expansion, block_tokens, checkpointing=False) / dense_step(
        expansion.base.sizes(block_tokens)
    )
