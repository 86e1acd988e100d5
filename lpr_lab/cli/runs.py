"""`lpr-lab runs`: list, show, compare, tag, note and remove runs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpr_lab.cli.common import AsJson, RunsDir, aligned, facts_of, open_run, open_runs, runs_folder, say, words
from lpr_lab.cli.completion import complete_run

if TYPE_CHECKING:
    from lpr_lab.runs.compare.differences import Row, RunDifferences
    from lpr_lab.runs.run import Run

app = typer.Typer(help="List, show, compare, tag, note on and remove runs.", no_args_is_help=True)


@app.command("list")
def list_command(
    kind: Annotated[str | None, typer.Option(help="Only runs of this kind.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only runs with this tag; repeatable.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Only runs with such a setting or result, as `seed=1` or "
            "`results.summary.heldout.expanded.mean_change_percent<=-5`; repeatable, two values of one setting are "
            "either or.",
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Order by a setting or result; `-NAME`, as `--sort=-seed`, for the largest first."
        ),
    ] = "",
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first, examples last."""
    from lpr_lab.runs.find import list_runs
    from lpr_lab.runs.housekeeping import checked_tag, tags_of
    from lpr_lab.runs.selection import order, read_conditions, select
    from lpr_lab.runs.watch import alerts

    folder = runs_folder(runs_dir)
    wanted = {checked_tag(word) for word in tag or ()}
    runs = [run for run in list_runs(folder) if kind in (None, run.kind) and wanted <= set(tags_of(run))]
    conditions = read_conditions(";".join(where or ()))
    runs = order(select(runs, conditions) if conditions else runs, sort)
    if as_json:
        print(json.dumps([facts_of(run) for run in runs], ensure_ascii=False))
        return
    if not runs:
        say(f"No runs in {folder}. Make one: lpr-lab demo")
    width = max((len(run.id) for run in runs), default=0)
    for run in runs:
        state = "unreadable" if run.problem else "example" if run.is_example else run.status.state
        tags = "".join(f"  #{word}" for word in tags_of(run))
        raised = "" if run.problem else "".join(f"  ! {alert.rule}" for alert in alerts.read(run))
        print(f"{run.id:<{width}}  {state:<11}  {run.problem or run.title}{tags}{raised}")


@app.command("show")
def show_command(
    run_id: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's id, or `latest`.", autocompletion=complete_run)
    ] = "latest",
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a run: its kind, state, settings and results."""
    from lpr_lab.yaml_files import dump_yaml

    run = open_run(runs_folder(runs_dir), run_id)
    facts = facts_of(run) | {"config": run.config, "results": run.results or None, "seconds": run.phases.seconds}
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    print(
        dump_yaml({key: value for key, value in facts.items() if key != "results" and value not in (None, {})}), end=""
    )
    for line in words(run):
        print(line)


@app.command("diff")
def diff_command(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN", help="Two runs or more.", autocompletion=complete_run)],
    every: Annotated[bool, typer.Option("--all", help="Show equal rows too.")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show how runs differ: results, settings, text, environment.

    Results measured on different documents are named and left out.
    """
    from lpr_lab.errors import UsageError
    from lpr_lab.runs.compare.differences import compare_runs

    folder = runs_folder(runs_dir)
    runs = open_runs(folder, run_ids)
    if len(runs) < 2:
        raise UsageError("A comparison takes two runs or more. `lpr-lab runs list` shows the ids.")
    compared = compare_runs(runs)
    if as_json:
        print(json.dumps(compared.to_json(every), ensure_ascii=False))
        return
    for number, run in enumerate(runs, start=1):
        print(f"{number}  {run.id}  {run.title}")
    for line in _comparison_lines(compared, every):
        print(line)


@app.command("tag")
def tag_command(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or `latest`.", autocompletion=complete_run)],
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="WORD", help="Tags; without any, show those it has.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove these tags.")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Put tags on a run, to find it again by `lpr-lab runs list --tag WORD` and in the dashboard."""
    from lpr_lab.runs import housekeeping

    run = open_run(runs_folder(runs_dir), run_id)
    now = housekeeping.tag(run, tags, remove=remove) if tags else housekeeping.read_tags(run)
    if as_json:
        print(json.dumps({"id": run.id, "tags": list(now)}, ensure_ascii=False))
    elif now:
        print(*now, sep="\n")
    else:
        say(f"Run {run.id} has no tags.")


@app.command("note")
def note_command(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or `latest`.", autocompletion=complete_run)],
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="A few lines, or `-` to read them; without, show what is noted."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the notes.")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Note something on a run, in place of what was noted: for its page, the list and the report."""
    from lpr_lab.errors import UsageError
    from lpr_lab.runs.people.notes import read_notes, write_notes

    run = open_run(runs_folder(runs_dir), run_id)
    if remove and text is not None:
        raise UsageError("Give a text or --remove, not both.")
    if text == "-":
        text = typer.get_text_stream("stdin", encoding="utf-8", errors="surrogateescape").read()
    now = read_notes(run) if text is None and not remove else write_notes(run, text or "")
    if as_json:
        print(json.dumps({"id": run.id, "notes": now}, ensure_ascii=False))
    elif now:
        print(now)
    else:
        say(f"Run {run.id} has no notes.")


@app.command("rm")
def remove_command(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN", help="Ids of runs.", autocompletion=complete_run)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be moved, move nothing.")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Move runs to `.trash` in the folder of runs; nothing is deleted.

    Runs that are being worked on, and examples, stay where they are.
    """
    from lpr_lab.runs import housekeeping

    folder = runs_folder(runs_dir)
    removals = housekeeping.remove(folder, [_any_run(folder, run_id) for run_id in run_ids], dry_run=dry_run)
    for removal in removals:
        if removal.children:
            children = ", ".join(removal.children)
            say(f"Note: {children} went on from {removal.run.id}, and will name a parent that is gone.")
    if as_json:
        moved = [
            {"id": one.run.id, "to": str(one.target), "children": list(one.children), "dry_run": dry_run}
            for one in removals
        ]
        print(json.dumps(moved, ensure_ascii=False))
        return
    for removal in removals:
        print(f"{'would be moved' if dry_run else 'moved'}: {removal.run.path} -> {removal.target}")
        if not dry_run:
            say(f"To restore it: {_move_back(removal.target, removal.run.path)}")


def _move_back(source: Path, target: Path) -> str:
    from shlex import quote

    return f"mv {quote(str(source))} {quote(str(target))}"


def _any_run(folder: Path, run_id: str) -> "Run":
    """Open a run, also one that cannot be read: those are the ones that people remove first."""
    from lpr_lab.errors import DamagedError
    from lpr_lab.runs.find import list_runs
    from lpr_lab.runs.run import Run

    if run_id == "latest":
        return open_run(folder, run_id)
    try:
        return Run.open(folder, run_id)
    except DamagedError:
        return next(run for run in list_runs(folder) if run.id == run_id)


_TITLES = {
    "results": "Mean change of bits per byte, in per cent; less is better",
    "languages": "By language",
    "settings": "Settings",
    "data": "Text",
    "environment": "Environment",
}


def _comparison_lines(compared: "RunDifferences", every: bool) -> Iterable[str]:
    if compared.refusal:
        yield f"\n{compared.refusal}"
    if compared.unlike:
        where = ", ".join(f"{language} ({dataset})" for dataset, language in compared.unlike)
        yield f"\nNot compared, because the test sets hold different documents: {where}."
    same, partial = [], []
    for name, rows in compared.groups.items():
        partial += [row.name for row in rows if row.is_partial and not row.values]
        shown = [row for row in rows if every or row.differs or (row.values and row.is_partial)]
        if shown:
            yield f"\n{_TITLES[name]}"
            yield from _lines(shown)
        elif rows:
            same.append(_TITLES[name].partition(",")[0].lower())
    if same:
        yield f"\nThe same: {', '.join(same)}."
    if partial and not every:
        yield f"\nRecorded by only some of them: {', '.join(partial)}."
    if any(row.values for rows in compared.groups.values() for row in rows):
        yield "\n* clearly better than every other: the 95 % interval of the paired difference leaves zero out."


def _lines(rows: "Sequence[Row]") -> Iterable[str]:
    table = [[row.name, *(_marked(row, place) for place in range(len(row.texts))), row.verdict] for row in rows]
    return (f"  {line}" for line in aligned(table))


def _marked(row: "Row", place: int) -> str:
    """Return the cell of one run, with a star if it is clearly the best."""
    text = row.texts[place]
    return "–" if text is None else f"{text} *" if place == row.best else text
