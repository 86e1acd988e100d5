"""The command line, called in this process or in one of its own."""

import os
import subprocess
import sys
from typing import Any

from typer.testing import CliRunner

from lpr_lab import cli
from lpr_lab.runs import environment


def call(*arguments: str) -> Any:
    """Return what a command printed and its exit code."""
    return CliRunner().invoke(cli.app, list(arguments))


def in_a_process(*arguments: str, **environ: str) -> subprocess.Popen:
    """Start a command as a shell would."""
    return subprocess.Popen(
        [sys.executable, "-m", "lpr_lab", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(environment.CHECKOUT), **environ},
    )
