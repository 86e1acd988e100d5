"""`lpr-lab scorecard`: whether the papers' claims hold, from runs; shown, made, saved."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpr_lab.cli.common import AsJson, Quiet, RunsDir, aligned, progress_output, runs_folder, say, unpack_runs

if TYPE_CHECKING:
    from lpr_lab.experiments.scorecard.plan import Card

app = typer.Typer(
    help="Decide the papers' claims from runs: show the table, make the runs that are missing, or save it.",
    invoke_without_command=True,
)
Base = Annotated[str, typer.Option(help="Name, hub id or folder of the base.")]
Corpus = Annotated[
    str | None, typer.Option(help="Text: demo, files, a folder or a hub data set.", show_default="the card's")
]
Original = Annotated[list[str] | None, typer.Option(help="Original language; repeatable.", show_default="the card's")]
Expanded = Annotated[list[str] | None, typer.Option(help="Expanded language; repeatable.", show_default="the card's")]
Unreviewed = Annotated[
    list[str] | None, typer.Option(help="Original language that nothing reads; repeatable.", show_default="the card's")
]
Further = Annotated[
    list[str] | None, typer.Option(help="Language of the second group; repeatable.", show_default="the card's")
]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16, of all arms.", show_default="the card's")]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        help="Task beside bits per byte: choice, inflection, generation, or none; repeatable.",
        show_default="the card's; none of a chosen corpus",
    ),
]


@app.callback()
def show_default(ctx: typer.Context) -> None:
    """Decide the papers' claims from runs; without a command, show the table of the small world."""
    from lpr_lab.experiments.scorecard.plan import card_for

    if ctx.invoked_subcommand is None:
        _show(card_for(), None)


@app.command("show")
def show_command(
    ctx: typer.Context,
    base: Base = "small-world",
    corpus: Corpus = None,
    original: Original = None,
    unreviewed: Unreviewed = None,
    expanded: Expanded = None,
    further: Further = None,
    precision: Precision = None,
    tasks: Tasks = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the scorecard: of the runs in the folder, or where there are none the one that came with the code."""
    _show(_card(ctx), runs_dir, as_json=as_json)


def _show(card: "Card", runs_dir: Path | None, *, as_json: bool = False) -> None:
    from lpr_lab.experiments.scorecard.build import scorecard

    found, source = scorecard(card, runs_folder(runs_dir))
    if as_json:
        print(json.dumps(found | {"source": source}, ensure_ascii=False))
        return
    _print(found)
    print(f"From {source}.")


def _card(ctx: typer.Context) -> "Card":
    """Return the card that the options of a command choose, which all have the same names there."""
    from lpr_lab.experiments.scorecard.plan import CHOSEN, chosen_card

    return chosen_card(ctx.params["base"], **{name: ctx.params[name] for name in CHOSEN})


@app.command("bases")
def bases_command(runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """Print the verdicts on all bases side by side, and over small worlds of several seeds.

    Of each base the runs in the folder, or where there are none what came
    with the code.
    """
    from lpr_lab.experiments.scorecard.bases import compare_all

    found = compare_all(runs_folder(runs_dir))
    print(json.dumps(found, ensure_ascii=False) if as_json else _side_by_side(found))


def _side_by_side(found: Mapping[str, Any]) -> str:
    """Return verdicts and points of every claim and its parts as lines, a column for each base."""
    from lpr_lab.views.html.forest import SIGNS

    bases, worlds = found["bases"], found["worlds"]
    rows = [["", *bases, *([f"over {len(worlds)} worlds"] if worlds else []), "claim"]]
    for row in found["claims"]:
        over = [row["over_worlds"]] if worlds else []
        signs = [SIGNS[verdict] for verdict in [*(row["bases"][base] for base in bases), *over]]
        rows.append([str(row["number"]), *signs, row["claim"]])
        for part in row["parts"]:
            of_bases = [part["bases"][base] for base in bases]
            over = [f"{SIGNS[of['verdict']]} {_over_worlds(of, len(worlds))}" for of in [part["over_worlds"]] if of]
            numbers = [f"{SIGNS[of['verdict']]} {_number(of['value'])}" for of in of_bases]
            rows.append(["", *numbers, *over, "  " + part["text"]])
    sources = "\n".join(f"{base} from {source}." for base, source in found["sources"].items())
    return "\n".join([*aligned(rows), "", "✓ holds, ✕ fails, ? not decidable there.", sources])


def _over_worlds(of: Mapping[str, Any], num_worlds: int) -> str:
    """Return a number over worlds, and of how many where these are not all."""
    return _with_interval(of) + (f", {of['worlds']} of them" if 0 < of["worlds"] < num_worlds else "")


@app.command("run")
def run_command(
    ctx: typer.Context,
    base: Base = "small-world",
    only: Annotated[
        list[int] | None, typer.Option("--only", min=1, max=22, help="Claim to make the runs of; repeatable.")
    ] = None,
    arm: Annotated[list[str] | None, typer.Option("--arm", help="Arm to make the runs of; repeatable.")] = None,
    seeds: Annotated[
        int | None, typer.Option("-n", "--seeds", min=1, help="Of each arm.", show_default="the card's")
    ] = None,
    corpus: Corpus = None,
    original: Original = None,
    unreviewed: Unreviewed = None,
    expanded: Expanded = None,
    further: Further = None,
    precision: Precision = None,
    tasks: Tasks = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made, and how long.")] = False,
    runs_dir: RunsDir = None,
    quiet: Quiet = False,
) -> None:
    """Train what is missing of the scorecard, and print it.

    Runs that are there with the same settings are not made again, and an
    interrupted one goes on. Ctrl-C stops; the same command goes on.
    """
    from lpr_lab.experiments.scorecard.build import build
    from lpr_lab.experiments.scorecard.exact import exact_run
    from lpr_lab.experiments.scorecard.run import make_missing
    from lpr_lab.runs.scorecard.table import count_verdicts

    card = _card(ctx)
    names = _arms(card, only, arm)
    root = runs_folder(runs_dir)
    with progress_output(quiet):
        if not dry_run and (only is None or min(only) < _FIRST_OF_ORDER):
            exact_run(card, root)
        made = make_missing(card, names, seeds or card.seeds, root, say=_silent if quiet else say, dry_run=dry_run)
    if dry_run:
        return
    found = build(card, root)
    claims = [row for row in found["claims"] if not only or row["number"] in only]
    _print(found | {"claims": claims, "verdicts": count_verdicts(claims)})
    for line in _not_made(made.failed):
        say(line)
    if made.failed:
        raise typer.Exit(1)


@app.command("save")
def save_command(
    ctx: typer.Context,
    base: Base = "small-world",
    corpus: Corpus = None,
    original: Original = None,
    unreviewed: Unreviewed = None,
    expanded: Expanded = None,
    further: Further = None,
    precision: Precision = None,
    tasks: Tasks = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write to.", show_default="the package's own", file_okay=False),
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Write the scorecard of the runs in the folder as a small JSON file, and beside it those runs without weights."""
    from lpr_lab.errors import MissingError, UsageError
    from lpr_lab.experiments.scorecard.build import EXACT_KIND, build, options_of, runs_of
    from lpr_lab.experiments.scorecard.plan import choices
    from lpr_lab.runs.scorecard.kept_runs import packed
    from lpr_lab.runs.scorecard.table import RESULTS, save

    card = _card(ctx)
    if choices(card) and out is None:
        raise UsageError(
            f"The package's own folder holds the scorecard of {base} with its own {' and '.join(choices(card))}. "
            "Give --out FOLDER for yours."
        )
    root = runs_folder(runs_dir)
    runs = runs_of(card, root)
    if all(run.kind == EXACT_KIND for run in runs):
        command = f"lpr-lab scorecard run {options_of(card)}"
        raise MissingError(f"{root} has no run of this scorecard. Make them: {command}")
    with packed(runs, base, out or RESULTS) as (archive, kept):
        print(save(build(card, kept), out or RESULTS))
    print(archive)


@app.command("unpack")
def unpack_command(base: Base = "small-world", runs_dir: RunsDir = None) -> None:
    """Put the runs that came with a saved scorecard into the folder, without weights, to look at or to add others to.

    `lpr-lab scorecard run` then makes only what is missing beside them.
    """
    unpack_runs(base, runs_dir)


_FIRST_OF_ORDER = 8
"""The first claim that needs training."""
_SHOWN = 3
"""Ways to divide the budget that are written out, of a rule that has a new one for every seed."""


def _arms(card: "Card", only: list[int] | None, arms: list[str] | None) -> list[str]:
    """Return the arms that claims need, and those named; all where neither is given."""
    from lpr_lab.errors import UsageError, one_of
    from lpr_lab.runs.scorecard.claims import CLAIMS

    for name in arms or ():
        one_of("arm", name, tuple(card.arms))
    if only is None and not arms:
        return list(card.arms)
    wanted = {name for claim in CLAIMS if claim.number in (only or ()) for name in claim.arms}
    if not wanted <= set(card.arms):
        raise UsageError("Claim 22 is about a second group of languages. Name it: --further LANGUAGE.")
    return [name for name in card.arms if name in wanted or name in (arms or ())]


def _not_made(failed: Mapping[tuple[str, int], str]) -> Iterator[str]:
    """Yield which runs could not be made, a line for each reason, since one may be that of all.

    >>> list(_not_made({("lora", 0): "No text.", ("lora", 1): "No text.", ("full", 0): "No text."}))
    ['Not made: lora (seed 0, 1), full (seed 0): No text.']
    """
    for why in dict.fromkeys(failed.values()):
        seeds: dict[str, list[str]] = {}
        for (name, seed), reason in failed.items():
            if reason == why:
                seeds.setdefault(name, []).append(str(seed))
        names = [f"{name} (seed {', '.join(own)})" for name, own in seeds.items()]
        yield f"Not made: {', '.join(names)}: {why}"


def _print(card: Mapping[str, Any]) -> None:
    from lpr_lab.views.names import dataset_in_words

    gate = card.get("gate")
    gated = "" if gate is None else f"; the competence gate {'passes' if gate['passes'] else 'does not pass'}"
    scored = f", scored on {dataset_in_words(card['test_set'])}" if card.get("test_set") else ""
    print(f"Scorecard of {card['base']}{scored}{gated}.\n\nThe instrument:")
    rows = [["check", "points", "95 %", "seeds", "passes"]]
    for check in card["instrument"]:
        passes = "could not be done: " + check["why"] if check["passes"] is None else _yes(check["passes"])
        rows.append([check["name"], _number(check["value"]), _interval(check), str(check["seeds"]), passes])
    print(*aligned(rows), sep="\n")
    print("\nThe claims:")
    rows = [["", "verdict", "points", "95 %", "seeds", "claim"]]
    for row in card["claims"]:
        rows.append([str(row["number"]), row["verdict"], "", "", "", row["claim"]])
        for part in row["parts"]:
            why = f" ({part['why']})" if part["why"] else ""
            numbers = [_number(part["value"]), _interval(part), str(part["seeds"] or "–")]
            rows.append(["", "  " + part["verdict"], *numbers, "  " + part["text"] + why])
    print(*aligned(rows), sep="\n")
    _print_equal_gain(card["equal_gain"])
    _print_allocations(card["allocations"]["rules"])
    print(f"\n{', '.join(f'{count} {word}' for word, count in card['verdicts'].items())}.")


def _print_equal_gain(found: Sequence[Mapping[str, Any]]) -> None:
    if not found:
        return
    print("\nAt equal gain (points by which original languages end above those of moe_lpr; below 0 forgets less):")
    rows = [["method", "forgets more by", "seeds", "its points"]]
    for row in found:
        number = row["why"] or _with_interval(row["more"])
        rows.append([row["method"], number, str(row["more"]["seeds"] or "–"), "; ".join(row["arms"])])
    print(*aligned(rows), sep="\n")


def _print_allocations(rules: Sequence[Mapping[str, Any]]) -> None:
    if not rules:
        return
    print("\nThe allocations (change of new and of original languages, and points of new ones beside uniform):")
    rows = [["divided by", "new experts by layer", "seeds", "new", "original", "beside uniform"]]
    for row in rules:
        experts = "; ".join(" ".join(map(str, own)) for own in row["experts"][:_SHOWN])
        numbers = [_with_interval(row[name]) for name in ("expanded", "original", "expanded_less_uniform")]
        rows.append([row["rule"], experts, str(row["expanded"]["seeds"]), *numbers])
    print(*aligned(rows), sep="\n")


def _with_interval(of: Mapping[str, Any]) -> str:
    return _number(of["value"]) + ("" if of["low"] is None else f" ({_interval(of)})")


def _yes(passes: bool) -> str:
    return "yes" if passes else "no"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _interval(of: Mapping[str, Any]) -> str:
    return "–" if of["low"] is None else f"{of['low']:+.2f} to {of['high']:+.2f}"


def _silent(text: str) -> None:
    """Say nothing."""
