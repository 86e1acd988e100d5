"""Checks of what a model writes: the language's script, the language itself, and whether it goes round in circles.

The likeliest token is taken every time, so the same model writes the same. A check that is wrong about people would be
wrong about models: it is also made of the true continuations, under the name `kinds.PEOPLE`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lpr_lab.measure.tasks.kinds import GENERATED
from lpr_lab.measure.text_checks import foreign_share, repetition
from lpr_lab.model.forward import inference
from lpr_lab.progress import progress
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.draw import first_documents
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.language_filter import LanguageGuess
from lpr_lab.text.packing import separator_token_id

MOST_FOREIGN = 0.1
"""Of the letters, which a name in another script may well have."""
_LEARNED_CHARACTERS = 200_000
"""Of each language, from which its letter triples are known."""


def continue_each(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[str],
    *,
    max_new_tokens: int,
    precision: str = "auto",
) -> list[str]:
    """Return what a model writes after each of some texts, by its likeliest tokens; whole characters only.

    Args:
        model: a causal LM, expanded or not, in the state in which it is to write.
        tokenizer: the base model's.
        contexts: what to go on from; each is read after the separator, as a document is.
        max_new_tokens: it also ends where the model ends a text.
        precision: auto, fp32 or bf16.
    """
    separator, end = separator_token_id(tokenizer), tokenizer.eos_token_id
    stops = list(dict.fromkeys([separator, *([end] if isinstance(end, int) else [])]))
    device = next(model.parameters()).device
    written = []
    with inference(model, precision), progress(len(contexts), "Continuing", "text") as bar:
        for context in contexts:
            ids = torch.tensor([[separator, *tokenizer(context, add_special_tokens=False)["input_ids"]]], device=device)
            out = model.generate(  # type: ignore[operator, attr-defined]  # a mixin of transformers
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=separator,
            )
            new = [token for token in out[0, ids.shape[1] :].tolist() if token not in stops]
            written.append(b"".join(piece or b"" for piece in token_bytes(tokenizer, new)).decode(errors="ignore"))
            bar.update(1)
    return written


def learn_languages(corpus: Corpus, languages: Sequence[str]) -> LanguageGuess:
    """Return what tells the languages of a corpus apart, from its training text."""
    split = "train" if "train" in corpus.splits else corpus.splits[0]
    return LanguageGuess(
        {
            code: [document.text for document in first_documents(corpus.documents(split, code), _LEARNED_CHARACTERS)]
            for code in languages
        }
    )


def check_texts(texts: Sequence[str], language: str, judge: LanguageGuess) -> Mapping[str, np.ndarray]:
    """Return which of some texts pass each check, bool [texts]. A text without a word passes none.

    >>> judge = LanguageGuess({"en": ["the ferry leaves at seven"], "es": ["el niño compró tres libros"]})
    >>> found = check_texts(["The ferry leaves again.", "El niño compró libros", ""], "en", judge)
    >>> {name: passed.tolist() for name, passed in found.items()}
    {'script': [True, True, False], 'language': [True, False, False], 'no_repetition': [True, True, False]}
    """
    is_text = np.array([judge.guess(text) is not None for text in texts], dtype=bool)
    passed = {
        "script": [(foreign_share(text, language) or 0.0) <= MOST_FOREIGN for text in texts],
        "language": [judge.guess(text) == language for text in texts],
        "no_repetition": [repetition(text) is None for text in texts],
    }
    return {name: np.array(passed[name], dtype=bool) & is_text for name in GENERATED}
