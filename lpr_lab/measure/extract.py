"""The dense model of one language's experts, where routing is nearly one-sided, with what that costs.

A mixture that sends a language to one expert in nearly every layer computes for that language nearly what a dense model
of these experts computes, at the base's size and speed, in every program that runs the base. How nearly is measured:
the experts' weights and the loss of all three models, on text that was not trained on.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab import storage
from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.measure.bits import Report, evaluate
from lpr_lab.model.adapter import expansion_config, moe_layers
from lpr_lab.model.bases.quiet import without_progress_bars
from lpr_lab.model.formats.compare import Difference, check_written, probe_logits
from lpr_lab.model.formats.dense import dense_model
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import selected_stage
from lpr_lab.model.steering import steer
from lpr_lab.text.corpus import Corpus

ONE_SIDED = 0.8
"""Mean weight over layers of the experts chosen, from which routing counts as one-sided."""
FACTS = "extraction.json"


@dataclass(frozen=True)
class Extraction:
    """A dense model that was written, and what was measured.

    Attributes:
        path: the folder; `AutoModelForCausalLM.from_pretrained(path)` opens it.
        language: whose experts it has.
        layers: one row per mixture layer: layer, expert, weight (the expert's mean weight on the language's tokens).
        scores: bits per byte (lower is better) of `base`, `expanded` and `extracted` per language and test set, with
            intervals, as `Report.to_frame()` has them.
        changes: from `expanded` to `extracted`, paired, as `Report.changes()` has them.
    """

    path: Path
    language: str
    layers: pd.DataFrame
    scores: pd.DataFrame
    changes: pd.DataFrame

    @property
    def weight(self) -> float:
        """Mean weight of the chosen experts over layers; 1 where the mixture was dense for this language already."""
        return float(self.layers["weight"].mean())


def extract(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    path: str | Path,
    *,
    language: str,
    languages: Sequence[str] = (),
    original: Sequence[str] = (),
    one_sided: float = ONE_SIDED,
    max_shard_size: str = "5GB",
    **options: Any,
) -> Extraction:
    """Write the dense model of the experts that have the most weight on one language, layer by layer.

    Args:
        model: an expanded model, at the stage whose routing is meant; classifiers and running means included.
        tokenizer: the base's; saved beside the model.
        corpus: has text of the languages that was not trained on.
        path: a folder that does not exist yet.
        language: whose experts to take.
        languages: others to measure the loss of as well.
        original: those of the languages that the base is good at.
        one_sided: least mean weight over layers of the chosen experts; 0 takes any.
        max_shard_size: of one file, as in transformers.
        options: of the measurement, as in `evaluate`: `splits`, `tokens_per_language`, `precision` and so on.

    Returns:
        What was measured; the same lies in `extraction.json` beside the weights. The model has the base's precision.

    Raises:
        UsageError: a folder that exists, or an expansion that is not one.
        UnsupportedModelError: routing is not one-sided, with the figures; or the base is in four bits.
        DamagedError: what was written does not give the same logits; nothing is left of it.

    Warns:
        UserWarning: layers in which the chosen expert has less weight than `one_sided`, though the mean has not.

    >>> extract(model, tokenizer, corpus, "greek", language="el").scores  # doctest: +SKIP
    """
    path = Path(path)
    expansion_config(model)
    if path.exists():
        raise UsageError(f"{path} exists; extract to a folder that does not.")
    asked = list(dict.fromkeys([language, *languages]))
    report = evaluate(model, tokenizer, corpus, languages=asked, original=original, **options)
    layers = _choose(report.load, language)
    _refuse_two_sided(layers, language, one_sided)
    experts = {int(layer): int(expert) for layer, expert in zip(layers["layer"], layers["expert"], strict=True)}
    dense = dense_model(model, experts)
    _check_against_mixture(model, dense, experts)
    report = _with_extracted(report, evaluate(dense, tokenizer, corpus, languages=asked, original=original, **options))
    result = Extraction(path, language, layers, report.to_frame(), report.changes("expanded", "extracted"))
    facts = {"kind": "extraction", "language": language, "stage": selected_stage(model), "one_sided": one_sided}
    with storage.staged_directory(path, sealed=facts) as stage, without_progress_bars():
        dense.save_pretrained(stage, max_shard_size=max_shard_size)
        tokenizer.save_pretrained(stage)
        check_written(stage, dense, probe_logits(dense))
        tables = {name: _rows(getattr(result, name)) for name in ("layers", "scores", "changes")}
        storage.write_json(stage / FACTS, {**facts, "weight": result.weight, "settings": report.settings, **tables})
    return result


def _choose(load: pd.DataFrame, language: str) -> pd.DataFrame:
    """Return layer, expert and weight: per layer the expert with the most weight on all tokens of a language."""
    part = load.loc[load["language"] == language]
    part = part.assign(total=part["mass"] * part["n_tokens"])
    sums = part.groupby(["layer", "expert"], as_index=False)[["total", "n_tokens"]].sum()
    sums["weight"] = sums["total"] / sums["n_tokens"]
    best = sums.loc[sums.groupby("layer")["weight"].idxmax(), ["layer", "expert", "weight"]]
    return pd.DataFrame(best).reset_index(drop=True)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows for JSON, which has no infinity: an interval of too few documents is null."""
    return json.loads(table.to_json(orient="records", double_precision=15))


def _refuse_two_sided(layers: pd.DataFrame, language: str, one_sided: float) -> None:
    mean = float(layers["weight"].mean())
    by_layer = zip(layers["layer"], layers["weight"], strict=True)
    weak = [f"{layer} ({weight:.2f})" for layer, weight in by_layer if weight < one_sided]
    if mean < one_sided:
        raise UnsupportedModelError(
            f"Routing of {language} is not one-sided: the expert with the most weight has {mean:.2f} of it on average "
            f"over layers, expected {one_sided} or more. Least in layers {', '.join(weak[:8])}. A dense model would "
            "lose the rest: export the mixture (lpr_lab.export), train the routers more (lpr_lab.review), or say what "
            "loss you accept with one_sided=0 and read the scores."
        )
    if weak:
        warnings.warn(
            f"{len(weak)} of {len(layers)} layers send {language} to several experts; weight of the one that is kept: "
            f"{', '.join(weak[:8])}. The scores say what that costs.",
            stacklevel=3,
        )


def _check_against_mixture(model: PeftModel, dense: PreTrainedModel, experts: dict[int, int]) -> None:
    """Refuse a dense model that does not compute what the mixture does when it is told to use these experts alone."""
    if {parameter.dtype for parameter in model.parameters()} != {torch.float32}:
        return  # experts are float32 and the dense model is rounded to the base's precision
    with steer(model, force={layer.layer: experts[layer.layer] for layer in moe_layers(model)}):
        apart = Difference.of(probe_logits(model), probe_logits(dense))
    if not apart.is_rounding:
        raise UnsupportedModelError(f"A dense model of this base's class would not compute the same: {apart}")


def _with_extracted(report: Report, dense: Report) -> Report:
    """Return the scores of base and expansion with those of the dense model, on the same documents, beside them."""
    sets = []
    for test, extracted in zip(report.sets, dense.sets, strict=True):
        assert test.fingerprint == extracted.fingerprint, "both are scored on the same documents"
        sets.append(replace(test, nats={**test.nats, "extracted": extracted.nats["base"]}))
    return replace(report, sets=sets)
