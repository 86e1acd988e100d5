"""Named endpoints: what the pages show, as plain values for programs (`gradio_client`; with --mcp, assistants).

Everything else that the app answers is private to its pages. Errors are sentences. Endpoints that need a model wait in
one queue with the pages, and say how many come before; the others read files.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import events

from lpr_lab.dashboard.pages.plan.changes import ROUND
from lpr_lab.dashboard.pages.plan.costs import RULES, TOKENS, costs, make_plan
from lpr_lab.dashboard.pages.plan.facts import Similarity, facts_of
from lpr_lab.dashboard.pages.plan.render import as_yaml
from lpr_lab.dashboard.parameters import (
    BUDGET,
    LANGUAGE,
    LAYER,
    NEW_TOKENS,
    RUN,
    SEED,
    SIMILARITY,
    TEMPERATURE,
    TOP_K,
    TRACED,
    Choice,
    Text,
    budget_of,
)
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.model_queue import run_queued
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.server.request_limits import TooManyError
from lpr_lab.errors import LprError, UsageError
from lpr_lab.measure.significance import change_of
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.model_ref import why_no_routing
from lpr_lab.runs.run import Run
from lpr_lab.runs.summary import run_facts

ASKED_RULE = Choice("The rule", tuple(name for name in RULES if name != "own"))
GIVEN_PROMPT = Text("The prompt", TRACED.most)


class Endpoints:
    """The endpoints on one folder of runs. Each public method is one; its docstring is what programs read about it."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir

    def list_runs(self) -> list:
        """List the runs, newest first, examples last.

        Returns:
            One object per run: id, title, kind, state, created, base, original, expanded, parents, has_weights; for
            one that cannot be read, id and problem.
        """
        return [run_facts(run) for run in list_runs(self._runs_dir)]

    def trace_text(self, run: str, text: str, language: str = "") -> dict:
        """Trace which experts each token of a text goes to, in every layer, through a run's expanded model.

        Args:
            run: id of a run that has weights.
            text: what to trace, at most 4,000 characters in any script.
            language: its ISO 639-1 code, or empty.

        Returns:
            tokens (text, or the bytes of a lone piece), bytes (hexadecimal; null for special tokens), layers,
            experts [layer][token][choice], weights alike, original_weight [layer][token], log_prob and base_log_prob
            [token].
        """
        text, language = TRACED.read(text), LANGUAGE.read(language)
        traced = Run.open(self._runs_dir, RUN.read(run))
        if dense := why_no_routing(traced):
            raise UsageError(dense)
        with MODELS.use(traced) as loaded:
            from lpr_lab.measure.routing import trace

            found = trace(loaded.model, loaded.tokenizer, text, language or None)
        return found.to_plain()

    def expert_load(self, run: str, language: str = "", layer: int = -1) -> list:
        """Tell how much each expert worked on held-out text, as measured when the run was made.

        Args:
            run: id of a run.
            language: only this ISO 639-1 code; empty for all.
            layer: only this decoder layer; -1 for all.

        Returns:
            One object per language, data set, layer and expert: share of choices, and share of probability mass.
        """
        rows = _table(Run.open(self._runs_dir, RUN.read(run)), "load")
        languages, layers = (list(dict.fromkeys(row[name] for row in rows)) for name in ("language", "layer"))
        language, layer = Choice("The language", ("", *languages)).read(language), LAYER.read(layer)
        if layer not in (-1, *layers):
            raise UsageError(f"Layer is {layer}; expected -1 for all, or one from {min(layers)} to {max(layers)}.")
        return [row for row in rows if language in ("", row["language"]) and layer in (-1, row["layer"])]

    def retention(self, run: str) -> list:
        """Tell what an expansion gained and kept: bits per byte before and after, per language and data set.

        Args:
            run: id of a run.

        Returns:
            One object per language and data set: before, after, change_percent with its 95 % interval (ci_low,
            ci_high), n_documents and the verdict.
        """
        rows = _table(Run.open(self._runs_dir, RUN.read(run)), "change")
        return [{**row, "verdict": change_of(row).verdict()} for row in rows]

    def generate_pair(
        self, run: str, prompt: str, max_new_tokens: int = 32, temperature: float = 0.0, seed: int = 0
    ) -> dict:
        """Continue a prompt with a run's base and with its expanded model, from one copy of the weights.

        Args:
            run: id of a run that has weights.
            prompt: text to continue, at most 4,000 characters in any script.
            max_new_tokens: per model, at most 256.
            temperature: 0 takes the likeliest token.
            seed: of the sampling, the same for both.

        Returns:
            base, expanded: the continuations; diverged_at: index of the first token in which they differ, or null.
        """
        prompt, max_new_tokens = GIVEN_PROMPT.read(prompt), NEW_TOKENS.read(max_new_tokens)
        temperature, seed = TEMPERATURE.read(temperature), SEED.read(seed)
        with MODELS.use(Run.open(self._runs_dir, RUN.read(run))) as loaded:
            from lpr_lab.measure.generation import generate_pair as steps

            *_, last = steps(loaded.model, loaded.tokenizer, prompt, max_new_tokens, temperature, seed)
        return {"base": last.left.text, "expanded": last.right.text, "diverged_at": last.diverged_at}

    def plan(
        self,
        run: str = "",
        budget: int = 0,
        rule: str = "similarity",
        rounding: str = "largest_remainder",
        top_k: int = 2,
        similarity: list | None = None,
    ) -> dict:
        """Divide a budget of new experts over the layers of a base, and tell what that costs.

        Args:
            run: id of a run on the base; the newest when empty.
            budget: new experts in all; 0 for two per layer. For rounding "round_up", the paper's delta.
            rule: similarity, uniform, inverse, first or last.
            rounding: largest_remainder spends the budget exactly; round_up is the paper's formula.
            top_k: experts at work on a token.
            similarity: one number above 0 per layer, in place of what was measured.

        Returns:
            allocation (new experts per layer), new_experts, parameters_added, active_parameters, adapter_bytes,
            training_bytes, stage1_seconds (null for what no run has told), and plan_yaml for `lpr-lab run`.
        """
        rule, rounding, top_k = ASKED_RULE.read(rule), ROUND.read(rounding), TOP_K.read(top_k)
        budget = 0 if budget == 0 and not isinstance(budget, bool) else BUDGET.read(budget)
        given = () if similarity is None else SIMILARITY.read(similarity)
        chosen, runs = _run_or_newest(self._runs_dir, RUN.read(run))
        facts = facts_of(chosen, runs)
        if given:
            if facts.num_layers not in (None, len(given)):
                raise UsageError(f"Similarity has {len(given)} numbers; {facts.base} has {facts.num_layers} layers.")
            facts = replace(facts, similarity=Similarity(given), num_layers=len(given))
        if budget and facts.num_layers:
            budget_of(facts.num_layers).read(budget)
        made = make_plan(facts, Query(rule=rule, round=rounding, budget=budget or None, topk=top_k, tokens=TOKENS))
        if made is None:
            raise UsageError(f"How many layers {facts.base} has is not known; give one similarity per layer.")
        if made.problem or made.rule != rule:
            raise UsageError(made.problem or f"The rule is “{rule}”, and the plan came out as “{made.rule}”.")
        cost = costs(facts, made.experts, made.top_k, made.tokens)
        return {
            "allocation": list(made.experts),
            "new_experts": cost.new_experts,
            "parameters_added": cost.added,
            "active_parameters": cost.active,
            "adapter_bytes": cost.adapter_bytes,
            "training_bytes": cost.train_bytes,
            "stage1_seconds": cost.seconds,
            "plan_yaml": as_yaml(facts, made, chosen),
        }


def endpoints(runs_dir: Path) -> dict[str, Callable[..., Any]]:
    """Return the endpoints on a folder of runs, by name."""
    offered = Endpoints(runs_dir)
    return {name: getattr(offered, name) for name in vars(Endpoints) if not name.startswith("_")}


MODEL_ENDPOINTS = ("trace_text", "generate_pair")


def add(runs_dir: Path) -> None:
    """Add the endpoints to the app being built."""
    for name, fn in endpoints(runs_dir).items():
        if name in MODEL_ENDPOINTS:
            events.api(_when_its_turn_comes(fn), api_name=name, concurrency_limit=None)
        else:
            events.api(_in_sentences(fn), api_name=name, queue=False)


def _in_sentences(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Let errors of ours reach the caller as their sentence; of others, that it failed: the log says where."""

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except LprError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:
            logging.getLogger(__name__).exception("The endpoint %s failed.", fn.__name__)
            said = f"{fn.__name__} failed ({type(error).__name__}); the log of the dashboard says where."
            raise gr.Error(said, print_exception=False) from error

    return call


def _when_its_turn_comes(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Wait in the line of models; the caller's job is told how many come before, as a log message."""
    answered = _in_sentences(fn)

    @wraps(fn)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await run_queued(partial(answered, *args, **kwargs), gr.Info)
        except TooManyError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


def _run_or_newest(runs_dir: Path, run_id: str) -> tuple[Run, list[Run]]:
    runs = list_runs(runs_dir)
    if run_id:
        return Run.open(runs_dir, run_id), runs
    newest = next((run for run in runs if run.problem is None), None)
    if newest is None:
        raise UsageError("There is no run in this folder. Make one: lpr-lab demo")
    return newest, runs


def _table(run: Run, name: str) -> list[dict[str, Any]]:
    table = run.tables.read(name)
    if table is None:
        raise UsageError(f"Run {run.id} has no table {name!r}: it was not measured.")
    return [{str(key): _plain(value) for key, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    """Return a value that JSON has: NaN is null."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
