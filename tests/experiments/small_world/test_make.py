"""The small world's base: made by one call, the same by its seed, kept, and refused where it is another one."""

import json

import pytest
import torch

from lpr_lab.errors import MissingError, UsageError
from lpr_lab.experiments.small_world import make
from lpr_lab.experiments.small_world.make import WorldSettings
from lpr_lab.model.bases.embedded import learning_rates
from lpr_lab.model.bases.load import canonical_name, load_base, local_folder
from lpr_lab.text.corpus import Corpus, Document

TINY = WorldSettings(
    width=16, mlp_width=24, num_layers=1, num_heads=2, context=32, vocabulary=280, tokens=128, blocks_per_step=2
)


@pytest.fixture
def world(sentences):
    texts = {
        (split, code): tuple(Document(f"{n}", code, " ".join(sentences[code]), "t") for n in range(4))
        for split in ("train", "dev", "heldout")
        for code in ("en", "es", "el")
    }
    return Corpus("small-world", ("en", "es", "el"), texts)


@pytest.fixture
def quick_gate(monkeypatch):
    from lpr_lab.experiments.small_world import gate

    monkeypatch.setattr(gate, "check", lambda *args, twins, **options: {"passes": False, "twins": list(twins)})


def test_a_base_that_is_not_there_names_the_command_that_makes_it():
    with pytest.raises(MissingError, match="lpr-lab small-world"):
        load_base("small-world")
    with pytest.raises(MissingError, match="lpr-lab small-world --seed 12"):
        load_base("small-world-12")
    assert learning_rates("small-world-12") == learning_rates("small-world")
    assert learning_rates("small-world-0") == learning_rates("any/other"), "no seed is written with a zero before it"
    assert local_folder("small-world") is None and learning_rates("small-world") != learning_rates("any/other")


@pytest.mark.slow
def test_a_base_is_made_once_the_same_by_its_seed_and_opens_by_its_name(world, quick_gate, tmp_path):
    folder = make.make_small_world(TINY, corpus=world)
    again = make.make_small_world(TINY, tmp_path / "again", corpus=world)
    assert make.make_small_world(TINY, corpus=None) == folder  # nothing is loaded or trained
    model, tokenizer = load_base("small-world")
    other, _ = load_base(again)
    assert model.name_or_path == "small-world" and len(tokenizer) == 280
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    text = "Η γιαγιά, 14 jars."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert make.gate_of(folder) == {"passes": False, "twins": []}
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert manifest["trained"]["steps"] == 2 and manifest["settings"]["seed"] == 0
    assert not list(folder.parent.glob(".small-world-training-*"))
    with pytest.raises(UsageError, match="tokens"):
        make.make_small_world(WorldSettings(**{**vars(TINY), "tokens": 256}))


@pytest.mark.slow
def test_each_seed_makes_a_base_of_its_own_beside_the_others(world, quick_gate):
    first, third = (
        make.make_small_world(WorldSettings(**{**vars(TINY), "seed": seed}), corpus=world) for seed in (0, 3)
    )
    assert first.name == "small-world" and third.name == "small-world-3"
    model, _ = load_base("small-world-3")
    other, _ = load_base("small-world")
    assert model.name_or_path == "small-world-3"
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert canonical_name("small-world-3") == "small-world-3" and local_folder("small-world-3") == third


@pytest.mark.slow
def test_twins_read_one_language_each(world, quick_gate, tmp_path):
    settings = WorldSettings(**{**vars(TINY), "tokens": 256, "twins": True})
    assert make.gate_of(make.make_small_world(settings, tmp_path / "w", corpus=world))["twins"] == ["en", "es"]


@pytest.mark.parametrize("wrong", [{"width": 17}, {"vocabulary": 256}, {"mixed_share": 1.0}, {"seed": -1}])
def test_settings_that_cannot_be_are_refused_before_any_work(wrong):
    with pytest.raises(UsageError, match=str(next(iter(wrong.values())))):
        WorldSettings(**{"num_heads": 2, **wrong})
