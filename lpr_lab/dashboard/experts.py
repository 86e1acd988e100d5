"""Page `/experts`: is the load balanced, which experts are idle, and which language uses which?"""

from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.shell import FILES, Scene, html_block

QUESTION = "Which experts work, and for which languages?"


def compose(scene: Scene, runs_dir: Path) -> dict[str, Any]:
    """Return what the page shows, by name: `top` and `body`, both HTML."""
    if scene.run is None:
        return {"top": shell.head(QUESTION, more=scene.notice, view=scene.view), "body": shell.no_runs(runs_dir)}
    top = shell.head(QUESTION, "Not drawn yet.", scene.notice, view=scene.view)
    return {
        "top": top,
        "body": shell.missing(
            "This page draws nothing yet", "What the experts of a run do shows, for single texts, on the page Routing."
        ),
    }


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Wire the page."""
    html_block(shell.header("Experts"))
    top = html_block(shell.head(QUESTION))
    run = shell.run_picker()
    body = html_block()

    def draw(query: dict[str, Any]) -> list[Any]:
        scene = shell.look(runs_dir, query)
        parts = compose(scene, runs_dir)
        return [parts["top"], shell.show_runs(scene), parts["body"]]

    def load(request: gr.Request) -> list[Any]:
        return draw(dict(request.query_params))

    def choose_run(chosen: str, request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "run": chosen})

    demo.load(load, None, [top, run, body], **FILES)
    run.input(choose_run, [run], [top, run, body], **FILES)
