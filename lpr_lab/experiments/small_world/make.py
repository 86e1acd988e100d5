"""Makes the base `small-world`: a tiny Llama trained from scratch on English and Spanish, gated, and kept in the cache.

    lpr-lab small-world                      the base that runs name by `base: small-world`
    lpr-lab small-world --seed 3             the same from another seed, by the name `small-world-3`
    lpr-lab small-world --tokens 400000      a shorter training; the gate says what it is worth

A twentieth of the blocks is a mixed slice of all other languages, so that the embeddings of their tokens are not
random: they are frozen later, and an expansion on random rows could only fail. All that is drawn comes from the seed,
and a training that was interrupted goes on from its checkpoint. The base is a plain folder of transformers.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpr_lab import storage
from lpr_lab.errors import UsageError
from lpr_lab.fetching import locked
from lpr_lab.model.bases.made import SMALL_WORLD, made_folder, world_name
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.load import load_corpus
from lpr_lab.text.worlds.corpus import WORLD_LANGUAGES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GATE = "gate.json"
"""What the competence gate found, beside the weights."""
ORIGINAL = ("en", "es")
SEPARATOR = "<|endoftext|>"
BYTES = 257
"""Entries of a vocabulary of the 256 bytes and the separator."""


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """The size of the base and how long it is trained; the defaults are some minutes on two free cores."""

    width: int = 160
    mlp_width: int = 448
    num_layers: int = 5
    num_heads: int = 5
    context: int = 256
    vocabulary: int = 2048
    """Entries of the byte-level BPE; `BYTES` for bytes alone, where a cipher is cut exactly as its source."""
    tokens: int = 2_000_000
    """Of the training; 20 for each parameter would be 38 million."""
    blocks_per_step: int = 16
    learning_rate: float = 2e-3
    mixed_share: float = 0.05
    """Of the blocks, for all languages beside the original ones together."""
    twins: bool = False
    """Whether the gate trains a twin for each original language, on its share of the text alone; they take together as
    long as the base."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise UsageError(f"width = {self.width} is not a multiple of num_heads = {self.num_heads}.")
        if self.vocabulary < BYTES:
            raise UsageError(f"vocabulary = {self.vocabulary}; expected at least {BYTES}, the bytes and the separator.")
        if not 0 <= self.mixed_share < 1:
            raise UsageError(f"mixed_share = {self.mixed_share}; expected 0 to below 1.")
        if self.seed < 0:
            raise UsageError(f"seed = {self.seed}; expected 0 or more.")


def make_small_world(
    settings: WorldSettings | None = None,
    out: str | Path | None = None,
    *,
    corpus: Corpus | None = None,
    new: bool = False,
    log: Callable[[dict[str, float]], None] | None = None,
) -> Path:
    """Return the folder of the small world's base, training it first where it is not there.

    Args:
        settings: of a base to be made; one that is there with other settings is refused.
        out: where; by default in the cache, by the name of its seed (`world_name`).
        corpus: text to train on; by default the corpus `small-world`.
        new: make it anew where it is there.
        log: told the numbers of every step.

    Raises:
        UsageError: it is there and was made with other settings.
    """
    settings = settings or WorldSettings()
    folder = made_folder(world_name(settings.seed)) if out is None else Path(out)
    if folder.is_dir() and not new:
        _refuse_others(folder, settings)
        return folder
    left_overs = [f".staging-{folder.name}-*"]
    with locked(folder.parent, f"making {folder.name}", f".{folder.name}.lock", left_overs):
        if folder.is_dir() and not new:
            return folder
        work = folder.parent / f".{folder.name}-training-{_key(settings)}"
        corpus = corpus or load_corpus(SMALL_WORLD, languages=WORLD_LANGUAGES)
        facts = _train(settings, corpus, work, log)
        if folder.is_dir():
            storage.remove_directory(folder)
        _seal(work / "model", folder, {"kind": SMALL_WORLD, "settings": asdict(settings), **facts})
        storage.remove_directory(work)
    return folder


def gate_of(folder: str | Path) -> dict[str, Any]:
    """Return what the competence gate found of a base that was made here (see `gate.check`)."""
    return storage.read_json_object(Path(folder) / GATE)


def _train(
    settings: WorldSettings, corpus: Corpus, work: Path, log: Callable[[dict[str, float]], None] | None
) -> dict[str, Any]:
    from lpr_lab.experiments.small_world.gate import check

    tokenizer = make_tokenizer(corpus, settings)
    others = [code for code in corpus.languages if code not in ORIGINAL]
    mixed = settings.mixed_share if others else 0.0
    weights = dict.fromkeys(ORIGINAL, (1 - mixed) / len(ORIGINAL))
    weights |= dict.fromkeys(others, mixed / max(len(others), 1))
    model, trained = train_from_scratch(settings, tokenizer, corpus, weights, work / "base", log)
    twins = {}
    for code in ORIGINAL if settings.twins else ():
        print(f"The twin that reads {code} alone.", file=sys.stderr)
        alone = _of_tokens(settings, int(settings.tokens * weights[code]))
        twins[code] = train_from_scratch(alone, tokenizer, corpus, {code: 1.0}, work / f"twin-{code}", log)[0]
    gate = check(model, tokenizer, corpus, ORIGINAL, twins=twins, seed=settings.seed)
    model.save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    storage.write_json(work / "model" / GATE, gate)
    kept = ("steps", "tokens", "seconds", "precision", "diverged")
    return {"trained": {name: trained[name] for name in kept}, "corpus": corpus.fingerprint()}


def train_from_scratch(
    settings: WorldSettings,
    tokenizer: "PreTrainedTokenizerBase",
    corpus: Corpus,
    weights: dict[str, float],
    out: Path,
    log: Callable[[dict[str, float]], None] | None = None,
) -> "tuple[PreTrainedModel, dict[str, Any]]":
    """Return a model trained from scratch on the `train` text of some languages, and what its training found.

    Args:
        settings: size, budget and seed.
        tokenizer: whose separator stands before every document.
        corpus: the text.
        weights: language code -> its share of the blocks.
        out: folder for checkpoints; a training that was interrupted goes on from there.
        log: told the numbers of every step.
    """
    from lpr_lab.method.expand import pack_by_language
    from lpr_lab.method.training.schedule import BlockSchedule
    from lpr_lab.method.training.terms import lm_term
    from lpr_lab.method.training.train import TrainSettings, train

    model = new_model(settings, tokenizer)
    training = TrainSettings(
        tokens=settings.tokens,
        block_tokens=settings.context,
        blocks_per_step=settings.blocks_per_step,
        blocks_per_forward=settings.blocks_per_step,
        learning_rate=settings.learning_rate,
        warmup_fraction=0.1,
        weight_decay=0.1,
        precision="fp32",
        seed=settings.seed,
    )
    blocks = pack_by_language(corpus, tokenizer, dict.fromkeys(weights, "train"), training, weights)
    schedule = BlockSchedule(blocks, blocks_per_step=settings.blocks_per_step, seed=settings.seed, weights=weights)
    return model, train(model, schedule, [lm_term()], training, out=out, label="Small world", log=log)


def new_model(settings: WorldSettings, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """Return the untrained model, float32, everything in it drawn from the seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lpr_lab.text.packing import separator_token_id

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.mlp_width,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=separator_token_id(tokenizer),
        pad_token_id=separator_token_id(tokenizer),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return LlamaForCausalLM(config).float()


def make_tokenizer(corpus: Corpus, settings: WorldSettings) -> "PreTrainedTokenizerBase":
    """Return a byte-level BPE of the original languages' text and a slice of every other, as much as is trained on."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def texts() -> Sequence[str]:
        known = [text for code in ORIGINAL for text in _texts(corpus.documents("train", code))]
        limit = int(settings.mixed_share * sum(map(len, known)))
        return known + [
            text for code in corpus.languages if code not in ORIGINAL for text in _first(corpus, code, limit)
        ]

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    options = {"special_tokens": [SEPARATOR], "initial_alphabet": alphabet, "show_progress": False}
    bpe.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=settings.vocabulary, **options))
    special = {"eos_token": SEPARATOR, "pad_token": SEPARATOR, "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **special)


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.text for document in documents]


def _first(corpus: Corpus, code: str, characters: int) -> list[str]:
    from lpr_lab.text.draw import first_documents

    return _texts(first_documents(corpus.documents("train", code), characters)) if characters else []


def _of_tokens(settings: WorldSettings, tokens: int) -> WorldSettings:
    return WorldSettings(**{**asdict(settings), "tokens": tokens})


def _key(settings: WorldSettings) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode()).hexdigest()[:8]


def _refuse_others(folder: Path, settings: WorldSettings) -> None:
    made = storage.verify(folder).get("settings", {})
    differing = [f"{name} {made.get(name)}" for name, value in asdict(settings).items() if made.get(name) != value]
    if differing:
        raise UsageError(
            f"{folder} was made with other settings ({', '.join(differing)}). Make it anew (--new), or name another "
            "folder (--out), which runs take as `base`."
        )


def _seal(made: Path, folder: Path, facts: dict[str, Any]) -> None:
    with storage.staged_directory(folder, sealed=facts) as stage:
        for file in made.iterdir():
            (stage / file.name).write_bytes(file.read_bytes())
