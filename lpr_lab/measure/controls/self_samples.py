"""Samples that a base writes itself: text on which damage to what it was can be measured, whatever it was trained on.

A sample begins with the first tokens of a document in an original language, as they are or as a message in the base's
own chat format where it has one, and goes on at temperature 1. All of it is fixed by the seed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd
import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from lpr_lab.errors import DamagedError, UsageError
from lpr_lab.model.forward import inference
from lpr_lab.progress import progress
from lpr_lab.text.corpus import Corpus, ordered_by_id
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.packing import separator_token_id

RAW, CHAT = "raw", "chat"
COLUMNS = ["language", "form", "document", "prompt_ids", "ids", "bytes", "repetition"]
MAX_REPETITION = 0.2
"""Samples of which a larger share of the 4-grams of tokens was there before are left out: a small model loops."""
_GRAM = 4


@dataclass(frozen=True)
class Sample:
    """One text that the base wrote.

    Attributes:
        language: of the document that it began with, ISO 639-1.
        form: `raw`, or `chat` where the beginning stands in the base's chat format.
        document: id of that document.
        prompt_ids: token ids before the sample, separator included.
        ids: of the sample itself, which alone is scored.
        num_bytes: UTF-8 bytes that these ids spell.
    """

    language: str
    form: str
    document: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    num_bytes: int

    @property
    def repetition(self) -> float:
        """Share of its 4-grams of tokens that it had already."""
        grams = [self.ids[start : start + _GRAM] for start in range(len(self.ids) - _GRAM + 1)]
        return 1 - len(set(grams)) / len(grams) if grams else 0.0


def draw_samples(
    base: Any,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    languages: Sequence[str],
    count: int = 64,
    tokens: int = 192,
    prefix_tokens: int = 8,
    split: str = "dev",
    batch: int = 16,
    precision: str = "auto",
    seed: int = 0,
    keep_loops: bool = False,
) -> list[Sample]:
    """Return what the base writes after the beginnings of some documents; loops are left out, so there may be fewer.

    Args:
        base: a causal LM, or an expansion inside `disable_adapter`.
        tokenizer: the base model's.
        corpus: its documents give the beginnings, in an order fixed by their ids.
        languages: original languages; they take turns, and in each raw text and chat where the tokenizer has a chat
            template.
        count: how many samples.
        tokens: length of each at most; it ends before where the base ends it.
        prefix_tokens: length of a beginning.
        split: of the corpus; never held-out text.
        batch: samples that are written at a time.
        precision: auto, fp32 or bf16.
        seed: of the sampling.
        keep_loops: keep samples that loop, too.

    Raises:
        UsageError: numbers below 1, or no document in one of the languages.
    """
    if min(count, tokens, prefix_tokens) < 1 or not languages:
        raise UsageError(
            f"count = {count}, tokens = {tokens}, prefix_tokens = {prefix_tokens} and languages {list(languages)}; "
            "expected numbers from 1 and at least one original language."
        )
    begun = _beginnings(tokenizer, corpus, languages, count, prefix_tokens, split)
    device = next(base.parameters()).device
    samples: list[Sample] = []
    with (
        inference(base, precision),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        progress(count * tokens, "Samples of the base", "token") as bar,
    ):
        torch.manual_seed(seed)
        # Of one length each, so that nothing has to be padded on the left.
        for length in sorted({len(one[3]) for one in begun}):
            same = [one for one in begun if len(one[3]) == length]
            for start in range(0, len(same), batch):
                samples += _written(base, tokenizer, same[start : start + batch], tokens, device)
                bar.update(min(batch, len(same) - start) * tokens)
    return [one for one in samples if one.ids and (keep_loops or one.repetition <= MAX_REPETITION)]


def _beginnings(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, languages: Sequence[str], count: int, length: int, split: str
) -> list[tuple[str, str, str, tuple[int, ...]]]:
    """Return (language, form, document, ids) of what samples begin with."""
    forms = (RAW, CHAT) if getattr(tokenizer, "chat_template", None) else (RAW,)
    kinds = [(language, form) for language in languages for form in forms]
    separator, found = separator_token_id(tokenizer), []
    for place, (language, form) in enumerate(kinds):
        wanted = len(range(place, count, len(kinds)))
        documents = list(ordered_by_id(corpus.documents(split, language), _hash))
        if wanted and not documents:
            raise UsageError(f"The corpus {corpus.name} has no {split} text in {language!r} to begin samples with.")
        for number in range(wanted):
            document = documents[number % len(documents)]
            ids = tokenizer(document.text, add_special_tokens=False)["input_ids"][:length]
            if form == CHAT:
                message = [{"role": "user", "content": tokenizer.decode(ids)}]
                text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
                ids = tokenizer(cast("str", text), add_special_tokens=False)["input_ids"]
            else:
                ids = [separator, *ids]
            found.append((language, form, document.id, tuple(ids)))
    return found


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _written(base: Any, tokenizer: PreTrainedTokenizerBase, begun: list[Any], tokens: int, device: Any) -> list[Sample]:
    separator = separator_token_id(tokenizer)
    stops = {separator, *([tokenizer.eos_token_id] if isinstance(tokenizer.eos_token_id, int) else [])}
    # Said outright: a base's own settings may have it sample from its likeliest tokens only, or repeat less.
    how = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=tokens,
        eos_token_id=sorted(stops), pad_token_id=separator,
    )  # fmt: skip
    prompts = torch.tensor([list(one[3]) for one in begun], device=device)
    mask = torch.ones_like(prompts)
    written = base.generate(input_ids=prompts, attention_mask=mask, generation_config=how)[:, prompts.shape[1] :]
    samples = []
    for (language, form, document, prompt), row in zip(begun, written.tolist(), strict=True):
        end = next((place for place, token in enumerate(row) if token in stops), len(row))
        ids = tuple(row[:end])
        spelled = sum(len(piece or b"") for piece in token_bytes(tokenizer, list(ids)))
        samples.append(Sample(language, form, document, prompt, ids, max(spelled, 1)))
    return samples


def sample_rows(samples: Sequence[Sample]) -> pd.DataFrame:
    """Return samples as a table, which a run keeps: token ids as text, divided by spaces."""
    rows = [
        [
            one.language, one.form, one.document, " ".join(map(str, one.prompt_ids)), " ".join(map(str, one.ids)),
            one.num_bytes, one.repetition,
        ]
        for one in samples
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def samples_of(rows: pd.DataFrame) -> list[Sample]:
    """Return the samples that `sample_rows` wrote.

    Raises:
        DamagedError: ids that are no numbers.
    """
    try:
        return [
            Sample(
                str(row["language"]), str(row["form"]), str(row["document"]), _ids(row["prompt_ids"]),
                _ids(row["ids"]), int(row["bytes"]),
            )
            for row in rows.to_dict("records")
        ]  # fmt: skip
    except ValueError as error:
        raise DamagedError(f"A table of samples has ids that are no numbers ({error}); draw them again.") from error


def _ids(text: object) -> tuple[int, ...]:
    return tuple(int(number) for number in str(text).split())


def texts_of(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return what samples read like, their beginnings left out."""
    return [cast("str", tokenizer.decode(list(sample.ids))) for sample in samples]
