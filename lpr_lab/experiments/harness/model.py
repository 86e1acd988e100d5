"""A run's model for lm-evaluation-harness: `--model lpr_lab --model_args run=ID,stage=base`.

Thin over the harness's own `HFLM`, whose are batching, caching, windows and generation. What is ours: a model is found
by its run and its stage, and text without a context is read as `measure.bits` reads it, so that bits per byte agree.

    ours (`text.packing`)          <|endoftext|> t1 t2 t3 …      every t is scored
    the harness, rolling           prefix        t1 t2 t3 …      the same, with the prefix below
"""

from pathlib import Path
from typing import Any, cast

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import MissingError, UnsupportedModelError, UsageError, one_of
from lpr_lab.experiments.studies.predecessors import find_predecessor
from lpr_lab.experiments.studies.subjects import WHAT, scored
from lpr_lab.method.baselines.files import is_baseline, load_tuned
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.fingerprint import check_base
from lpr_lab.model.bases.load import load_model as load_dense
from lpr_lab.model.formats.save_load import find_adapter, load_expansion, load_tokenizer, read_config
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import select_stage
from lpr_lab.runs.find import default_runs_dir
from lpr_lab.runs.model_ref import BASE, ModelRef, parse_model_ref
from lpr_lab.runs.run import Run
from lpr_lab.text.packing import separator_token_id

MODEL = "lpr_lab"
"""What the harness calls it."""
LATEST = "latest"
DTYPES = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
_TAKEN = (
    *("tokenizer", "truncation", "logits_cache", "max_length", "softmax_dtype", "mixed_precision_dtype", "batch_size"),
    *("max_batch_size", "add_bos_token", "prefix_token_id", "think_end_token", "enable_thinking", "chat_template_args"),
)
"""Arguments of `HFLM` that mean something for a model that is in memory already."""


def find_model(run: str, stage: str, root: Path | str) -> ModelRef:
    """Return the model that `run=` and `stage=` name.

    Args:
        run: the id of a finished expansion, or `latest` for the newest.
        stage: `base`, the name of a stage, or empty for the final model.
        root: the folder of runs.

    Raises:
        UsageError: no run was named, it is not finished or has no model, or it has no such stage.
        MissingError: there is no such run.
    """
    if not run:
        raise UsageError("Say which model: --model_args run=ID, or run=latest. `lpr-lab runs list` shows the ids.")

    def nothing() -> Run:
        raise MissingError(f"There is no {WHAT.removeprefix('a ')} in {root}. Make one: lpr-lab demo")

    named = "" if run == LATEST else run
    found = find_predecessor(root, named, suits=scored(named), what=WHAT, make=nothing)
    return parse_model_ref(stage, found, root)


def load_side(
    ref: ModelRef, *, dtype: str = "float32", device: str | None = None
) -> tuple[PeftModel | PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model that a reference names, at its stage, and its tokenizer; the base comes without the experts.

    Raises:
        UsageError: another precision than float32 and bfloat16.
        UnsupportedModelError: a stage whose classifiers see a whole text at once.
    """
    one_of("dtype", dtype, DTYPES)
    precision = DTYPES[dtype]
    tokenizer = load_tokenizer(ref.run.path)
    if is_baseline(ref.run.path):
        both = load_tuned(ref.run.path, device=device)
        return cast("Any", both.base if ref.stage == BASE else both.tuned).to(precision), tokenizer
    if ref.stage == BASE:
        config = read_config(find_adapter(ref.run.path))
        dense = load_dense(config.base_name, dtype=precision, device=device, quantization=config.base_quantization)
        check_base(dense, config)
        return dense, tokenizer
    model = load_expansion(ref.run.path, dtype=precision, device=device)
    if ref.stage:
        select_stage(model, ref.stage)
    if any(layer.classifier is not None and layer.classifier.pools_sequence for layer in moe_layers(model)):
        raise UnsupportedModelError(
            f"The routing classifiers of run {ref.run.id} pool a whole text, what is to be predicted included, so an "
            "answer would be scored by a model that has seen it. Name a stage without them (stage=…), or review with "
            "classifier_input='token'."
        )
    return model, tokenizer


_Base: Any = HFLM  # the harness's decorator hides what class it is


@register_model(MODEL)
class ExpansionLM(_Base):
    """The base, a stage or the final model of a run, for the harness."""

    def __init__(
        self,
        run: str = "",
        stage: str = "",
        runs_dir: str | Path | None = None,
        dtype: str = "float32",
        device: str | None = None,
        **options: Any,
    ):
        """Find and load the model.

        Args:
            run: see `find_model`.
            stage: see `find_model`.
            runs_dir: the folder of runs; `default_runs_dir()` when not given.
            dtype: of the base, `float32` or `bfloat16`; experts are float32 in memory.
            device: where to put it; this process's GPU, or the processor, by default.
            options: those of `HFLM` that concern a model in memory, such as `max_length` and `batch_size`.

        Raises:
            UsageError: an argument that could not be honoured, and what `find_model` and `load_side` refuse.
        """
        if refused := sorted(set(options) - set(_TAKEN)):
            raise UsageError(
                f"--model {MODEL} does not take {', '.join(refused)}; expected run, stage, runs_dir, dtype, "
                f"{', '.join(_TAKEN)}. For anything else export the model and use --model hf."
            )
        if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
            device = None  # the harness says cuda:0 where nothing was said, and its own models fall back too
        ref = find_model(run, stage, runs_dir or default_runs_dir())
        model, tokenizer = load_side(ref, dtype=dtype, device=device)
        options.setdefault("tokenizer", tokenizer)
        super().__init__(pretrained=model, **options)

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context is read after: the token before every document of ours, unless it was given.

        The harness would take the beginning token, which some models have and never saw before a document.
        """
        if self.custom_prefix_token_id is not None:
            return self.custom_prefix_token_id
        return separator_token_id(self.tokenizer)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts; a beginning token of the tokenizer's own, after the prefix, would be scored as text."""
        before, self.add_bos_token = self.add_bos_token, False
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm)
        finally:
            self.add_bos_token = before
