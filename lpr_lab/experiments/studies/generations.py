"""Continuations of the same prompts by two models, kept as pairs: base and expanded, two stages, or two runs.

Both write from the same prompt, with the same decoding and the same seed. A run of this kind has no weights of its own.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lpr_lab.errors import ComparisonRefusedError, UsageError
from lpr_lab.experiments.studies.predecessors import begun_from, runs_folder
from lpr_lab.experiments.studies.subjects import find_subject, has_default_settings, languages_in, load_model, scored
from lpr_lab.measure.generation import generate_pair
from lpr_lab.measure.text_checks import foreign_share, repetition
from lpr_lab.progress import progress
from lpr_lab.runs.claims import Claim, as_records
from lpr_lab.runs.find import start_run
from lpr_lab.runs.formats import json_records
from lpr_lab.runs.model_ref import BASE, EXPANDED, ModelRef, parse_model_ref, run_id_in
from lpr_lab.runs.people.continuations import Continuation, Pair, exactness
from lpr_lab.runs.run import Run
from lpr_lab.text.sample_texts import PROMPTS
from lpr_lab.text.unicode import check_text

KIND = "comparison"


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """Who continues what, and how."""

    left: str = BASE
    """A side, as in `sides`: `base`, a stage of the run on the right, a run id, or `<run id>: <stage>`."""
    right: str = ""
    """The same; empty for the newest finished expansion."""
    prompts: tuple[Any, ...] = ()
    """Texts, or mappings with `language` and `prompt`; empty for our own, one in every language of the run."""
    max_new_tokens: int = 48
    temperature: float = 0.0
    """0 takes the likeliest token."""
    seed: int = 0

    def __post_init__(self) -> None:
        for number, prompt in enumerate(self.prompts, start=1):
            known = isinstance(prompt, str) or (isinstance(prompt, dict) and set(prompt) == {"language", "prompt"})
            if not known or not _of(prompt)[1].strip():
                raise UsageError(
                    f"prompts holds {prompt!r}; expected some text, or a language and a prompt, such as "
                    '{"language": "el", "prompt": "Μια φορά"}.'
                )
            check_text(_of(prompt)[1], f"Prompt {number}")
        if self.max_new_tokens < 1 or self.temperature < 0:
            raise UsageError(
                f"max_new_tokens = {self.max_new_tokens}, temperature = {self.temperature}; expected at least one "
                "token and no negative temperature."
            )


@dataclass(frozen=True)
class GenerationStudy:
    """A comparison at work: its run, its settings, who writes, and the prompts with their languages."""

    settings: ComparisonSettings
    run: Run
    left: ModelRef
    right: ModelRef
    prompts: tuple[tuple[str, str], ...]
    """(language, or nothing where it was not said, prompt)."""

    @property
    def decoding(self) -> dict[str, Any]:
        """How both write."""
        return {name: getattr(self.settings, name) for name in ("max_new_tokens", "temperature", "seed")}

    @property
    def names(self) -> tuple[str, str]:
        """What the two are called in records."""
        return self.left.name(self.right.run), self.right.name(self.right.run)

    @property
    def uses_defaults(self) -> bool:
        """Whether all is as it comes, so that the measured claims must hold as well."""
        asked = (self.left.stage, self.right.stage, self.settings.prompts, self.settings.temperature)
        return (
            asked == (BASE, "", (), 0.0) and self.settings.max_new_tokens >= 16 and has_default_settings(self.right.run)
        )

    def pairs(self) -> list[Pair]:
        """Return what was written so far, in the order of the prompts."""
        kept = {(str(record["language"]), str(record["prompt"])): record for record in self.run.generations.read()}
        return [Pair.from_record(kept[asked]) for asked in self.prompts if asked in kept]


def start(settings: ComparisonSettings, run_dir: str | Path = "", root: str | Path | None = None) -> GenerationStudy:
    """Find the two models, making a short expansion where there is none, and return the comparison, its run started.

    Raises:
        MissingError, UsageError: a side that there is not.
        ComparisonRefusedError: the two have different bases, whose tokens cannot be set beside one another.
    """
    folder = runs_folder(run_dir, root)
    settings = replace(settings, right=settings.right or begun_from(run_dir, "right"))
    named = run_id_in(settings.right, folder)
    subject = find_subject(folder, named, scored(named))
    right = parse_model_ref(settings.right, subject, folder)
    left = parse_model_ref(settings.left, subject, folder)
    if left.run.id != subject.id:
        find_subject(folder, left.run.id, scored(left.run.id))
    if (left.run.id, left.stage) == (right.run.id, right.stage):
        raise UsageError(f"left and right are both {left.name(subject)} of run {subject.id}; name two models.")
    bases = [str(side.run.config["base"]) for side in (left, right)]
    if bases[0] != bases[1]:
        raise ComparisonRefusedError(
            f"The run on the left was made from {bases[0]} and the one on the right from {bases[1]}: they cut text "
            "into different tokens, so there is no first one in which they differ. Name two runs from one base."
        )
    roles = languages_in(subject)
    own = tuple((code, PROMPTS[code]) for code in (*subject.config["expanded"], *roles) if code in PROMPTS)
    prompts = tuple(dict.fromkeys(map(_of, settings.prompts) if settings.prompts else own))
    if not prompts:
        raise UsageError(f"We wrote no prompt in {', '.join(roles)}; give some with `prompts`.")
    settings = replace(settings, right=f"{subject.id}: {right.stage}" if right.stage else subject.id)
    config: dict[str, Any] = {**asdict(settings), "left": left.name(subject)}
    config |= {"prompts": [{"language": code, "prompt": prompt} for code, prompt in prompts]}
    config |= {"run": subject.id, "base": bases[1]}
    config |= {role: [code for code in roles if roles[code] == role] for role in ("original", "expanded")}
    run = start_run(
        config,
        kind=KIND,
        slug=" ".join(dict.fromkeys(code for code, _ in prompts if code)),
        title=f"{subject.title}: {left.name(subject)} beside {right.name(subject)}",
        run_dir=run_dir,
        root=folder,
        parents=list(dict.fromkeys([subject.id, left.run.id])),
    )
    return GenerationStudy(settings, run, left, right, prompts)


def write_pairs(comparison: GenerationStudy) -> list[Pair]:
    """Have both continue every prompt; those that were written before an interruption are not written again."""
    run = comparison.run
    with run.working("write"):
        done = {(str(record["language"]), str(record["prompt"])) for record in run.generations.read()}
        asked = [prompt for prompt in comparison.prompts if prompt not in done]
        writer = _Writer(comparison) if asked else None
        with progress(len(asked), "Continuing", "prompt") as bar:
            for language, prompt in asked:
                assert writer is not None
                run.generations.append(writer.write(language, prompt).to_record(comparison.decoding))
                bar.update(1)
        if writer is not None and "repeated" not in run.phases:
            first = comparison.pairs()[0]
            again = writer.write(first.language, first.prompt)
            run.phases.record("repeated", {"equal": _texts(again) == _texts(first)})
        run.phases.mark_done("write")
    return comparison.pairs()


def table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Return one row per pair: where the two part, and how each side fares in script and loops.

    Columns language, prompt, parted_at (the first token in which they differ, counted from 1; missing while they
    agree), agreement (share of tokens before it), and per side its tokens, foreign (share of letters that are not of
    the language's script; missing for short or unknown ones) and loop (what it repeats three times or more).
    """
    rows = []
    for pair in pairs:
        longest = max(pair.left.tokens or 0, pair.right.tokens or 0)
        agreed = longest if pair.diverged_at is None else pair.diverged_at
        row: dict[str, Any] = {"language": pair.language, "prompt": pair.prompt}
        row |= {"parted_at": None if pair.diverged_at is None else pair.diverged_at + 1}
        row |= {"agreement": agreed / longest if longest else 1.0}
        for name, said in (("left", pair.left), ("right", pair.right)):
            loop = repetition(said.text)
            row |= {f"{name}_tokens": said.tokens, f"{name}_foreign": foreign_share(said.text, pair.language)}
            row |= {f"{name}_loop": f"{loop[0]} ({loop[1]} times)" if loop else ""}
        rows.append(row)
    numbers = ["parted_at", "left_foreign", "right_foreign"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def finish(comparison: GenerationStudy) -> dict[str, Any]:
    """Write the table, the claims and the results, and mark the run finished."""
    run = comparison.run
    with run.working("finish"):
        pairs = comparison.pairs()
        rows = table(pairs)
        run.tables.write("pairs", rows)
        left, right = comparison.names
        results: dict[str, Any] = {
            "schema_version": 1,
            **{key: run.config[key] for key in ("base", "run", "original", "expanded")},
            "left": left,
            "right": right,
            **comparison.decoding,
            "pairs": json_records(rows),
            "claims": as_records(check(comparison, rows)),
        }
        known = exactness(comparison.right.run)
        if known is not None:  # what the run checked of its own base
            results["exactness"] = {"base_difference": known.difference, "largest_logit": known.largest_logit}
        run.finish(results)
    return results


def check(comparison: GenerationStudy, rows: pd.DataFrame) -> list[Claim]:
    """Check what the notebook says: of every comparison exactly, of the demo's model as measured."""
    text = "Every prompt has its pair (those that have none)."
    missing = len(comparison.prompts) - len(rows)
    claims = [Claim("every_prompt", text, float(missing), 0.0, missing == 0, is_exact=True)]
    unequal = sum(_differ_without_parting(pair) for pair in comparison.pairs())
    text = "Where the two never part, token for token, their texts are the same (pairs in which they are not)."
    claims.append(Claim("same_before", text, float(unequal), 0.0, unequal == 0, is_exact=True))
    if "repeated" in comparison.run.phases:
        again = bool(comparison.run.phases["repeated"]["equal"])
        text = "The first pair, written a second time, is the same (1 if so)."
        claims.append(Claim("repeatable", text, float(again), 1.0, again))
    taught = rows[rows["language"].isin(comparison.run.config["expanded"])]
    if len(taught):
        same = int(taught["parted_at"].isna().sum())
        text = "In every expanded language the two part (prompts on which they agree to the end)."
        claims.append(Claim("they_part", text, float(same), 0.0, same == 0))
    return claims


# Small pieces


class _Writer:
    """Both models in memory, once each."""

    def __init__(self, comparison: GenerationStudy):
        self._comparison = comparison
        self._right, self._tokenizer = load_model(comparison.right.run)
        apart = comparison.left.run.id != comparison.right.run.id
        self._left = load_model(comparison.left.run)[0] if apart else self._right

    def write(self, language: str, prompt: str) -> Pair:
        comparison = self._comparison
        *_, last = generate_pair(
            self._right,
            self._tokenizer,
            prompt,
            **comparison.decoding,
            left=comparison.left.stage or EXPANDED,
            right=comparison.right.stage or EXPANDED,
            left_model=self._left,
        )
        left, right = (Continuation(side.text, len(side.ids), side.seconds) for side in (last.left, last.right))
        return Pair(prompt, language, left, right, last.diverged_at, comparison.names, last.seconds)


def _of(prompt: Any) -> tuple[str, str]:
    """Return (language or nothing, prompt)."""
    return ("", prompt) if isinstance(prompt, str) else (str(prompt["language"]), str(prompt["prompt"]))


def _texts(pair: Pair) -> tuple[str, str]:
    return pair.left.text, pair.right.text


def _differ_without_parting(pair: Pair) -> bool:
    """Whether two that never parted, token for token, nevertheless say different texts."""
    return pair.diverged_at is None and pair.left.text != pair.right.text
