"""The command line: `lpr-lab demo | run | watch | sweep | runs | report | harness | scorecard | app | doctor`, more.

Parses, calls one function, prints.

Results go to stdout, progress and errors to stderr. Every error is one sentence and an exit code: 1 failed, 2 usage,
3 missing, 4 comparison refused, 130 interrupted; `LPR_LAB_DEBUG=1` adds the traceback. Nothing heavy is imported before
a command needs it, so that `--help` answers at once.
"""

import warnings
from typing import Any

import typer

from lpr_lab.cli import (
    commands,
    control,
    harness,
    import_routing,
    languages,
    own_texts,
    report,
    runs,
    scorecard,
    small_world,
    sweep,
    watch,
)
from lpr_lab.cli.common import Group

app = typer.Typer(
    cls=Group,
    help="Teach a language model new languages with new experts, without forgetting the old ones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(commands.demo)
app.command("run")(commands.run_command)
app.command("sweep")(sweep.sweep_command)
app.command("watch")(watch.watch_command)
runs.app.command("texts")(own_texts.texts_command)
app.add_typer(runs.app, name="runs")
app.command("report")(report.report_command)
app.command("export", hidden=True)(report.export_command)
app.command("harness", context_settings=harness.CONTEXT)(harness.harness_command)
app.add_typer(control.app, name="control")
app.add_typer(scorecard.app, name="scorecard")
app.add_typer(languages.app, name="languages")
app.command("small-world")(small_world.small_world_command)
app.command("import-routing")(import_routing.import_routing_command)
app.command("app")(commands.app_command)
app.command("accelerate-config")(commands.accelerate_config)
app.command("doctor")(commands.doctor)


def main() -> None:
    """Run the command line."""
    warnings.formatwarning = _as_one_line
    app()


def _as_one_line(message: Warning | str, category: type[Warning], *place: Any) -> str:
    """Return a warning that is meant for users without the place in the code, and any other one as Python has it."""
    return f"Note: {message}\n" if category is UserWarning else _FORMAT(message, category, *place)


_FORMAT = warnings.formatwarning
