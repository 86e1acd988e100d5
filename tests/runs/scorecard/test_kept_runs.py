"""The runs behind a committed scorecard: kept without weights, unpacked, added to."""

import io
import json
import re
import tarfile

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
    kept, whole = build.build(card, tmp_path), build.build(card, root)
    assert kept["verdicts"] == whole["verdicts"] and [arm["runs"] for arm in kept["arms"]] == [
        arm["runs"] for arm in whole["arms"]
    ]
    for one, other in zip(numbers_of(kept), numbers_of(whole), strict=True):
        assert one == pytest.approx(other, abs=1e-4), "measured numbers are kept in seven digits"


def numbers_of(value):
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers_of(inner)


def test_settings_are_kept_to_the_last_digit(made, packed, tmp_path):
    unpack(made[1].base, tmp_path, packed.parent)
    for run in list_runs(tmp_path):
        assert (run.path / "config.yaml").read_bytes() == (made[0] / run.id / "config.yaml").read_bytes()
    table = (tmp_path / run.id / "tables" / "documents.csv").read_text()
    assert not re.search(r"\d\.\d{9}", table) and len(table) > 1000


def test_what_a_run_trained_and_what_people_wrote_of_it_is_not_kept(packed):
    with tarfile.open(packed) as archive:
        assert {name.partition("/")[2] for name in archive.getnames()} <= KEPT
        assert {(member.uname, member.gname, member.uid, member.mtime) for member in archive} == {("", "", 0, 0)}
        kept = json.load(archive.extractfile(next(one for one in archive.getnames() if one.endswith("status.json"))))
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


def with_member(packed, folder, member, content=b"{}"):
    """Write a copy of an archive that holds one thing more."""
    folder.mkdir()
    with tarfile.open(packed) as old, tarfile.open(folder / packed.name, "w:xz") as new:
        for one in old:
            new.addfile(one, old.extractfile(one))
        member.size = len(content)
        new.addfile(member, io.BytesIO(content))
    return folder


@pytest.mark.parametrize(
    "name", ["../out/run.json", "/etc/run.json", "a-run/../../x.json", "a-run/notebook.ipynb", "x"]
)
def test_an_archive_that_holds_anything_else_is_refused_and_nothing_is_unpacked(packed, tmp_path, name):
    other = with_member(packed, tmp_path / "results", tarfile.TarInfo(name))
    with pytest.raises(DamagedError, match="nothing was unpacked"):
        unpack("small-world", tmp_path / "runs", other)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_anything_but_a_plain_file_is_refused(packed, tmp_path, kind):
    member = tarfile.TarInfo("20260101-000000Z-expansion-x-0000/run.json")
    member.type, member.linkname = kind, "/etc/passwd"
    other = with_member(packed, tmp_path / "results", member, b"")
    with pytest.raises(DamagedError, match="nothing was unpacked"):
        unpack("small-world", tmp_path / "runs", other)
    assert not (tmp_path / "runs").exists()


def test_an_archive_that_is_cut_short_is_refused(packed, tmp_path):
    (tmp_path / packed.name).write_bytes(packed.read_bytes()[:500])
    with pytest.raises(DamagedError, match="not readable"):
        unpack("small-world", tmp_path / "runs", tmp_path)


def test_a_saved_table_says_how_its_runs_are_had_where_they_are(tmp_path):
    assert source_of_saved("mine", tmp_path).endswith("their runs are not here")
    pack([make_run(tmp_path / "runs")], "mine", tmp_path)
    assert source_of_saved("mine", tmp_path, verb="languages").endswith("lpr-lab languages unpack --base mine")
