"""Packing: nothing lost, nothing scored twice, nothing seen across documents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig, OPTConfig, PreTrainedTokenizerFast

from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.text.corpus import Document
from lpr_lab.text.packing import NO_TARGET, PackedBlocks, pack, refuse_if_documents_mix, separator_token_id

TEXTS = {
    "en": "The old bridge hums when the wind comes down from the hills.",
    "el": "Η γάτα κοιμάται πάνω στο ζεστό πεζούλι. 🐈",
    "hu": "A tűzhely mellett mindig jut egy szék a vendégnek.",
    "tr": "Yağmur dindi, çocuklar <|endoftext|> bahçeye koştu.",
}


def byte_tokenizer(**special) -> PreTrainedTokenizerFast:
    """A tokenizer of 256 bytes and the given special tokens: enough to pack, no download."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


TOKENIZER = byte_tokenizer(eos_token="<|endoftext|>", bos_token="<s>")
SEPARATOR = separator_token_id(TOKENIZER)


def documents(*texts: str) -> list[Document]:
    chosen = texts or tuple(TEXTS.values())
    by_text = {text: code for code, text in TEXTS.items()}
    return [Document(f"d{i}", by_text.get(text, "en"), text, "written here") for i, text in enumerate(chosen)]


def packed(docs=None, block_tokens=16, **options) -> PackedBlocks:
    return pack(docs or documents(), TOKENIZER, block_tokens, languages=list(TEXTS), **options)


def real(blocks: PackedBlocks, name: str) -> list[int]:
    """The values of one tensor without padding, as one stream."""
    return getattr(blocks, name)[blocks.language_id >= 0].tolist()


@pytest.mark.parametrize("block_tokens", [2, 7, 16, 64, 1000])
def test_every_token_is_scored_exactly_once_and_predicts_its_successor(block_tokens):
    blocks = packed(block_tokens=block_tokens)
    stream, targets = real(blocks, "input_ids"), real(blocks, "targets")
    assert targets == [*stream[1:], SEPARATOR]
    assert (blocks.targets == NO_TARGET).sum() == blocks.input_ids.numel() - len(stream)
    wanted = [token for text in TEXTS.values() for token in [*text.encode(), None]]
    assert len(targets) == len(wanted)
    assert [token == SEPARATOR for token in targets] == [byte is None for byte in wanted]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5), st.integers(2, 40))
def test_bytes_round_trip_through_blocks_of_any_size(texts, block_tokens):
    blocks = packed(documents(*texts), block_tokens=block_tokens)
    ids, owner = torch.tensor(real(blocks, "input_ids")), torch.tensor(real(blocks, "document_index"))
    for index, text in enumerate(texts):
        own = ids[owner == index].tolist()
        assert own[0] == SEPARATOR
        assert TOKENIZER.decode(own[1:], clean_up_tokenization_spaces=False) == text


def test_positions_restart_at_every_document_and_every_block():
    blocks = packed(block_tokens=16)
    for row in range(len(blocks)):
        block = blocks[row]
        for place in range(16):
            starts = place == 0 or block["document_index"][place] != block["document_index"][place - 1]
            expected = 0 if starts else block["position_ids"][place - 1] + 1
            assert block["position_ids"][place] == expected


def test_language_and_document_ride_with_every_token():
    blocks = packed(block_tokens=16)
    languages, owners = real(blocks, "language_id"), real(blocks, "document_index")
    assert blocks.languages == tuple(TEXTS)
    assert languages == owners  # one document per language here, in the order of `languages`
    assert [languages.count(i) for i in range(4)] == [len(text.encode()) + 1 for text in TEXTS.values()]


def test_padding_has_no_target_no_language_and_no_document():
    blocks = packed(documents("Short."), block_tokens=16)
    assert blocks.num_tokens == 7
    assert len(blocks) == 1
    block = blocks[0]
    assert block["targets"][7:].tolist() == [NO_TARGET] * 9
    assert block["language_id"][7:].tolist() == block["document_index"][7:].tolist() == [-1] * 9
    assert block["position_ids"].tolist() == [*range(7), *range(9)]


def test_drop_last_leaves_no_padding():
    whole, dropped = packed(block_tokens=16), packed(block_tokens=16, drop_last=True)
    assert len(dropped) == whole.num_tokens // 16 == len(whole) - 1
    assert (dropped.language_id >= 0).all()
    assert torch.equal(dropped.input_ids, whole.input_ids[:-1])


def test_the_budget_takes_whole_documents_only():
    sizes = [len(text.encode()) + 1 for text in TEXTS.values()]
    assert packed(max_tokens=sizes[0] + sizes[1]).num_documents == 2
    assert packed(max_tokens=sizes[0] + sizes[1] - 1).num_tokens == sizes[0]
    assert packed(max_tokens=10**9).num_tokens == sum(sizes)


def test_special_token_text_in_a_document_is_plain_text():
    blocks = packed()
    assert real(blocks, "input_ids").count(SEPARATOR) == len(TEXTS)


def test_concatenated_blocks_keep_their_documents_apart():
    one, two = packed(documents(TEXTS["en"])), packed(documents(TEXTS["el"], TEXTS["hu"]))
    joined = PackedBlocks.concat([one, two])
    assert len(joined) == len(one) + len(two)
    assert joined.num_documents == 3
    assert set(joined.document_index.unique().tolist()) == {-1, 0, 1, 2}
    assert torch.equal(joined.document_index[0], one.document_index[0])
    picked = joined.select([len(one), 0])
    assert torch.equal(picked["input_ids"][0], two.input_ids[0])
    with pytest.raises(UsageError, match="block_tokens"):
        PackedBlocks.concat([one, packed(block_tokens=8)])


def test_bad_input_is_refused_in_one_sentence():
    with pytest.raises(UsageError, match="no documents"):
        pack([], TOKENIZER, 16, languages=["en"])
    with pytest.raises(UsageError, match="'d1' is empty"):
        packed([*documents(TEXTS["en"]), Document("d1", "en", " \n", "written here")])
    with pytest.raises(UsageError, match="'d0' is in 'el'"):
        pack(documents(TEXTS["el"]), TOKENIZER, 16, languages=["en"])
    with pytest.raises(UsageError, match="first document"):
        packed(max_tokens=5)
    with pytest.raises(UsageError, match="less than one block"):
        packed(block_tokens=4096, drop_last=True)
    with pytest.raises(UsageError, match="at least 2"):
        packed(block_tokens=1)


def test_the_separator_is_endoftext_then_eos_then_bos():
    instruct = byte_tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    assert separator_token_id(instruct) == instruct.pad_token_id != instruct.eos_token_id
    only_bos = byte_tokenizer(bos_token="<s>")
    assert separator_token_id(only_bos) == only_bos.bos_token_id
    both = byte_tokenizer(eos_token="</s>", bos_token="<s>")
    assert separator_token_id(both) == both.eos_token_id
    with pytest.raises(UsageError, match=r"no .*endoftext"):
        separator_token_id(byte_tokenizer())


def test_a_tokenizer_that_begins_texts_with_a_token_divides_them_with_it():
    both = byte_tokenizer(eos_token="</s>", bos_token="<s>")
    both.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", both.bos_token_id)]
    )
    assert separator_token_id(both) == both.bos_token_id
    blocks = pack(documents(TEXTS["en"]), both, 16, languages=["en"])
    assert real(blocks, "input_ids").count(blocks.separator_id) == 1


# -- no attention across documents, proved on random models ------------------------------------------------------------


@pytest.fixture(params=["sdpa", "eager"])
def model(request, family_model):
    """One random model of each family under each kind of attention."""
    try:
        family_model.set_attn_implementation(request.param)
    except ValueError:
        pytest.skip(f"transformers has no {request.param} attention for {family_model.config.model_type}")
    return family_model


def logits(model, blocks: PackedBlocks) -> torch.Tensor:
    batch = blocks.select(range(len(blocks)))
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits


def test_changing_document_1_changes_no_logit_of_document_2(model):
    # Blocks longer than the sliding windows, and a third document that a block end cuts in two.
    before = packed(documents("A red kite over the bay.", TEXTS["tr"], TEXTS["hu"]), block_tokens=96)
    after = packed(documents("Some blue boat on a lake", TEXTS["tr"], TEXTS["hu"]), block_tokens=96)
    assert torch.equal(before.document_index, after.document_index)
    others = before.document_index > 0
    old, new = logits(model, before), logits(model, after)
    assert torch.equal(old[others], new[others])
    assert not torch.allclose(old[before.document_index == 0], new[before.document_index == 0])


def test_a_packed_document_scores_as_it_does_alone(model):
    together = packed(documents(TEXTS["en"][:20], TEXTS["hu"]), block_tokens=96)
    alone = packed(documents(TEXTS["hu"]), block_tokens=96)
    scores_together = logits(model, together)[together.document_index == 1]
    scores_alone = logits(model, alone)[alone.document_index == 0]
    torch.testing.assert_close(scores_together, scores_alone, atol=1e-4, rtol=1e-4)


def test_a_model_that_keeps_documents_apart_passes_the_check(model):
    model.train()
    refuse_if_documents_mix(model)
    assert model.training


@pytest.mark.parametrize(
    "config",
    [
        OPTConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, word_embed_proj_dim=32),
        BloomConfig(vocab_size=300, hidden_size=32, n_layer=1, n_head=4),
        MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, state_size=4),
    ],
    ids=lambda config: config.model_type,
)
def test_a_model_that_reads_across_documents_is_refused(config):
    leaky = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UnsupportedModelError, match=config.model_type):
        refuse_if_documents_mix(leaky)
