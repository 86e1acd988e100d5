"""Reads held-out text: weights of all experts and bits of every text token, part by part, with or without one expert.

Every document is a row of its own, after the separator, as `measure.routing.trace` reads it: the page Routing shows the
same numbers for the same document.

Letters: t text tokens of what is read, C experts of all layers together.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lpr_lab.model.capture import RoutingRecord, record_routing
from lpr_lab.model.forward import inference, read_blocks
from lpr_lab.model.head import next_token_losses
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import use_stage
from lpr_lab.model.steering import steer
from lpr_lab.text.blocks import Batch
from lpr_lab.text.corpus import Document
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.packing import NO_TARGET, PackedBlocks, pack, separator_token_id

STEP_TOKENS = 2048
"""Read between two steps, about: to take a model's losses and routing costs two short passes each time."""


class Place(NamedTuple):
    """One expert of one layer."""

    layer: int
    expert: int


@dataclass(frozen=True)
class Text:
    """One language's documents, a row each, and where their text tokens are."""

    language: str
    documents: list[Document]
    blocks: PackedBlocks

    @classmethod
    def of(cls, language: str, documents: list[Document], tokenizer: PreTrainedTokenizerBase) -> "Text":
        """Pack documents a row each, all rows as long as the longest with its separator."""
        sizes = [len(ids) for ids in tokenizer([one.text for one in documents], add_special_tokens=False)["input_ids"]]
        size = max(2, 1 + max(sizes))
        rows = [pack([one], tokenizer, size, languages=[language]) for one in documents]
        return cls(language, documents, PackedBlocks.concat(rows))

    @property
    def owner(self) -> np.ndarray:
        """The document of each text token, int [t]."""
        return self.blocks.document_index[self.blocks.is_text].numpy()

    @property
    def position(self) -> np.ndarray:
        """The place of each text token in its document, the separator being 0, int [t]."""
        return self.blocks.position_ids[self.blocks.is_text].numpy()

    @property
    def token_ids(self) -> np.ndarray:
        """The vocabulary id of each text token, int [t]."""
        return self.blocks.input_ids[self.blocks.is_text].numpy()


def pieces_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]) -> dict[tuple[str, str], list[bytes | None]]:
    """Return by language and document id the bytes of each token, the separator (None) first."""
    separator = separator_token_id(tokenizer)
    found: dict[tuple[str, str], list[bytes | None]] = {}
    for text in texts:
        for document, ids, kept in zip(text.documents, text.blocks.input_ids, text.blocks.is_text, strict=True):
            assert int(ids[0]) == separator, "a row begins with its separator"
            found[text.language, document.id] = [None, *token_bytes(tokenizer, ids[kept].tolist(), document.text)]
    return found


@dataclass(frozen=True)
class Reader:
    """The model, and how it reads."""

    model: PeftModel
    stage: str
    places: list[Place]
    """The experts of all layers, C."""
    batch_documents: int
    precision: str

    def parts(self, text: Text) -> list[range]:
        """Return the documents that are read between two steps, whole batches of them."""
        batches = max(1, STEP_TOKENS // (self.batch_documents * text.blocks.block_tokens))
        size, total = batches * self.batch_documents, len(text.documents)
        return [range(start, min(start + size, total)) for start in range(0, total, size)]

    def read(self, text: Text, without: Place | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield part by part the weights [t, C] of all experts on its text tokens, and their bits [t].

        Between two parts the model stands as it stood before.
        """
        for rows in self.parts(text):
            yield self._part(text, rows, without)

    def _part(self, text: Text, rows: range, without: Place | None) -> tuple[np.ndarray, np.ndarray]:
        weights, bits = [], []
        banned = nullcontext() if without is None else steer(self.model, ban={without.layer: without.expert})

        def targets(batch: Batch) -> torch.Tensor:
            return batch["targets"].masked_fill(batch["targets"] == text.blocks.separator_id, NO_TARGET)

        with (
            use_stage(self.model, self.stage),
            banned,
            inference(self.model, self.precision),
            next_token_losses(self.model),
            record_routing(self.model) as record,
        ):
            options = {"batch_blocks": self.batch_documents, "targets": targets}
            for batch, losses in read_blocks(self.model, text.blocks, rows, **options):
                is_text = batch["is_text"]
                bits.append(losses.cpu()[:, :-1][is_text[:, 1:]].double().numpy() / np.log(2))
                weights.append(self._weights(record, is_text.flatten()))
        return np.concatenate(weights), np.concatenate(bits)

    def _weights(self, record: RoutingRecord, is_text: torch.Tensor) -> np.ndarray:
        columns = []
        for _, routing in sorted(record.routing.items()):
            ids, given = routing.expert_ids.cpu()[is_text], routing.expert_weights.float().cpu()[is_text]
            dense = torch.zeros(len(ids), routing.router_logits.shape[-1])
            columns.append(dense.scatter_add_(1, ids, given))  # an expert may stand in two slots, once with weight 0
        return torch.cat(columns, dim=1).numpy()
