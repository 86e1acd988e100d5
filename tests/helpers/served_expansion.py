"""A dashboard on one expanded model with kept texts, and work of it that halts after every step, for browser tests."""

import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from helpers.small_expansion import make_expansion
from lpr_lab.dashboard import serve

SCRIPTS = {
    "el": "Το πρωί άνοιξα το παράθυρο.",
    "ar": "صباح الخير يا عالم.",
    "th": "สวัสดีชาวโลก",
}


def serve_expansion(folder: Path, base: Any, tokenizer: Any, texts: Mapping[str, str], **settings: Any) -> tuple:
    """Return (address, run, model) of a dashboard with one run, whose layers have one, three and no new experts.

    Args:
        folder: to make the run in.
        base: of three layers.
        tokenizer: of it.
        texts: by language, of which the run keeps how they were routed.
        settings: of the run's configuration.
    """
    from lpr_lab.measure.routing import trace

    run, model = make_expansion(folder, base, tokenizer, new_experts=(1, 0, 3), **settings)
    for code, text in texts.items():
        run.traces.write(code, trace(model, tokenizer, text, code))
    return serve(folder / "runs", port=None, open_browser=False, block=False), run, model


def halt_after_steps(monkeypatch: Any, module: ModuleType, name: str, **options: Any) -> tuple[threading.Event, list]:
    """Make a function that yields step after step wait after each until the event that is returned is set.

    Args:
        monkeypatch: pytest's.
        module: that has the function.
        name: of the function.
        options: with which it is called beside its own.

    Returns:
        The event, and the steps that were taken, which grow.
    """
    real, go_on, taken = getattr(module, name), threading.Event(), []

    def slow(*given: Any, **own: Any) -> Any:
        for step in real(*given, **{**own, **options}):
            yield step
            taken.append(step)
            go_on.wait(60)

    monkeypatch.setattr(module, name, slow)
    return go_on, taken
