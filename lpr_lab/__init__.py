"""Expand language models to new languages without forgetting the old ones: MoE-LPR and LayerMoE, as one method.

    similarity -> allocate -> upcycle -> expand (stage 1) -> review (stage 2) -> analyse -> evaluate -> present

A model that is good at some *original* languages gets new experts beside its own, frozen feed-forward blocks; they
learn the *expanded* languages, and routers learn to leave the original languages to the original expert.

    import lpr_lab as lab

    model, tokenizer = lab.load_base("smollm2-135m")
    corpus = lab.load_corpus("demo", languages=["en", "es", "el", "hu", "tr"])
    model = lab.upcycle(model, lab.uniform(num_layers=30))
    lab.expand(model, tokenizer, corpus, languages=["el", "hu", "tr"], out="runs/mine/expand")
    lab.review(model, tokenizer, corpus, original=["en", "es"], expanded=["el", "hu", "tr"], out="runs/mine/review")
    report = lab.evaluate(model, tokenizer, corpus, languages=["en", "es", "el", "hu", "tr"], original=["en", "es"])

Each verb is loaded on first use, so importing this package is quick and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_VERBS = {
    "load_base": "lpr_lab.model.bases.load",
    "load_corpus": "lpr_lab.text.load",
    "Allocation": "lpr_lab.method.allocation",
    "uniform": "lpr_lab.method.allocation",
    "allocate": "lpr_lab.method.allocation",
    "measure_similarity": "lpr_lab.method.similarity",
    "SimilarityTable": "lpr_lab.method.similarity_table",
    "measure_layer_scores": "lpr_lab.method.scores.measure",
    "LayerScores": "lpr_lab.method.scores.table",
    "upcycle": "lpr_lab.method.upcycle",
    "count_parameters": "lpr_lab.method.upcycle",
    "StageBudget": "lpr_lab.method.training.budget",
    "TrainSettings": "lpr_lab.method.training.train",
    "paper_settings": "lpr_lab.method.paper_settings",
    "fit_routers": "lpr_lab.method.closed_form",
    "local_review": "lpr_lab.method.closed_form",
    "FitSettings": "lpr_lab.method.settings",
    "RouterStatistics": "lpr_lab.method.router_statistics",
    "expand": "lpr_lab.method.expand",
    "review": "lpr_lab.method.review",
    "lm_loss": "lpr_lab.method.losses",
    "load_balancing_loss": "lpr_lab.method.losses",
    "lpr_loss": "lpr_lab.method.losses",
    "router_z_loss": "lpr_lab.method.losses",
    "classifier_loss": "lpr_lab.method.losses",
    "group_loss": "lpr_lab.method.losses",
    "evaluate": "lpr_lab.measure.bits",
    "draw_samples": "lpr_lab.measure.controls.self_samples",
    "self_divergence": "lpr_lab.measure.controls.self_divergence",
    "excess_forgetting": "lpr_lab.runs.compare.control_runs",
    "forgetting_at_gain": "lpr_lab.runs.compare.control_runs",
    "evaluate_tasks": "lpr_lab.measure.tasks.evaluate",
    "trace": "lpr_lab.measure.routing",
    "causal_map": "lpr_lab.measure.causal.compute",
    "logit_lens": "lpr_lab.measure.guesses.compute",
    "expert_contexts": "lpr_lab.measure.contexts.compute",
    "compare_languages": "lpr_lab.measure.segments.compute",
    "classifier_accuracy": "lpr_lab.measure.classifiers",
    "steer": "lpr_lab.model.steering",
    "generate_pair": "lpr_lab.measure.generation",
    "stage_names": "lpr_lab.model.stages",
    "select_stage": "lpr_lab.model.stages",
    "save_expansion": "lpr_lab.model.formats.save_load",
    "load_expansion": "lpr_lab.model.formats.save_load",
    "load_tokenizer": "lpr_lab.model.formats.save_load",
    "load_trained": "lpr_lab.method.baselines.files",
    "register": "lpr_lab.model.adapter",
    "export": "lpr_lab.model.formats.export",
    "extract": "lpr_lab.measure.extract",
    "import_released": "lpr_lab.model.formats.import_released",
    "together": "lpr_lab.model.parallel.sharing",
    "run": "lpr_lab.experiments.pipeline",
    "start_run": "lpr_lab.runs.find",
    "find_learning_rate": "lpr_lab.experiments.controls.learning_rate",
    "old_only": "lpr_lab.experiments.controls.arms",
    "raw_base": "lpr_lab.experiments.controls.arms",
    "recipes": "lpr_lab.experiments.recipes",
    "baselines": "lpr_lab.method.baselines",
}

_MODULES = ("recipes", "baselines", "paper_settings")
"""Names above that are modules of functions, not functions."""

__all__ = [*_VERBS]

if TYPE_CHECKING:
    from lpr_lab.experiments import recipes
    from lpr_lab.experiments.controls.arms import old_only, raw_base
    from lpr_lab.experiments.controls.learning_rate import find_learning_rate
    from lpr_lab.experiments.pipeline import run
    from lpr_lab.measure.bits import evaluate
    from lpr_lab.measure.causal.compute import causal_map
    from lpr_lab.measure.classifiers import classifier_accuracy
    from lpr_lab.measure.contexts.compute import expert_contexts
    from lpr_lab.measure.controls.self_divergence import self_divergence
    from lpr_lab.measure.controls.self_samples import draw_samples
    from lpr_lab.measure.extract import extract
    from lpr_lab.measure.generation import generate_pair
    from lpr_lab.measure.guesses.compute import logit_lens
    from lpr_lab.measure.routing import trace
    from lpr_lab.measure.segments.compute import compare_languages
    from lpr_lab.measure.tasks.evaluate import evaluate_tasks
    from lpr_lab.method import baselines, paper_settings
    from lpr_lab.method.allocation import Allocation, allocate, uniform
    from lpr_lab.method.baselines.files import load_trained
    from lpr_lab.method.closed_form import fit_routers, local_review
    from lpr_lab.method.expand import expand
    from lpr_lab.method.losses import classifier_loss, group_loss, lm_loss, load_balancing_loss, lpr_loss, router_z_loss
    from lpr_lab.method.review import review
    from lpr_lab.method.router_statistics import RouterStatistics
    from lpr_lab.method.scores.measure import measure_layer_scores
    from lpr_lab.method.scores.table import LayerScores
    from lpr_lab.method.settings import FitSettings
    from lpr_lab.method.similarity import measure_similarity
    from lpr_lab.method.similarity_table import SimilarityTable
    from lpr_lab.method.training.budget import StageBudget
    from lpr_lab.method.training.train import TrainSettings
    from lpr_lab.method.upcycle import count_parameters, upcycle
    from lpr_lab.model.adapter import register
    from lpr_lab.model.bases.load import load_base
    from lpr_lab.model.formats.export import export
    from lpr_lab.model.formats.import_released import import_released
    from lpr_lab.model.formats.save_load import load_expansion, load_tokenizer, save_expansion
    from lpr_lab.model.parallel.sharing import together
    from lpr_lab.model.stages import select_stage, stage_names
    from lpr_lab.model.steering import steer
    from lpr_lab.runs.compare.control_runs import excess_forgetting, forgetting_at_gain
    from lpr_lab.runs.find import start_run
    from lpr_lab.text.load import load_corpus


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"lpr_lab has no {name!r}; it has {', '.join(_VERBS)}.")
    module = import_module(_VERBS[name])
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return [*globals(), *_VERBS]
