"""What would each layer say next? Reads the layers of both models on the shown text, and shows their guesses."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.page_data import PageData, opening
from lpr_lab.dashboard.pages.routing.texts import read
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.lenses import LENSES, KnownLanguages
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.shell import FILES, MODEL, html_block, status
from lpr_lab.errors import LprError
from lpr_lab.measure.guesses.lens import LogitLens
from lpr_lab.measure.guesses.token_languages import TokenLanguages
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import get_languages
from lpr_lab.views.html.guesses import GuessChoice, render_guesses

Step = tuple[str, Any]
"""A status line, and the grid."""

HEADING = Markup(
    '<section class="lpr-section"><h2>What would each layer say next?</h2><p class="lpr-caption">The state after every '
    "layer goes through the model’s own last norm and head (logit lens), of the expanded model and of its base, beside "
    "the routing of that layer. Nothing is saved.</p></section>"
)


@dataclass
class GuessControls:
    """The components of this part of the page."""

    parts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with gr.Column(visible=False, elem_classes="lpr-what-if") as self.parts["guesses"]:
            html_block(HEADING)
            with gr.Row(elem_classes="lpr-actions"):
                self.go = gr.Button("Read every layer", scale=0)
                self.stop = gr.Button("Stop", scale=0, visible=False)
                self.line = html_block(status(""))
            self.parts["guesses_grid"] = html_block(elem_id="lpr-guesses")

    def connect(self, read_layers: Callable[..., Any]) -> Any:
        """Read the layers when asked to; returns the event. Stopping it leaves what was shown before."""
        asked = self.go.click(read_layers, None, [self.line, self.parts["guesses_grid"], self.stop], **MODEL)
        halted = self.stop.click(None, None, None, cancels=[asked], **FILES)
        said = [status("Stopped; nothing was kept."), gr.update(visible=False)]
        halted.then(lambda: said, None, [self.line, self.stop], **FILES)
        return asked


def choice_of(query: Query) -> GuessChoice:
    """Return what an address asks for: `model`, or `model.layer.token` for one cell.

    >>> choice_of(Query(guess="base.12.5"))
    GuessChoice(model='base', layer=12, token=5)
    """
    model, *cell = query.guess.split(".")
    layer, token = map(int, cell) if cell else (None, None)
    return GuessChoice(model or "expanded", layer, token)


def show_guesses(run: Run, trace: RoutingTrace, query: Query, *, can_run: bool) -> dict[str, Any]:
    """Return the parts of the page: the guesses on what is shown where they were computed, else how to get them."""
    visible = len(trace.layers) > 0 and can_run
    lens = LENSES.get(run, trace) if visible else None
    grid = "" if lens is None else _render(run, lens, query)
    if lens is None and visible and query.guess:
        grid = shell.notice("info", "This address shows guesses: let every layer be read to see them again.")
    return {"guesses": gr.update(visible=visible), "guesses_grid": grid}


def guesses_as_data(run: Run, trace: RoutingTrace, query: Query, runs_dir: Path) -> PageData | None:
    """Return the guesses as files and as a cell, where the address shows them; else None."""
    lens = LENSES.get(run, trace) if query.guess else None
    if lens is None:
        return None
    codes = list(lens.token_languages.languages)
    imports, corpus, given = "import lpr_lab as lab\n", "", f"stage={lens.stage!r}, languages={codes!r}"
    if lens.token_languages.counted:
        imports += "from lpr_lab.experiments.corpus import corpus_of\n"
        corpus, given = f"corpus = corpus_of(run.config, {codes!r})\n", f"{given}, corpus=corpus"
    cell = (
        f"{imports}{opening(run, runs_dir)}"
        f"model, tokenizer = lab.load_trained(run.path), lab.load_tokenizer(run.path)\n{corpus}"
        f"lens = lab.logit_lens(model, tokenizer, {lens.text!r}, {lens.language!r}, {given})\nlens.to_frame()\n"
    )
    tables = {"guesses": lens.to_frame, "guesses_by_layer": lens.languages_by_layer}
    return PageData(cell, tables, {"guesses": partial(lens.to_dict)})


def read_layers(runs_dir: Path, params: dict[str, Any]) -> Iterator[Step]:
    """Read every layer of both models on the shown text; yields as it gets on."""
    context, keep = shell.page_context(runs_dir, params), gr.skip()
    try:
        run, trace = _shown(context)
        loading = "Loading the model, once…" if not MODELS.is_loaded(run) else "Reading…"
        yield status(loading, busy=True), keep
        from lpr_lab.measure.guesses.compute import lens_steps

        started = time.monotonic()
        lens = LENSES.get(run, trace)
        if lens is None:
            if LENSES.languages_of(run) is None:
                yield status("Counting which language uses which token…", busy=True), keep
            with MODELS.use(run) as loaded:
                languages = _languages(run, loaded.tokenizer)
                steps = lens_steps(
                    *(loaded.model, loaded.tokenizer, trace.text, trace.language),
                    stage=trace.stage or None,
                    token_languages=languages.known,
                )
            while lens is None:
                with MODELS.use(run):  # for one layer only: what was stopped must not keep the model
                    step = next(steps)
                lens = step.result
                yield status(f"{step.done} of {step.total} layers, base and expanded…", busy=True), keep
            LENSES.put(run, lens)
    except Exception as error:  # whatever it is, the page says so and shows again what was there before
        if not isinstance(error, LprError):
            logging.getLogger(__name__).exception("Reading the layers of run %s failed.", params.get("run"))
        said = str(error) if isinstance(error, LprError) else f"This failed ({type(error).__name__}: {error})."
        yield status(said, bad=True), keep
        return
    choice = choice_of(context.query)
    query = context.query.urlencode(guess=context.query.guess or choice.model)
    yield status(f"Done in {time.monotonic() - started:.1f} s."), _render(run, lens, context.query, address=query)


def _render(run: Run, lens: LogitLens, query: Query, *, address: str = "") -> Markup:
    original, expanded = shell.languages_of(run)
    roles = dict.fromkeys(original, "original") | dict.fromkeys(expanded, "expanded")
    languages = LENSES.languages_of(run)
    return render_guesses(lens, roles, choice_of(query), note=languages.note if languages else "", query=address)


def _languages(run: Run, tokenizer: Any) -> KnownLanguages:
    """Return by what this run's guesses are said to be of a language; its corpus is read where scripts do not do."""
    from lpr_lab.experiments.corpus import corpus_of
    from lpr_lab.measure.guesses.count_tokens import count_token_languages

    found = LENSES.languages_of(run)
    if found is not None:
        return found
    original, expanded = shell.languages_of(run)
    codes = tuple(language.code for language in get_languages((*original, *expanded)))
    scripts = [language.script for language in get_languages(codes)]
    found = KnownLanguages(TokenLanguages(codes), "Each language of this run has a script of its own.")
    if len(set(scripts)) < len(scripts):
        try:
            known = count_token_languages(tokenizer, corpus_of(run.config, codes), codes)
            note = "Languages that share a script are told apart by how often the run’s text in each uses the token."
        except (LprError, OSError) as error:
            known = TokenLanguages(codes)
            note = f"Languages that share a script are not told apart, for want of the run’s text: {error}"
        found = KnownLanguages(known, note)
    LENSES.put_languages(run, found)
    return found


def _shown(context: shell.PageContext) -> tuple[Run, RoutingTrace]:
    stages = read(context.run, context.query)[1] if context.run else None
    if context.run is None or stages is None:
        raise LprError("There is no text to read; trace one first.")
    stage = context.query.stage
    return context.run, stages.at(stage) if stage in stages.stage_names else stages
