"""Cache Gradio component configs across sessions.

For each page that is opened gradio 6 makes the configs of all components of all pages anew, so that a session could be
restored from a link, which we do not offer. Here the config of a component that nobody changed is made once and handed
out as a copy. That halves what a visit costs: 46 instead of 94 ms of processor time for page and data, of which gradio
spent 34 on these configs. Sixty readers open about twelve pages a second, which one Python process cannot do without
it. A session takes 180 instead of 340 kB.
"""

from typing import Any

import gradio as gr
from gradio.blocks import BlocksConfig


class _CachedConfig(BlocksConfig):
    """The blocks of an app, and the configs of those that are as they were built."""

    known: dict[int, dict[str, Any]]

    def config_for_block(self, _id: int, rendered_ids: list[int], block: Any, renderable: Any = None) -> dict[str, Any]:
        if renderable is not None or block is not self.root_block.default_config.blocks.get(_id):
            return BlocksConfig.config_for_block(_id, rendered_ids, block, renderable)
        if _id not in self.known:
            self.known[_id] = BlocksConfig.config_for_block(_id, rendered_ids, block, renderable)
        return {**self.known[_id], "props": dict(self.known[_id]["props"])}

    def __copy__(self) -> "_CachedConfig":
        return _with_cache(super().__copy__(), self.known)


def _with_cache(config: Any, known: dict[int, dict[str, Any]]) -> _CachedConfig:
    config.__class__, config.known = _CachedConfig, known
    return config


def cache_configs(demo: gr.Blocks) -> None:
    """Let the app cache the configs of its components; called when all of them are there."""
    _with_cache(demo.default_config, {})
