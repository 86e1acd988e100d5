"""How many new experts each layer gets.

MoE-LPR gives every layer the same number (`uniform`); a list of numbers is an allocation too. Letters: L layers.
"""

from dataclasses import dataclass

from lpr_lab.errors import UsageError


@dataclass(frozen=True)
class Allocation:
    """New experts per decoder layer.

    Attributes:
        new_experts: length L; 0 leaves a layer dense. Expert 0, the original, is not counted.
    """

    new_experts: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(not isinstance(count, int) or count < 0 for count in self.new_experts):
            raise UsageError(f"An allocation is one whole number >= 0 per layer; got {self.new_experts}.")
        if not sum(self.new_experts):
            raise UsageError("The allocation adds no expert to any layer; give at least one layer one new expert.")

    @property
    def total(self) -> int:
        """New experts over all layers."""
        return sum(self.new_experts)


def uniform(num_layers: int, per_layer: int = 1) -> Allocation:
    """Give every layer the same number of new experts (MoE-LPR; 5 in the paper's main experiments).

    >>> uniform(3, per_layer=2).new_experts
    (2, 2, 2)
    """
    if num_layers < 1 or per_layer < 1:
        raise UsageError(f"Expected at least one layer and one new expert, got {num_layers} and {per_layer}.")
    return Allocation((per_layer,) * num_layers)
