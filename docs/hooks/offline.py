"""Fails the build of a site that would load anything from another server."""

import re
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.exceptions import PluginError

# What a browser loads by itself; an `a` that a reader may follow is not among them.
LOADED = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
}
HARMLESS = {"canonical", "prev", "next", "alternate", "edit"}


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        target = values.get(LOADED.get(tag, "")) or ""
        if target.startswith(("http:", "https:", "//")) and values.get("rel") not in HARMLESS:
            self.found.append(target)


def loads(page: str) -> list[str]:
    """Return what a browser would load from elsewhere for this HTML."""
    parser = _Loads()
    parser.feed(page)
    return parser.found


def on_post_build(config, **_) -> None:
    """Refuse a site that would load anything from elsewhere."""
    site = Path(config.site_dir)
    found = {path.relative_to(site): loads(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    for path in site.rglob("*.css"):
        found[path.relative_to(site)] = re.findall(
            r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", path.read_text()
        )
    elsewhere = sorted(f"{path} loads {target}" for path, targets in found.items() for target in targets)
    if elsewhere:
        raise PluginError("The site would load from elsewhere:\n" + "\n".join(elsewhere[:20]))
