"""bitsandbytes is imported where four bits are asked for and nowhere else, and fetches nothing when it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.tiny_corpus import write_corpus
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.load import load_base

CHECKOUT = Path(__file__).parents[2]

# A processor with AVX512-BF16 as bitsandbytes asks for it while it is imported.
PROCESSOR = """
import sys

class Processor:
    def find_spec(self, name, path=None, target=None):
        if name != "bitsandbytes.functional":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec
        spec = find_spec(name)
        run = spec.loader.exec_module
        def run_and_say_so(module):
            run(module)
            module.has_avx512bf16 = lambda: True
        spec.loader.exec_module = run_and_say_so
        return spec

sys.meta_path.insert(0, Processor())
"""
VERBS = """
import sys
from pathlib import Path
import torch
import lpr_lab as lab

folder = Path(sys.argv[1])
model, tokenizer = lab.load_base(folder / "base")
corpus = lab.load_corpus(str(folder / "corpus.jsonl"), languages=["en", "el"])
expanded = lab.upcycle(model, [1, 2])
settings = lab.TrainSettings(tokens=4 * 32, block_tokens=32)
lab.expand(expanded, tokenizer, corpus, languages=["el"], out=folder / "stage", settings=settings)
lab.evaluate(expanded, tokenizer, corpus, languages=["en", "el"], original=["en"])
lab.save_expansion(expanded, folder / "adapter")
opened = lab.load_expansion(folder / "adapter")
opened.generate(input_ids=torch.arange(5, 9)[None], max_new_tokens=2, do_sample=False)
lab.baselines.lora(lab.load_base(folder / "base")[0], rank=2)
"""
IN_FOUR_BITS = """
import sys
from pathlib import Path
import torch
import lpr_lab as lab

model, _ = lab.load_base(Path(sys.argv[1]) / "base", quantization="nf4", device="cpu")
with torch.no_grad():
    model(input_ids=torch.arange(5, 9)[None])
    lab.upcycle(model, [1, 2])(input_ids=torch.arange(5, 9)[None])
"""


def run(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter, where a failing one fails the test with what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), environment.pop("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def is_imported_after(code: str, *arguments: object, **environment: str) -> bool:
    done = run(f"{code}\nprint('bitsandbytes is imported:', 'bitsandbytes' in sys.modules)", *arguments, **environment)
    said, _, answer = done.stdout.rpartition("bitsandbytes is imported: ")
    assert "bitsandbytes" not in said + done.stderr and "kernel" not in said + done.stderr
    assert "Failed" not in done.stderr
    return {"True": True, "False": False}[answer.strip()]


@pytest.fixture
def folder(tiny_model, tiny_tokenizer, sentences, tmp_path):
    """A tiny base and texts for it."""
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    write_corpus(tmp_path / "corpus.jsonl", sentences, ("en", "el"))
    return tmp_path


@pytest.mark.slow
def test_no_verb_imports_it_unless_four_bits_are_asked_for(folder):
    assert not is_imported_after(VERBS, folder)
    assert is_imported_after(IN_FOUR_BITS, folder)


@pytest.mark.parametrize("command", [["--help"], ["runs", "list"], ["run", "--help"]])
def test_no_command_imports_it(command):
    code = "import sys; from lpr_lab.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass"
    assert not is_imported_after(code, *command)


@pytest.fixture
def fetcher(tmp_path):
    """A package `kernels` that leaves a trace where it is asked for a kernel, as the real one would ask the hub."""
    trace = tmp_path / "was asked"
    package = tmp_path / "packages" / "kernels.py"
    package.parent.mkdir()
    package.write_text(f"def get_kernel(*args, **options):\n    open({str(trace)!r}, 'w').close()\n    raise OSError\n")
    return package.parent, trace


@pytest.mark.slow
def test_four_bits_import_it_but_ask_nobody_for_a_kernel_and_alarm_nobody_on_any_processor(folder, fetcher):
    packages, trace = fetcher
    done = run(PROCESSOR + "import bitsandbytes", PYTHONPATH=str(packages))
    assert trace.exists() and "kernels-community" in done.stderr  # what bitsandbytes does by itself
    trace.unlink()
    for before in ("", "import kernels\n"):  # another library may have imported it
        assert is_imported_after(PROCESSOR + before + IN_FOUR_BITS, folder, PYTHONPATH=str(packages))
        assert not trace.exists()


@pytest.mark.slow
def test_it_counts_as_installed_again_after_peft_was_imported_without_it():
    code = "from lpr_lab.model import peft\nfrom peft.import_utils import is_bnb_available\nprint(is_bnb_available())"
    assert run(code).stdout.strip() == "True"


@pytest.mark.real
@pytest.mark.parametrize("processor", ["without", "with"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@torch.no_grad()
def test_smollm2_in_four_bits_starts_equal_to_its_base_also_after_it_was_run(processor, dtype):
    from helpers.pretend_avx512 import PROCESSORS

    with PROCESSORS[processor]():
        base, tokenizer = load_base("smollm2-135m", quantization="nf4", dtype=dtype, device="cpu")
        ids = tokenizer("Το παλιό ρολόι του σταθμού πάει πίσω.", return_tensors="pt")["input_ids"]
        expected = base(input_ids=ids).logits.float()
        model = upcycle(base, [1, 2] * 15)
        rounding = {torch.float32: 1e-5, torch.bfloat16: 4e-2}[dtype]
        assert (model(input_ids=ids).logits.float() - expected).abs().max() <= rounding * expected.abs().max()
        with model.disable_adapter():
            assert torch.equal(model(input_ids=ids).logits.float(), expected)
