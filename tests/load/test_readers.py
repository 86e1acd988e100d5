"""Readers of files do not wait for who generates."""

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import readers


@pytest.mark.slow
def test_readers_wait_for_no_model_and_see_no_error(tmp_path):
    server, address, runs, model = readers.sample_server(tmp_path / "runs")
    try:
        measured = asyncio.run(readers.load(server, address, runs, model, readers=10, seconds=6, pause=3))
    finally:
        server.terminate()
        server.wait(10)
    print(measured.report())
    assert not measured.errors
    assert measured.generated, "the load is only one while something generates"
    assert set(measured.seconds) == set(readers.PAGES)
