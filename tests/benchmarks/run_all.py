"""Run every benchmark and put the table into docs/performance.md: `make bench`.

An hour or more on two cores, with nothing beside it. Names given as arguments are run alone; the table keeps what
others left, and `--table` only writes it.
"""

import json
import subprocess
import sys
from pathlib import Path

from measuring import RESULTS

NAMES = (
    "step_speed",
    "optimizer_speed",
    "heap_speed",
    "layer_speed",
    "memory_use",
    "generation_speed",
    "evaluation_speed",
    "similarity_speed",
    "everyday_speed",
)
DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"
START, END = "<!-- measured: start -->", "<!-- measured: end -->"


def table() -> str:
    """Return the table of everything measured so far, as Markdown."""
    lines = []
    for name in NAMES:
        file = RESULTS / f"{name}.json"
        if not file.exists():
            continue
        content = json.loads(file.read_text(encoding="utf-8"))
        lines += [f"### `{name}`", "", content["machine"] + ".", ""]
        lines += ["| what | against | reach | measured (quartiles) | | |", "|---|---|---|---|---|---|"]
        for row in content["rows"]:
            spread = f" ({row['low']:.3g} to {row['high']:.3g})" if row["low"] != row["high"] else ""
            verdict = {True: "met", False: "**missed**", None: ""}[row["holds"]]
            value = f"{row['value']:.3g}{row['unit']}{spread}"
            cells = (row["what"], row["against"], row["reach"], value, verdict, row["note"])
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run, then write."""
    failed = []
    names = [argument for argument in arguments if argument != "--table"]
    for name in names or (() if arguments else NAMES):
        print(f"\n=== {name}", flush=True)
        (RESULTS / f"{name}.json").unlink(missing_ok=True)
        if subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))], check=False).returncode:
            failed.append(name)
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{START}\n\n{table()}\n{END}{after}", encoding="utf-8")
    if failed:
        print(f"Not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
