"""Processes that read together find what one finds, all of them, with whole models and with a divided one."""

import json

import pytest

from helpers.processes import TESTS, run_ranks
from helpers.reads_together import read
from helpers.several_processes import DIVIDED
from lpr_lab.model.parallel.sharing import gathered, in_turn, num_readers
from lpr_lab.model.parallel.sharing import together as reading_together

FAMILIES = ("llama", "gpt2")
WAYS = {"2-whole": (2, {}), "2-divided": (2, DIVIDED), "4-divided": (4, DIVIDED)}


@pytest.fixture(scope="module")
def folder(tiny_model, tiny_tokenizer, sentences, tmp_path_factory):
    """Tiny bases on disk, where other processes find them."""
    path = tmp_path_factory.mktemp("reading")
    for family in FAMILIES:
        tiny_model(family).save_pretrained(path / family)
        tiny_tokenizer.save_pretrained(path / family)
    (path / "sentences.json").write_text(json.dumps(sentences))
    return path


@pytest.fixture(scope="module")
def found_alone(folder):
    """What one process finds, by family."""
    return {family: read(folder, family) for family in FAMILIES}


@pytest.fixture(scope="module", params=WAYS)
def found_together(request, folder):
    """What each rank of several processes finds, by family."""
    processes, variables = WAYS[request.param]
    program = TESTS / "helpers" / "reads_together.py"
    arguments = (str(folder), request.param, *FAMILIES)
    run_ranks(program, *arguments, processes=processes, timeout=800, variables=variables)
    return {
        family: [json.loads((folder / f"{request.param}-{family}-{r}.json").read_text()) for r in range(processes)]
        for family in FAMILIES
    }


def differences(found, expected, path=""):
    """Yield where two nests of numbers differ by more than rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected:
            yield from differences(found[key], expected[key], f"{path}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from differences(one, other, f"{path}/{index}")
    elif found != expected and not found == pytest.approx(expected, rel=1e-4, abs=1e-6):
        yield path, found, expected


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_all_verbs_that_only_read_find_what_one_process_finds(family, found_alone, found_together):
    expected = json.loads(json.dumps(found_alone[family]))
    first, *others = found_together[family]
    assert list(differences(first, expected)) == []
    assert all(other == first for other in others)  # bit for bit: each of them goes on with what it has


def test_alone_nobody_is_waited_for():
    assert num_readers() == 1 and gathered("mine") == ["mine"]
    with reading_together():
        assert num_readers() == 1 and gathered("mine") == ["mine"]


def test_pieces_of_several_processes_are_in_the_order_of_the_batches():
    assert in_turn([[0, 3], [1, 4], [2]]) == [0, 1, 2, 3, 4]
