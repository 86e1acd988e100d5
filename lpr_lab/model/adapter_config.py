"""Configuration of an expansion (`adapter_config.json`): layers, experts, language groups and stages."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lpr_lab.errors import UsageError, one_of
from lpr_lab.model.peft import PeftConfig, PeftType

METHOD = "MOE_LPR"
PREFIX = "moe_lpr_"  # transformers looks adapters' parameters up by the lower-case method name
ROUTER_INPUTS = ("token", "token_and_mean")
CLASSIFIER_INPUTS = ("token", "sequence")


@dataclass
class MoeLprConfig(PeftConfig):
    """What an expansion consists of; stored as `adapter_config.json`.

    Attributes:
        layer_paths: dotted module paths of the MLPs that become mixtures, from the causal LM down.
        layer_indices: decoder layer index of each of them.
        new_experts: one list per expansion; how many experts it adds to each of these layers.
        groups: one list per expansion: the languages its experts were trained on; empty before stage 1.
        original: languages that routers were taught to leave to expert 0; empty before a review.
        stages: in the order they were made, each `{"name", "expansion", "classifiers"}`: what it is called, the
            newest expansion it uses (0 is the first), and the decoder layers where a classifier stands.
        classifier_input: `token`, or `sequence` for the released form (see `RoutingClassifier`).
        top_k: experts per token; at least 2.
        router_input: `token` (the papers) or `token_and_mean` (also the causal running mean of the document).
        router_bias: whether routers have a constant per expert.
        base_fingerprint: SHA-256 over the base model's tensors; another base is refused.
        base_fingerprint_bfloat16: the same over the tensors rounded to bfloat16, for a base that is loaded so.
        base_quantization: how the base's linear maps were packed when the expansion was made (`nf4`), or empty.
        base_dtype: what the base was held in when the expansion was made, such as `bfloat16`, to load it so again.
        base_name: the name by which `load_base` finds the base again.
        base_model_name_or_path: where the `Auto` classes of transformers and PEFT look for the base; a path of this
            machine unless the base is on the hub.
        dispatch: `grouped` (fast) or `loop` (the oracle of the tests).
    """

    layer_paths: list[str] = field(default_factory=list)
    layer_indices: list[int] = field(default_factory=list)
    new_experts: list[list[int]] = field(default_factory=list)
    groups: list[list[str]] = field(default_factory=list)
    original: list[str] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    classifier_input: str = "token"
    top_k: int = 2
    router_input: str = "token"
    router_bias: bool = False
    base_fingerprint: str = ""
    base_fingerprint_bfloat16: str = ""
    base_quantization: str = ""
    base_dtype: str = "float32"
    base_name: str = ""
    dispatch: str = "grouped"
    target_modules: None = None  # PEFT reads it; layers are named by `layer_paths`, one by one
    base_is_checked: ClassVar[bool] = False  # set on one object by `wrap`, never stored

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType[METHOD]
        if self.top_k < 2:
            raise UsageError(
                f"top_k = {self.top_k}: with one expert per token the combine weight is always 1, so the router would "
                "get no gradient from the language model and the start would not equal the base. Use 2 or more."
            )
        one_of("router_input", self.router_input, ROUTER_INPUTS)
        one_of("classifier_input", self.classifier_input, CLASSIFIER_INPUTS)

        if self.base_model_name_or_path and Path(self.base_model_name_or_path).is_absolute():
            if not Path(self.base_model_name_or_path).is_dir():
                warnings.warn(
                    f"The base of this expansion is not at {self.base_model_name_or_path}, where AutoPeftModel... and "
                    "AutoModel... look for it. Open the adapter with lpr_lab.load_expansion(path) instead; a base that "
                    "was moved is given to it as base=...",
                    stacklevel=2,
                )

    def experts_of(self, path: str) -> list[int]:
        """Return how many experts each expansion adds to the layer at `path`."""
        row = self.layer_paths.index(path)
        return [group[row] for group in self.new_experts]
