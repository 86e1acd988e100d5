"""The routing of a served export is that of our own trace on the same text, and opens on the page."""

import json
import re

import numpy as np
import pytest
import torch
from transformers import MixtralForCausalLM

from helpers.cli_calls import call
from helpers.small_expansion import make_expansion
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.routing.compose import compose
from lpr_lab.errors import UsageError
from lpr_lab.experiments.studies import served as studied
from lpr_lab.experiments.studies.served import import_routing
from lpr_lab.model.formats.export import export
from lpr_lab.runs.people.own_texts import own_texts

TEXT = "Ταξίδι με πλοίο, one day."


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_model, tiny_tokenizer):
    """A run, and what its export chose on the text as transformers computes it, int [L, T, K]."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    run, model = make_expansion(folder, tiny_model("llama", num_layers=2), tiny_tokenizer, new_experts=(3, 3))
    export(model, folder / "native", "mixtral", tokenizer=tiny_tokenizer)
    native = MixtralForCausalLM.from_pretrained(folder / "native")
    ids = [tiny_tokenizer.eos_token_id, *tiny_tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        logits = native(torch.tensor([ids]), output_router_logits=True).router_logits
    chosen = np.stack([layer.reshape(len(ids), -1).topk(2).indices.numpy() for layer in logits])
    return run, chosen, folder


@pytest.mark.parametrize("unread", [0, 1], ids=["all", "all but the last token"])
def test_a_served_export_chose_what_we_choose(served, unread, tmp_path):
    run, chosen, _ = served
    tokens = chosen.shape[1] - unread
    np.save(tmp_path / "routed.npy", np.moveaxis(chosen[:, :tokens], 1, 0))
    found = import_routing(run, tmp_path / "routed.npy", TEXT, "el", name=f"unread {unread}")
    assert found.same_choices == found.same_first == 1.0 and found.trace.num_tokens == tokens
    assert (found.trace.expert_ids == chosen[:, :tokens]).all()
    kept = run.traces.read(found.text_id)
    assert kept.stage_names == ["G1 review", "served by vLLM"] and kept.log_prob is None
    assert f"unread {unread}" in [text.name for text in own_texts(run)]


def test_one_choice_that_differs_is_counted_and_shown_beside_ours(served, tmp_path):
    run, chosen, _ = served
    other = chosen.copy()
    spare = next(expert for expert in range(4) if expert not in chosen[0, 3])
    other[0, 3, 0] = spare
    np.save(tmp_path / "routed.npy", np.moveaxis(other, 1, 0))
    found = import_routing(run, tmp_path / "routed.npy", TEXT)
    assert found.same_choices == pytest.approx(1 - 1 / chosen[:, :, 0].size)
    query = {"run": run.id, "text": found.text_id, "stage2": "G1 review"}
    shown = compose(shell.page_context(run.path.parent, query), run.path.parent)
    assert "served by vLLM" in str(shown["stage"]["choices"]) and "data-token" in str(shown["strip"])


def test_another_text_another_model_and_an_expert_too_many_are_refused(served, tmp_path):
    run, chosen, _ = served
    file = tmp_path / "routed.npy"
    np.save(file, np.moveaxis(chosen, 1, 0))
    before = own_texts(run)
    with pytest.raises(UsageError, match="tokens"):
        import_routing(run, file, TEXT + " And another, much longer sentence.")
    with pytest.raises(UsageError, match="separator"):
        import_routing(run, file, TEXT, separator=False)
    np.save(file, np.moveaxis(chosen, 1, 0) + 4)
    with pytest.raises(UsageError, match="expert"):
        import_routing(run, file, TEXT)
    assert own_texts(run) == before


@pytest.mark.parametrize("name", ["none.npy", "routed.txt"])
def test_a_file_that_cannot_be_one_is_refused_before_a_model_is_loaded(served, tmp_path, monkeypatch, name):
    (tmp_path / "routed.txt").write_text("0,1", encoding="utf-8")
    monkeypatch.setattr(studied, "load_expansion", lambda *given: pytest.fail("loaded"))
    with pytest.raises(UsageError, match=re.escape(name)):
        import_routing(served[0], tmp_path / name, "A text.")


def test_the_command_prints_how_often_both_agree_and_where_to_look(served, tmp_path):
    run, chosen, _ = served
    np.save(tmp_path / "routed.npy", np.moveaxis(chosen, 1, 0))
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    given = ["import-routing", run.id, str(tmp_path / "routed.npy"), "--runs-dir", str(run.path.parent)]
    done = call(*given, "--text-file", str(tmp_path / "text.txt"), "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["same_choices"] == 1.0
    assert call(*given).exit_code == 2
