"""What a report says of one run besides charts: status, experts, token strips, continuations, origin, how to repeat."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from lpr_lab.errors import LprError
from lpr_lab.model.bases.embedded import EMBEDDED
from lpr_lab.runs.compare.differences import flatten, source_name
from lpr_lab.runs.environment import folder_of
from lpr_lab.runs.lineage import ancestors_of, children_of
from lpr_lab.runs.model_ref import baseline_of
from lpr_lab.runs.people.continuations import Pair, exactness, pairs, typed_by_reader
from lpr_lab.runs.people.own_texts import is_own
from lpr_lab.runs.people.own_texts import own_texts as kept_texts
from lpr_lab.runs.people.sittings import kept_sittings
from lpr_lab.runs.run import Run
from lpr_lab.runs.summary import divergence_lines, summary_lines
from lpr_lab.runs.watch import alerts
from lpr_lab.text.languages import language_name
from lpr_lab.text.splits import main_test_set
from lpr_lab.views.html import expert_panels, run_overview
from lpr_lab.views.html.continuations import describe_settings, finding, render_pair
from lpr_lab.views.html.judgements import decided, verdict
from lpr_lab.views.html.tasks import render_tasks
from lpr_lab.views.html.templates import render
from lpr_lab.views.html.tokens import render_token_strip
from lpr_lab.views.names import dataset_name
from lpr_lab.views.numbers import NOT_MEASURED
from lpr_lab.wording import counted
from lpr_lab.yaml_files import dump_yaml

MAX_PAIRS = 40


def unreadable(run: Run, error: Exception) -> Markup:
    """Return what stands where a file could not be read; the file is named from the run on, not from this machine."""
    said = str(error) if isinstance(error, LprError) else f"{type(error).__name__}: {error}"
    said = said.replace(str(run.path), run.id)
    return Markup('<p class="lpr-notice" role="note"><b>Not readable.</b> {}</p>').format(said)


def summary(run: Run) -> list[str]:
    """Return the results of a run in sentences; none where it has no results of an expansion."""
    try:
        return summary_lines(run.results, run.phases.seconds)
    except LookupError:
        return []


def status(run: Run) -> Markup:
    """Return a notice for a run that is not finished, or whose training diverged; empty for another."""
    status = run.status
    if status.state == "finished":
        notes, error_tail = [*filter(None, [run.note]), *divergence_lines(run.results)], None
    else:
        where = (status.stage or "its start").replace("_", " ")
        said = f"This run is not finished: it is {status.state}, at {where}. What follows is what there is so far."
        notes, error_tail = [said], status.error_tail
    notes += [f"The run raised an alert. {alerts.line(alert)}" for alert in alerts.read(run)]
    return render("views/report/status.html.j2", notes=notes, error_tail=error_tail)


def tasks(run: Run) -> Markup:
    """Return what the run's first and last model made of tasks; empty where none were asked."""
    changes = run.tables.read("task_changes")
    if changes is None or changes.empty:
        return Markup()
    stage = str(changes["stage"].iloc[-1])
    rows = changes[changes["stage"] == stage]
    return render_tasks(rows, baseline_of(run), stage, run.tables.read("tasks_left_out"))


def experts(run: Run) -> Markup:
    """Return the load of every layer's experts as panels of bars; empty where it was not counted."""
    load, number, stage = run.tables.read("expert_load"), "mass", ""
    if load is not None and not load.empty:
        stage = str(load["stage"].iloc[-1])
        load = load[load["stage"] == stage]
    else:
        load = run.tables.read("load")
    if load is None or load.empty:
        return Markup()
    dataset = main_test_set(load["dataset"])
    load = load[load["dataset"] == dataset]
    groups = []
    for role in ("original", "expanded"):
        rows = load[load["role"] == role]
        if rows.empty:
            continue
        codes = ", ".join(language_name(str(code)) for code in dict.fromkeys(rows["language"]))
        panels = expert_panels.render_load_panels(rows, number, top_k=int(run.config.get("top_k") or 2))
        groups.append((role, codes, panels, *_load_table(rows)))
    what = f"{dataset_name(dataset)}; mean weight of each expert over its tokens, layer by layer"
    caption = f"{what}{', at ' + stage if stage else ''}."
    return render("views/report/experts.html.j2", caption=caption, groups=groups)


def _load_table(rows: Any) -> tuple[list[str], list[list[str]]]:
    mass = rows.groupby(["layer", "expert"])["mass"].mean().unstack()
    head = ["Layer", *(f"Expert {expert}" for expert in mass.columns)]
    return head, [
        [str(layer), *(NOT_MEASURED if value != value else f"{value:.3f}" for value in values)]
        for layer, values in zip(mass.index, mass.to_numpy(), strict=True)
    ]


def strips(run: Run, *, own_texts: bool = False) -> Iterator[tuple[str, Markup]]:
    """Yield (name, token strip) for every trace of a run, its languages in their order; damaged ones say so.

    Texts that readers typed and kept come last, by their names, and only when asked for.
    """
    source = run.results or run.config
    order = [str(code) for role in ("original", "earlier", "expanded") for code in source.get(role) or ()]
    kept = {text.id: text.label for text in kept_texts(run) if text.is_traced} if own_texts else {}
    there = [name for name in run.traces.names() if not is_own(name)] + list(kept)
    for name in [*(code for code in order if code in there), *(name for name in there if name not in order)]:
        try:
            trace = run.traces.read(name)
            strip = render_token_strip(trace, linked=False)
        except LprError as error:
            strip = unreadable(run, error)
        yield kept.get(name) or language_name(name), strip


def continuations(run: Run, *, typed: bool = False) -> Markup:
    """Return what base and expanded model said to the same prompts, side by side; empty where nobody asked.

    Pairs that readers kept from the page `/compare` are among them only when asked for.
    """
    records = [record for record in pairs(run).values() if typed or not typed_by_reader(run, record)]
    shown = []
    for record in records[:MAX_PAIRS]:
        pair = Pair.from_record(record)
        language = language_name(pair.language) or "Unnamed language"
        how = describe_settings(record).capitalize()
        shown.append((language, finding(pair), how, render_pair(pair, exactness(run))))
    return render("views/report/continuations.html.j2", pairs=shown, num_all=len(records))


def judged_blind(run: Run) -> Markup:
    """Return what came of the sittings that the run keeps and that are over; empty where there are none.

    Counts alone: what was written in them is on the page `/compare`.
    """
    lines = []
    for one in kept_sittings(run):
        if one.is_over and one.judged:
            begun = one.begun[:16].replace("T", " ")
            said = f"{begun} UTC, {len(one.judged)} of {counted(len(one.prompts), 'prompt')}: {verdict(one.tally)}."
            lines.append(f"{said} {decided(one.tally)}; no difference {one.tally.ties}.")
    return render("views/report/judged_blind.html.j2", lines=lines) if lines else Markup()


def origin(run: Run, runs: Sequence[Run]) -> Markup:
    """Return the runs before and after this one, sources with their licences, settings, texts and environment."""
    titles = {other.id: other.title for other in runs if other.problem is None}
    return render(
        "views/report/origin.html.j2",
        run=run,
        before=[(titles.get(one, ""), one) for one in ancestors_of(run, runs)],
        after=[(titles.get(child.id, ""), child.id) for child in children_of(run, runs)],
        sources=_sources(run),
        has_text_sources=bool(run.documents.read("data").get("sources")),
        settings=flatten(run.config),
        texts=run_overview.render_texts(run),
        environment=flatten(run.documents.read("env")),
    )


def _sources(run: Run) -> list[tuple[str, str, str, str]]:
    """Return where the model and the texts came from and under which licences."""
    rows = []
    base = str((run.results or run.config).get("base") or "")
    if base:
        known = EMBEDDED.get(base)
        rows.append((base, "base model", known.licence if known else "as its publisher states", ""))
    for source in run.documents.read("data").get("sources") or []:
        name = source_name(source) or "text"
        version = str(source.get("version") or source.get("revision") or str(source.get("sha256") or "")[:12])
        used = str(source.get("used_for") or "text")
        rows.append((name, used, str(source.get("licence") or "not recorded"), version))
    return rows


def repeat(run: Run) -> Markup:
    """Return how to make this run again: the code, the parameters, the command."""
    git = run.documents.read("env").get("git") or {}
    lines = []
    notes = []
    if git.get("commit"):
        lines.append(f"git checkout {git['commit']}")
    else:
        notes.append("The commit of the code was not recorded.")
    if git.get("dirty"):
        notes.append(
            "The code had been changed since that commit, so the commit alone does not repeat it. "
            f"SHA-256 of the changes: {git.get('diff_sha256', 'not recorded')}."
        )
    given = run.documents.config_input
    parameters = given.get("parameters")
    has_notebook = bool(given.get("notebook")) and isinstance(parameters, dict)
    if has_notebook:
        lines.append(f"lpr-lab run {_notebook(str(given['notebook']))} -f parameters.yaml")
    else:
        notes.append("It was made from Python, not from a notebook; its settings are what the functions were given.")
    return render(
        "views/report/repeat.html.j2",
        commands=lines,
        has_notebook=has_notebook,
        listing=dump_yaml(parameters if has_notebook else given),
        notes=notes,
    )


def _notebook(stem: str) -> str:
    """Return what finds a notebook that a run names without its number: its name, or a file of one's own."""
    found = sorted(folder_of("notebooks").glob(f"[0-9]*_{stem}.ipynb")) if re.fullmatch(r"[\w-]+", stem) else []
    return found[0].stem if found else f"{stem}.ipynb"
