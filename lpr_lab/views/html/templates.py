"""HTML from Jinja2 templates, where every value is escaped unless it is `Markup`.

    render("views/html/live.html.j2", snapshot=snapshot)

A template is named by its path in the package and lies beside the code that fills it, as `NAME.html.j2`; what pages
share (tables, notices, tiles, facts) are macros:

    {% import "views/html/macros.html.j2" as m %}
    {{ m.tile("Tokens", count(tokens), "read in training") }}

A name without a value is an error, not an empty place. `GLOBALS` may be used in every template: how numbers and
languages are written.

A sentence with a link needs no file: `Markup('See <a href="{}">{}</a>.').format(link, title)` escapes what it is given,
and so does `Markup(", ").join(names)`. Make `Markup` from literals only; the linter checks it (S704). `Markup + text`
escapes the text. An f-string that holds `Markup` is plain text again, and is escaped when it comes into a template.
"""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from lpr_lab.text.languages import language_name
from lpr_lab.views import names, numbers, theme
from lpr_lab.views.static import read_static

GLOBALS = {
    "NOT_MEASURED": numbers.NOT_MEASURED,
    "change": numbers.change,
    "count": numbers.count,
    "duration": numbers.duration,
    "expert_name": names.expert_name,
    "expert_tone": theme.expert_tone,
    "interval": numbers.interval,
    "language_name": language_name,
    "percent": numbers.percent,
    "points": numbers.points,
}

_PACKAGE = Path(__file__).parents[2]


def render(template: str, **values: Any) -> Markup:
    """Return a filled template.

    Args:
        template: its path in the package, such as `views/html/live.html.j2`.
        values: what the template names.

    Raises:
        LookupError: a value, or a part of one, is not there; what runs keep may be damaged.
    """
    try:
        text = _environment().get_template(template).render(values)
    except UndefinedError as error:
        raise LookupError(str(error)) from error
    return Markup(text.strip())  # noqa: S704, the template has escaped it


def with_style(body: Markup, sheet: str) -> Markup:
    """Return HTML with our colours and a style sheet before it, for places without any, such as a notebook's cell.

    Args:
        body: what is shown.
        sheet: its style sheet in `views/static`, such as `live.css`.
    """
    rules = Markup(theme.notebook_colours() + read_static(sheet))  # noqa: S704, from our files
    return Markup("<style>{}</style>{}").format(rules, body)


def notice(kind: str, text: str | Markup) -> Markup:
    """Return a notice; `kind` is `info`, `warn` or `bad`, which the first word says too."""
    word = {"info": "Note", "warn": "Notice", "bad": "Failed"}[kind]
    return Markup('<p class="lpr-notice lpr-{}" role="note"><b>{}.</b> {}</p>').format(kind, word, text)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # the files are the package's own
    )
    made.globals |= GLOBALS
    return made
