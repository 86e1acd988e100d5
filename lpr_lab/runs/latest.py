"""`latest` in the folder of runs: a link to the newest one, or its id in a file where links are not possible."""

import os
import secrets
from pathlib import Path

from lpr_lab.storage import write_text


def point_latest(root: Path, run_id: str | None) -> None:
    """Point `latest` at a run by a symlink, or write its id to `latest.txt`; without a run, remove it."""
    if run_id is None:
        (root / "latest").unlink(missing_ok=True)
        (root / "latest.txt").unlink(missing_ok=True)
        return
    aside = root / f".latest-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        aside.symlink_to(run_id, target_is_directory=True)
        os.replace(aside, root / "latest")
    except OSError:
        aside.unlink(missing_ok=True)
        write_text(root / "latest.txt", run_id + "\n")
