"""Page `/experts`: its components, event handlers, and what they show for an address."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.cache import cached
from lpr_lab.dashboard.pages.experts import expert, render
from lpr_lab.dashboard.pages.experts.counting import can_count, count_now, not_counted
from lpr_lab.dashboard.pages.experts.data import ALONE, Selection, extra, read
from lpr_lab.dashboard.pages.experts.expert_controls import ExpertControls
from lpr_lab.dashboard.server.model_queue import queued
from lpr_lab.dashboard.shell import FILES, MODEL, PICK, PageContext, html_block, in_order, status
from lpr_lab.errors import LprError
from lpr_lab.text.languages import language_name
from lpr_lab.views.figures.experts import agreement, information, original_probability
from lpr_lab.views.figures.titles import take_title
from lpr_lab.views.names import dataset_name
from lpr_lab.views.numbers import NOT_MEASURED
from lpr_lab.wording import counted

QUESTION = "Which experts work, and for which languages?"
CONTROLS = ("stage", "stage2", "data", "number", "languages", "layer")
SECTIONS = ("told", "kept", "prob")
"""What stands below the panels: a heading, a figure and its numbers each."""
_FIGURES = tuple(f"{name}_plot" for name in SECTIONS)
PARTS = (
    *("tiles", "stages", "panels", "one", *expert.PARTS),
    *(f"{name}{part}" for name in SECTIONS for part in ("", "_plot", "_table")),
)


@cached
def compose(context: PageContext, runs_dir: Path) -> dict[str, Any]:
    """Return what each part of the page shows."""
    shown: dict[str, Any] = dict.fromkeys(CONTROLS, gr.update(visible=False))
    shown |= {name: gr.update(visible=False, value=None) if name in _FIGURES else "" for name in PARTS}
    shown |= expert.hidden()
    shown |= {"missing": "", "count": gr.update(visible=False), "stop": gr.update(visible=False)}
    run = context.run
    if run is None:
        return shown | {
            "top": shell.head(QUESTION, more=context.notice, query=context.query),
            "panels": shell.no_runs(runs_dir),
        }
    try:
        selection = read(run, context.query)
        if selection is None:
            top = shell.head(QUESTION, NOT_MEASURED, context.notice, query=context.query)
            return shown | {"top": top, **not_counted(run, nothing=True)}
        return shown | _pickers(selection) | _drawn(selection, context)
    except (LprError, KeyError, ValueError) as error:
        reason = str(error) if isinstance(error, LprError) else f"A table of this run has another form ({error!r})."
        more = context.notice + shell.notice("bad", reason)
        return shown | {"top": shell.head(QUESTION, more=more, query=context.query)}


def _pickers(selection: Selection) -> dict[str, Any]:
    stages = [(name, name) for name in reversed(selection.stages)]
    others = [("nothing", ALONE), *((name, name) for name in selection.stages if name != selection.stage)]
    several = len(selection.stages) > 1
    layers = [(f"{layer} ({counted(number, 'expert')})", layer) for layer, number in selection.sizes.items()]
    return {
        "stage": gr.update(choices=stages, value=selection.stage, visible=several),
        "stage2": gr.update(choices=others, value=selection.stage2 or ALONE, visible=several),
        "data": gr.update(
            choices=[(dataset_name(name).split(",")[0], name) for name in selection.datasets],
            value=selection.data,
            visible=len(selection.datasets) > 1,
        ),
        "number": gr.update(
            choices=[(render.NUMBER_CHOICES[name], name) for name in selection.numbers],
            value=selection.number,
            visible=True,
        ),
        "languages": gr.update(
            choices=[(language_name(code), code) for code in selection.roles],
            value=list(selection.languages),
            visible=len(selection.roles) > 1,
        ),
        "layer": gr.update(choices=layers, value=selection.layer, visible=True),
    }


def _drawn(selection: Selection, context: PageContext) -> dict[str, Any]:
    query = selection.query(context.query)
    found: dict[str, Any] = {
        "top": shell.head(QUESTION, render.finding(selection) + render.caption(selection), context.notice, query=query),
        "tiles": render.tiles(selection),
        "stages": render.stage_table(selection),
        "panels": render.load_section(selection, query),
        "one": render.layer_section(selection, query),
        **expert.show_expert(selection, query),
    }
    told = render.information(selection)
    if told is not None:
        columns = {"bits": "Bits", "ceiling_bits": "At most"}
        if "null_bits" in told:
            columns |= {"null_bits": "Shuffled, mean", "null_high_bits": "Shuffled, 95th percentile"}
        note = "All languages, equally frequent; an expert is drawn by its weight."
        if "null_bits" in told:
            note += " Shuffled: whole documents dealt to languages by chance, 200 times."
        figure = information(told)
        found["told"] = _heading(take_title(figure), note)
        found["told_plot"] = gr.update(value=figure, visible=True)
        found["told_table"] = render.twin(told.set_index("layer"), columns)
    kept = render.agreement(selection)
    if kept is not None:
        number = "same_choices" if selection.number == "chosen" else "same_first"
        figure = agreement(kept, number)
        note = "Saturation: of the experts a token goes to at one stage, the share it also goes to at the other."
        found["kept"] = _heading(take_title(figure), note)
        found["kept_plot"] = gr.update(value=figure, visible=True)
        by_role = kept.pivot_table(index="layer", columns="role", values=number)
        found["kept_table"] = render.twin(by_role, {role: f"{role} languages" for role in by_role.columns})
    found |= _probability(selection)
    if not selection.is_counted:
        found |= not_counted(selection.run, nothing=False)
    return found


def _probability(selection: Selection) -> dict[str, Any]:
    """Return the router's own probability of expert 0, as fig. 3 of MoE-LPR has it; words where it was not measured."""
    if not selection.is_counted:
        return {}
    table = extra(selection, "original_probability")
    note = (
        "Softmax over all experts, before any is chosen: fig. 3 of MoE-LPR. It is not the weight above, which the "
        "chosen experts alone divide among themselves."
    )
    if table is None:
        said = f"{note} Not measured in this run, which was made before it was counted."
        can = can_count(selection.run)
        found: dict[str, Any] = {
            "prob": _heading("The router's probability of expert 0", said + " Count now adds it." * can)
        }
        buttons = {
            "count": gr.update(visible=True, interactive=True),
            "stop": gr.update(visible=True, interactive=False),
        }
        return found | (buttons if can else {})
    table = table[table["language"].isin(selection.languages)]
    figure = original_probability(table)
    means = table.pivot_table(index="layer", columns=["role", "stage"], values="probability", sort=False).sort_index()
    columns = {(role, stage): f"{role} languages, {stage}" for role, stage in means.columns}
    return {
        "prob": _heading(take_title(figure), note),
        "prob_plot": gr.update(value=figure, visible=True),
        "prob_table": render.twin(means, columns),
    }


def _heading(title: str, note: str) -> Markup:
    heading = Markup('<section class="lpr-ex-head"><h2 class="lpr-ex-title">{}.</h2>{}</section>')
    return heading.format(title, shell.caption(note))


# ------------------------------------------------------------------------------------------------------- controls


class Controls:
    """The components, made in the order in which the page shows them."""

    def __init__(self) -> None:
        self.top = html_block(shell.head(QUESTION))
        with gr.Row(elem_classes="lpr-controls"):
            self.run = shell.run_picker()
            stage = gr.Dropdown([], label="Stage", visible=False, scale=0, min_width=150)
            stage2 = gr.Dropdown([], label="Compared with", visible=False, scale=0, min_width=150)
            data = gr.Radio([], label="Measured on", visible=False)
        with gr.Row(elem_classes="lpr-controls"):
            number = gr.Radio([], label="Load counted as", visible=False)
            languages = gr.CheckboxGroup([], label="Languages", visible=False)
        self.body: dict[str, Any] = {name: html_block() for name in ("tiles", "stages", "panels")}
        layer = gr.Dropdown([], label="Layer", visible=False, elem_classes="lpr-narrow")
        self.body["one"] = html_block()
        self.expert = ExpertControls()
        self.body |= self.expert.parts
        for name in SECTIONS:
            self.body[name] = html_block()
            self.body[f"{name}_plot"] = gr.Plot(show_label=False, visible=False, elem_classes="lpr-plot lpr-card")
            self.body[f"{name}_table"] = html_block()
        self.body["missing"] = html_block()
        with gr.Row(elem_classes="lpr-actions"):
            self.count = gr.Button("Count now", variant="primary", scale=0, min_width=130, visible=False)
            self.stop = gr.Button("Cancel", scale=0, min_width=90, visible=False, interactive=False)
            self.line = html_block(status(""))
        self.pickers: dict[str, Any] = dict(zip(CONTROLS, (stage, stage2, data, number, languages, layer), strict=True))
        """By name, as in `CONTROLS`."""

    @property
    def shown(self) -> list[Any]:
        """What `draw` fills, in its order."""
        body = [self.body[name] for name in (*PARTS, "missing")]
        return [self.top, self.run, *self.pickers.values(), *body, self.count, self.stop]


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Build the page and connect its events."""
    html_block(shell.header("Experts"))
    made = Controls()

    def load(request: gr.Request) -> list[Any]:
        return draw(runs_dir, dict(request.query_params))

    def load_expert(request: gr.Request) -> list[Any]:
        return draw_expert(runs_dir, dict(request.query_params))

    def choose(key: str) -> Any:
        def chosen(value: Any, request: gr.Request) -> list[Any]:
            text = ",".join(value) if isinstance(value, list) else str(value)
            params = {**dict(request.query_params), key: text}
            if key == "run":  # the token that the reader came from is not in another run's text
                params |= {"text": "", "tok": ""}
            return draw(runs_dir, params)

        return in_order(chosen)

    def counting(request: gr.Request) -> Iterator[list[Any]]:
        params = dict(request.query_params)
        for said, is_done in count_now(runs_dir, params):
            yield [said, *(draw(runs_dir, params) if is_done else held())]

    demo.load(load, None, made.shown, **FILES)
    keys = {"number": "view", "languages": "langs"}
    for name, control in {"run": made.run, **made.pickers}.items():
        control.input(choose(keys.get(name, name)), [control], made.shown, **PICK)
    for links in (made.body["panels"], made.body["one"], made.body["contexts"]):
        links.click(in_order(load), None, made.shown, **PICK)
    work = made.count.click(queued(counting, waiting, refused), None, [made.line, *made.shown], **MODEL)
    # Also after cancelling, once the step that was under way has ended: until then the browser takes no new click.
    work.then(resting, None, [made.count, made.stop], **FILES)
    halted = made.stop.click(None, None, None, cancels=[work], **FILES)
    halted.then(stopped, None, [made.stop, made.line], **FILES)
    made.expert.connect(runs_dir, load_expert)


# ------------------------------------------------------------------------------------------------- event handlers


def draw(runs_dir: Path, params: dict[str, Any]) -> list[Any]:
    """Return what every component shows for an address, in the order of `Controls.shown`."""
    context = shell.page_context(runs_dir, params)
    shown = compose(context, runs_dir)
    names = (*CONTROLS, *PARTS, "missing", "count", "stop")
    return [shown["top"], shell.show_runs(context), *(shown[name] for name in names)]


def draw_expert(runs_dir: Path, params: dict[str, Any]) -> list[Any]:
    """Return what the components of the chosen expert show, in the order of their names."""
    shown = compose(shell.page_context(runs_dir, params), runs_dir)
    return [shown[name] for name in expert.PARTS]


def _skipped(more: int = 0) -> list[Any]:
    """Return updates that leave all but the buttons as it is; new ones each time, since gradio empties them."""
    return [gr.skip() for _ in range(3 + len(CONTROLS) + len(PARTS) + more)]


def held() -> list[Any]:
    """Return what `Controls.shown` is while experts are counted: only the buttons change."""
    return [*_skipped(), gr.update(interactive=False), gr.update(interactive=True)]


def resting() -> tuple[Any, Any]:
    """Return the buttons while nothing is counted."""
    return gr.update(interactive=True), gr.update(interactive=False)


def stopped() -> tuple[Any, str]:
    """Return button and message after a cancelled counting."""
    return gr.update(interactive=False), status("Cancelled; nothing was written.")


def waiting(said: str) -> list[Any]:
    """Return message and components while others use the models."""
    return [status(said, busy=True), *held()]


def refused(said: str) -> list[Any]:
    """Return message and components where too many wait for the models."""
    return [status(said, bad=True), *_skipped(2)]
