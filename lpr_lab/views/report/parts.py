"""The sections of a report on one run: what came of it, how it was found out, how to repeat it.

A section says so where something was not measured. Every piece of text goes through `html.escape`.
"""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from lpr_lab.errors import LprError
from lpr_lab.model.bases.embedded import EMBEDDED
from lpr_lab.runs.claims import main_dataset
from lpr_lab.runs.compare.differences import flatten, source_name
from lpr_lab.runs.continuations import Pair, exactness, pairs, typed_by_reader
from lpr_lab.runs.environment import folder_of
from lpr_lab.runs.lineage import ancestors_of, children_of
from lpr_lab.runs.own_texts import is_own
from lpr_lab.runs.own_texts import own_texts as kept_texts
from lpr_lab.runs.run import Run
from lpr_lab.runs.summary import divergence_lines, summary_lines
from lpr_lab.runs.yaml_files import dump_yaml
from lpr_lab.text.languages import direction_of, language_name
from lpr_lab.views.html import expert_panels, run_overview
from lpr_lab.views.html.continuations import describe_settings, finding, render_pair
from lpr_lab.views.html.tokens import render_token_strip
from lpr_lab.views.names import dataset_name
from lpr_lab.views.numbers import NOT_MEASURED
from lpr_lab.views.report.charts import Chart

MAX_PAIRS = 40

esc = html.escape


def section(key: str, title: str, body: str, lead: str = "") -> str:
    """Return a section with a heading that can be linked to; `lead` says the finding."""
    lead = f'<p class="lpr-lead">{esc(lead)}</p>' if lead else ""
    heading = f'<h3 id="{esc(key)}-h">{esc(title)}</h3>'
    return f'<section id="{esc(key)}" aria-labelledby="{esc(key)}-h">{heading}{lead}{body}</section>'


def missing(text: str) -> str:
    """Return what stands where there is nothing to show."""
    return f'<p class="lpr-missing"><b>Not measured.</b> {esc(text)}</p>'


def unreadable(run: Run, error: Exception) -> str:
    """Return what stands where a file could not be read; the file is named from the run on, not from this machine."""
    said = str(error) if isinstance(error, LprError) else f"{type(error).__name__}: {error}"
    said = said.replace(str(run.path), run.id)
    return f'<p class="lpr-notice" role="note"><b>Not readable.</b> {esc(said)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, numbers: bool = True) -> str:
    """Return a table of texts; the first cell of a row names it, the others are numbers or not."""
    kind = ' class="lpr-number"' if numbers else ""
    heads = "".join(f'<th scope="col"{kind if place else ""}>{esc(name)}</th>' for place, name in enumerate(head))
    body = "".join(
        f'<tr><th scope="row">{esc(row[0])}</th>' + "".join(f"<td{kind}>{esc(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="lpr-scroll" tabindex="0" role="region" aria-label="{esc(caption)}"><table class="lpr-table">'
        f'<caption class="lpr-hidden">{esc(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


def chart(prefix: str, one: Chart, *, open_table: bool = False) -> str:
    """Return the place of a chart, with its numbers as a table beneath; the page's script draws it."""
    height = one.figure["layout"].get("height") or 360
    kicker = f"<small>{esc(one.kicker)}</small>" if one.kicker else ""
    title = f'<figcaption class="lpr-finding">{kicker}{esc(one.title)}</figcaption>'
    note = f'<p class="lpr-caption">{esc(one.caption)}</p>' if one.caption else ""
    return (
        f'<figure class="lpr-figure">{title}<div class="lpr-chart" data-figure="{esc(prefix + one.name)}" role="img" '
        f'aria-label="{esc(one.title)}. The numbers follow as a table." style="min-height:{int(height)}px"></div>{note}'
        f"<details{' open' if open_table else ''}><summary>Show as table</summary>"
        f"{table(one.head, one.rows, one.title)}</details></figure>"
    )


def words(run: Run) -> list[str]:
    """Return what came of a run in sentences; none where it has no results of an expansion."""
    try:
        return summary_lines(run.results, run.phases.seconds)
    except LookupError:
        return []


def standing(run: Run) -> str:
    """Return a notice for a run that is not finished, or whose training diverged; empty for another."""
    status = run.status
    if status.state == "finished":
        notes = [*filter(None, [run.note]), *divergence_lines(run.results)]
        return "".join(f'<p class="lpr-notice" role="note"><b>Notice.</b> {esc(note)}</p>' for note in notes)
    where = (status.stage or "its start").replace("_", " ")
    said = f"This run is not finished: it is {status.state}, at {where}. What follows is what there is so far."
    tail = f'<pre class="lpr-log" tabindex="0">{esc(status.error_tail)}</pre>' if status.error_tail else ""
    return f'<p class="lpr-notice" role="note"><b>Notice.</b> {esc(said)}</p>{tail}'


def experts(run: Run) -> str:
    """Return the load of every layer's experts as panels of bars; empty where it was not counted."""
    load, number, stage = run.tables.read("expert_load"), "mass", ""
    if load is not None and not load.empty:
        stage = str(load["stage"].iloc[-1])
        load = load[load["stage"] == stage]
    else:
        load = run.tables.read("load")
    if load is None or load.empty:
        return ""
    dataset = main_dataset(load)
    load = load[load["dataset"] == dataset]
    parts = []
    for role in ("original", "expanded"):
        rows = load[load["role"] == role]
        if rows.empty:
            continue
        codes = ", ".join(language_name(str(code)) for code in dict.fromkeys(rows["language"]))
        panels = expert_panels.render_load_panels(rows, number, top_k=int(run.config.get("top_k") or 2))
        parts.append(f"<h4>{role.capitalize()} languages: {esc(codes)}</h4>{panels}")
        head, body = _load_table(rows)
        twin = table(head, body, f"Load of experts, {role} languages")
        parts.append(f"<details><summary>Show as table</summary>{twin}</details>")
    what = f"{dataset_name(dataset)}; mean weight of each expert over its tokens, layer by layer"
    return f'<p class="lpr-caption">{esc(what)}{esc(", at " + stage if stage else "")}.</p>{"".join(parts)}'


def _load_table(rows: Any) -> tuple[list[str], list[list[str]]]:
    mass = rows.groupby(["layer", "expert"])["mass"].mean().unstack()
    head = ["Layer", *(f"Expert {expert}" for expert in mass.columns)]
    return head, [
        [str(layer), *(NOT_MEASURED if value != value else f"{value:.3f}" for value in values)]
        for layer, values in zip(mass.index, mass.to_numpy(), strict=True)
    ]


def strips(run: Run, *, own_texts: bool = False) -> Iterable[tuple[str, str]]:
    """Yield (name, token strip) for every trace of a run, its languages in their order; damaged ones say so.

    Texts that readers typed and kept come last, by their names, and only when asked for.
    """
    source = run.results or run.config
    order = [str(code) for role in ("original", "earlier", "expanded") for code in source.get(role) or ()]
    kept = {text.id: text.name for text in kept_texts(run)} if own_texts else {}
    there = [name for name in run.traces.names() if not is_own(name)] + list(kept)
    for name in [*(code for code in order if code in there), *(name for name in there if name not in order)]:
        try:
            trace = run.traces.read(name)
            strip = render_token_strip(trace, linked=False)
        except LprError as error:
            strip = unreadable(run, error)
        yield kept.get(name) or language_name(name), strip


def tabs(key: str, items: Sequence[tuple[str, str]]) -> str:
    """Return panels of which the script shows one at a time; without script, and on paper, all are there."""
    if len(items) == 1:
        return items[0][1]
    buttons = "".join(
        f'<button type="button" role="tab" id="{key}-t{n}" aria-controls="{key}-p{n}" '
        f'aria-selected="{str(n == 0).lower()}" tabindex="{0 if n == 0 else -1}">{esc(name)}</button>'
        for n, (name, _) in enumerate(items)
    )
    panels = "".join(
        f'<div role="tabpanel" id="{key}-p{n}" aria-labelledby="{key}-t{n}"><h4 class="lpr-print">{esc(name)}</h4>'
        f"{body}</div>"
        for n, (name, body) in enumerate(items)
    )
    return f'<div class="lpr-tabs"><div role="tablist" aria-label="Languages">{buttons}</div>{panels}</div>'


def continuations(run: Run, *, typed: bool = False) -> str:
    """Return what base and expanded model said to the same prompts, side by side; empty where nobody asked.

    Pairs that readers kept from the page `/compare` are among them only when asked for.
    """
    records = [record for record in pairs(run).values() if typed or not typed_by_reader(run, record)]
    parts = []
    for record in records[:MAX_PAIRS]:
        pair = Pair.from_record(record)
        parts.append(
            f'<article class="lpr-continued"><h4>{esc(language_name(pair.language) or "Unnamed language")}</h4>'
            f'<p class="lpr-caption">{finding(pair)} {esc(describe_settings(record).capitalize())}.</p>'
            f"{render_pair(pair, exactness(run))}</article>"
        )
    if len(records) > MAX_PAIRS:
        parts.append(f'<p class="lpr-note">The first {MAX_PAIRS} of {len(records)} pairs.</p>')
    return "".join(parts)


def lineage(run: Run, runs: Sequence[Run]) -> str:
    """Return the runs that this one goes on from and those that went on from it."""
    titles = {other.id: other.title for other in runs if other.problem is None}

    def named(run_id: str) -> str:
        title = f"{esc(titles[run_id])} " if run_id in titles else ""
        return f"<li>{title}<code>{esc(run_id)}</code></li>"

    before = "".join(named(one) for one in ancestors_of(run, runs))
    after = "".join(named(child.id) for child in children_of(run, runs))
    here = f"<li><b>{esc(run.title)}</b> <code>{esc(run.id)}</code></li>"
    said = "" if before or after else "It goes on from no other run, and none went on from it."
    alone = f'<p class="lpr-caption">{said}</p>' if said else ""
    return f'<ol class="lpr-line">{before}{here}{after}</ol>{alone}'


def folded(title: str, body: str) -> str:
    """Return something to open; on paper it is open."""
    return f'<details class="lpr-fold"><summary>{esc(title)}</summary>{body}</details>' if body else ""


def made_with(run: Run) -> str:
    """Return settings, texts, licences and environment."""
    parts = [folded("Settings", run_overview.render_settings(flatten(run.config)))]
    texts = run_overview.render_texts(run)
    region = '<div class="lpr-scroll" tabindex="0" role="region" aria-label="Texts">'
    parts.append(folded("Text it was made from", f"{region}{texts}</div>" if texts else ""))
    environment = flatten(run.documents.read("env"))
    parts.append(
        folded("Environment", run_overview.render_settings(environment))
        if environment
        else missing("The environment of this run was not recorded.")
    )
    return "".join(parts)


def licences(run: Run) -> str:
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
    head = ("Source", "Used for", "Licence", "Version")
    found = table(head, rows, "Sources and licences", numbers=False) if rows else ""
    if not run.documents.read("data").get("sources"):
        found += missing("What text this run was made from was not recorded, so its licences are not known.")
    return found


def repeat(run: Run) -> str:
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
    if given.get("notebook") and isinstance(parameters, dict):
        lines.append(f"lpr-lab run {_notebook(str(given['notebook']))} -f parameters.yaml")
        listing = f"<p>With this as <code>parameters.yaml</code>:</p>{_code(dump_yaml(parameters))}"
    else:
        notes.append("It was made from Python, not from a notebook; its settings are what the functions were given.")
        listing = _code(dump_yaml(given))
    said = "".join(f"<p>{esc(note)}</p>" for note in notes)
    return f"{_code(chr(10).join(lines)) if lines else ''}{listing}{said}"


def _notebook(stem: str) -> str:
    """Return what finds a notebook that a run names without its number: its name, or a file of one's own."""
    found = sorted(folder_of("notebooks").glob(f"[0-9]*_{stem}.ipynb")) if re.fullmatch(r"[\w-]+", stem) else []
    return found[0].stem if found else f"{stem}.ipynb"


def _code(text: str) -> str:
    return f'<pre class="lpr-code" tabindex="0"><code>{esc(text)}</code></pre>'


def title_direction(language: str) -> str:
    """Return the attributes that say which language a title is in."""
    if not language:
        return ' dir="auto"'
    return f' lang="{esc(language)}" dir="{direction_of(language)}"'
