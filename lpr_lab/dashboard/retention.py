"""Page `/retention`: what did we gain, what did we forget, and is it real?"""

from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.shell import FILES, Scene, esc, html_block
from lpr_lab.errors import LprError
from lpr_lab.experiments.runs import Run
from lpr_lab.views import plots
from lpr_lab.views.numbers import NOT_MEASURED, change, count
from lpr_lab.views.plots import ROLES, Table, dataset_name, language_name

QUESTION = "What did it gain, what did it forget, and is that real?"
HEADS = ("Language", "Documents", "Base", "Expanded", "Change", "95% interval", "Verdict")
VERDICTS = {"better": "▼ better", "worse": "▲ worse", "no clear change": "≈ no clear change"}


def change_table(run: Run | None) -> Table | None:
    """Return the run's changes of bits per byte, or None when it was not evaluated."""
    if run is None:
        return None
    table = run.read_table("change")
    return None if table is None or table.empty else table


def datasets_of(table: Table) -> list[str]:
    """Return the data sets of a table, held-out text first."""
    return sorted(dict.fromkeys(table["dataset"]), key=lambda name: name != "heldout")


def finding(rows: Table) -> str:
    """Return the answer in words: mean change on both kinds of languages, and how many changed clearly."""
    sentences = []
    for role in ("expanded", "original"):
        part = rows[rows["role"] == role]
        if part.empty:
            continue
        mean = float(part["change_percent"].mean())
        kind = (
            f'<span class="lpr-{role}">{ROLES[role]}</span>'
            if not sentences
            else (f'<span class="lpr-{role}">{ROLES[role].lower()}</span>')
        )
        need = " need" if not sentences else ""
        unit = " bits per byte" if not sentences else ""
        much = f"{abs(mean):.1f}% {'fewer' if mean < 0 else 'more'}{unit}"
        sentences.append(f"{kind}{need} {much}, {_judge(list(part['verdict']))}")
    return "; ".join(sentences) + "."


def _judge(verdicts: list[str]) -> str:
    counts = [(verdicts.count(word), word) for word in ("better", "worse", "no clear change")]
    for number, word in counts:
        if number == len(verdicts):
            everyone = "all " if number > 1 else ""
            return "without a clear change" if word == "no clear change" else f"{everyone}clearly {word}"
    words = {"no clear change": "unclear"}
    return ", ".join(f"{number} {words.get(word, word)}" for number, word in counts if number)


DEFINITIONS = (
    '<span class="lpr-more">Bits per byte: how many bits the model needs for a byte of text it has not seen; lower is '
    "better, whatever the tokenizer. Change = expanded ÷ base − 1; <b>below zero is better</b>. On expanded languages "
    "a fall is the <b>gain</b>; on original languages a rise is <b>forgetting</b>. A change is called better or worse "
    "only when its 95% interval leaves zero out.</span>"
)


def render_table(rows: Table) -> str:
    """Return the same numbers as the chart, with interval and verdict, original languages above expanded ones."""
    body = ""
    for role, title in ROLES.items():
        part = rows[rows["role"] == role]
        if part.empty:
            continue
        mark = shell.language_chips([title], role)
        body += f'<tr class="lpr-block"><th scope="rowgroup" colspan="7">{mark}</th></tr>'
        body += "".join(_row(row) for row in part.to_dict("records"))
    head = "".join(
        f'<th scope="col"{" class=lpr-number" if 0 < index < 6 else ""}>{name}</th>' for index, name in enumerate(HEADS)
    )
    return (
        '<div class="lpr-panel"><div class="lpr-scroll"><table class="lpr-table lpr-changes">'
        '<caption class="lpr-hidden">Bits per byte before and after, by language</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        '<p class="lpr-caption">Bits per byte of the base and of the expanded model on the same documents; interval by '
        "paired bootstrap over documents. A base tuned on chats gets better at plain text in any language, which can "
        "hide forgetting: a claim that nothing was forgotten needs a control.</p></div>"
    )


def _row(row: dict[str, Any]) -> str:
    verdict = str(row["verdict"])
    kind, word = verdict.split()[0], esc(VERDICTS.get(verdict, verdict))
    cells = [
        count(row["n_documents"]),
        f"{row['before']:.3f}",
        f"{row['after']:.3f}",
        f"<b>{change(row['change_percent'])}</b>",
        f"{change(row['ci_low'])} to {change(row['ci_high'])}",
    ]
    return (
        f'<tr><th scope="row">{esc(language_name(str(row["language"])))}</th>'
        + "".join(
            f'<td class="lpr-number" data-label="{name}">{cell}</td>'
            for name, cell in zip(HEADS[1:-1], cells, strict=True)
        )
        + f'<td><span class="lpr-verdict lpr-verdict-{esc(kind)}">{word}</span></td></tr>'
    )


def not_measured(run: Run) -> str:
    """Return what the page shows for a run without an evaluation."""
    state = run.status.state
    if state in ("running", "queued"):
        return shell.missing(
            "Not measured yet", "This run is still working; base and expanded model are compared near its end."
        )
    how = f"This run ({state}) has no table of changes. Start the same command again: it goes on where it stopped."
    return shell.missing("Not measured", how, "lpr-lab demo")


def compose(scene: Scene, runs_dir: Path) -> dict[str, Any]:
    """Return what each part of the page shows."""
    nothing = {"picker": gr.update(visible=False), "plot": gr.update(visible=False, value=None), "title": ""}
    if scene.run is None:
        top = shell.head(QUESTION, more=scene.notice, view=scene.view)
        return {"top": top, "table": shell.no_runs(runs_dir), **nothing}
    try:
        table = change_table(scene.run)
    except LprError as error:
        more = scene.notice + shell.notice("bad", esc(str(error)))
        return {"top": shell.head(QUESTION, more=more, view=scene.view), "table": "", **nothing}
    if table is None:
        top = shell.head(QUESTION, f"{NOT_MEASURED}", scene.notice, view=scene.view)
        return {"top": top, "table": not_measured(scene.run), **nothing}
    names = datasets_of(table)
    data = scene.view.data if scene.view.data in names else names[0]
    rows = table[table["dataset"] == data]
    figure = plots.retention(rows)
    plots.take_title(figure)
    return {
        "top": shell.head(QUESTION, finding(rows) + DEFINITIONS, scene.notice, view=scene.view),
        "picker": gr.update(choices=[(dataset_name(name), name) for name in names], value=data, visible=True),
        "title": f"<h2 class='lpr-hidden'>Base and expanded model, {esc(dataset_name(data))}</h2>",
        "plot": gr.update(value=figure, visible=True),
        "table": render_table(rows),
    }


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Wire the page."""
    html_block(shell.header("Retention"))
    top = html_block(shell.head(QUESTION))
    with gr.Row(elem_classes="lpr-controls"):
        run = shell.run_picker()
        data = gr.Radio([], label="Measured on", visible=False)
    title = html_block()
    plot = gr.Plot(show_label=False, visible=False, elem_classes="lpr-plot lpr-card")
    table = html_block()

    def draw(query: dict[str, Any]) -> list[Any]:
        scene = shell.look(runs_dir, query)
        parts = compose(scene, runs_dir)
        return [parts["top"], shell.show_runs(scene), *(parts[key] for key in ("picker", "title", "plot", "table"))]

    def load(request: gr.Request) -> list[Any]:
        return draw(dict(request.query_params))

    def choose_run(chosen: str, request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "run": chosen})

    def choose_data(chosen: str, request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "data": chosen})

    outputs = [top, run, data, title, plot, table]
    demo.load(load, None, outputs, **FILES)
    run.input(choose_run, [run], outputs, **FILES)
    data.input(choose_data, [data], outputs, **FILES)
