"""The components of page `/compare`."""

from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.compare.sides import RUN
from lpr_lab.dashboard.pages.compare.sitting_controls import Sittings
from lpr_lab.dashboard.pages.compare.steering import SteeringControls
from lpr_lab.dashboard.parameters import NEW_TOKENS, PROMPT, TEMPERATURE
from lpr_lab.dashboard.shell import html_block, status
from lpr_lab.measure.preference import CHOICES
from lpr_lab.runs.model_ref import BASE, EXPANDED, stages_of, title_of_final
from lpr_lab.runs.run import Run, short_id

_NARROW: dict[str, Any] = {"min_width": 170, "scale": 0, "buttons": []}
_LABELS = ("Left is better", "Right is better", "A tie", "Both bad")


def side_choices(run: Run, others: list[Run]) -> list[tuple[str, str]]:
    """Return who can write on either side: the base, the model as it ended, its earlier stages, other runs."""
    stages = stages_of(run) if run.paths.has_checkpoint else []
    choices = [("base model", BASE), (title_of_final(run), EXPANDED), *((name, name) for name in stages[:-1])]
    return choices + [(f"another run: {other.title} · {short_id(other.id)}", f"{RUN}{other.id}") for other in others]


class Controls:
    """The widgets, made in the order in which the page shows them."""

    def __init__(self, runs_dir: Path) -> None:
        with gr.Row(elem_classes="lpr-controls"):
            self.run = shell.run_picker()
            self.language = gr.Radio([], label="Language of the prompt", visible=False, elem_classes="lpr-grow")
        with gr.Row(elem_classes="lpr-controls"):
            picker: dict[str, Any] = {"visible": False, "interactive": True, "elem_classes": "lpr-run"}
            self.left = gr.Dropdown([], label="Left", **picker)
            self.right = gr.Dropdown([], label="Right", **picker)
            self.blind = gr.Checkbox(
                label="Blind: random sides, no names until you have judged", visible=False, elem_classes="lpr-check"
            )
        self.steering = SteeringControls()
        self.prompt = gr.Textbox(
            label="Prompt, continued by both",
            lines=2,
            elem_classes=["lpr-prompt", f"lpr-limit-{PROMPT.most}"],
        )
        with gr.Row(elem_classes="lpr-actions") as self.settings:
            self.tokens = gr.Slider(8, NEW_TOKENS.high, value=48, step=8, label="New tokens, at most", **_NARROW)
            self.temperature = gr.Slider(
                0, TEMPERATURE.high, value=0, step=0.1, label="Temperature (0: greedy)", **_NARROW
            )
            self.seed = gr.Number(0, label="Seed", min_width=96, scale=0)
            self.go = gr.Button("Continue", variant="primary", scale=0, min_width=110, interactive=False)
            self.stop = gr.Button("Stop", scale=0, min_width=80, interactive=False)
            self.line = html_block(status(""))
        self.hint = html_block()
        self.why = html_block()
        self.sittings = Sittings(runs_dir)
        self.pair = html_block(elem_id="lpr-pair")
        with gr.Row(visible=False, elem_classes="lpr-actions") as self.votes:
            self.choices = {
                choice: gr.Button(label, scale=0, min_width=110) for choice, label in zip(CHOICES, _LABELS, strict=True)
            }
        with gr.Row(elem_classes="lpr-actions"):
            self.reveal = gr.Button("Reveal who is who", variant="primary", scale=0, min_width=110, visible=False)
            self.trace = gr.Button("Show where the tokens went", scale=0, min_width=110, visible=False)
            self.trace_line = html_block(status(""))
        self.strips = html_block()
        self.tally = html_block()
        self.kept = html_block()

    @property
    def parts(self) -> dict[str, Any]:
        """What `compare.compose` fills, by name."""
        names = "run language left right blind prompt tokens temperature seed settings go line hint why pair votes "
        return {name: getattr(self, name) for name in (names + "reveal tally kept trace strips").split()}
