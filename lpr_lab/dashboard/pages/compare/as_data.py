"""What page `/compare` shows, as JSON and as a cell of Python."""

from pathlib import Path
from typing import Any

import pandas as pd

from lpr_lab.dashboard.page_data import PageData, opening
from lpr_lab.dashboard.pages.compare.compose import shown_pair
from lpr_lab.dashboard.server.sittings import SITTINGS
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import MissingError
from lpr_lab.runs.people.continuations import NAMES, STEERED, Pair, pair_id
from lpr_lab.runs.people.sittings import kept_sitting
from lpr_lab.runs.run import Run
from lpr_lab.views import Table


def as_data(context: PageContext, run: Run, runs_dir: Path) -> PageData:
    """Return the pair of continuations that is shown. Of a pair that is being judged blind nothing is kept yet.

    Where base and expanded model of this run wrote it, steered or not, the cell writes both again; others are read as
    they are kept.

    Raises:
        MissingError: no pair is shown.
    """
    if context.query.sitting:
        return _sitting(context, run, runs_dir)
    record = shown_pair(context, run)
    if record is None:
        raise MissingError("No pair of continuations is shown, so there is nothing to take along.")
    pair = Pair.from_record(record)
    writers = tuple(name.partition(STEERED)[0] for name in pair.names)
    can_write = run.paths.has_checkpoint and writers == NAMES and record.get("max_new_tokens")
    cell = _writing(record, run, runs_dir) if can_write else _reading(record, run, runs_dir)
    return PageData(cell, {"continuations": lambda: _table(pair)}, {"pair": lambda: record})


def _sitting(context: PageContext, run: Run, runs_dir: Path) -> PageData:
    """Return the sitting of the address, prompt by prompt, once it is over.

    Raises:
        MissingError: it is not there, or goes on.
    """
    found = SITTINGS.get(run, context.query.sitting)
    if found is None:
        raise MissingError("This sitting is no longer held, and the run does not keep it.")
    if not found.is_over:
        raise MissingError("This sitting goes on; who wrote what is told at its end.")
    read = f"Sitting.from_json({found.to_json()!r})"
    cell = f"from lpr_lab.runs.people.sittings import Sitting\n\n{read}.to_frame()\n"
    if kept_sitting(run, found.id) is not None:
        cell = (
            f"from lpr_lab.runs.people.sittings import kept_sitting\n{opening(run, runs_dir)}"
            f"kept_sitting(run, {found.id!r}).to_frame()\n"
        )
    return PageData(cell, {"sitting": found.to_frame}, {"sitting": found.to_json})


def _reading(record: dict[str, Any], run: Run, runs_dir: Path) -> str:
    return (
        "import pandas as pd\n\nfrom lpr_lab.runs.people.continuations import Pair, pairs\n"
        f"{opening(run, runs_dir)}pair = Pair.from_record(pairs(run)[{pair_id(record)!r}])\n"
        f"{_AS_TABLE.format(names='pair.names', prompt='pair.prompt')}"
    )


def _writing(record: dict[str, Any], run: Run, runs_dir: Path) -> str:
    given = [repr(record["prompt"]), f"max_new_tokens={record['max_new_tokens']}"]
    given += [f"temperature={record.get('temperature') or 0.0}", f"seed={record.get('seed') or 0}"]
    told = {name: record[name] for name in ("left_steering", "right_steering") if record.get(name)}
    given += [f"{name}={_as_told(steering)!r}" for name, steering in told.items()]
    return (
        f"import pandas as pd\n\nimport lpr_lab as lab\n{opening(run, runs_dir)}"
        "model, tokenizer = lab.load_trained(run.path), lab.load_tokenizer(run.path)\n"
        f"*_, pair = lab.generate_pair(model, tokenizer, {', '.join(given)})\n"
        f"{_AS_TABLE.format(names=repr(Pair.from_record(record).names), prompt=repr(record['prompt']))}"
    )


def _as_told(steering: dict[str, Any]) -> dict[str, Any]:
    """Return steering as `lab.generate_pair` takes it: JSON has names of layers where there were numbers."""
    return {
        way: {int(layer): tuple(asked) if isinstance(asked, list) else asked for layer, asked in told.items()}
        if isinstance(told, dict)
        else told
        for way, told in steering.items()
    }


_AS_TABLE = (
    "texts = [pair.left.text, pair.right.text]\n"
    'pd.DataFrame({{"model": {names}, "prompt": {prompt}, "continuation": texts}})\n'
)


def _table(pair: Pair) -> Table:
    texts = [pair.left.text, pair.right.text]
    return pd.DataFrame({"model": pair.names, "prompt": pair.prompt, "continuation": texts})
