"""Statistics that routers are fitted from: moments of their inputs per language, gathered in one streaming pass.

Ridge regression needs no tokens, only the second moment of the features and one mean per language. So they can be
kept when the text is gone, and a further language joins without it: Any-SSR's point (arXiv 2503.13575) for routers of
whole models, here for each layer's. A few feature rows per language are kept beside them, for calibration.

Letters: D model width, U = number of router features (D, or 2D with the running mean, plus 1 for the constant).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import DamagedError, UsageError
from lpr_lab.method.expand import pack_by_language
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.model.adapter import expansion_config, forward_context
from lpr_lab.model.capture import decoder_of, watch_mlp_inputs
from lpr_lab.model.machine import resolve_precision
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import use_stage
from lpr_lab.model.tensor_files import open_tensors
from lpr_lab.progress import progress
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.packing import PackedBlocks, in_mode
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


@torch.no_grad()
def gather_statistics(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    groups: Sequence[Sequence[str]],
    *,
    stages: Sequence[str | None],
    splits: Sequence[str],
    tokens_per_language: int = 4096,
    block_tokens: int = 256,
    batch_blocks: int = 4,
    keep_rows: bool = False,
    precision: str = "auto",
    seed: int = 0,
) -> RouterStatistics:
    """Run each group's text once and return what routers read in it.

    Args:
        model: an expanded model.
        tokenizer: the base model's.
        corpus: with text of all languages.
        groups: languages by group.
        stages: per group, how the model stands while it reads: the name of a stage, or None for the base.
        splits: per group, the split its text is from.
        tokens_per_language: how much text each language contributes; a quarter of it is kept apart.
        block_tokens: S of the packed blocks.
        batch_blocks: blocks per forward pass.
        keep_rows: also keep the rows in the moments, for solvers that need tokens.
        precision: of the pass: auto, fp32 or bf16. Moments are in float64 always.
        seed: which documents are drawn.
    """
    require_embeddings(model, tokenizer)
    split_of = {code: split for group, split in zip(groups, splits, strict=True) for code in group}
    stage_of = {code: stage for group, stage in zip(groups, stages, strict=True) for code in group}
    share_of = {code: 1 / len(group) for group in groups for code in group}
    settings = TrainSettings(
        tokens=tokens_per_language * len(split_of),
        block_tokens=block_tokens,
        blocks_per_step=1,
        blocks_per_forward=1,
        seed=seed,
    )
    packed = pack_by_language(corpus, tokenizer, split_of, settings)
    num_blocks = max(tokens_per_language // block_tokens, 4)
    device = next(model.parameters()).device
    uses_mean = expansion_config(model).router_input == "token_and_mean"
    context, decoder = forward_context(model), decoder_of(model)
    layers: dict[int, LayerStatistics] = {}
    counted = torch.empty(0)
    language, weight, is_held, stride = "", 0.0, False, 1

    def see(layer: int, x: torch.Tensor) -> None:
        # The pass may be in bf16, the moments may not: rounded to 8 bits they lose what tells languages apart.
        with torch.autocast(device.type, enabled=False):
            mean = context.running_mean(layer, x) if uses_mean else None
            features = router_features(x, mean)[counted]
            if layer not in layers:
                layers[layer] = LayerStatistics(torch.zeros(2 * features.shape[1:], dtype=torch.float64, device=device))
            mine = layers[layer]
            if is_held:
                _append(mine.held, language, features[::stride])
                return
            mine.second_moment += weight * (features.T @ features).double()
            known = mine.mean.setdefault(language, torch.zeros(features.shape[1], dtype=torch.float64, device=device))
            known += features.sum(0).double() * (weight / share_of[language])
            if keep_rows:
                _append(mine.rows, language, features)

    autocast = torch.autocast(device.type, torch.bfloat16, enabled=resolve_precision(precision) == "bf16")
    total = sum(min(num_blocks, len(blocks)) for blocks in packed.values()) * block_tokens
    num_tokens = 0
    still, watching = in_mode(model, training=False), watch_mlp_inputs(model, see)
    with still, watching, autocast, progress(total, "Reading for the routers", "token") as bar:
        for language, blocks in packed.items():
            used = min(num_blocks, len(blocks))
            kept_from = used - max(used // 4, 1)
            num_fitted, num_held = (
                int(_is_text(blocks.select(range(*part)), blocks).sum()) for part in ((0, kept_from), (kept_from, used))
            )
            weight, stride = share_of[language] / num_fitted, max(-(-num_held // HELD_ROWS), 1)
            num_tokens += num_fitted
            with use_stage(model, stage_of[language]):
                for start, end in _batches(kept_from, used, batch_blocks):
                    batch = blocks.select(range(start, end))
                    is_held = start >= kept_from
                    counted = _is_text(batch, blocks).flatten().to(device)
                    ids, positions = batch["input_ids"].to(device), batch["position_ids"].to(device)
                    decoder(input_ids=ids, position_ids=positions, use_cache=False)
                    bar.update(ids.numel())
    return RouterStatistics([list(group) for group in groups], dict(sorted(layers.items())), num_tokens)


def router_features(x: torch.Tensor, mean: torch.Tensor | None) -> torch.Tensor:
    """Return what a router reads as one row per token, [T, U]: input, running mean if used, and a constant 1."""
    parts = [x.float().flatten(0, 1)]
    if mean is not None:
        parts.append(mean.flatten(0, 1))
    parts.append(torch.ones(len(parts[0]), 1, device=x.device))
    return torch.cat(parts, dim=1)


def _append(rows: dict[str, torch.Tensor], language: str, features: torch.Tensor) -> None:
    known = [rows[language]] if language in rows else []
    rows[language] = torch.cat([*known, features.half()])


def _is_text(batch: dict[str, torch.Tensor], blocks: PackedBlocks) -> torch.Tensor:
    """Say which tokens are of a language: padding and separators are of none, bool [B, S]."""
    return (batch["language_id"] >= 0) & (batch["input_ids"] != blocks.separator_id)


def _batches(kept_from: int, end: int, size: int) -> list[tuple[int, int]]:
    """Cut [0, end) into batches of at most `size` blocks, with a cut at `kept_from`."""
    starts = [*range(0, kept_from, size), *range(kept_from, end, size)]
    return [(start, min(start + size, kept_from if start < kept_from else end)) for start in starts]
