"""The text of a run: loaded the same when it is made, by each of its processes, and when it is studied later."""

from collections.abc import Mapping, Sequence
from typing import Any

from lpr_lab.errors import UsageError
from lpr_lab.experiments.config import Experiment
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.load import load_corpus


def corpus_of(config: Mapping[str, Any], languages: Sequence[str], corpus: str = "") -> Corpus:
    """Load the corpus that a run was made from, as much of it as the run took, or another one.

    How much is taken of a data set on the hub follows from what the training reads, and so does which documents there
    are in each split.

    Args:
        config: of the run.
        languages: codes.
        corpus: name of another one; empty, or the run's own, for the run's own.
    """
    name = corpus or str(config["corpus"])
    return load_corpus(name, languages=list(languages), tokens=_tokens(config) if name == config["corpus"] else None)


def check_text(experiment: Experiment, corpus: Corpus) -> None:
    """Refuse text that a training will ask for and does not have, before anything is trained.

    Raises:
        UsageError: a language without text in a split that is read.
    """
    for split, codes in (("train", experiment.taught), ("replay", experiment.replayed)):
        without = [code for code in codes if not corpus.documents(split, code)]
        if without:
            raise UsageError(
                f"The corpus {corpus.name} has no {split} text in {', '.join(without)}, which recipe "
                f"{experiment.recipe} reads. Original languages are replayed from `replay`, and expanded ones taught "
                "from `train`: mark some records so, or give no record a split, and the text is divided."
            )


def _tokens(config: Mapping[str, Any]) -> int | None:
    try:
        return Experiment.from_config(config).tokens_per_language
    except (UsageError, TypeError, ZeroDivisionError):  # of a run that is no experiment, or trains nothing
        return None
