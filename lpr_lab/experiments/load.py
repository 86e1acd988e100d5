"""What a run is made from, loaded: the model it starts with and the expanded one; the same in every process."""

from typing import Any

from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.experiments.config import Experiment
from lpr_lab.experiments.steps import plan
from lpr_lab.method.allocation import uniform
from lpr_lab.method.baselines import kinds
from lpr_lab.method.baselines.files import saved_selection
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.bases.tensor_files import read_tensors
from lpr_lab.model.formats.save_load import load_expansion, load_tokenizer
from lpr_lab.model.machine import resolve_base_dtype
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.tuned.names import FINETUNE
from lpr_lab.model.tuned.pair import Tuned
from lpr_lab.runs.run import Run
from lpr_lab.text.corpus import Corpus

SELECTION = "selection.safetensors"
"""What a baseline chose by looking at text, beside its checkpoints."""


def starting_model(
    experiment: Experiment, run: Run, device: str | None = None
) -> tuple[Run | None, PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Return the run whose model this one goes on from, if any, the model to begin with, and its tokenizer.

    Args:
        experiment: what the run is made with.
        run: beside which its parent is.
        device: for the model; see `load_base` where it is not given.
    """
    before = experiment.from_run or experiment.parent
    if not before:
        begun = run.phases.get("upcycle", run.phases.get("baseline"))
        # A run goes on with what it was begun with, also on a machine that would choose another for itself.
        chosen = experiment.base_dtype if begun is None else begun.get("base_dtype", "float32")
        dtype = resolve_base_dtype(chosen, experiment.precision)
        return None, *load_base(experiment.base, dtype=dtype, quantization=experiment.quantization)
    parent = Run.open(run.path.parent, before)
    return parent, load_expansion(parent.path, device=device), load_tokenizer(parent.path)


def model_to_train(
    experiment: Experiment,
    run: Run,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
) -> PeftModel | Tuned:
    """Return the model with the experts that the run's plan gives it, or the baseline; what is not planned is now.

    Everything random in it comes from the experiment's seed, so that it is the same wherever it is made.
    """
    if experiment.from_run:
        assert isinstance(model, PeftModel)
        return model
    if experiment.is_baseline:
        return _baseline(experiment, run, model, tokenizer, corpus)
    allocation = plan(experiment, run, model, tokenizer, corpus)
    return upcycle(model, allocation, **vars(experiment.upcycle), seed=experiment.seed)


def _baseline(
    experiment: Experiment,
    run: Run,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
) -> Tuned:
    """Return the baseline beside its base; what it chooses by looking at text is kept for the next session."""
    assert not isinstance(model, PeftModel)
    kind, kept = experiment.finetune.kind, run.paths.stage(FINETUNE) / SELECTION
    if run.paths.has_checkpoint:
        selection = saved_selection(run.paths.checkpoint)
    elif kept.is_file():
        selection = read_tensors(kept)
    else:
        selection = kinds.select(
            kind,
            model,
            tokenizer,
            corpus,
            original=experiment.original,
            expanded=experiment.expanded,
            settings=_selecting(experiment),
        )
        if selection:
            save_file(selection, str(kept.with_suffix(".part")))
            kept.with_suffix(".part").replace(kept)
    return kinds.make(kind, model, _making(experiment, model), selection)


def _selecting(experiment: Experiment) -> dict[str, Any]:
    """Return the settings with which a baseline chooses by looking at text."""
    given = experiment.finetune
    share = {"ssu": {"frozen_share": given.frozen_share}, "lape": {"neuron_share": given.neuron_share}}
    reading = {"tokens_per_language": given.calibration_tokens, "seed": experiment.seed}
    return share.get(given.kind, {}) | reading | {"precision": experiment.precision}


def _making(experiment: Experiment, model: PreTrainedModel) -> dict[str, Any]:
    """Return the settings that make a baseline on its base, as plain values."""
    given, seed = experiment.finetune, experiment.seed
    num_layers = model.config.get_text_config().num_hidden_layers
    planned = experiment.allocation
    if isinstance(planned, str):
        planned = uniform(num_layers, experiment.new_experts_per_layer).new_experts
    settings: dict[str, dict[str, Any]] = {
        "lora": {"rank": given.lora_rank, "seed": seed},
        "lora_moe": {"rank": given.lora_rank, "num_experts": given.lora_experts, "seed": seed},
        "llama_pro": {"num_blocks": given.added_blocks or _half(num_layers)},
        "sparse_moe": {"allocation": list(planned), "top_k": experiment.upcycle.top_k, "seed": seed},
    }
    return settings.get(given.kind, {})


def _half(num_layers: int) -> int:
    """Return the largest number of new blocks that divides the layers, up to half of them.

    >>> _half(24), _half(30), _half(2), _half(3)  # 12 in LLaMA-Pro's setting of MoE-LPR
    (12, 15, 1, 1)
    """
    return max(number for number in range(1, num_layers // 2 + 1) if num_layers % number == 0)
