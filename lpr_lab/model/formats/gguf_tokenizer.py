"""A tokenizer as llama.cpp reads it from a GGUF file: tokens, merges or scores, and the name of how text is cut first.

Two kinds are known there that a Hugging Face tokenizer can be shown to equal:

    byte-level BPE ("gpt2")        merges by rank; a name stands for the pattern that cuts text into words
    SentencePiece BPE ("llama")    merges by the score of what comes out; unknown characters are spelled in bytes

What cannot be shown to be the same is refused. A normaliser to NFC (Qwen's) isn't applied by llama.cpp: text in that
form, as nearly all text is, gets the same tokens.
"""

import json
from dataclasses import dataclass
from typing import Any

import gguf
from gguf import TokenType
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UnsupportedModelError

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {_WORDS % "": "qwen2", _WORDS % "{1,3}": "llama-bpe"}
"""Patterns of the models of those names, which a `Split` of their tokenizers holds, to llama.cpp's names."""
_UNMERGED = -1e7
"""Score of a token that no merge results in; nothing asks for it."""


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    special: dict[str, int]
    """Role (bos, eos, unk, pad) to token."""
    adds_bos: bool
    adds_space: bool
    chat_template: str | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, size: int) -> "Vocabulary":
        """Read a tokenizer.

        Args:
            tokenizer: a fast one.
            size: rows of the model's embeddings; those beyond the tokenizer get names that no text has.

        Raises:
            UnsupportedModelError: llama.cpp would cut text in another way, or this cannot be told.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise _refusal("it is not a fast tokenizer (tokenizers.Tokenizer)")
        said = json.loads(backend.to_str())
        if said["model"]["type"] != "BPE":
            raise _refusal(f"its model is {said['model']['type']}, not BPE")
        marks = {key: said["model"].get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")}
        if any(marks.values()):
            raise _refusal(f"its BPE has {marks}")
        tokens, types = _tokens(tokenizer, said, size)
        merges = [
            tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in said["model"]["merges"]
        ]
        pieces = said["model"]["byte_fallback"]
        roles = {role: getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "unk", "pad")}
        chat = tokenizer.chat_template
        return cls(
            model="llama" if pieces else "gpt2",
            pre="default" if pieces else _pre_tokenizer(said),
            tokens=tokens,
            types=types,
            merges=[] if pieces else [" ".join(merge) for merge in merges],
            scores=_scores(said, merges, size) if pieces else [],
            special={role: number for role, number in roles.items() if number is not None},
            adds_bos=tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id,
            adds_space=pieces and _adds_space(said),
            chat_template=chat if isinstance(chat, str) else None,
        )

    def add_to(self, writer: gguf.GGUFWriter) -> None:
        """Write it."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.merges:
            writer.add_token_merges(self.merges)
        if self.scores:
            writer.add_token_scores(self.scores)
        for role, number in self.special.items():
            getattr(writer, f"add_{role}_token_id")(number)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(self.adds_space)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def _refusal(found: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"llama.cpp would not cut text as this tokenizer does, or nobody can tell: {found}. Export the model to a "
        "format of transformers, which keeps the tokenizer as it is."
    )


def _tokens(tokenizer: PreTrainedTokenizerBase, said: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Return the text and the type of every token, [size]."""
    pieces = said["model"]["byte_fallback"]
    tokens, types = [f"[PAD{number}]" for number in range(size)], [int(TokenType.UNUSED)] * size
    for text, number in said["model"]["vocab"].items():
        is_byte = pieces and len(text) == 6 and text.startswith("<0x") and text.endswith(">")
        tokens[number], types[number] = text, int(TokenType.BYTE if is_byte else TokenType.NORMAL)
    if pieces and isinstance(tokenizer.unk_token_id, int):
        types[tokenizer.unk_token_id] = int(TokenType.UNKNOWN)
    if any("\0" in text for text in tokens):
        raise _refusal("it has a token with the character NUL, at which a name ends in llama.cpp")
    for added in said["added_tokens"]:
        if added["single_word"] or added["lstrip"] or added["rstrip"]:
            raise _refusal(
                f"the added token {added['content']!r} takes in the space beside it, or stands between words only"
            )
        number = added["id"]
        is_unknown = types[number] == int(TokenType.UNKNOWN)
        tokens[number] = added["content"]
        types[number] = (
            types[number] if is_unknown else int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
        )
    return tokens, types


def _steps(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """Return the steps of a normaliser or a pre-tokenizer, without what says only where text was."""
    steps = [] if part is None else part[inner] if part["type"] == "Sequence" else [part]
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]


def _pre_tokenizer(said: dict[str, Any]) -> str:
    """Return llama.cpp's name for how a byte-level tokenizer cuts text into words."""
    normaliser = [step["type"] for step in _steps(said["normalizer"], "normalizers")]
    if normaliser not in ([], ["NFC"]):
        raise _refusal(f"it normalises text ({', '.join(normaliser)})")
    steps = _steps(said["pre_tokenizer"], "pretokenizers")
    plain = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    merges_words = bool(said["model"].get("ignore_merges"))
    found = None
    if steps == [plain]:
        found = "gpt-2"
    elif steps == [{"type": "Digits", "individual_digits": True}, plain]:
        found = "smollm"
    elif len(steps) == 2 and steps[1] == {**plain, "use_regex": False} and steps[0]["type"] == "Split":
        split = steps[0]
        if split["behavior"] == "Isolated" and not split["invert"]:
            found = _PATTERNS.get(split["pattern"].get("Regex", ""))
    if found is None or merges_words != (found == "llama-bpe"):
        raise _refusal(f"its way of cutting text into words is none of those known here ({json.dumps(steps)[:300]})")
    return found


def _adds_space(said: dict[str, Any]) -> bool:
    """Return whether a SentencePiece tokenizer puts a space before the text; refuse another preparation of it."""
    normaliser = _steps(said["normalizer"], "normalizers")
    cuts = _steps(said["pre_tokenizer"], "pretokenizers")
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    at_spaces = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    if normaliser == [{"type": "Prepend", "prepend": "▁"}, spaces] and not cuts:
        return True
    if normaliser == [spaces] and cuts in ([], [at_spaces]):
        return False
    if not normaliser and len(cuts) == 1 and cuts[0]["type"] == "Metaspace" and not cuts[0].get("split", True):
        return cuts[0]["prepend_scheme"] != "never"
    raise _refusal(f"it prepares text in a way that SentencePiece does not ({json.dumps(normaliser + cuts)[:300]})")


def _scores(said: dict[str, Any], merges: list[tuple[str, ...]], size: int) -> list[float]:
    """Return scores by which the merge with the highest result comes first, as it does by the rank of merges.

    Refused where no scores do that: merges of one result with others between them, or a pair that is a token together
    and is not merged.
    """
    vocabulary, added = said["model"]["vocab"], {token["content"] for token in said["added_tokens"]}
    ranks: dict[str, int] = {}
    last = None
    for rank, pair in enumerate(merges):
        result = "".join(pair)
        if result in ranks and result != last:
            raise _refusal(f"its merges to {result!r} are not of one rank")
        ranks.setdefault(result, rank)
        last = result
    known = set(merges)
    for text in vocabulary:
        for cut in range(1, 0 if text in added else len(text)):
            pair = (text[:cut], text[cut:])
            if pair[0] in vocabulary and pair[1] in vocabulary and pair not in known:
                raise _refusal(f"it does not merge {pair[0]!r} and {pair[1]!r}, though {text!r} is a token")
    scores = [_UNMERGED] * size
    for text, rank in ranks.items():
        scores[vocabulary[text]] = -float(rank)
    return scores
