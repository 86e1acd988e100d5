"""One run in a report: its sections in order, each of which says so where something was not measured."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from lpr_lab.errors import LprError
from lpr_lab.runs.run import Run
from lpr_lab.views.html import run_overview
from lpr_lab.views.html.templates import render
from lpr_lab.views.report import charts, sections
from lpr_lab.views.report.charts import Chart

SECTIONS = {
    "summary": "Summary",
    "promises": "What the method promises",
    "retention": "What was gained, what was kept",
    "routing": "Where tokens go",
    "experts": "What experts do",
    "texts": "Token by token",
    "said": "Two models continue one beginning",
    "training": "Training",
    "origin": "What it was made from",
    "repeat": "How to repeat it",
}

_MISSING = Markup('<p class="lpr-missing"><b>Not measured.</b> {}</p>')


class Room:
    """How many bytes may still be added to a report of at most `limit`. What does not fit is counted, never cut."""

    def __init__(self, limit: int, left: int):
        self.limit = limit
        self.left = left

    def take(self, text: str) -> bool:
        """Whether a text fits; then it counts."""
        size = len(text.encode())
        if size > self.left:
            return False
        self.left -= size
        return True

    def left_out(self) -> Markup:
        """Return what stands in place of what did not fit."""
        return Markup('<p class="lpr-note">Left out, to keep this file below {:.0f} MB.</p>').format(self.limit / 1e6)


@dataclass
class Shared:
    """What the runs of one report share.

    Attributes:
        around: all runs of their folder, to name parents and children.
        room: what may still be added.
        is_alone: whether the report is about one run.
        own_texts, compare_pairs: whether what people typed goes into it.
        figures: the charts by name, which sections add to.
    """

    around: Sequence[Run]
    room: Room
    is_alone: bool
    own_texts: bool = False
    compare_pairs: bool = False
    figures: dict[str, Any] = field(default_factory=dict)


class Article:
    """One run of a report; `render` returns it."""

    def __init__(self, run: Run, prefix: str, shared: Shared):
        self.run = run
        self.prefix = prefix
        """Of the names of its sections and charts, which are unique in the report."""
        self.shared = shared
        self.drawn: list[str] = []

    def render(self) -> Markup:
        """Return all sections; charts go into the figures that runs share."""
        write: dict[str, Callable[[], Markup | tuple[Markup, str]]] = {
            "summary": self._summary,
            "promises": self._claims,
            "retention": lambda: (
                self._charts(charts.retention_charts(self.run), open_table=True) + sections.tasks(self.run)
                or _MISSING.format("No model of this run was scored on test documents.")
            ),
            "routing": lambda: (
                self._charts(charts.routing_charts(self.run)) + self._charts(charts.causal_charts(self.run))
                or _MISSING.format("Routing by language and layer was not recorded.")
            ),
            "experts": lambda: (
                sections.experts(self.run) + self._charts(charts.expert_charts(self.run))
                or _MISSING.format("What each expert carries was not counted.")
            ),
            "texts": self._strips,
            "said": lambda: (
                sections.continuations(self.run, typed=self.shared.compare_pairs) + sections.judged_blind(self.run)
                or _MISSING.format("Base and expanded model continued no prompt in this run.")
            ),
            "training": self._training,
            "origin": lambda: sections.origin(self.run, self.shared.around),
            "repeat": lambda: sections.repeat(self.run),
        }
        status = sections.status(self.run)
        parts = [self._section(key, title, write[key]) for key, title in SECTIONS.items()]
        if (notes := self.run.documents.notes).strip():
            body = Markup('<p class="lpr-notes" dir="auto">{}</p>').format(notes)
            parts.append(_section(f"{self.prefix}notes", "Notes", body))
        return render(
            "views/report/article.html.j2",
            run=self.run,
            prefix=self.prefix,
            is_alone=self.shared.is_alone,
            status=status,
            sections=parts,
        )

    def _section(self, key: str, title: str, write: Callable[[], Markup | tuple[Markup, str]]) -> Markup:
        try:
            found = write()
        except (LprError, LookupError, TypeError, ValueError, OSError) as error:
            # One damaged or foreign file must not keep the rest from being sent.
            found = sections.unreadable(self.run, error)
        body, lead = found if isinstance(found, tuple) else (found, "")
        text = _section(self.prefix + key, title, body, lead)
        return text if self.shared.room.take(text) else _section(self.prefix + key, title, self.shared.room.left_out())

    def _charts(self, found: Iterator[Chart], *, open_table: bool = False) -> Markup:
        out = []
        for chart in found:
            if not self.shared.room.take(json.dumps(chart.figure)):
                out.append(self.shared.room.left_out())
                continue
            self.shared.figures[self.prefix + chart.name] = chart.figure
            self.drawn.append(chart.name)
            height = int(chart.figure["layout"].get("height") or 360)
            values = {"prefix": self.prefix, "chart": chart, "height": height, "open_table": open_table}
            out.append(render("views/report/chart.html.j2", **values))
        return Markup().join(out)

    def _summary(self) -> tuple[Markup, str]:
        lines = sections.summary(self.run)
        tiles = run_overview.render_tiles(self.run)
        body = tiles + Markup().join(Markup("<p>{}</p>").format(line) for line in lines[1:])
        lead = lines[0] if lines and not self.shared.is_alone else ""  # alone, it stands at the head of the page
        return body or _MISSING.format("This run has no results of an expansion."), lead

    def _claims(self) -> tuple[Markup, str]:
        body = run_overview.render_claims(self.run)
        if not body:
            return _MISSING.format("No promise was checked in this run."), ""
        return body, f"{run_overview.claims_finding(self.run)}."

    def _strips(self) -> Markup:
        shown, left_out, room = [], [], self.shared.room
        for name, strip in sections.strips(self.run, own_texts=self.shared.own_texts):
            if len(strip.encode()) < room.left // 2:  # the other half is for what follows, and for further runs
                shown.append((name, strip))
                room.left -= len(strip.encode())
            else:
                left_out.append(name)
        if not shown and not left_out:
            return _MISSING.format("No text was traced through this run's model.")
        room.left += sum(len(strip.encode()) for _, strip in shown)  # taken again with the whole section
        return render("views/report/strips.html.j2", key=f"{self.prefix}strips", strips=shown, left_out=left_out)

    def _training(self) -> Markup:
        found = self._charts(charts.plan_charts(self.run)) + self._charts(charts.training_charts(self.run))
        found = found or _MISSING.format("No number was recorded while training.")
        found += self._charts(charts.kept_charts(self.run, self.drawn))
        phases = run_overview.render_phases(self.run)
        title = run_overview.phases_finding(self.run)
        return found + (Markup("<h4>{}</h4>{}").format(title, phases) if phases else Markup())


def _section(key: str, title: str, body: Markup, lead: str = "") -> Markup:
    """Return a section with a heading that can be linked to; `lead` says the finding."""
    return render("views/report/section.html.j2", key=key, title=title, body=body, lead=lead)
