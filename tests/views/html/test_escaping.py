"""Whatever public function makes HTML: text that it is given stays text."""

import importlib
import inspect
import pkgutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from helpers.sample_causal import make_causal, make_next
from helpers.sample_contexts import sample_contexts
from helpers.sample_experts import ROLES, STAGES, expert_tables
from helpers.sample_lens import make_lens
from helpers.sample_runs import make_run, make_trace, results
from helpers.sample_segments import make_comparison
from helpers.sample_tasks import answers
from lpr_lab.measure.contexts.expert_contexts import ExpertContexts
from lpr_lab.measure.tasks.scores import change_rows
from lpr_lab.measure.trace import routing_change
from lpr_lab.runs.compare.differences import compare_runs, flatten
from lpr_lab.runs.people.continuations import Continuation, Pair
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch.live import Snapshot
from lpr_lab.views import html
from lpr_lab.views.html import (
    causal,
    comparison,
    continuations,
    expert_contexts,
    expert_panels,
    guesses,
    layers,
    live,
    run_overview,
    segments,
    tasks,
    tokens,
)

EVIL = """</script><script>boom()</script><img src=x onerror=boom()>"' onclick='boom()' x="{{ boom }}<!--"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run that says the same wherever a file or a person can say something."""
    run = make_run(tmp_path_factory.mktemp("runs"), title=EVIL, finished=False, config={"base": EVIL, EVIL: EVIL})
    found = results() | {"base": EVIL, "expanded": [EVIL], "lost_text": [_lost()]}
    found["claims"] = [{**claim, "text": EVIL} for claim in found["claims"]]
    found["change"] = [{**row, "language": EVIL} if row["language"] == "el" else row for row in found["change"]]
    texts = {EVIL: {EVIL: {"n_documents": 1, "characters": 2, "sha256": EVIL}}}
    run.documents.write("data", {"texts": texts, "left_out": [{"name": EVIL, "reason": EVIL}]})
    run.phases.record(EVIL, {"seconds": 1.0})
    run.phases.mark_done(EVIL)
    run.finish(found)
    return run


def _lost() -> dict[str, object]:
    return {"language": EVIL, "dataset": EVIL, "lost_share": 0.1}


def _stage_tables() -> tuple:
    tables = expert_tables()
    load = tables["expert_load"]
    return load[load["stage"] == STAGES[1]], load[load["stage"] == STAGES[0]], tables


def _tokens_of_evil():
    _, _, tables = _stage_tables()
    return tables["expert_tokens"].assign(language=EVIL, bytes=EVIL.encode().hex())


def _pairs_of_experts():
    pairs = _stage_tables()[2]["expert_pairs"]
    return pairs[(pairs["stage"] == STAGES[1]) & (pairs["layer"] == 2)]


def _change():
    after, before = (make_trace(EVIL, num_layers=3) for _ in range(2))
    before.expert_ids = before.expert_ids[..., ::-1].copy()
    return after, routing_change(before, after, same_model=True)


def _left_out():
    return pd.DataFrame([{"task": EVIL, "language": EVIL, "reason": EVIL}])


def _contexts() -> ExpertContexts:
    """Return contexts whose language, document, token and what stands around it are hostile."""
    found, around = sample_contexts(), [None, *3 * [EVIL.encode()]]
    rows = found.contexts.assign(language=EVIL, document=EVIL, position=2, bytes=EVIL.encode().hex())
    return replace(found, contexts=rows, effects=found.effects.assign(language=EVIL), tokens={(EVIL, EVIL): around})


def _segment():
    found = make_comparison({EVIL: EVIL, "el": EVIL})
    found.traces[EVIL].language = None  # which no strip is made of otherwise
    return found


def link(*_) -> dict[str, str]:
    return {"href": EVIL, "data-pick": EVIL}


PAIR = Pair(EVIL, EVIL, Continuation(EVIL, 9, 1.0), Continuation(EVIL + "!", 9, 1.0), 2, (EVIL, "base"))
SNAPSHOT = Snapshot(
    **dict.fromkeys(("run", "title", "stage", "trained", "error"), EVIL),
    state="running",
    step=1,
    num_steps=2,
    numbers={EVIL: 1.0, "loss": 1.0},
    done=(EVIL,),
    log=[EVIL],
)

DRAWN = {
    "causal.render_causal": lambda run: causal.render_causal(make_causal(piece=EVIL.encode()), query=EVIL),
    "causal.render_next_tokens": lambda run: causal.render_next_tokens(
        make_causal(piece=EVIL.encode()), make_next(EVIL.encode())
    ),
    "comparison.render_comparison": lambda run: comparison.render_comparison(
        compare_runs([run, run]), [run, run], links=[EVIL, EVIL]
    ),
    "continuations.render_pair": lambda run: [
        continuations.render_pair(pair) for pair in (PAIR, replace(PAIR, is_running=True), replace(PAIR, hidden=True))
    ],
    "continuations.render_strips": lambda run: continuations.render_strips([(EVIL, make_trace(EVIL)), (EVIL, None)]),
    "expert_contexts.render_contexts": lambda run: [
        expert_contexts.render_contexts(_contexts(), 2, 1, {EVIL: EVIL}, by) for by in ("weight", "bits")
    ],
    "expert_contexts.render_effects": lambda run: expert_contexts.render_effects(
        _contexts().effects.head(1), {EVIL: EVIL}
    ),
    "expert_contexts.render_neighbours": lambda run: expert_contexts.render_neighbours(_contexts().neighbours, link),
    "expert_panels.render_languages": lambda run: expert_panels.render_languages(
        [EVIL], {EVIL: EVIL}, np.array([[0.5, 0.5]]), links=expert_panels.LanguageLinks(link, link)
    ),
    "expert_panels.render_load_panels": lambda run: expert_panels.render_load_panels(
        _stage_tables()[0], compared=_stage_tables()[1], names=(EVIL, EVIL), link=link
    ),
    "expert_panels.render_load_table": lambda run: expert_panels.render_load_table(_stage_tables()[0], link=link),
    "expert_panels.render_pairs": lambda run: expert_panels.render_pairs(_pairs_of_experts()),
    "expert_panels.render_vocabulary": lambda run: expert_panels.render_vocabulary(
        _tokens_of_evil(), {EVIL: EVIL} | ROLES
    ),
    "guesses.render_guesses": lambda run: guesses.render_guesses(
        make_lens(piece=EVIL.encode()), {EVIL: EVIL}, note=EVIL, query=EVIL
    ),
    "layers.render_grid": lambda run: layers.render_grid(*_change(), EVIL),
    "layers.render_profile": lambda run: layers.render_profile(make_trace(EVIL, num_layers=3)),
    "live.to_html": lambda run: live.to_html(SNAPSHOT),
    "run_overview.render_claims": run_overview.render_claims,
    "run_overview.render_phases": run_overview.render_phases,
    "run_overview.render_settings": lambda run: run_overview.render_settings(flatten(run.config)),
    "run_overview.render_texts": run_overview.render_texts,
    "run_overview.render_tiles": run_overview.render_tiles,
    "segments.render_layers": lambda run: segments.render_layers(_segment()),
    "segments.render_segment": lambda run: segments.render_segment(_segment(), {EVIL: EVIL}, {EVIL: EVIL}, query=EVIL),
    "tasks.render_tasks": lambda run: tasks.render_tasks(
        change_rows(answers(), "base", STAGES[1]).assign(task=EVIL, language=EVIL, role=EVIL), EVIL, EVIL, _left_out()
    ),
    "tokens.render_token_strip": lambda run: tokens.render_token_strip(
        _change()[0], change=_change()[1], change_from=EVIL
    ),
}


class Found(HTMLParser):
    """Elements that nobody of ours writes, and attributes that run something."""

    def __init__(self, text: str):
        super().__init__()
        self.bad: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.bad += [tag] * (tag in ("script", "img")) + [name for name, _ in attrs if name.startswith("on")]

    def handle_comment(self, data):
        self.bad.append("comment")


@pytest.mark.parametrize("name", DRAWN)
def test_markup_in_a_text_is_shown_and_never_obeyed(name, run):
    drawn = DRAWN[name](run)
    for text in drawn if isinstance(drawn, list) else [drawn]:
        assert isinstance(text, Markup) and len(text) > 40
        assert not Found(str(text)).bad


def test_no_function_that_makes_html_is_left_out():
    found = set()
    for module in pkgutil.iter_modules(html.__path__):
        members = inspect.getmembers(importlib.import_module(f"{html.__name__}.{module.name}"), inspect.isfunction)
        for name, function in members:
            if function.__module__ == f"{html.__name__}.{module.name}" and name.startswith(("render_", "to_html")):
                found.add(f"{module.name}.{name}")
    assert found == set(DRAWN)
