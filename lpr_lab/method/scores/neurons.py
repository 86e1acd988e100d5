"""Language-specific neurons of each layer, the score of NeuronMoE (arXiv 2603.05046).

NeuronMoE counts a layer's neurons that are specific to languages: those of the original language and the mean over the
new ones. We know it from readings of its released code, not from its text, and two things are other here: neurons are
found as LAPE does (see `baselines.lape`), not by average precision, and experts are divided in proportion to the
counts, as every score is, not by its scaling between the lowest and the highest count.
"""

import torch

from lpr_lab.method.baselines.lape import specific_neurons


def neurons_per_layer(rates: torch.Tensor, num_original: int, neuron_share: float) -> tuple[float, ...]:
    """Return for each layer its specific neurons: the mean over the original languages plus that over the new ones.

    Args:
        rates: how often each neuron fires, [languages, L, F], the original languages first.
        num_original: how many of the languages are original.
        neuron_share: which share of all neurons counts as specific, those of the lowest entropy; each belongs to the
            language that it fires for most often.

    >>> rates = torch.tensor([[[0.5, 0.0], [0.5, 0.5]], [[0.5, 0.9], [0.4, 0.4]]])  # two languages, two layers
    >>> neurons_per_layer(rates, 1, 0.25)  # one neuron of the four: the one that fires for the second language alone
    (1.0, 0.0)
    """
    languages = range(len(rates))
    wanted = max(1, round(neuron_share * rates[0].numel()))
    chosen = specific_neurons(rates, languages, wanted)
    owner = rates.argmax(0)
    counts = torch.stack([(chosen & (owner == language)).sum(-1) for language in languages]).double()
    return tuple((counts[:num_original].mean(0) + counts[num_original:].mean(0)).tolist())
