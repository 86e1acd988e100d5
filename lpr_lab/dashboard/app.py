"""Assembles the pages into one Gradio app, with its launch options."""

from importlib import import_module
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.navbar import Navbar
from starlette.middleware import Middleware

from lpr_lab.dashboard import about, api, claims, claims_bases, not_found, shell, theme, tour
from lpr_lab.dashboard.page_data import data_route
from lpr_lab.dashboard.pages.runs.report import report_route
from lpr_lab.dashboard.server.assets import assets_route
from lpr_lab.dashboard.server.guard import Guard
from lpr_lab.dashboard.server.model_queue import MAX_QUEUED
from lpr_lab.dashboard.server.sessions import cache_configs

PAGES = {name: import_module(f"lpr_lab.dashboard.pages.{name.lower()}.page") for name in shell.PAGES}


def assemble(runs_dir: Path) -> gr.Blocks:
    """Return the app with its six pages."""
    with gr.Blocks(title="lpr_lab", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as demo:
        _without_navbar()
        PAGES["Runs"].page(demo, runs_dir)
        shell.html_block(about.footer("Runs"))
        api.add(runs_dir)
    for name, path in shell.PAGES.items():
        if name == "Runs":
            continue
        with demo.route(name, path):
            _without_navbar()
            PAGES[name].page(demo, runs_dir)
            shell.html_block(about.footer(name))
    for block in demo.blocks.values():
        if isinstance(block, gr.Number | gr.Slider | gr.Radio | gr.Dropdown | gr.CheckboxGroup):
            shell.hand_on_as_chosen(block)
    cache_configs(demo)
    demo.queue(max_size=64, default_concurrency_limit=1, api_open=False)
    return demo


def _without_navbar() -> None:
    # Ours keeps run and language when the page changes.
    Navbar(visible=False)


def launch_options(
    runs_dir: Path, host: str = "127.0.0.1", *, token: str | None = None, mcp: bool = False
) -> dict[str, Any]:
    """Return the arguments of `Blocks.launch` that make the app ours, quiet and private."""
    hosts = tuple({host, "127.0.0.1", "localhost", "::1"})
    return {
        "share": False,
        "ssr_mode": False,
        "show_error": False,
        "run_history": False,
        "footer_links": [],
        "max_file_size": "1mb",
        "max_threads": MAX_QUEUED + 8,  # all that are in line, and some that read files meanwhile
        "state_session_capacity": 64,
        "enable_monitoring": False,
        "pwa": False,
        "mcp_server": mcp,
        "strict_cors": True,
        "theme": theme.gradio_theme(),
        "head": theme.head(),
        "app_kwargs": {
            "middleware": [Middleware(Guard, hosts=hosts, token=token)],
            "exception_handlers": {404: not_found.answer},
            "routes": [
                report_route(runs_dir),
                data_route(runs_dir),
                about.concepts_route(),
                claims.claims_route(runs_dir),
                claims_bases.bases_route(runs_dir),
                tour.tour_route(runs_dir),
                assets_route(),
            ],
        },
    }
