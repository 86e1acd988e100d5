"""Trains what is missing of the table of languages, one run after the other, and goes on where it was stopped."""

from collections.abc import Callable, Sequence
from pathlib import Path

from lpr_lab.errors import LprError
from lpr_lab.experiments.config import Experiment
from lpr_lab.experiments.each_language.facts import language_facts
from lpr_lab.experiments.each_language.plan import ARM, PHASE, card_of
from lpr_lab.experiments.scorecard.run import Texts, make_missing
from lpr_lab.progress import hidden
from lpr_lab.text.languages import language_name


def make_languages(
    base: str,
    codes: Sequence[str],
    root: str | Path,
    *,
    seeds: int = 1,
    say: Callable[[str], None],
    dry_run: bool = False,
) -> dict[str, str]:
    """Train the runs of languages that are not there yet; return by language why one could not be.

    Args:
        base: name, hub id or folder.
        codes: languages, each taught alone.
        root: the folder of runs.
        seeds: how many runs of each.
        say: told a line before and after every run.
        dry_run: only say what would be made.

    Raises:
        KeyboardInterrupt: after what was under way was saved; the same call goes on.
    """
    failed: dict[str, str] = {}

    def teach(code: str, *, wait: bool) -> bool:
        """Make the runs of a language; return whether some of them are left to another command."""
        name = f"{language_name(code)} ({codes.index(code) + 1} of {len(codes)})"

        def told(text: str) -> None:
            say(f"{name}: {text}")

        texts = Texts()  # for training and measuring, and of one language at a time
        card = card_of(base, code)
        made = make_missing(card, [ARM], seeds, root, say=told, dry_run=dry_run, texts=texts, wait=wait)
        for (_, seed), why in made.failed.items():
            failed[code] = f"seed {seed}: {why}"
        for run in made.runs.values():
            if PHASE in run.phases or dry_run:
                continue
            try:
                experiment = Experiment.from_config(run.config)
                with hidden():
                    run.phases.record(PHASE, language_facts(experiment, texts.of(experiment)))
            except LprError as error:
                failed[code] = str(error)
                told(f"Not measured: {error}")
        return bool(made.left)

    for code in [code for code in codes if teach(code, wait=False)]:  # another command teaches it: it comes last
        teach(code, wait=True)
    return failed
