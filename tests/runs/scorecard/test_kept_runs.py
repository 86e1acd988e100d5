"""The runs behind a committed scorecard: kept without weights, unpacked, added to."""

import json
import zipfile

import pytest

from helpers.sample_runs import make_run
from helpers.sample_scorecard import scorecard_runs
from lpr_lab.errors import DamagedError, MissingError
from lpr_lab.experiments.scorecard import build
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.scorecard.kept_runs import KEPT, pack, source_of_saved, unpack


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return root, scorecard_runs(root)


@pytest.fixture(scope="module")
def packed(made, tmp_path_factory):
    root, card = made
    run = list_runs(root)[0]
    (run.path / "checkpoint").mkdir()
    (run.path / "checkpoint" / "adapter_model.safetensors").write_bytes(b"weights")
    (run.path / "notes.md").write_text("mine", encoding="utf-8")
    folder = tmp_path_factory.mktemp("results")
    return pack(build.runs_of(card, root), card.base, folder)


def test_unpacked_runs_give_the_same_scorecard(made, packed, tmp_path):
    root, card = made
    new, there = unpack(card.base, tmp_path, packed.parent)
    assert len(new) == 12 and not there
    assert build.build(card, tmp_path) == build.build(card, root)


def test_what_a_run_trained_and_what_people_wrote_of_it_is_not_kept(packed):
    with zipfile.ZipFile(packed) as archive:
        assert {name.partition("/")[2] for name in archive.namelist()} <= KEPT
        kept = json.loads(archive.read(next(name for name in archive.namelist() if name.endswith("status.json"))))
    assert kept["state"] == "finished" and not {kept[name] for name in ("pid", "host", "boot_id", "start_ticks")} - {
        None
    }


def test_the_same_runs_make_the_same_bytes(made, packed, tmp_path):
    root, card = made
    assert pack(build.runs_of(card, root), card.base, tmp_path).read_bytes() == packed.read_bytes()


def test_a_run_that_is_there_stays_as_it_is(made, packed, tmp_path):
    unpack(made[1].base, tmp_path, packed.parent)
    one = list_runs(tmp_path)[0]
    (one.path / "notes.md").write_text("mine", encoding="utf-8")
    new, there = unpack(made[1].base, tmp_path, packed.parent)
    assert not new and len(there) == 12 and (one.path / "notes.md").is_file()


def test_a_scorecard_without_its_runs_says_how_to_make_them(tmp_path):
    with pytest.raises(MissingError, match="scorecard run --base gemma3-270m"):
        unpack("gemma3-270m", tmp_path, tmp_path)


@pytest.mark.parametrize(
    "name", ["../out/run.json", "/etc/run.json", "a-run/../../x.json", "a-run/notebook.ipynb", "x"]
)
def test_an_archive_that_holds_anything_else_is_refused_and_nothing_is_unpacked(packed, tmp_path, name):
    other = tmp_path / "results" / packed.name
    other.parent.mkdir()
    other.write_bytes(packed.read_bytes())
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr(name, "{}")
    with pytest.raises(DamagedError, match="nothing was unpacked"):
        unpack("small-world", tmp_path / "runs", other.parent)
    assert not (tmp_path / "runs").exists()


def test_an_archive_that_is_cut_short_is_refused(packed, tmp_path):
    (tmp_path / packed.name).write_bytes(packed.read_bytes()[:500])
    with pytest.raises(DamagedError, match="not readable"):
        unpack("small-world", tmp_path / "runs", tmp_path)


def test_a_saved_table_says_how_its_runs_are_had_where_they_are(tmp_path):
    assert source_of_saved("mine", tmp_path).endswith("their runs are not here")
    pack([make_run(tmp_path / "runs")], "mine", tmp_path)
    assert source_of_saved("mine", tmp_path, verb="languages").endswith("lpr-lab languages unpack --base mine")
