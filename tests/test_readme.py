"""The README's example runs as it stands, on a small model in the place of the embedded one."""

import re
from pathlib import Path

import lpr_lab.model.bases.load
import lpr_lab.text.load
from helpers.tiny_corpus import TinyCorpus

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
# What makes it small; each text must be there to be replaced.
SMALLER = {
    "num_layers=30": "num_layers=2",
    'out="runs/mine/expand")': 'out="runs/mine/expand", settings=small)',
    'out="runs/mine/review")': 'out="runs/mine/review", settings=small)',
    "import lpr_lab as lab\n": "import lpr_lab as lab\nsmall = lab.TrainSettings(tokens=1024, block_tokens=64)\n",
}


def test_the_example_in_the_readme_runs(monkeypatch, tmp_path, tiny_model, tiny_tokenizer, sentences):
    (example,) = re.findall(r"```python\n(import lpr_lab as lab\n.*?)```", README, flags=re.DOTALL)
    for text, smaller in SMALLER.items():
        assert text in example
        example = example.replace(text, smaller)
    monkeypatch.setattr(lpr_lab.model.bases.load, "load_base", lambda name: (tiny_model(), tiny_tokenizer))
    monkeypatch.setattr(
        lpr_lab.text.load, "load_corpus", lambda name, languages: TinyCorpus(sentences, tuple(languages))
    )
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["trace"].tokens
    assert set(names["report"].to_frame()["model"]) == {"base", "expanded"}
