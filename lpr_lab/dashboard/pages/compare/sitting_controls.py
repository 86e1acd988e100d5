"""The widgets of a sitting on page `/compare`, and how they are connected."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.compare import sitting, sitting_render
from lpr_lab.dashboard.server.model_queue import queued
from lpr_lab.dashboard.server.models import why_no_model
from lpr_lab.dashboard.shell import FILES, MODEL, PICK, PageContext, html_block, in_order, status
from lpr_lab.errors import LprError
from lpr_lab.runs.people.notes import why_read_only
from lpr_lab.runs.people.sittings import LEFT, RIGHT, SAME, Sitting, kept_sitting

LABELS = {LEFT: "A is better", SAME: "No difference", RIGHT: "B is better"}
BROKEN_OFF = (
    "Broken off. “Go on”, or this page’s address, takes it up again until the dashboard is restarted; kept, for good."
)
SHOWN = ("panel", *LABELS, "go_on", "end", "keep", "delete", "at", "place", "kept")
"""The parts that follow a sitting, in the order of `Sittings.outputs`."""


class Sittings:
    """The widgets, made in the order in which the page shows them, and their handlers."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        with gr.Accordion(
            "Judge a set of prompts blind, in one sitting", open=False, elem_classes="lpr-own"
        ) as self.box:
            html_block(
                shell.caption(
                    "Left and right, tokens, temperature and seed are as set above. For each prompt both write, and "
                    "you see A and B in random order. Texts of your own are kept and grouped on the page Routing."
                )
            )
            self.source = gr.Dropdown([], label="Set of prompts", filterable=False, elem_classes="lpr-narrow")
            self.prompts = gr.CheckboxGroup([], label="Prompts of this sitting")
            self.start = gr.Button("Begin the sitting", scale=0)
        with gr.Row(elem_classes="lpr-actions"):
            self.line = html_block(status(""))
            self.stop = gr.Button("Break off", scale=0, visible=False)
        made: dict[str, Any] = {"panel": html_block()}
        with gr.Row(elem_classes="lpr-actions"):
            for choice, label in LABELS.items():
                made[choice] = gr.Button(label, scale=0, visible=False, elem_id=f"lpr-judge-{choice}")
        with gr.Row(elem_classes="lpr-actions"):
            made["go_on"] = gr.Button("Go on", scale=0, visible=False)
            made["end"] = gr.Button("End here and tell", scale=0, visible=False)
            made["keep"] = gr.Button("Keep this sitting", scale=0, visible=False)
            made["delete"] = gr.Button("Delete it for everybody", scale=0, visible=False, variant="stop")
        made["kept"] = html_block()
        made |= {"at": gr.State(""), "place": gr.State(None)}
        self.parts = made
        self.outputs = [made[name] for name in SHOWN]

    # What is shown

    def fill(self, context: PageContext) -> dict[str, Any]:
        """Return what the whole page shows of sittings, by name: sets of prompts, and the sitting of the address."""
        run = context.run
        if run is None or (why_no_model(run) is not None and not context.query.sitting):
            none = {"box": gr.update(visible=False), "source": gr.skip(), "prompts": gr.skip()}
            return none | self.show(context, None) | ({"kept": sitting_render.kept(run, context.query)} if run else {})
        sets = sitting.sources(run)
        first = sets[0][1]
        offered = sitting.prompts_in(run, first)
        return {
            "box": gr.update(visible=why_no_model(run) is None),
            "source": gr.update(choices=sets, value=first),
            "prompts": gr.update(choices=offered, value=[value for _, value in offered]),
            **self.show(context, _found(context, context.query.sitting)),
        }

    def show(self, context: PageContext, now: Sitting | None) -> dict[str, Any]:
        """Return what the parts that follow a sitting show of one, by name."""
        run, hide = context.run, gr.update(visible=False)
        parts: dict[str, Any] = dict.fromkeys(SHOWN, hide) | {"at": "", "place": None, "panel": "", "kept": ""}
        if run is None:
            return parts
        parts["kept"] = sitting_render.kept(run, context.query)
        if now is None:
            if context.query.sitting:
                parts["panel"] = shell.notice("warn", "This sitting is no longer held, and the run does not keep it.")
            return parts
        can_judge = now.current is not None and now.prompts[now.current].is_written
        is_kept, writable = kept_sitting(run, now.id) is not None, not why_read_only(run)
        return parts | {
            "panel": sitting_render.sitting(run, now, context.query),
            **dict.fromkeys(LABELS, gr.update(visible=can_judge)),
            "go_on": gr.update(visible=not now.is_over and not can_judge),
            "end": gr.update(visible=not now.is_over and bool(now.judged)),
            "keep": gr.update(visible=not is_kept and writable),
            "delete": gr.update(visible=is_kept and writable),
            "at": now.id,
            "place": now.current,
        }

    # Connections

    def connect(
        self, asked: dict[str, Any], redraw: Callable[[dict[str, Any]], list[Any]], shown: Sequence[Any]
    ) -> None:
        """Connect the widgets.

        Args:
            asked: the components that a generation reads, by name.
            redraw: returns what `shown` shows for the parameters of an address.
            shown: the components of the whole page that the address decides.
        """
        parts = self.parts

        def begin(chosen: Any, *given: Any) -> list[Any]:
            *values, request = given
            params = dict(request.query_params)
            try:
                told = dict(zip(asked, values, strict=True))
                now = sitting.begin_sitting(self.runs_dir, chosen, told, params)
            except LprError as error:
                return [shell.problem(f"Not begun: {error}"), *(gr.skip() for _ in shown)]
            return [status(""), *redraw({**params, "sitting": now.id, "text": ""})]

        def handle(chosen: Any, request: gr.Request, *given: Any) -> list[Any]:
            return begin(chosen, *given, request)

        def offer(source: str, request: gr.Request) -> Any:
            run = shell.page_context(self.runs_dir, request.query_params).run
            offered = sitting.prompts_in(run, source) if run is not None and isinstance(source, str) else []
            return gr.update(choices=offered, value=[value for _, value in offered])

        self.source.input(in_order(offer), [self.source], [self.prompts], **PICK)
        starts = self.start.click(in_order(handle), [self.prompts, *asked.values()], [self.line, *shown], **PICK)
        written = [self.line, self.stop, *self.outputs]
        write = queued(self.write, _waiting, _refused)
        ask: dict[str, Any] = {**MODEL, "trigger_mode": "multiple"}
        writing: list[Any] = [starts.success(write, [parts["at"]], written, **ask)]
        writing.append(parts["go_on"].click(write, [parts["at"]], written, **ask))
        for choice in LABELS:
            judged = parts[choice].click(
                in_order(self.judge(choice)), [parts["at"], parts["place"]], [self.line, *self.outputs], **PICK
            )
            writing.append(judged.then(write, [parts["at"]], written, **ask))
        for name, act in (("end", sitting.end), ("keep", sitting.keep)):
            parts[name].click(in_order(self.acting(act)), [parts["at"]], [self.line, *self.outputs], **PICK)

        def delete(at: str, request: gr.Request) -> list[Any]:
            said, _ = sitting.forget(self.runs_dir, at, dict(request.query_params))
            return [said, *redraw({**dict(request.query_params), "sitting": ""})]

        parts["delete"].click(in_order(delete), [parts["at"]], [self.line, *shown], **PICK)
        halted = self.stop.click(None, None, None, cancels=writing, **FILES)
        halted.then(self.broken_off, [parts["at"]], written, **FILES)

    # Handlers

    def write(self, at: str, request: gr.Request) -> Iterator[list[Any]]:
        """Write what is waited for, and the next prompt."""
        params = dict(request.query_params)
        for line, now in sitting.write_on(self.runs_dir, at, params):
            busy = shell.is_busy(line)
            context = shell.page_context(self.runs_dir, params)
            drawn = [gr.skip() for _ in SHOWN] if now is None else self._drawn(context, now)
            if busy:
                drawn[SHOWN.index("go_on")] = gr.update(visible=False)
            yield [line if line or now is not None else gr.skip(), gr.update(visible=busy), *drawn]

    def judge(self, choice: str) -> Callable[..., list[Any]]:
        """Return the handler of a button that judges."""

        def handle(at: str, place: Any, request: gr.Request) -> list[Any]:
            said, now = sitting.judge(self.runs_dir, at, place, choice, dict(request.query_params))
            return [said, *self._drawn(shell.page_context(self.runs_dir, request.query_params), now)]

        return handle

    def acting(self, act: Callable[..., tuple[str, Sitting | None]]) -> Callable[..., list[Any]]:
        """Return the handler of a button that ends or keeps the sitting."""

        def handle(at: str, request: gr.Request) -> list[Any]:
            said, now = act(self.runs_dir, at, dict(request.query_params))
            return [said, *self._drawn(shell.page_context(self.runs_dir, request.query_params), now)]

        return handle

    def broken_off(self, at: str, request: gr.Request) -> list[Any]:
        """Say that the sitting was broken off, and how it is taken up again."""
        context = shell.page_context(self.runs_dir, request.query_params)
        return [status(BROKEN_OFF), gr.update(visible=False), *self._drawn(context, _found(context, at))]

    def _drawn(self, context: PageContext, now: Sitting | None) -> list[Any]:
        found = self.show(context, now)
        return [found[name] for name in SHOWN]


def _found(context: PageContext, at: str) -> Sitting | None:
    try:
        return sitting.find(context, at)
    except LprError:
        return None


def head_of(context: PageContext, question: str) -> Markup:
    """Return the page's heading while a sitting is shown."""
    lead = "Two models, one prompt after the other, judged without knowing who wrote what."
    return shell.head(question, lead, context.notice, query=context.query)


def _waiting(said: str) -> list[Any]:
    shown = [gr.update(visible=False) if name == "go_on" else gr.skip() for name in SHOWN]
    return [status(said, busy=True), gr.update(visible=True), *shown]


def _refused(said: str) -> list[Any]:
    return [status(f"{said} “Go on” tries it again.", bad=True), gr.update(visible=False), *(gr.skip() for _ in SHOWN)]
