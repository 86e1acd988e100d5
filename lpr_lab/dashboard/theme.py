"""Gradio theme, style sheet and scripts of the dashboard."""

from functools import cache
from pathlib import Path

from gradio import themes
from markupsafe import Markup

from lpr_lab.views import theme
from lpr_lab.views.html import tokens
from lpr_lab.views.static import read_static

_STATIC = Path(__file__).with_name("static")


def _sizes(name: str, *values: str) -> themes.Size:
    keys = ("xxs", "xs", "sm", "md", "lg", "xl", "xxl")
    return themes.Size(name=name, **dict(zip(keys, values, strict=True)))


_BY_DAY_AND_NIGHT = {
    "body_text_color": "var(--lpr-ink)",
    "body_text_color_subdued": "var(--lpr-ink-3)",
    "background_fill_primary": "var(--lpr-surface)",
    "background_fill_secondary": "var(--lpr-sunken)",
    "border_color_primary": "var(--lpr-line)",
    "border_color_accent": "var(--lpr-ink)",
    "color_accent_soft": "var(--lpr-sunken)",
    "block_background_fill": "transparent",
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_label_background_fill": "transparent",
    "block_label_border_width": "0px",
    "block_label_text_color": "var(--lpr-ink-3)",
    "block_title_text_color": "var(--lpr-ink-3)",
    "block_info_text_color": "var(--lpr-ink-3)",
    "panel_background_fill": "transparent",
    "panel_border_width": "0px",
    "input_background_fill": "var(--lpr-surface)",
    "input_background_fill_focus": "var(--lpr-surface)",
    "input_background_fill_hover": "var(--lpr-surface)",
    "input_border_color": "var(--lpr-line-strong)",
    "input_border_color_focus": "var(--lpr-ink)",
    "input_border_color_hover": "var(--lpr-ink-2)",
    "input_border_width": "1px",
    "input_placeholder_color": "var(--lpr-ink-3)",
    "input_shadow": "none",
    "input_shadow_focus": "0 0 0 1px var(--lpr-ink)",
    "checkbox_label_background_fill": "var(--lpr-surface)",
    "checkbox_label_background_fill_hover": "var(--lpr-sunken)",
    "checkbox_label_background_fill_selected": "var(--lpr-ink)",
    "checkbox_label_border_color": "var(--lpr-line)",
    "checkbox_label_border_color_hover": "var(--lpr-line-strong)",
    "checkbox_label_border_color_selected": "var(--lpr-ink)",
    "checkbox_label_border_width": "1px",
    "checkbox_label_shadow": "none",
    "checkbox_label_text_color": "var(--lpr-ink-2)",
    "checkbox_label_text_color_selected": "var(--lpr-surface)",
    "button_primary_background_fill": "var(--lpr-ink)",
    "button_primary_background_fill_hover": "var(--lpr-ink-2)",
    "button_primary_border_color": "var(--lpr-ink)",
    "button_primary_border_color_hover": "var(--lpr-ink-2)",
    "button_primary_text_color": "var(--lpr-surface)",
    "button_primary_text_color_hover": "var(--lpr-surface)",
    "button_secondary_background_fill": "var(--lpr-surface)",
    "button_secondary_background_fill_hover": "var(--lpr-sunken)",
    "button_secondary_border_color": "var(--lpr-line-strong)",
    "button_secondary_border_color_hover": "var(--lpr-ink-2)",
    "button_secondary_text_color": "var(--lpr-ink)",
    "button_secondary_text_color_hover": "var(--lpr-ink)",
    "button_border_width": "1px",
    "slider_color": "var(--lpr-ink)",
    "loader_color": "var(--lpr-ink)",
}
"""Variables of the gradio theme that are the same by day and by night: ours change with the brightness themselves."""


@cache
def gradio_theme() -> themes.Base:
    """Return the theme: sizes in rem so that everything grows together, colours from our own variables."""
    made = themes.Base(
        font=[part.strip().strip('"') for part in theme.FONT.split(",")],
        font_mono=[part.strip().strip('"') for part in theme.MONO.split(",")],
        text_size=_sizes("lpr_text", ".625rem", ".75rem", ".8125rem", ".875rem", "1rem", "1.25rem", "1.625rem"),
        spacing_size=_sizes("lpr_space", ".0625rem", ".125rem", ".25rem", ".375rem", ".5rem", ".625rem", "1rem"),
        radius_size=_sizes("lpr_radius", "2px", "4px", "6px", "8px", "10px", "12px", "16px"),
    )
    values = {name: value for key, value in _BY_DAY_AND_NIGHT.items() for name in (key, f"{key}_dark")}
    # Literal: gradio paints the page with these before any style sheet is there.
    values |= {"body_background_fill": theme.LIGHT["paper"], "body_background_fill_dark": theme.DARK["paper"]}
    return made.set(**values, block_label_text_size=".75rem", block_title_text_size=".75rem", layout_gap="1rem")


def _inside(sheet: str) -> str:
    """Return a style sheet of the views for this app alone, so that its rules outweigh gradio's."""
    return f".gradio-container{{{read_static(sheet)}}}"


@cache
def head() -> Markup:
    """Return what goes into the head of every page: our style sheet and our scripts.

    Not through gradio's `css` argument, which rewrites rules and drops those it does not know, such as `@container`.
    """
    colours = theme.css_constants() + theme.css_colours(":root") + theme.css_colours(".dark", dark=True)
    ours = ("shell.css", "plan.css", "routing.css", "compare.css")
    style = colours + read_static("token_strip.css") + _inside("run_overview.css")
    style += "".join(read_static(name, _STATIC) for name in ours)
    views = ("expert_panels.css", "live.css", "continuations.css", "causal.css", "guesses.css", "segments.css")
    style += "".join(map(_inside, views))
    script = "\n".join(
        [
            tokens.script(),
            *map(read_static, ("cells.js", "causal.js", "guesses.js")),
            *(
                read_static(name, _STATIC)
                for name in ("plan.js", "widgets.js", "take.js", "picks.js", "lines.js", "sitting.js", "shell.js")
            ),
        ]
    )
    return Markup(f"<style>{style}</style><script>{script}</script>")  # noqa: S704, from files of ours
