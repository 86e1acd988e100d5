"""Steered sides of page `/compare`: experts forced, banned or scaled while a side writes, and where its tokens went."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lpr_lab.dashboard.parameters import AFTER, EXPERT, LAYERS, STEERING, STRENGTH
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.shell import status
from lpr_lab.errors import LprError, UsageError
from lpr_lab.measure.trace import RoutingTrace, layers_in
from lpr_lab.runs.model_ref import BASE, EXPANDED, ModelRef, why_no_routing
from lpr_lab.runs.people.continuations import STEERED, Pair
from lpr_lab.runs.run import Run
from lpr_lab.views.html.continuations import render_strips, title_of
from lpr_lab.wording import counted

SIDES = ("left", "right")
_PARTS = ("way", "expert", "strength", "layers", "after")
ASKED = tuple(f"{side}_{part}" for side in SIDES for part in _PARTS)
"""The components that a generation reads, by name."""
_WAYS = [("As it is", ""), ("Force", "force"), ("Ban", "ban"), ("Scale", "scale")]


@dataclass(frozen=True)
class Wish:
    """What a reader asks of a side's experts."""

    way: str
    expert: int
    strength: float
    layers: str
    after: int = 0
    """Written tokens before it begins."""

    @property
    def words(self) -> str:
        """What is done, in words, as the side is called."""
        done = {"force": "forced", "ban": "banned", "scale": f"× {self.strength:g}"}[self.way]
        where = "all layers" if self.is_everywhere else f"layers {self.layers.strip()}"
        when = f" after {counted(self.after, 'token')}" if self.after else ""
        return f"expert {self.expert} {done} in {where}{when}"

    @property
    def is_everywhere(self) -> bool:
        """Whether it is asked of all layers that have the expert."""
        return self.layers.strip().lower() in ("", "all")

    def told(self, counts: Mapping[int, int]) -> dict[str, Any]:
        """Return it as `lab.generate_pair` takes it.

        Args:
            counts: decoder layer -> experts, of the stage that writes.

        Raises:
            UsageError: layers that cannot be read or are not there, or none that has the expert.
        """
        try:
            layers = layers_in(self.layers, list(counts))
        except ValueError as error:
            raise UsageError(str(error)) from error
        if self.is_everywhere:
            layers = [layer for layer in layers if self.expert < counts[layer]]
        if not layers:
            raise UsageError(f"No layer has expert {self.expert}; the most there are is {max(counts.values())}.")
        change = (self.expert, self.strength) if self.way == "scale" else self.expert
        return {self.way: dict.fromkeys(layers, change)} | ({"after": self.after} if self.after else {})


def wish_of(asked: Mapping[str, Any], side: str) -> Wish | None:
    """Return what the controls ask of a side; None where it writes as it is.

    Raises:
        UsageError: a value that is refused.
    """
    way = STEERING.read(asked.get(f"{side}_way") or "")
    if not way:
        return None
    expert, strength = EXPERT.read(asked[f"{side}_expert"]), STRENGTH.read(asked[f"{side}_strength"])
    return Wish(way, expert, strength, LAYERS.read(asked[f"{side}_layers"]), AFTER.read(asked[f"{side}_after"]))


def refuse_without_experts(side: ModelRef, wish: Wish | None) -> None:
    """Refuse to steer what has no experts to choose from."""
    if wish is not None and (side.stage == BASE or why_no_routing(side.run)):
        raise UsageError("The base and baselines have no experts to steer; put an expanded model on that side.")


@dataclass(frozen=True)
class Written:
    """Who wrote a side, what, and how it was steered: what is needed to trace it."""

    run: Run
    stage: str
    ids: tuple[int, ...]
    steering: dict[str, Any] | None


def trace_written(pair: Pair, written: tuple[Written, Written]) -> Iterator[tuple[str, Any]]:
    """Trace both sides; yields (status line, the strips) as it gets on."""
    yield status("Tracing both sides…", busy=True), gr.skip()
    traces: list[tuple[str, RoutingTrace | None]] = []
    try:
        for name, side in zip(pair.names, written, strict=True):
            traces.append((title_of(name), _trace(pair, side)))
    except Exception as error:  # whatever it is, the page says so and shows what was there before
        if not isinstance(error, LprError):
            logging.getLogger(__name__).exception("Tracing what was written failed.")
        yield status(str(error), bad=True), gr.skip()
        return
    ordered = traces[::-1] if pair.swapped else traces
    yield status("Where their tokens went stands under each."), render_strips(ordered)


def _trace(pair: Pair, side: Written) -> RoutingTrace | None:
    if why_no_routing(side.run):
        return None
    from lpr_lab.measure.generation import GenerationState, trace_continuation

    state = GenerationState("", side.ids, True, 0.0)
    with MODELS.use(side.run) as loaded:
        return trace_continuation(
            loaded.model,
            loaded.tokenizer,
            pair.prompt,
            state,
            pair.language or None,
            stage=side.stage or EXPANDED,
            steering=side.steering,
        )


def named(name: str, wish: Wish | None) -> str:
    """Return what a side is called: who writes, and what was done to its experts."""
    return name if wish is None else f"{name}{STEERED}{wish.words}"


class SteeringControls:
    """The widgets that steer both sides."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}
        with gr.Accordion("Steer the experts of a side", open=False, elem_classes="lpr-own"):
            for side in SIDES:
                with gr.Row(elem_classes="lpr-actions"):
                    self._add(side)

    def _add(self, side: str) -> None:
        title = side.capitalize()
        made = {
            "way": gr.Radio(_WAYS, value="", label=f"{title}: experts"),
            "expert": gr.Number(0, label=f"{title}: which expert (0 is the original)", min_width=96, scale=0),
            "strength": gr.Slider(
                STRENGTH.low, STRENGTH.high, value=4, step=0.1, label=f"{title}: strength of a scaled one", scale=0
            ),
            "layers": gr.Textbox("all", label=f"{title}: layers, such as all or 0-5, 12", max_lines=1),
            "after": gr.Number(0, label=f"{title}: begins after so many written tokens", min_width=96, scale=0),
        }
        self.parts |= {f"{side}_{part}": component for part, component in made.items()}
