"""Page `/compare`: what does the expanded model say that the base does not?"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import regex

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.model_hub import HUB, why_not
from lpr_lab.dashboard.shell import FILES, MODEL, Scene, esc, html_block, status
from lpr_lab.dashboard.view import View
from lpr_lab.errors import LprError
from lpr_lab.experiments.runs import Run
from lpr_lab.experiments.sample_texts import PROMPTS
from lpr_lab.views.plots import language_name

QUESTION = "What does the expanded model say that the base does not?"
MAX_CHARACTERS = 2000
MAX_NEW_TOKENS = 200
UPDATES_PER_SECOND = 10
NARROW: dict[str, Any] = {"min_width": 170, "scale": 0, "buttons": []}
FIRST = "Once upon a time, in a small village"


@dataclass(frozen=True)
class Pair:
    """Two continuations of one prompt, as far as they are."""

    prompt: str
    language: str
    base: str
    expanded: str
    diverged_at: int | None
    base_tokens: int | None = None
    expanded_tokens: int | None = None
    seconds: float | None = None
    is_running: bool = False

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Pair":
        """Read a pair that a run keeps; what is not there is left out."""
        known: dict[str, Any] = {key: str(record.get(key) or "") for key in ("prompt", "language", "base", "expanded")}
        known |= {key: record.get(key) for key in ("diverged_at", "base_tokens", "expanded_tokens", "seconds")}
        return cls(**known)


def pair_id(record: dict[str, Any]) -> str:
    """Return the name of a pair in addresses: 8 hex digits of prompt and settings."""
    settings = [str(record.get(key)) for key in ("prompt", "max_new_tokens", "temperature", "seed")]
    return hashlib.sha256("\n".join(settings).encode()).hexdigest()[:8]


def pairs(run: Run) -> dict[str, dict[str, Any]]:
    """Return the pairs that a run keeps by id, oldest first."""
    return {pair_id(record): record for record in run.generations() if record.get("prompt")}


def finding(pair: Pair) -> str:
    """Return in a sentence where the two part."""
    if pair.is_running:
        return "Both are writing…"
    if pair.diverged_at is None:
        return "Base and expanded model say the same, token for token."
    if pair.diverged_at == 0:
        return "Base and expanded model part at the first token."
    return (
        f"Base and expanded model agree for {pair.diverged_at} token{'s' if pair.diverged_at != 1 else ''}, then part."
    )


def split_at_fork(mine: str, other: str) -> tuple[str, str]:
    """Return (what both say, what only this side says), cut between whole characters."""
    size = 0
    for one, two in zip(regex.findall(r"\X", mine), regex.findall(r"\X", other), strict=False):
        if one != two:
            break
        size += len(one)
    return mine[:size], mine[size:]


def render_pair(pair: Pair) -> str:
    """Return the two panes; what only one side says stands out, after a mark that says where they part."""
    return (
        '<div class="lpr-pair">'
        + _pane("Base model", "the same weights, with the expansion switched off", pair, "base")
        + _pane("Expanded model", "with its new experts and routers", pair, "expanded")
        + "</div>"
    )


def _pane(title: str, small: str, pair: Pair, side: str) -> str:
    mine, other = (pair.base, pair.expanded) if side == "base" else (pair.expanded, pair.base)
    parted = pair.diverged_at is not None
    shared, own = split_at_fork(mine, other) if parted or not pair.is_running else (mine, "")
    fork = ""
    if parted and (own or not pair.is_running):
        said = f"they part here, at token {(pair.diverged_at or 0) + 1}"
        fork = f'<span class="lpr-fork" title="{said}"><span class="lpr-hidden"> ({said}) </span></span>'
    tokens = pair.base_tokens if side == "base" else pair.expanded_tokens
    facts = [f"{tokens} tokens" if tokens is not None else ""]
    if tokens and pair.seconds:
        facts.append(f"{tokens / pair.seconds:.1f} tokens/s")
    code = f' lang="{esc(pair.language)}"' if pair.language else ""
    caret = '<span class="lpr-caret" aria-hidden="true"></span>' if pair.is_running else ""
    busy = "true" if pair.is_running else "false"
    return (
        f'<section class="lpr-pane lpr-{side}" aria-label="{title}" aria-busy="{busy}"><header><h2>{title}</h2>'
        f"<p>{small}</p></header>"
        f'<p class="lpr-said" dir="{shell.direction_of(pair.language)}"{code}>'
        f'<span class="lpr-given">{esc(pair.prompt)}</span>{esc(shared)}{fork}<b>{esc(own)}</b>{caret}</p>'
        f"<footer>{esc(' · '.join(filter(None, facts)))}</footer></section>"
    )


def describe_settings(record: dict[str, Any]) -> str:
    """Return how a pair was made, in words."""
    temperature = float(record.get("temperature") or 0)
    how = (
        f"sampled at temperature {temperature:g} with seed {record.get('seed', 0)}"
        if temperature
        else "greedy decoding"
    )
    return f"{how}, at most {record.get('max_new_tokens', '?')} new tokens, the same for both"


def default_prompt(run: Run, language: str) -> tuple[str, str]:
    """Return (language, prompt) to start from: the language asked for, else the first expanded one with a prompt."""
    original, expanded = shell.languages_of(run)
    for code in (language, *expanded, *original):
        if code in PROMPTS:
            return code, PROMPTS[code]
    return language, FIRST


def compose(scene: Scene, runs_dir: Path) -> dict[str, Any]:
    """Return what each part of the page shows: the pair the address names, or the newest of its language."""
    run = scene.run
    blank: dict[str, Any] = {"why": "", "pair": "", "language": gr.update(visible=False)}
    off = {"prompt": gr.update(visible=False), "settings": gr.update(visible=False), "go": gr.update(interactive=False)}
    if run is None:
        top = shell.head(QUESTION, more=scene.notice, view=scene.view)
        return blank | off | {"top": top, "pair": shell.no_runs(runs_dir)}
    try:
        kept = pairs(run)
        original, expanded = shell.languages_of(run)
    except LprError as error:
        more = scene.notice + shell.notice("bad", esc(str(error)))
        return blank | off | {"top": shell.head(QUESTION, more=more, view=scene.view)}
    record = kept.get(scene.view.text)
    language = str(record.get("language") or "") if record else scene.view.lang
    if record is None:
        language, prompt = default_prompt(run, language)
        same = [one for one in kept.values() if (one.get("language") or language) == language]
        record = next((one for one in reversed(same) if one["prompt"] == prompt), same[-1] if same else None)
    prompt = str(record["prompt"]) if record else default_prompt(run, language)[1]
    reason = why_not(run)
    parts = {
        "language": gr.update(choices=_languages(original, expanded, kept), value=language, visible=True),
        "prompt": gr.update(value=prompt, visible=True),
        "settings": gr.update(visible=True),
        "go": gr.update(interactive=reason is None),
        "why": "",
    }
    if reason is not None:
        line = f"{esc(reason)} A new generation needs a run with weights: {shell.command('lpr-lab demo')}"
        parts["why"] = shell.notice("info", line)
    view = View.from_query({**vars(scene.view), "lang": language, "text": pair_id(record) if record else ""})
    if record is None:
        lead = "Both continue one prompt, from one copy of the weights." if reason is None else ""
        return blank | parts | {"top": shell.head(QUESTION, lead, scene.notice, view=view)}
    pair = Pair.from_record(record)
    more = f'<span class="lpr-more">Kept with this run: {esc(describe_settings(record))}.</span>'
    parts["top"] = shell.head(QUESTION, finding(pair) + more, scene.notice, view=view)
    parts["pair"] = render_pair(pair)
    return blank | parts


def _languages(original: list[str], expanded: list[str], kept: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    codes = [*original, *expanded, *(str(record.get("language") or "") for record in kept.values())]
    return [(language_name(code), code) for code in dict.fromkeys(codes) if code]


def generate(
    runs_dir: Path, prompt: str, language: str | None, tokens: float, temperature: float, seed: float | None, query: Any
) -> Iterator[tuple[str, Any, Any]]:
    """Write both continuations; yields (status line, head, panes) some times a second."""
    scene, keep = shell.look(runs_dir, query), gr.skip()
    run = scene.run
    if run is None or not prompt.strip() or len(prompt) > MAX_CHARACTERS:
        empty = "The prompt is empty; type some text to continue."
        long = f"The prompt has {len(prompt):,} characters; at most {MAX_CHARACTERS:,} are taken."
        yield status("There is no run." if run is None else long if prompt.strip() else empty), keep, keep
        return
    record: dict[str, Any] = {"language": language or "", "prompt": prompt, "max_new_tokens": int(tokens)}
    record |= {"temperature": float(temperature), "seed": int(seed or 0)}
    view = View.from_query(
        {**vars(scene.view), "lang": language or "", "text": pair_id(record), "seed": record["seed"]}
    )
    yield status("Loading the model, once…" if not HUB.is_loaded(run) else "Writing…", busy=True), keep, keep
    pair = Pair(prompt, language or "", "", "", None, is_running=True)
    try:
        with HUB.use(run) as loaded:
            from lpr_lab.measure.generation import generate_pair

            device = loaded.device
            limits = {key: record[key] for key in ("max_new_tokens", "temperature", "seed")}
            steps = generate_pair(loaded.model, loaded.tokenizer, prompt, **limits)
        shown_at = 0.0
        while True:
            with HUB.use(run):
                step = next(steps, None)
            if step is None:
                break
            pair = Pair(
                prompt,
                language or "",
                step.base_text,
                step.expanded_text,
                step.diverged_at,
                len(step.base_ids),
                len(step.expanded_ids),
                step.seconds,
                is_running=not (step.base_finished and step.expanded_finished),
            )
            if pair.is_running and time.monotonic() - shown_at >= 1 / UPDATES_PER_SECOND:
                shown_at = time.monotonic()
                longest = max(len(step.base_ids), len(step.expanded_ids))
                line = status(f"Writing on {device}: {longest} of at most {int(tokens)} tokens each…", busy=True)
                yield line, shell.head(QUESTION, finding(pair)), render_pair(pair)
    except LprError as error:
        yield status(str(error), bad=True), keep, keep
        return
    record |= {key: getattr(pair, key) for key in ("base", "expanded", "diverged_at", "seconds")}
    record |= {"base_tokens": pair.base_tokens, "expanded_tokens": pair.expanded_tokens}
    kept = _keep(run, record)
    more = f'<span class="lpr-more">{esc(describe_settings(record).capitalize())}.</span>'
    where = "kept with the run, so this address shows it again" if kept else "not kept"
    done = status(f"Done in {pair.seconds or 0:.1f} s; {where}.")
    yield done, shell.head(QUESTION, finding(pair) + more, view=view if kept else None), render_pair(pair)


def _keep(run: Run, record: dict[str, Any]) -> bool:
    if run.is_example:
        return False
    try:
        run.append_generation(record)
    except (LprError, OSError):  # a full or read-only disk: the pair is on the page all the same
        return False
    return True


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Wire the page."""
    html_block(shell.header("Compare"))
    top = html_block(shell.head(QUESTION))
    with gr.Row(elem_classes="lpr-controls"):
        run = shell.run_picker()
        language = gr.Radio([], label="Language of the prompt", visible=False, elem_classes="lpr-grow")
    prompt = gr.Textbox(
        label="Prompt, continued by both", lines=2, max_length=MAX_CHARACTERS, elem_classes="lpr-prompt"
    )
    with gr.Row(elem_classes="lpr-actions") as settings:
        tokens = gr.Slider(8, MAX_NEW_TOKENS, value=48, step=8, label="New tokens, at most", **NARROW)
        temperature = gr.Slider(0, 1.5, value=0, step=0.1, label="Temperature (0: greedy)", **NARROW)
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=96, scale=0)
        go = gr.Button("Continue", variant="primary", scale=0, min_width=110, interactive=False)
        stop = gr.Button("Stop", scale=0, min_width=80, interactive=False)
        line = html_block(status(""))
    why = html_block()
    panes = html_block(elem_id="lpr-pair")
    outputs = [top, run, language, prompt, settings, go, why, panes]

    def draw(query: dict[str, Any]) -> list[Any]:
        scene = shell.look(runs_dir, query)
        parts = compose(scene, runs_dir)
        keys = ("language", "prompt", "settings", "go", "why", "pair")
        return [parts["top"], shell.show_runs(scene), *(parts[key] for key in keys)]

    def load(request: gr.Request) -> list[Any]:
        return draw(dict(request.query_params))

    def choose_run(chosen: str, request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "run": chosen, "text": ""})

    def choose_language(code: str, request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "lang": code, "text": ""})

    def write(
        typed: str, code: str, limit: float, heat: float, start: float, request: gr.Request
    ) -> Iterator[tuple[str, Any, Any]]:
        yield from generate(runs_dir, typed, code, limit, heat, start, dict(request.query_params))

    def working() -> tuple[Any, Any]:
        return gr.update(interactive=False), gr.update(interactive=True)

    def resting() -> tuple[Any, Any]:
        return gr.update(interactive=True), gr.update(interactive=False)

    demo.load(load, None, outputs, **FILES)
    run.input(choose_run, [run], outputs, **FILES)
    language.input(choose_language, [language], outputs, **FILES)
    begin = gr.on([go.click, prompt.submit], working, None, [go, stop], **FILES)
    # Not "once": a generation that was just stopped still counts as pending for a moment, and the next one would be
    # dropped without a word. The button is off while one is being written, so there are never two from one page.
    asked = [prompt, language, tokens, temperature, seed]
    writing = begin.then(write, asked, [line, top, panes], trigger_mode="multiple", **MODEL)
    writing.then(resting, None, [go, stop], **FILES)

    def stopped() -> tuple[Any, Any, str]:
        return *resting(), status("Stopped; what was written stays.")

    # Said only once the cancelling is through: what still streams in would write over it, and a generation begun too
    # early would be cancelled with the one before.
    stop.click(None, None, None, cancels=[writing], **FILES).then(stopped, None, [go, stop, line], **FILES)
