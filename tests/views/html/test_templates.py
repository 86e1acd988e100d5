"""Templates escape what they are given, name nothing that is not there, and all compile."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

import lpr_lab
from lpr_lab.views.html import templates

PACKAGE = Path(lpr_lab.__file__).parent
MACROS = '{% import "views/html/macros.html.j2" as m %}'
EVIL = "<script>alert('\"&')</script>"
ESCAPED = "&lt;script&gt;alert(&#39;&#34;&amp;&#39;)&lt;/script&gt;"


def filled(source: str, **values) -> str:
    return templates._environment().from_string(MACROS + source).render(values)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.j2")), ids=lambda path: path.name)
def test_every_template_compiles(path):
    assert templates._environment().get_template(path.relative_to(PACKAGE).as_posix())


@pytest.mark.parametrize(
    "call",
    [
        "m.tile(evil, evil, evil, evil)",
        "m.head(evil, [evil])",
        "m.numbers(evil, [evil])",
        "m.facts([(evil, evil)])",
        "m.table([evil], [[evil, evil]], (1,), evil, evil)",
    ],
)
def test_macros_escape_texts_and_leave_markup(call):
    text = filled(f"{{{{ {call} }}}}", evil=EVIL)
    assert ESCAPED in text and "<script" not in text
    assert "<i>" in filled(f"{{{{ {call} }}}}", evil=Markup("<i>"))


def test_a_name_without_a_value_is_an_error():
    with pytest.raises(UndefinedError, match="nothing"):
        filled("{{ nothing }}")


def test_what_is_rendered_is_not_escaped_again():
    outer = templates.with_style(Markup("<p>{}</p>").format(EVIL), "live.css")
    assert outer.endswith(f"</style><p>{ESCAPED}</p>") and isinstance(outer, Markup)


def test_what_a_damaged_file_lacks_is_a_failed_lookup():
    with pytest.raises(LookupError, match="holds"):
        templates.render("views/html/run_claims.html.j2", claims=[{"text": "x"}], short=str)
