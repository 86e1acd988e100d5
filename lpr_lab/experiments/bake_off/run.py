"""Makes the points of the bake-off, seed by seed: one that is there is not made again.

A point is a few stages of seconds to a minute, so what is interrupted is begun anew. Points are no run directories:
all that is kept of one is its settings and what every test document costs under it.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lpr_lab import storage
from lpr_lab.errors import UsageError
from lpr_lab.experiments.bake_off.arms import DEV, MEASURED, ORACLE, PROBE, BakeOff, planned
from lpr_lab.experiments.bake_off.world import World, measured_curves
from lpr_lab.runs import environment

ENVIRONMENT = ("python", "processor", "threads", "device", "packages", "git")
"""What is kept of the environment."""


def bake_off(settings: BakeOff, file: str | Path, told: Callable[[str], object] = print) -> dict[str, Any]:
    """Make every point that is not in a file of results yet, and return all of it (see `table`).

    Two arms of a seed that give every layer the same experts are one point. The oracle comes last: it divides by what
    the probes of all seeds gained.

    Args:
        settings: what is compared.
        file: where results are, written after every point.
        told: told what is made, and how long it took.

    Raises:
        UsageError: the file was made with other settings.
    """
    file = Path(file)
    found = _begun(settings, file)
    world = World.load(settings)
    if "curves" not in found:
        found["curves"] = measured_curves(settings, world.model, world.tokenizer, world.corpus)
        found |= {"documents": dict(world.documents), "base": world.scored(None)}
        storage.write_json(file, found)
    for seed in settings.seeds:
        for arm in planned(settings, found["curves"], seed):
            _make(found, file, world, arm, seed, told)
    found["curves"][MEASURED] = measured_gains(found)
    for seed in settings.seeds:
        _make(found, file, world, ORACLE, seed, told)
    return found


def _begun(settings: BakeOff, file: Path) -> dict[str, Any]:
    wanted = json.loads(json.dumps(asdict(settings)))
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        made_with = environment.describe()
        return {
            "settings": wanted,
            "environment": {name: made_with.get(name) for name in ENVIRONMENT},
            "arms": {},
            "points": {},
        }
    found = storage.read_json_object(file)
    made = {**found.get("settings", {}), "seeds": wanted["seeds"]}  # seeds may be added
    if made != wanted:
        other = [f"{name} {made.get(name)}" for name, value in wanted.items() if made.get(name) != value]
        raise UsageError(f"{file} was made with other settings ({', '.join(other)}); take them, or name another file.")
    return found | {"settings": wanted}


def measured_gains(found: Mapping[str, Any]) -> list[float]:
    """Return the gain of one new expert in each layer alone, mean over seeds.

    In percent of the bits per byte of the new languages' dev text, mean over the languages; a loss is negative.
    """
    gains = []
    probes = [arm for arm in found["arms"] if arm.startswith(PROBE)]
    for layer in range(len(probes)):
        changes = []
        for key in found["arms"][f"{PROBE}{layer}"].values():
            nats = found["points"][key]["nats"]
            dev = [name for name in nats if name.startswith(f"{DEV} ")]
            changes += [100 * (sum(nats[name]) / sum(found["base"][name]) - 1) for name in dev]
        gains.append(-sum(changes) / len(changes))
    return gains


def _make(found: dict[str, Any], file: Path, world: World, arm: str, seed: int, told: Callable[[str], object]) -> None:
    """Train and score one arm with one seed, unless a point with its experts and seed is there; note which it is."""
    counts = planned(world.settings, found["curves"], seed)[arm].new_experts
    key = f"{seed}: {' '.join(map(str, counts))}"
    found["arms"].setdefault(arm, {})[str(seed)] = key
    if key not in found["points"]:
        started = time.monotonic()
        nats = world.trained(counts, seed)
        found["points"][key] = {"seconds": round(time.monotonic() - started, 1), "nats": nats}
        told(f"seed {seed}, {arm}: {key.split(': ')[1]}, {found['points'][key]['seconds']:.0f} s")
    storage.write_json(file, found)
