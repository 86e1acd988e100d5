"""The guards that every other test leans on must themselves be able to fail."""

import os
import socket
from pathlib import Path

import pytest

from helpers.shares import LONGEST, shared

CONFTEST = Path(__file__).with_name("conftest.py")


def test_a_connection_that_leaves_the_machine_is_refused(network_attempts):
    with pytest.raises(ConnectionRefusedError, match="without a network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(ConnectionRefusedError, match=r"nowhere\.example"):
        socket.getaddrinfo("nowhere.example", 443)
    assert network_attempts == ["192.0.2.1", "nowhere.example"]
    network_attempts.clear()


def test_a_test_that_swallows_the_refusal_fails_all_the_same(pytester):
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(
        """
        import socket

        def test_copes():
            try:
                socket.create_connection(("192.0.2.1", 80), timeout=1)
            except OSError:
                pass

        def test_stays_here():
            assert 1 + 1 == 2
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*tried to reach 192.0.2.1*"])


def test_loopback_stays_open():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=5):
        pass


def test_the_cache_is_a_fresh_empty_folder():
    from lpr_lab.storage import cache_dir

    assert cache_dir() == Path(os.environ["LPR_LAB_CACHE"])
    assert Path.home() not in cache_dir().parents
    assert list(cache_dir().iterdir()) == []


def test_the_tiny_tokenizer_returns_every_script_unchanged(tiny_tokenizer, sentences):
    for texts in sentences.values():
        for text in [*texts, "𝔘 👩‍👩‍👧 \t\u0000 <b>&amp;"]:
            ids = tiny_tokenizer(text, add_special_tokens=False).input_ids
            assert tiny_tokenizer.decode(ids) == text
    thai = sentences["th"][0]
    assert len(tiny_tokenizer(thai).input_ids) > 2 * len(thai), "Thai characters should be split over tokens"


def test_every_family_builds_and_tells_tokens_apart(family_model, tiny_tokenizer):
    import torch

    ids = torch.tensor([tiny_tokenizer("The tide goes out.").input_ids])
    with torch.no_grad():
        logits = family_model(input_ids=ids, use_cache=False).logits
    assert logits.shape[-1] == len(tiny_tokenizer)
    assert torch.isfinite(logits).all()
    assert logits.std() > 0.1


def test_the_same_seed_gives_the_same_tiny_model(tiny_model):
    first, second, other = tiny_model(seed=0), tiny_model(seed=0), tiny_model(seed=1)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert (a == b).all()
    assert (first.get_input_embeddings().weight != other.get_input_embeddings().weight).any()


@pytest.mark.parametrize("time", ["first", "second"])
def test_what_a_test_leaves_in_the_environment_does_not_reach_the_next(time):
    assert "LPR_LAB_QUIET" not in os.environ
    os.environ["LPR_LAB_QUIET"] = time


def test_the_longest_files_exist_and_each_worker_begins_with_some_of_them(request):
    assert [file for file in LONGEST if not (request.config.rootpath / file).is_file()] == []

    class Item:
        def __init__(self, nodeid):
            self.nodeid = nodeid

    items = [Item(f"tests/test_quick.py::test_{number}") for number in range(10)]
    items += [Item(f"{file}::test_{number}") for file in LONGEST[:3] for number in range(2)]
    found = [item.nodeid for item in shared(items, 2)]
    assert sorted(found) == sorted(item.nodeid for item in items)
    assert [name.partition("::")[0] for name in found[:4]] == [LONGEST[0], LONGEST[0], LONGEST[2], LONGEST[2]]
    assert [name.partition("::")[0] for name in found[8:10]] == [LONGEST[1], LONGEST[1]]
    assert shared(items, 1) == items
