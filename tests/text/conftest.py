"""What the tests of text share."""

import pytest

from helpers.toy_archive import SCRIPTS, Archive


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An empty archive, with stand-ins for apt and dpkg first in the PATH."""
    folder = tmp_path / "archive"
    tools = folder / "tools"
    tools.mkdir(parents=True)
    for name, script in SCRIPTS.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("STORE", str(folder))
    return Archive(folder)
