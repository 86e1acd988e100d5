"""A run whose model is a tiny random one, for scripts that run outside of pytest."""

from pathlib import Path

from helpers.sample_runs import SENTENCES
from lpr_lab.runs.run import Run


def tiny_run(folder: Path, hidden_size: int = 64, num_layers: int = 4) -> Run:
    """Make a run with an expansion of a random llama in `folder`; its base lies beside it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from lpr_lab.method.allocation import uniform
    from lpr_lab.method.upcycle import upcycle
    from lpr_lab.model.bases.load import load_base
    from lpr_lab.model.formats.save_load import save_expansion

    bytes_of = Tokenizer(models.BPE())
    bytes_of.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_of.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"])
    bytes_of.train_from_iterator(SENTENCES.values(), trainer)
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_of, eos_token=end, bos_token=end, pad_token=end)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,  # special tokens come first in a vocabulary trained here
    )
    base_folder = folder.parent / "tiny-base"
    LlamaForCausalLM(config).save_pretrained(base_folder)
    tokenizer.save_pretrained(base_folder)
    base, tokenizer = load_base(str(base_folder))
    model = upcycle(base, uniform(num_layers, 1))
    settings = {"recipe": "route_first", "base": str(base_folder), "original": ["en", "es"], "expanded": ["el", "th"]}
    run = Run.create(folder, kind="expansion", slug="tiny", title="Tiny model", config=settings)
    save_expansion(model, run.paths.checkpoint)
    run.finish({"schema_version": 1, **settings})
    return run
