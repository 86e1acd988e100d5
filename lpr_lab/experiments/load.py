"""What a run is made from, loaded: the model it starts with and the expanded one; the same in every process."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.experiments.config import Experiment
from lpr_lab.experiments.steps import plan
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.formats.save_load import load_expansion, load_tokenizer
from lpr_lab.model.machine import resolve_base_dtype
from lpr_lab.model.peft import PeftModel
from lpr_lab.runs.run import Run
from lpr_lab.text.corpus import Corpus


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
        begun = run.phases.get("upcycle")
        # A run goes on with what it was begun with, also on a machine that would choose another for itself.
        chosen = experiment.base_dtype if begun is None else begun.get("base_dtype", "float32")
        dtype = resolve_base_dtype(chosen, experiment.precision)
        return None, *load_base(experiment.base, dtype=dtype, quantization=experiment.quantization)
    parent = Run.open(run.path.parent, before)
    return parent, load_expansion(parent.path, device=device), load_tokenizer(parent.path)


def expanded_model(
    experiment: Experiment,
    run: Run,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
) -> PeftModel:
    """Return the model with the experts that the run's plan gives it; where there is none, it is made and recorded.

    Everything random in it comes from the experiment's seed, so that it is the same wherever it is made.
    """
    if experiment.from_run:
        assert isinstance(model, PeftModel)
        return model
    allocation = plan(experiment, run, model, tokenizer, corpus)
    return upcycle(model, allocation, **vars(experiment.upcycle), seed=experiment.seed)
