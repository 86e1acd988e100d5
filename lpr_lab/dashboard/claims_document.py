"""What both documents about claims share: their frame, the page that waits for one, and when one is made anew."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lpr_lab.dashboard import about, shell, theme
from lpr_lab.dashboard.making import Making
from lpr_lab.errors import LprError
from lpr_lab.runs.run import run_folders
from lpr_lab.storage import file_stamp
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import duration

Link = tuple[str, str, bool]
"""A name, its address, and whether it is the one that is shown."""


def document(title: str, top: Markup, body: Markup, links: Sequence[Link] = (), *, renews: bool = False) -> Markup:
    """Return a whole page.

    Args:
        title: of its window.
        top: heading and finding, from `shell.head`.
        body: what is below.
        links: to the same of other bases.
        renews: whether it asks for itself again in a moment.
    """
    page = {"head": theme.head(), "header": shell.header(""), "top": top, "footer": about.footer(), "title": title}
    return render("dashboard/document.html.j2", body=body, others=links, renews=renews, **page)


def made_or_waiting(making: Making, patience: float, title: str, top: Markup) -> Markup:
    """Return a document once it is made, else a page that says how far it is and asks for it again by itself.

    Args:
        making: of the document.
        patience: seconds to wait for it.
        title: of the window, while it is being made.
        top: heading, while it is being made.
    """
    step = making.wait(patience)
    if step.result is not None:
        return step.result
    seconds_left = making.seconds_left
    left = "" if seconds_left is None else duration(seconds_left)
    what = "Runs and claims read"
    body = render("dashboard/making.html.j2", what=what, done=step.done, total=step.total, left=left)
    return document(title, top, body, renews=True)


def stamps_of(runs_dir: Path) -> tuple[Any, ...]:
    """Return what changes when a run of the folder begins or ends."""
    try:
        folders = sorted(run_folders(runs_dir))
    except LprError:
        return ()
    return tuple((folder.name, file_stamp(folder / "results.json")) for folder in folders)
