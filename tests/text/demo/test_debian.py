"""Debian packages: fetched once with an apt of our own, read as a stream, nothing unpacked or installed."""

import io
import tarfile

import pytest

from lpr_lab.errors import DamagedError, LprError, MissingError
from lpr_lab.storage import cache_dir
from lpr_lab.text.demo import debian
from lpr_lab.text.demo.debian import get_packages, read_members, read_tar


def test_a_package_is_fetched_once_and_then_found_without_apt(archive):
    archive.add("toy", {"usr/share/toy/a.txt": b"one"})
    package = get_packages(["toy"])["toy"]
    assert (package.name, package.version) == ("toy", "1:2.0-1")
    assert [match[0] for match, _ in read_members(package, r"usr/.*\.txt")] == ["usr/share/toy/a.txt"]
    asked = len(archive.requests)
    assert get_packages(["toy"])["toy"] == package
    assert len(archive.requests) == asked


def test_only_what_is_missing_is_fetched_and_the_newest_of_several_names_is_taken(archive):
    for name in ("game-1.9-data", "game-1.16-data", "game-1.16-music", "other"):
        archive.add(name, {"a": b""})
    get_packages(["other"])
    found = get_packages(["other", r"game-[\d.]+-data"])
    assert {package.name for package in found.values()} == {"other", "game-1.16-data"}
    assert archive.requests[-1] == "download game-1.16-data"


def test_apt_works_in_a_folder_of_its_own_without_the_hooks_of_the_system(archive):
    archive.add("toy", {"a": b""})
    get_packages(["toy"])
    configuration = (archive.folder / "apt.conf").read_text()
    assert 'Acquire::http::Proxy "http://proxy.invalid";' in configuration
    assert "Post-Invoke" not in configuration
    for setting in ("Dir::State ", "Dir::State::lists ", "Dir::Cache ", "Dir::Etc::parts "):
        (line,) = (line for line in configuration.splitlines() if line.startswith(setting))
        assert str(cache_dir()) in line
    assert sorted(path.name for path in (cache_dir() / "packages").iterdir()) == [".lock", "toy"]


@pytest.mark.parametrize(
    ("output", "words", "kind"),
    [
        ("Temporary failure resolving 'archive'", "reached.* hub dataset", MissingError),
        ("E: Write error - write (28: No space left on device)", "The disk is full", LprError),
        ("E: Something else", "Something else", MissingError),
    ],
)
def test_each_way_apt_fails_is_one_sentence_and_leaves_nothing(archive, output, words, kind):
    archive.add("toy", {"a": b""})
    archive.fail_with(output)
    with pytest.raises(kind, match=words):
        get_packages(["toy"])
    assert [path.name for path in (cache_dir() / "packages").iterdir()] == [".lock"]


def test_where_there_is_no_apt_the_other_ways_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"no apt-get.* hub dataset .*JSONL, TXT or Parquet"):
        get_packages(["toy"])


def test_a_package_that_the_sources_lack_is_named(archive):
    archive.add("other", {"a": b""})
    with pytest.raises(MissingError, match="no package called toy"):
        get_packages(["toy"])


def test_an_altered_package_is_refused_before_it_is_read(archive):
    archive.add("toy", {"a": b"one"})
    package = get_packages(["toy"])["toy"]
    content = bytearray(package.path.read_bytes())
    content[0] ^= 1
    package.path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"package\.deb .* delete"):
        list(read_members(package, ".*"))


def test_a_package_that_is_no_archive_is_refused(archive):
    (archive.packages / "toy_1_all.deb").write_bytes(b"not a tar stream, " * 100)
    package = get_packages(["toy"])["toy"]
    with pytest.raises(DamagedError, match="toy cannot be read"):
        list(read_members(package, ".*"))


def test_links_and_devices_are_never_read():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            entry = tarfile.TarInfo("text/a.html")
            entry.type, entry.linkname = kind, "/etc/hostname"
            archive.addfile(entry)
        entry = tarfile.TarInfo("text/b.html")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"yes"))
    found = [(match[0], content) for match, content in read_tar(io.BytesIO(stream.getvalue()), r"text/.*")]
    assert found == [("text/b.html", b"yes")]


def test_a_member_larger_than_any_text_is_refused(monkeypatch):
    monkeypatch.setattr(debian, "_MAX_MEMBER_BYTES", 10)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("text/a.html")
        entry.size = 11
        archive.addfile(entry, io.BytesIO(b"x" * 11))
    with pytest.raises(LprError, match=r"text/a\.html .*larger"):
        list(read_tar(io.BytesIO(stream.getvalue()), ".*"))


@pytest.mark.network
@pytest.mark.slow
def test_the_real_archive_gives_a_real_package():
    package = get_packages(["libreoffice-help-tr"])["libreoffice-help-tr"]
    pages = list(read_members(package, r"usr/share/libreoffice/help/tr/text/.*\.html"))
    assert len(pages) > 2000
