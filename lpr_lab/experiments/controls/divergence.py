"""KL_self of a run: the base writes samples, which stay in the run, and every stage is compared with it on them."""

import pandas as pd

from lpr_lab.experiments.steps import RunContext
from lpr_lab.measure.controls.self_divergence import self_divergence
from lpr_lab.measure.controls.self_samples import draw_samples, sample_rows
from lpr_lab.model.stages import stage_names, use_stage


def measure_self_divergence(context: RunContext) -> dict[str, pd.DataFrame]:
    """Return the tables `self_samples` and `self_divergence`, the latter with the stages of the model in their order.

    Several processes each do all of it, and find the same.
    """
    experiment, model = context.experiment, context.model
    wanted = experiment.self_divergence
    options = {"precision": experiment.precision, "seed": experiment.seed}
    with use_stage(model, None):
        samples = draw_samples(
            model,
            context.tokenizer,
            context.corpus,
            languages=experiment.original,
            count=wanted.count,
            tokens=wanted.tokens,
            split="dev" if "dev" in context.corpus.splits else "train",
            **options,
        )
    *earlier, newest = stage_names(model)
    table = self_divergence(
        model,
        context.tokenizer,
        samples,
        base=getattr(model, "base", None),
        stages=earlier,
        name=newest,
        bootstrap=experiment.evaluate.bootstrap,
        **options,
    )
    return {"self_samples": sample_rows(samples), "self_divergence": table}
