"""A visit costs little: what gradio describes anew for every visitor is described once.

For each page that is opened gradio 6 describes every component of all pages, so that a session could be restored from a
link, which we do not offer. With six pages that took more than all we do. Here the description of a component that
nobody changed is made once and handed out as a copy.
"""

from typing import Any

import gradio as gr
from gradio.blocks import BlocksConfig


class _Described(BlocksConfig):
    """The blocks of an app, and the descriptions of those that are as they were built."""

    known: dict[int, dict[str, Any]]

    def config_for_block(self, _id: int, rendered_ids: list[int], block: Any, renderable: Any = None) -> dict[str, Any]:
        if renderable is not None or block is not self.root_block.default_config.blocks.get(_id):
            return BlocksConfig.config_for_block(_id, rendered_ids, block, renderable)
        if _id not in self.known:
            self.known[_id] = BlocksConfig.config_for_block(_id, rendered_ids, block, renderable)
        return {**self.known[_id], "props": dict(self.known[_id]["props"])}

    def __copy__(self) -> "_Described":
        return _as_described(super().__copy__(), self.known)


def _as_described(config: Any, known: dict[int, dict[str, Any]]) -> _Described:
    config.__class__, config.known = _Described, known
    return config


def describe_once(demo: gr.Blocks) -> None:
    """Let the app remember the descriptions of its components; called when all of them are there."""
    _as_described(demo.default_config, {})
