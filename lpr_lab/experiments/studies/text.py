"""Before any model is loaded: what text is there per language and split, and does the base's tokenizer fit it?"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from lpr_lab.errors import UsageError
from lpr_lab.model.bases.load import load_tokenizer
from lpr_lab.runs.claims import Claim, as_records
from lpr_lab.runs.find import start_run
from lpr_lab.runs.formats import json_records
from lpr_lab.runs.run import Run
from lpr_lab.text.corpus import Corpus, Document, ordered_by_id
from lpr_lab.text.fertility import measure_fertility, premium, script_mix
from lpr_lab.text.languages import get_language, language_codes
from lpr_lab.text.load import load_corpus

KIND = "text"
MIN_OWN_SCRIPT = 0.9
MIN_PREMIUM = 1.3


@dataclass(frozen=True, kw_only=True)
class SurveySettings:
    """Which text, and whose tokenizer."""

    base: str = "smollm2-135m"
    corpus: str = "demo"
    original: tuple[str, ...] = ("en", "es")
    expanded: tuple[str, ...] = ("el", "hu", "tr")
    documents_per_split: int = 200
    """Of each language, that are tokenised; sizes are those of all."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("original", "expanded"):
            object.__setattr__(self, name, language_codes(getattr(self, name)))
        if self.documents_per_split < 1:
            raise UsageError(f"documents_per_split = {self.documents_per_split}; expected at least 1.")

    @property
    def languages(self) -> tuple[str, ...]:
        """Original languages first."""
        return (*self.original, *self.expanded)

    def role(self, language: str) -> str:
        """Return `original` or `expanded`."""
        return "original" if language in self.original else "expanded"


def start(settings: SurveySettings, run_dir: str | Path = "", root: str | Path | None = None) -> Run:
    """Return the run to work in: the one given, the newest unfinished one with these settings, or a new one."""
    return start_run(
        asdict(settings),
        kind=KIND,
        slug=" ".join(settings.languages),
        title=f"{settings.corpus.rsplit('/', 1)[-1]}: text in {', '.join(settings.languages)}",
        run_dir=run_dir,
        root=root,
    )


def read(settings: SurveySettings, run: Run) -> Corpus:
    """Load the text; its hashes are left in `data.json`, its sizes in the table `texts`."""
    with run.working("read"):
        corpus = load_corpus(settings.corpus, languages=list(settings.languages))
        run.documents.write("data", corpus.manifest)
        run.tables.write("texts", sizes(corpus))
        if corpus.preparation:
            run.tables.write("leakage", leakage(corpus))
    return corpus


def sizes(corpus: Corpus) -> pd.DataFrame:
    """Return one row per language and split: n_documents, characters, the first digits of the content's SHA-256."""
    return pd.DataFrame(
        [
            {"language": code, "split": split, **facts, "sha256": facts["sha256"][:16]}
            for code, splits in corpus.manifest["texts"].items()
            for split, facts in splits.items()
        ]
    )


def leakage(corpus: Corpus) -> pd.DataFrame:
    """Return how much of a split's characters earlier splits give away, before and after preparation dropped that.

    Columns language, split, before, after; each adds exact repeats and shared runs of words.
    """
    rows = []
    for code, facts in corpus.preparation.items():
        for split, parts in ((facts.get("duplicates") or {}).get("leakage") or {}).items():
            shares = {name: part["exact"] + part["ngram"] if part else None for name, part in parts.items()}
            rows.append({"language": code, "split": split, **shares})
    return pd.DataFrame(rows, columns=["language", "split", "before", "after"])


def measure(settings: SurveySettings, run: Run, corpus: Corpus) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tokenise a sample of every language and split; returns and writes the tables `fertility` and `script_mix`.

    The same documents are drawn in every language that has them, so that the premium compares translations.
    """
    tokenizer = load_tokenizer(settings.base)
    fertility, mixes = [], []
    with run.working("measure"):
        for split in corpus.splits:
            reference: dict[str, int] = {}
            for code, documents in _drawn(settings, corpus, split):
                texts = [document.text for document in documents]
                ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
                lengths = {document.id: len(row) for document, row in zip(documents, ids, strict=True)}
                reference = reference or lengths
                found = measure_fertility(tokenizer, texts, ids)
                where = {"language": code, "role": settings.role(code), "split": split}
                fertility.append(
                    {**where, "n_documents": len(texts), **asdict(found)}
                    | {"tokens_per_word": found.tokens_per_word, "tokens_per_character": found.tokens_per_character}
                    | {"tokens_per_byte": found.tokens_per_byte, "inside_share": found.inside_share}
                    | {"lost_share": found.lost_share, "premium": premium(lengths, reference)}
                )
                mixes += [{**where, "script": script, "share": share} for script, share in script_mix(texts).items()]
        tables = pd.DataFrame(fertility), pd.DataFrame(mixes)
        run.tables.write("fertility", tables[0])
        run.tables.write("script_mix", tables[1])
    return tables


def _drawn(settings: SurveySettings, corpus: Corpus, split: str) -> Iterator[tuple[str, list[Document]]]:
    """Yield each language that has text in a split with the documents that are tokenised."""

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{settings.seed}/{name}".encode()).digest()

    for code in settings.languages:
        ordered = ordered_by_id(corpus.documents(split, code), place)
        documents = list(islice((one for one in ordered if one.text.strip()), settings.documents_per_split))
        if documents:
            yield code, documents


def finish(settings: SurveySettings, run: Run, fertility: pd.DataFrame, mixes: pd.DataFrame) -> dict[str, Any]:
    """Check the claims, write `results.json`, and mark the run finished."""
    with run.working("finish"):
        texts = run.tables.read("texts")
        assert texts is not None
        results = {
            "schema_version": 1,
            "base": settings.base,
            "corpus": settings.corpus,
            "original": list(settings.original),
            "expanded": list(settings.expanded),
            "texts": json_records(texts),
            "fertility": json_records(fertility),
            "script_mix": json_records(mixes),
            "claims": as_records(check(fertility, mixes, run.tables.read("leakage"))),
        }
        run.finish(results)
    return results


def check(fertility: pd.DataFrame, mixes: pd.DataFrame, leaked: pd.DataFrame | None) -> list[Claim]:
    """Check what the notebook says of the demo's text and tokenizer; that every text can be spelled holds for any."""
    unknown = float(fertility["num_unknown"].sum())
    own = own_script(mixes)
    lowest = float(own["share"].min())
    lost = float(fertility["lost_share"].max())
    text = "Every text can be spelled: no token is the unknown one (tokens that are)."
    claims = [Claim("no_unknown", text, unknown, 0.0, unknown == 0)]
    text = "The tokens give back every text (largest share of its bytes that is lost)."
    claims.append(Claim("nothing_lost", text, lost, 0.0, lost == 0))
    text = f"At least {MIN_OWN_SCRIPT:.0%} of the letters of every language are of its own script (lowest share)."
    claims.append(Claim("own_script", text, lowest, MIN_OWN_SCRIPT, lowest >= MIN_OWN_SCRIPT))
    paid = fertility[fertility["role"] == "expanded"]["premium"].dropna()
    if len(paid):
        text = f"Every expanded language takes at least {MIN_PREMIUM:g} times the tokens of the first original one for "
        text += "the same content (smallest ratio)."
        claims.append(Claim("premium", text, float(paid.min()), MIN_PREMIUM, bool(paid.min() >= MIN_PREMIUM)))
    if leaked is not None and leaked["after"].notna().any():
        most = float(leaked["after"].max())
        text = "No split shares text with an earlier one any more (largest share of its characters)."
        claims.append(Claim("no_leakage", text, most, 0.0, most == 0))
    return claims


def own_script(mixes: pd.DataFrame) -> pd.DataFrame:
    """Return the share of letters of each language and split that are of the language's own script."""
    scripts = {code: get_language(code).script for code in mixes["language"].unique()}
    own = mixes["script"] == mixes["language"].map(scripts)
    japanese = (mixes["language"] == "ja") & mixes["script"].isin(["Han", "Hiragana", "Katakana"])
    rows = mixes.assign(share=mixes["share"].where(own | japanese, 0.0))
    return rows.groupby(["language", "split"], sort=False)["share"].sum().reset_index()
