"""Checks that a model has an embedding for every token that its tokenizer can make.

A token that was added to a tokenizer and not to the model has a number beyond the last row of the embeddings; the first
text that contains it would end in an IndexError in the middle of training.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from lpr_lab.errors import UsageError
from lpr_lab.text.packing import separator_token_id

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_NOT_TEXT = ("image_token", "audio_token", "video_token")
"""Stand for what is no text. Gemma 3's tokenizer has one also for the models without images, which lack its row."""


def require_embeddings(
    model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int] = ()
) -> None:
    """Refuse a tokenizer that can make tokens for which a model has no embedding.

    Args:
        model: that is to read them.
        tokenizer: given with it.
        ids: the tokens of one text, where it may hold what stands for an image or a sound.

    Raises:
        UsageError: with the tokens.
    """
    name = model.config.name_or_path or model.config.model_type
    embeddings: Any = model.get_input_embeddings()
    num_rows = int(embeddings.weight.shape[0])
    refuse_tokens_beyond(tokenizer, num_rows, name)
    beyond = [number for number in ids if number >= num_rows]
    if beyond:
        raise UsageError(
            f"The text holds {tokenizer.convert_ids_to_tokens(beyond[0])!r}, for which {name} has no embedding; take "
            "it out of the text."
        )


def refuse_tokens_beyond(tokenizer: "PreTrainedTokenizerBase", num_rows: int, name: str) -> None:
    """Refuse a tokenizer whose tokens a model with `num_rows` embeddings does not all know.

    A padding token beyond them is harmless, because padding is never fed here, unless it divides documents, too.

    Args:
        tokenizer: to look at.
        num_rows: embeddings of the model; more than tokens are fine.
        name: of the model, for the message.

    Raises:
        UsageError: with the tokens.
    """
    beyond = {number: token for token, number in tokenizer.get_vocab().items() if number >= num_rows}
    if not beyond:
        return
    for name_of_token in ("pad_token", *_NOT_TEXT):
        token = getattr(tokenizer, name_of_token, None)
        if token is not None and tokenizer.convert_tokens_to_ids(token) != separator_token_id(tokenizer):
            beyond.pop(cast("int", tokenizer.convert_tokens_to_ids(token)), None)
    if beyond:
        first = ", ".join(f"{token!r} ({number})" for number, token in sorted(beyond.items())[:3])
        more = f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""
        raise UsageError(
            f"The tokenizer knows tokens for which {name} has no embedding: {first}{more}, and the model has "
            f"{num_rows} rows (0 to {num_rows - 1}). Use the tokenizer the model was trained with; or give the model "
            f"the rows once, model.resize_token_embeddings({max(beyond) + 1}), and save model and tokenizer with "
            "save_pretrained into one folder, which is then the base."
        )
