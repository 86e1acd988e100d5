"""Measures how much a new expert is worth in each layer of a dense base, by one of the known scores."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import UnsupportedModelError, UsageError, one_of
from lpr_lab.method.baselines.calibration import require_reader
from lpr_lab.method.baselines.lape import firing_rates
from lpr_lab.method.scores.gradient import length_of_gradient, mlp_gradients, predicted_gain
from lpr_lab.method.scores.neurons import neurons_per_layer
from lpr_lab.method.scores.table import KINDS, LayerScores
from lpr_lab.model.bases.families import find_decoder_mlps
from lpr_lab.model.bases.quantized import num_values, quantization_of, use_portable_linear
from lpr_lab.model.mixture import all_layers
from lpr_lab.model.peft import PeftModel
from lpr_lab.text.corpus import Corpus


def measure_layer_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    by: str,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    tokens_per_language: int = 8192,
    neuron_share: float = 0.05,
    precision: str = "auto",
    seed: int = 0,
) -> LayerScores:
    """Measure a score per layer of a dense base, which `allocate` divides a budget in proportion to.

    Args:
        model: the dense base.
        tokenizer: its own.
        corpus: its `train` split of the expanded languages is read, and by `neurons` also `replay` of the original.
        by: `neurons`, language-specific ones (see `scores.neurons`); `gradient`, the length of the new languages'
            gradient; or `predicted_gain`, the loss that a small step would take away (both: see `scores.gradient`).
        original: languages the model is good at.
        expanded: languages it is to learn.
        tokens_per_language: text of each.
        neuron_share: by `neurons`, which share of all neurons counts as specific to a language.
        precision: auto, fp32 or bf16.
        seed: which documents are drawn.

    Raises:
        UsageError: an unknown score, no language on one side, a share outside 0 to 1, too little text, no layer with a
            score above 0, or a model that is expanded already: the scores are the base's.
        UnsupportedModelError: a base in four bits, of which there is no gradient.

    Examples:
        >>> scores = measure_layer_scores(model, tokenizer, corpus, "gradient",
        ...     original=["en"], expanded=["el"])  # doctest: +SKIP
        >>> allocate(scores, budget=60).new_experts  # doctest: +SKIP
    """
    one_of("by", by, KINDS)
    if not original or not expanded or set(original) & set(expanded):
        raise UsageError(
            f"original = {list(original)}, expanded = {list(expanded)}; expected one language or more on each side, "
            "and none on both."
        )
    if not 0 < neuron_share <= 1:
        raise UsageError(f"neuron_share = {neuron_share}; expected above 0 and up to 1.")
    if isinstance(model, PeftModel) or all_layers(model):
        raise UsageError(
            f"The score {by!r} is measured on a dense base, and this {type(model).__name__} carries an adapter. Load "
            "the base again with lpr_lab.load_base; for a further expansion take similarity."
        )
    if by != "neurons" and quantization_of(model):
        raise UnsupportedModelError(
            f"The base is in four bits ({quantization_of(model)}), and {by} needs gradients of its weights. Load it "
            "without quantization, or take similarity or neurons."
        )
    use_portable_linear(model)
    require_reader(model, tokenizer)
    reading = {"tokens_per_language": tokens_per_language, "precision": precision, "seed": seed}
    if by == "neurons":
        rates = firing_rates(model, tokenizer, corpus, original=original, expanded=expanded, **reading)
        values = neurons_per_layer(rates, len(original), neuron_share)
    else:
        halves = mlp_gradients(model, tokenizer, corpus, expanded=expanded, **reading)
        values = length_of_gradient(halves) if by == "gradient" else predicted_gain(halves)
    return LayerScores(
        kind=by,
        values=values,
        expert_parameters=tuple(
            sum(num_values(parameter) for parameter in mlp.module.parameters()) for mlp in find_decoder_mlps(model)
        ),
        original=tuple(original),
        expanded=tuple(expanded),
        tokens_per_language=tokens_per_language,
    )
