"""Statistics that routers are fitted from: moments of their inputs per language, gathered in one streaming pass.

Ridge regression needs no tokens, only the second moment of the features and one mean per language. So they can be
kept when the text is gone, and a further language joins without it: Any-SSR's point (arXiv 2503.13575) for routers of
whole models, here for each layer's. A few feature rows per language are kept beside them, for calibration.

Letters: D model width, U = number of router features (D, or 2D with the running mean, plus 1 for the constant).
"""

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import DamagedError, UsageError
from lpr_lab.method.expand import pack_by_language
from lpr_lab.method.settings import FitSettings
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.model.adapter import expansion_config, forward_context
from lpr_lab.model.bases.families import find_decoder_mlps
from lpr_lab.model.bases.tensor_files import open_tensors
from lpr_lab.model.capture import causal_lm_of, decoder_of, watch_mlp_inputs
from lpr_lab.model.forward import inference, read_blocks
from lpr_lab.model.parallel.sharing import gathered, in_turn, reading, summed
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import use_stage
from lpr_lab.progress import progress
from lpr_lab.text.blocks import Batch, Blocks, text_mask
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.vocabulary import require_embeddings

HELD_ROWS = 256
"""Feature rows kept per language and layer, from documents that the moments have not seen."""


@dataclass
class LayerStatistics:
    """One layer's share of `RouterStatistics`.

    Attributes:
        second_moment: [U, U] float64, sum over groups of the mean over their languages of E[u uᵀ].
        mean: per language E[u], [U] float64.
        held: per language, rows [at most `HELD_ROWS`, U] in float16 that are not in the moments.
        rows: per language, the rows that are in the moments, where they were asked for; never saved.
    """

    second_moment: torch.Tensor
    mean: dict[str, torch.Tensor] = field(default_factory=dict)
    held: dict[str, torch.Tensor] = field(default_factory=dict)
    rows: dict[str, torch.Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> "LayerStatistics":
        """Return the same on another device."""
        by_language = (self.mean, self.held, self.rows)
        moved = ({code: tensor.to(device) for code, tensor in part.items()} for part in by_language)
        return LayerStatistics(self.second_moment.to(device), *moved)


@dataclass
class RouterStatistics:
    """What the routers of a model would read in several groups of languages.

    Attributes:
        groups: languages by group: the original ones, then those of each expansion.
        layers: by decoder layer index; every layer, also those that have no router yet.
        num_tokens: tokens in the moments.
    """

    groups: list[list[str]]
    layers: dict[int, LayerStatistics]
    num_tokens: int

    def joined(self, later: "RouterStatistics") -> "RouterStatistics":
        """Return the statistics of these groups and further ones; neither needs its text any more.

        Raises:
            UsageError: other layers or features, or a language that is in both.
        """
        both = {code for group in self.groups for code in group} & {code for group in later.groups for code in group}
        if both:
            raise UsageError(f"{', '.join(sorted(both))} is in both statistics; a language belongs to one group.")
        shapes = [{i: layer.second_moment.shape for i, layer in part.layers.items()} for part in (self, later)]
        if shapes[0] != shapes[1]:
            raise UsageError("These statistics were made with another base or another router_input; gather them anew.")
        layers = {
            index: LayerStatistics(
                mine.second_moment + theirs.second_moment,
                {**mine.mean, **theirs.mean},
                {**mine.held, **theirs.held},
                {**mine.rows, **theirs.rows},
            )
            for (index, mine), theirs in zip(self.layers.items(), later.layers.values(), strict=True)
        }
        return RouterStatistics([*self.groups, *later.groups], layers, self.num_tokens + later.num_tokens)

    def to(self, device: torch.device) -> "RouterStatistics":
        """Return the same on another device: what was loaded lies on the processor."""
        layers = {index: layer.to(device) for index, layer in self.layers.items()}
        return RouterStatistics(self.groups, layers, self.num_tokens)

    def save(self, path: Path) -> None:
        """Write one safetensors file: upper triangles and means in float32, kept rows in float16."""
        tensors = {}
        for index, layer in self.layers.items():
            size = len(layer.second_moment)
            upper = torch.triu_indices(size, size)
            tensors[f"{index}.second_moment"] = layer.second_moment[upper[0], upper[1]].float().cpu()
            tensors |= {f"{index}.mean.{code}": mean.float().cpu() for code, mean in layer.mean.items()}
            tensors |= {f"{index}.held.{code}": rows.cpu().contiguous() for code, rows in layer.held.items()}
        facts = {"groups": json.dumps(self.groups), "num_tokens": str(self.num_tokens)}
        save_file(tensors, path, metadata=facts)

    @staticmethod
    def load(path: Path) -> "RouterStatistics":
        """Read what `save` wrote.

        Raises:
            DamagedError: the file is not one of these.
        """
        with open_tensors(path) as file:
            facts = file.metadata() or {}
            if "groups" not in facts:
                raise DamagedError(
                    f"{path} holds no router statistics; expected a file that RouterStatistics.save wrote."
                )
            groups = json.loads(facts["groups"])
            codes = [code for group in groups for code in group]
            layers = {}
            for index in sorted({int(name.split(".")[0]) for name in file.keys()}):
                means = {code: file.get_tensor(f"{index}.mean.{code}").double() for code in codes}
                size = len(means[codes[0]])
                upper = torch.triu_indices(size, size)
                moment = torch.zeros(size, size, dtype=torch.float64)
                moment[upper[0], upper[1]] = file.get_tensor(f"{index}.second_moment").double()
                moment = moment + moment.T - moment.diagonal().diag()
                held = {code: file.get_tensor(f"{index}.held.{code}") for code in codes}
                layers[index] = LayerStatistics(moment, means, held)
        return RouterStatistics(groups, layers, int(facts["num_tokens"]))


@dataclass(frozen=True)
class GroupSource:
    """Where the statistics of one language group come from.

    Attributes:
        languages: of the group.
        stage: how the model stands while it reads their text: the name of a stage, or None for the base.
        split: which text.
    """

    languages: Sequence[str]
    stage: str | None
    split: str


class _Moments:
    """Accumulates `LayerStatistics` while the model reads, one language after another."""

    def __init__(self, model: PeftModel, *, keep_rows: bool) -> None:
        self._context = forward_context(model)
        self._uses_mean = expansion_config(model).router_input == "token_and_mean"
        self._device = next(model.parameters()).device
        self._keep_rows = keep_rows
        self._counts = torch.empty(0)
        # Of all layers at once: a process that shares the reading may get nothing to read.
        width = causal_lm_of(model).config.get_text_config().hidden_size
        size = (2 * width if self._uses_mean else width) + 1
        self._zeros = partial(torch.zeros, size, dtype=torch.float64, device=self._device)
        layers = [mlp.layer for mlp in find_decoder_mlps(causal_lm_of(model))]
        self.layers = {layer: LayerStatistics(self._zeros(size)) for layer in layers}
        self._pieces: dict[tuple[str, str, int], list[torch.Tensor]] = {}

    def begin(self, language: str, group_share: float, num_fitted: int, num_held: int) -> None:
        """Start a language: its share of its group, and how many of its tokens are fitted and held out."""
        self._language, self._group_share = language, group_share
        self._weight = group_share / num_fitted
        self._stride = max(-(-num_held // HELD_ROWS), 1)
        for layer in self.layers.values():
            layer.mean[language] = self._zeros()

    def expect(self, batch: Batch, *, is_held: bool) -> None:
        """Say which tokens of the next pass count, and for what."""
        self._counts, self._is_held = batch["is_text"].flatten().to(self._device), is_held

    def add(self, layer: int, x: torch.Tensor) -> None:
        """Take in a layer's MLP inputs [B, S, D]."""
        # The pass may be in bf16, the moments may not: rounded to 8 bits they lose what tells languages apart.
        with torch.autocast(self._device.type, enabled=False):
            mean = self._context.running_mean(layer, x) if self._uses_mean else None
            features = router_features(x, mean)[self._counts]
            mine = self.layers[layer]
            if self._is_held:
                self._keep("held", layer, features[:: self._stride])
                return
            mine.second_moment += self._weight * (features.T @ features).double()
            mine.mean[self._language] += features.sum(0).double() * (self._weight / self._group_share)
            if self._keep_rows:
                self._keep("rows", layer, features)

    def _keep(self, part: str, layer: int, features: torch.Tensor) -> None:
        self._pieces.setdefault((part, self._language, layer), []).append(features.half())

    def whole(self, languages: Sequence[str]) -> dict[int, LayerStatistics]:
        """Return what all processes read, each layer's statistics the same on every one of them.

        Args:
            languages: those that were read.
        """
        for index, layer in self.layers.items():
            layer.second_moment = summed(layer.second_moment)
            layer.mean = {code: summed(mean) for code, mean in layer.mean.items()}
            layer.held = {code: self._put_together("held", code, index) for code in languages}
            if self._keep_rows:
                layer.rows = {code: self._put_together("rows", code, index) for code in languages}
        return self.layers

    def _put_together(self, part: str, language: str, layer: int) -> torch.Tensor:
        pieces = [piece.cpu() for piece in self._pieces.pop((part, language, layer), [])]
        return torch.cat(in_turn(gathered(pieces))).to(self._device)


def _count_text(blocks: Blocks, rows: range) -> int:
    return sum(int(text_mask(blocks[row], blocks.separator_id).sum()) for row in rows)


def gather_statistics(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    sources: Sequence[GroupSource],
    settings: FitSettings,
) -> RouterStatistics:
    """Run each group's text once and return what routers read in it.

    Args:
        model: an expanded model.
        tokenizer: the base model's.
        corpus: with text of all languages.
        sources: per group.
        settings: how much text, and of the pass. Moments are in float64 always.
    """
    require_embeddings(model, tokenizer)
    source_of = {code: source for source in sources for code in source.languages}
    budget = TrainSettings(
        tokens=settings.tokens_per_language * len(source_of),
        block_tokens=settings.block_tokens,
        blocks_per_step=1,
        blocks_per_forward=1,
        seed=settings.seed,
    )
    packed = pack_by_language(corpus, tokenizer, {code: source.split for code, source in source_of.items()}, budget)
    num_blocks = max(settings.tokens_per_language // settings.block_tokens, 4)
    total = sum(min(num_blocks, len(blocks)) for blocks in packed.values()) * settings.block_tokens
    num_tokens = 0
    with (
        reading(model) as reader,
        inference(reader, settings.precision),
        progress(total, "Reading for the routers", "token") as bar,
    ):
        moments = _Moments(reader, keep_rows=settings.solver == "logistic")
        for language, blocks in packed.items():
            source, used = source_of[language], min(num_blocks, len(blocks))
            held_from = used - max(used // 4, 1)
            parts = range(held_from), range(held_from, used)
            num_fitted, num_held = (_count_text(blocks, part) for part in parts)
            moments.begin(language, 1 / len(source.languages), num_fitted, num_held)
            num_tokens += num_fitted
            with use_stage(reader, source.stage), watch_mlp_inputs(reader, moments.add):
                for part in parts:
                    before = partial(moments.expect, is_held=part is parts[1])
                    options = {"batch_blocks": settings.batch_blocks, "before": before, "bar": bar}
                    deque(read_blocks(decoder_of(reader), blocks, part, **options), maxlen=0)
    groups = [list(source.languages) for source in sources]
    return RouterStatistics(groups, moments.whole([*packed]), num_tokens).to(next(model.parameters()).device)


def router_features(x: torch.Tensor, mean: torch.Tensor | None) -> torch.Tensor:
    """Return what a router reads as one row per token, [T, U]: input, running mean if used, and a constant 1."""
    parts = [x.float().flatten(0, 1)]
    if mean is not None:
        parts.append(mean.flatten(0, 1))
    parts.append(torch.ones(len(parts[0]), 1, device=x.device))
    return torch.cat(parts, dim=1)
