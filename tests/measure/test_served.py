"""Files of servers are read as they were written, or refused by name."""

import base64
import json

import numpy as np
import pytest

from lpr_lab.errors import UsageError
from lpr_lab.measure.served import read_served

CHOSEN = np.random.default_rng(0).permuted(np.tile(np.arange(4), (3, 7, 1)), axis=2)[:, :, :2]
"""Of 3 layers, 7 tokens, the best 2 of 4 experts."""


def write(folder, kind: str, chosen=CHOSEN, passes=(4, 1, 1, 1)):
    """Write a file as each server does."""
    by_token = np.moveaxis(chosen, 1, 0)
    if kind == "vLLM":
        np.save(folder / "routed.npy", by_token.astype(np.int32))
        return folder / "routed.npy"
    if kind == "SGLang":
        coded = base64.b64encode(by_token.astype("<i4").tobytes()).decode()
        (folder / "answer.json").write_text(json.dumps({"text": "…", "meta_info": {"routed_experts": coded}}))
        return folder / "answer.json"
    lines, start = ["layer,expert"], 0
    for tokens in passes:
        for layer, own in enumerate(chosen):
            lines += [f"{layer},{expert}" for expert in own[start : start + tokens].ravel()]
        start += tokens
    (folder / "trace.csv").write_text("\n".join(lines) + "\n")
    return folder / "trace.csv"


@pytest.mark.parametrize("kind", ["vLLM", "SGLang", "llama.cpp"])
def test_what_was_chosen_comes_back_whatever_the_passes_were(kind, tmp_path):
    assert (read_served(write(tmp_path, kind), layers=3, top_k=2) == CHOSEN).all()


@pytest.mark.parametrize("kind", ["vLLM", "SGLang", "llama.cpp"])
def test_a_file_of_another_model_is_refused(kind, tmp_path):
    file = write(tmp_path, kind)
    for layers, top_k in ((5, 2), (3, 4)):
        with pytest.raises(UsageError, match=file.name):
            read_served(file, layers, top_k)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", b"not an array"),
        ("a.json", b"{}"),
        ("a.json", b'{"meta_info": {"routed_experts": "%%%"}}'),
        ("a.json", b'{"meta_info": []}'),
        ("a.csv", b"layer,expert\n0,1\n0,x\n"),
        ("a.csv", b"layer,expert\n0,1\n0,2\n1,0\n"),
        ("a.csv", b""),
        ("a.csv", b"layer,expert\n"),
        ("a.txt", b"0"),
    ],
)
def test_what_is_none_of_these_is_refused_by_name(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        read_served(tmp_path / name, 3, 2)
    with pytest.raises(UsageError, match="absent"):
        read_served(tmp_path / "absent.npy", 3, 2)


def test_no_pickle_is_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[{}]]], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="array"):
        read_served(tmp_path / "a.npy", 1, 1)
