"""A base and the dense model that was tuned from it, as one module with a switch.

An expansion has its base inside. A model of which every weight learned has not, so the two stand beside one another
here, and whatever asks an expansion for its base (`disable_adapter`, `use_stage`) asks this in the same way. Weights
that did not change are shared by both, not held twice.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from lpr_lab.errors import UsageError
from lpr_lab.model.peft import PeftModel


class Tuned(nn.Module):
    """A baseline's model: it computes as tuned, and inside `disable_adapter` as the base.

    Attributes:
        base: the base, untouched.
        tuned: what was made of it; `peft.PeftModel` for LoRA, else a causal LM.
        kind: of baseline, such as `full` (see `method.baselines.kinds`).
        settings: what it was made with, as plain values: enough to make it again on the base.
        selection: what was chosen by looking at text: path of a module -> int64 [n].
        shows_base: which of the two computes.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        tuned: PreTrainedModel | PeftModel,
        kind: str,
        settings: Mapping[str, Any],
        selection: Mapping[str, torch.Tensor],
    ) -> None:
        super().__init__()
        self.base = base
        self.tuned = tuned
        self.kind = kind
        self.settings = dict(settings)
        self.selection = dict(selection)
        self.shows_base = False

    @property
    def active(self) -> PreTrainedModel | PeftModel:
        """The one of the two that computes."""
        return self.base if self.shows_base else self.tuned

    @property
    def config(self) -> Any:
        """The configuration of the one that computes: LLaMA-Pro has more layers than its base."""
        return self.active.config

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.base.parameters()).device

    def get_input_embeddings(self) -> nn.Module:
        """Return the embeddings of the one that computes, as a model of transformers does."""
        return self.active.get_input_embeddings()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the one that computes returns."""
        return self.active(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As `transformers` has it, by the one that computes."""
        return cast("Any", self.active).generate(*args, **kwargs)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Compute as the base inside the block."""
        before, self.shows_base = self.shows_base, True
        try:
            yield
        finally:
            self.shows_base = before


def model_and_base(
    model: PeftModel | PreTrainedModel | Tuned, base: PreTrainedModel | None = None
) -> tuple[PeftModel | PreTrainedModel, PreTrainedModel | None]:
    """Return the model that computes, and its base where it has none inside: a baseline is taken apart.

    Raises:
        UsageError: a base beside a model that has its own.
    """
    if base is not None and isinstance(model, PeftModel | Tuned):
        raise UsageError(
            "This model has its base inside (disable_adapter), which is what it is compared with; drop base."
        )
    if isinstance(model, Tuned):
        return model.tuned, None if isinstance(model.tuned, PeftModel) else model.base
    return model, base
