"""A report as a run of its own: which runs it is about, where it lies, and whether the file keeps its promises."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from lpr_lab.errors import MissingError
from lpr_lab.experiments.studies.predecessors import runs_folder
from lpr_lab.runs.claims import Claim, as_records
from lpr_lab.runs.environment import folder_of
from lpr_lab.runs.find import list_runs, start_run
from lpr_lab.runs.lineage import ancestors_of
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import get_language

KIND = "report"
_REACHING = ("src", "srcset", "href", "action", "formaction", "poster", "data", "background")


@dataclass(frozen=True)
class Reporting:
    """A report at work: its own run, and those that it is about."""

    run: Run
    subjects: tuple[Run, ...]

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self.run.path / "report.html"


def choose(ids: Sequence[str], root: Path) -> list[Run]:
    """Return the runs of these ids; for none, the newest finished one that was scored and those it goes on from.

    Where nothing was finished yet, that is the example which comes with the code.

    Raises:
        MissingError: there is no such run, or none at all.
    """
    if ids:
        return [Run.open(root, run_id) for run_id in dict.fromkeys(ids)]
    runs = [run for run in list_runs(root) if run.problem is None]
    known = {run.id: run for run in runs if not run.is_example}
    for run in known.values():
        if run.status.state == "finished" and run.results.get("change"):
            return [*(known[one] for one in ancestors_of(run, runs) if one in known), run]
    examples = [run for run in runs if run.is_example] or list_runs(folder_of("examples"))
    if not examples:
        raise MissingError(f"There is no finished run in {root}. Make one: lpr-lab demo")
    return examples[:1]


def start(
    ids: Sequence[str], title: str = "", language: str = "", run_dir: str | Path = "", root: Path | None = None
) -> Reporting:
    """Find the runs that a report is about and return it, its own run started.

    Args:
        ids: of runs; see `choose`.
        title: instead of the run's own.
        language: code of the language of `title`.
        run_dir: as `lpr-lab run` gives it.
        root: the folder of runs; by default the one of `run_dir`, else the usual one.
    """
    if language:
        get_language(language)
    root = runs_folder(run_dir, root)
    subjects = choose(ids, root)
    names = [run.id for run in subjects]
    config = {"runs": names, "title": title, "lang": language}
    said = title or f"Report on {subjects[-1].title}"
    run = start_run(config, kind=KIND, slug="report", title=said, run_dir=run_dir, root=root, parents=names)
    return Reporting(run, tuple(subjects))


def write(report: Reporting, write_report: Callable[..., int]) -> int:
    """Write the file into its run, with `views.report.page.write_report`; returns its size in bytes."""
    with report.run.working("write"):
        config = report.run.config
        around = list_runs(report.run.path.parent)
        return write_report(report.subjects, report.path, title=config["title"], language=config["lang"], around=around)


def finish(report: Reporting) -> dict[str, Any]:
    """Look at the file that was written, keep what was found, and mark the run finished."""
    run = report.run
    if run.status.recorded_state == "finished":
        return dict(run.results)
    text = report.path.read_text(encoding="utf-8")
    megabytes = len(text.encode()) / 1e6
    outside = references(text)
    told = sum(subject.id in text for subject in report.subjects)
    claims = [
        Claim("is_small", "The file is below 8 MB (its size, MB).", megabytes, 8.0, megabytes < 8, is_exact=True),
        Claim(
            "stands_alone",
            "It names nothing that would have to be fetched (names found).",
            float(len(outside)),
            0.0,
            not outside,
            is_exact=True,
        ),
        Claim(
            "tells_of_all",
            "Every run that was asked for is in it (runs found).",
            float(told),
            float(len(report.subjects)),
            told == len(report.subjects),
            is_exact=True,
        ),
    ]
    results = {"schema_version": 1, "claims": as_records(claims)}
    run.finish(results)
    return results


def references(text: str) -> list[str]:
    """Return every address in a page that leads beyond it.

    >>> references('<a href="#top"></a><img src="x.png">')
    ['x.png']
    """
    reader = _References()
    reader.feed(text)
    return reader.found


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in _REACHING and value and not value.startswith(("#", "data:")):
                self.found.append(value)
