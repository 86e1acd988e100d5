"""Page `/compare`: its components, event handlers and their connections."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.compare import render
from lpr_lab.dashboard.pages.compare.compose import BLIND, compose
from lpr_lab.dashboard.pages.compare.controls import Controls
from lpr_lab.dashboard.pages.compare.generate import generate
from lpr_lab.dashboard.pages.compare.sides import (
    address_of,
    is_typed,
)
from lpr_lab.dashboard.pages.compare.sitting_controls import SHOWN as SITTING
from lpr_lab.dashboard.pages.compare.sitting_controls import head_of
from lpr_lab.dashboard.pages.compare.state import QUESTION, Latest, halted, hint, hint_of, judge, may_judge
from lpr_lab.dashboard.pages.compare.steering import ASKED as STEERING
from lpr_lab.dashboard.pages.compare.steering import trace_written
from lpr_lab.dashboard.parameters import SEED
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.model_queue import queued
from lpr_lab.dashboard.server.models import why_no_model
from lpr_lab.dashboard.shell import FILES, MODEL, PICK, PageContext, html_block, in_order, status
from lpr_lab.errors import UsageError
from lpr_lab.runs.model_ref import BASE, EXPANDED
from lpr_lab.runs.people.continuations import pairs

SHOWN = (
    *("top", "run", "language", "left", "right", "blind", "prompt", "tokens", "temperature", "seed", "settings", "go"),
    *("line", "hint", "why", "pair", "votes", "reveal", "trace", "strips", "tally", "kept", "latest"),
)
"""The components that the address decides, in the order of `Page.draw`."""
SETS = ("box", "source", "prompts")
"""What offers sets of prompts for a sitting."""
ADDRESS = ("left", "right", "blind", "seed", "tokens", "prompt")
"""The components that are written into the address, or change how long a generation takes."""
ASKED = ("prompt", "language", "tokens", "temperature", "seed", "left", "right", "blind", *STEERING)
"""The components that a generation reads."""


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Build the page and connect its events."""
    html_block(shell.header("Compare"))
    made = Page(runs_dir)
    demo.load(made.load, None, made.everything, **FILES)
    made.connect_address()
    writing = made.connect_generation()
    made.connect_pickers(writing)
    made.connect_judging()
    made.connect_strips()
    made.connect_sittings()


class Page:
    """The components, the handlers of their events, and the connections between them."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.top = html_block(shell.head(QUESTION))
        self.controls = Controls(runs_dir)
        self.latest = gr.State(None)
        self.parts = {"top": self.top, **self.controls.parts, **self.controls.steering.parts, "latest": self.latest}
        self.sittings = self.controls.sittings
        self.shown = [self.parts[name] for name in SHOWN]
        self.everything = [*self.shown, *(getattr(self.sittings, name) for name in SETS), *self.sittings.outputs]
        """`shown`, and all of sittings."""
        made = self.controls
        self.outputs = [made.line, self.top, made.pair, self.latest]
        """What a generation shows as it gets on."""
        self.buttons = [made.go, made.stop, made.votes]
        self.after = [*self.buttons, made.reveal, made.trace, made.kept, made.hint]
        self.known = [self.latest, made.tokens, made.prompt]

    # Connections

    def connect_address(self) -> None:
        """Write sides and settings into the address when they are changed."""
        made, inputs = self.controls, [self.parts[name] for name in ADDRESS]
        changes = [one.input for one in inputs[:-2]] + [made.tokens.release, made.prompt.blur]
        gr.on(changes, in_order(self.set_address), inputs, [made.hint], **PICK)

    def connect_generation(self) -> Any:
        """Let both sides write, and let the reader stop them; returns the event, for others to cancel."""
        made, asked = self.controls, [self.parts[name] for name in ASKED]
        cleared = [*self.buttons, made.trace, made.trace_line, made.strips]
        begin = gr.on([made.go.click, made.prompt.submit], working, None, cleared, **FILES)
        # Not "once": a generation that was just stopped still counts as pending for a moment, and the next one would be
        # dropped without a word. The button is off while one is being written, so there are never two from one page.
        write = queued(self.write, waiting, refused)
        writing = begin.then(write, asked, self.outputs, trigger_mode="multiple", **MODEL)
        writing.then(self.rest, self.known, self.after, **FILES)
        # Said only once the cancelling is through: what still streams in would write over it, and a generation begun
        # too early would be cancelled with the one before.
        halting = made.stop.click(None, None, None, cancels=[writing], **FILES)
        stopping = halting.then(self.stop, [self.latest], self.outputs, **FILES)
        stopping.then(self.rest, self.known, self.after, **FILES)
        return writing

    def connect_pickers(self, writing: Any) -> None:
        """Draw the page anew for another run, language or kept pair; what is still being written is cancelled."""
        made = self.controls
        pickers = (made.run, self.choose_run, []), (made.language, self.choose_language, [made.prompt])
        for control, choose, more in pickers:
            given_up = control.input(None, None, None, cancels=[writing], **PICK)
            chosen = given_up.then(in_order(choose), [control, *more], self.everything, **PICK)
            chosen.then(self.rest, self.known, self.after, **FILES)
        for links in (made.kept, self.sittings.parts["kept"]):
            given_up = links.click(None, None, None, cancels=[writing], **PICK)
            drawn = given_up.then(in_order(self.load), None, self.everything, **PICK)
            drawn.then(self.rest, self.known, self.after, **FILES)

    def connect_judging(self) -> None:
        """Keep what the reader prefers; the empty choice only reveals the sides."""
        for choice, button in (*self.controls.choices.items(), ("", self.controls.reveal)):
            button.click(self.prefer(choice), [self.latest], self.shown, **FILES)

    def connect_strips(self) -> None:
        """Show where the tokens went that both sides wrote."""
        made = self.controls
        trace = queued(self.trace, lambda said: (status(said, busy=True), gr.skip()), refused_strips)
        made.trace.click(trace, [self.latest], [made.trace_line, made.strips], **MODEL)

    def connect_sittings(self) -> None:
        """Let the reader judge a set of prompts in one sitting."""
        asked = {name: self.parts[name] for name in ASKED}
        self.sittings.connect(asked, self.draw_everything, self.everything)

    # Handlers

    def draw_everything(self, params: dict[str, Any]) -> list[Any]:
        """Return what `everything` shows for the parameters of an address."""
        context, found = shell.page_context(self.runs_dir, params), self.draw(params)
        of_sittings = self.sittings.fill(context)
        if of_sittings["at"]:
            nothing = dict.fromkeys(("pair", "tally", "kept", "strips"), "")
            hide = dict.fromkeys(("votes", "reveal", "trace"), gr.update(visible=False))
            found |= {**nothing, **hide, "top": head_of(context, QUESTION), "latest": None}
        return [*found.values(), *(of_sittings[name] for name in (*SETS, *SITTING))]

    def draw(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return what every component of `SHOWN` shows for an address, by name."""
        context = shell.page_context(self.runs_dir, params)
        found = compose(context, self.runs_dir) | {"run": shell.show_runs(context)}
        return {name: found.get(name, gr.skip()) for name in SHOWN}

    def load(self, request: gr.Request) -> list[Any]:
        """Draw the page for its address."""
        return self.draw_everything(dict(request.query_params))

    def choose_run(self, chosen: str, request: gr.Request) -> list[Any]:
        """Draw another run."""
        nothing = {"text": "", "run2": "", "stage": "", "stage2": "", "sitting": ""}
        return self.draw_everything({**dict(request.query_params), **nothing, "run": chosen})

    def choose_language(self, code: str, prompt: str, request: gr.Request) -> list[Any]:
        """Draw another language; a prompt of the reader's own stays."""
        params = {**dict(request.query_params), "lang": code, "text": "", "sitting": ""}
        run, drawn = shell.page_context(self.runs_dir, params).run, self.draw_everything(params)
        if run is not None and is_typed(prompt, run):
            drawn[SHOWN.index("prompt")] = gr.skip()
            drawn[SHOWN.index("line")] = status("Your prompt stays; only its language is another.")
        return drawn

    def set_address(self, request: gr.Request, *given: Any) -> Markup | str:
        """Return the line that tells how long a generation takes, and sets the address to what was chosen."""
        context, asked = self._context(request), dict(zip(ADDRESS, given, strict=True))
        if context.run is None:
            return ""
        changed: dict[str, Any] = {**address_of(asked["left"] or BASE, asked["right"] or EXPANDED), "text": ""}
        changed |= {"mode": BLIND if asked["blind"] else ""}
        try:
            changed |= {"seed": SEED.read(asked["seed"]) or ""}
        except UsageError as error:  # the address stays as it is, and so does what was typed
            return hint_of(str(error))
        query = Query.parse({**vars(context.query), **changed})
        return hint(context.run, asked["tokens"], asked["prompt"], query)

    def write(self, request: gr.Request, *given: Any) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Write both continuations."""
        yield from generate(self.runs_dir, dict(zip(ASKED, given, strict=True)), dict(request.query_params))

    def trace(self, now: Latest | None) -> Iterator[tuple[Any, Any]]:
        """Trace what both sides wrote."""
        if now is None or now.written is None or now.pair.hidden:
            yield status("There is nothing here to trace; let both sides write first.", bad=True), gr.skip()
            return
        yield from trace_written(now.pair, now.written)

    def rest(self, now: Latest | None, limit: Any, prompt: str, request: gr.Request) -> tuple[Any, ...]:
        """Return buttons, kept pairs and hint while nothing is being written."""
        context = self._context(request)
        run = context.run
        can_write = run is not None and why_no_model(run) is None
        whole = now is not None and not now.pair.is_running and run is not None
        hidden = now is not None and now.pair.hidden
        return (
            gr.update(interactive=can_write),
            gr.update(interactive=False),
            gr.update(visible=may_judge(now, run)),
            gr.update(visible=whole and hidden),
            gr.update(visible=whole and not hidden and now is not None and now.written is not None),
            render.kept_pairs(pairs(run), context.query) if run is not None else "",
            hint(run, limit, prompt, latest=now) if run is not None and can_write else "",
        )

    def stop(self, now: Latest | None, request: gr.Request) -> tuple[Any, ...]:
        """Return what stays of a generation that was stopped."""
        run = self._context(request).run
        if now is None and run is not None:  # it still waited for the model
            found = compose(self._context(request), self.runs_dir)
            return status("Stopped; nothing was written."), found["top"], found["pair"], found["latest"]
        if now is None or run is None or not now.pair.is_running:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        said, head, panes, now = halted(now, run)
        return status(f"Stopped; {said[:1].lower()}{said[1:]}" if said else "Stopped."), head, panes, now

    def prefer(self, choice: str) -> Callable[..., list[Any]]:
        """Return the handler of a button that judges, or with an empty choice reveals."""

        def handle(now: Latest | None, request: gr.Request) -> list[Any]:
            found = judge(self.runs_dir, now, choice, dict(request.query_params))
            hide = {"reveal": gr.update(visible=False)} if found else {}
            shown = found.get("latest")
            if shown is not None and shown.written is not None:
                hide["trace"] = gr.update(visible=True)
            return [(found | hide).get(name, gr.skip()) for name in SHOWN]

        return handle

    def _context(self, request: gr.Request) -> PageContext:
        return shell.page_context(self.runs_dir, dict(request.query_params))


def working() -> tuple[Any, ...]:
    """Return the buttons while a pair is being written, and nothing of what was traced of another."""
    buttons = gr.update(interactive=False), gr.update(interactive=True), gr.update(visible=False)
    return *buttons, gr.update(visible=False), status(""), ""


def waiting(said: str) -> tuple[Any, ...]:
    """Return what a generation shows while others use the models."""
    return status(said, busy=True), shell.head(QUESTION, said), "", None


def refused_strips(said: str) -> tuple[Any, ...]:
    """Return what tracing shows where too many wait for the models."""
    return status(said, bad=True), gr.skip()


def refused(said: str) -> tuple[Any, ...]:
    """Return what it shows where too many wait for them."""
    return status(said, bad=True), gr.skip(), gr.skip(), gr.skip()
