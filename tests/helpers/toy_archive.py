"""A Debian archive of toy packages, and stand-ins for apt and dpkg that serve it; all text written for these tests."""

import io
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path


def tar_of(members: Mapping[str, bytes]) -> bytes:
    """A tar stream with these regular files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo("./" + name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def help_page(paragraphs: Mapping[str, str]) -> bytes:
    """A help page: what is outside of the display area, or has no id, is not its text."""
    body = "\n".join(f'<p id="{key}" class="paragraph">{text}</p>' for key, text in paragraphs.items())
    return (
        '<!DOCTYPE html><html><body><header><p id="outside">Menus and other things around the page</p></header>'
        f'<div id="DisplayArea"><p>A paragraph that has no id of its own</p>{body}</div></body></html>'
    ).encode()


def mo_file(messages: Mapping[str, str], order: str = "<") -> bytes:
    """A compiled gettext file."""
    pairs = [("", "Content-Type: text/plain; charset=UTF-8"), *messages.items()]
    start = 28 + 16 * len(pairs)
    tables: list[bytes] = []
    blob = b""
    for texts in zip(*pairs, strict=True):
        for text in texts:
            raw = text.encode()
            tables.append(struct.pack(f"{order}2I", len(raw), start + len(blob)))
            blob += raw + b"\0"
    header = struct.pack(f"{order}7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, start)
    return header + b"".join(tables) + blob


class Archive:
    """What the stand-ins serve; `requests` tells what apt was asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.packages = folder / "packages"
        self.packages.mkdir()

    def add(self, name: str, members: Mapping[str, bytes], version: str = "1%3a2.0-1") -> None:
        (self.packages / f"{name}_{version}_all.deb").write_bytes(tar_of(members))

    def fail_with(self, message: str) -> None:
        (self.folder / "failure").write_text(message)

    @property
    def requests(self) -> list[str]:
        path = self.folder / "requests"
        return path.read_text().splitlines() if path.exists() else []


SCRIPTS = {
    "apt-config": """
        echo 'Acquire::http::Proxy "http://proxy.invalid";'
        echo 'APT::Update::Post-Invoke:: "touch /nowhere";'""",
    "apt-cache": """ls "$STORE/packages" | sed 's/_.*//'""",
    "apt-get": """
        echo "$@" >> "$STORE/requests"
        cp "$APT_CONFIG" "$STORE/apt.conf"
        if [ -f "$STORE/failure" ]; then cat "$STORE/failure"; exit 100; fi
        case "$1 $2" in
            "update ") touch lists/archive_Packages;;
            "download --print-uris") for p in "$STORE"/packages/*; do echo "'http://archive.invalid/x' x 1000 S"; done;;
            *) shift; for name in "$@"; do cp "$STORE"/packages/"$name"_* .; done;;
        esac""",
    "dpkg-deb": """cat "$2" """,
}
