"""What is computed with on this machine."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lpr_lab import processors
from lpr_lab.errors import UsageError
from lpr_lab.model import machine

ASK = """
import ctypes, sys, torch
threads = torch.get_num_threads()
import lpr_lab.model.machine
assert torch.get_num_threads() == threads
print(ctypes.CDLL(sys.argv[1]).mkl_serv_get_dynamic())
"""


@pytest.mark.slow
def test_mkl_does_not_choose_another_number_of_threads_when_the_machine_is_busy():
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not (library.exists() and hasattr(ctypes.CDLL(str(library)), "mkl_serv_get_dynamic")):
        pytest.skip("this build of torch has no MKL")
    answer = subprocess.run([sys.executable, "-c", ASK, str(library)], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "0"


def test_a_base_is_held_in_the_precision_that_is_computed_in_unless_somebody_says_otherwise():
    assert machine.resolve_base_dtype("auto", "fp32") == torch.float32
    assert machine.resolve_base_dtype("auto", "bf16") == torch.bfloat16
    assert machine.resolve_base_dtype("float32", "bf16") == torch.float32
    assert machine.resolve_base_dtype("bfloat16", "fp32") == torch.bfloat16
    with pytest.raises(UsageError, match="bfloat17"):
        machine.resolve_base_dtype("bfloat17")


@pytest.mark.parametrize(
    ("vendor", "avx512_bf16", "amx", "expected"),
    [
        ("AuthenticAMD", True, False, "bf16"),
        ("AuthenticAMD", False, False, "fp32"),
        ("GenuineIntel", True, True, "bf16"),
        ("GenuineIntel", True, False, "fp32"),
        ("GenuineIntel", False, False, "fp32"),
    ],
)
def test_auto_is_what_a_processor_is_quicker_with_not_what_it_can(
    monkeypatch, tmp_path, vendor, avx512_bf16, amx, expected
):
    facts = tmp_path / "cpuinfo"
    facts.write_text(f"vendor_id\t: {vendor}\nmodel name\t: A processor\n")
    monkeypatch.setattr(processors, "_FACTS", facts)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert machine.resolve_precision("auto") == expected
    assert machine.resolve_precision("bf16") == "bf16", "who asks for it gets it"


@pytest.mark.parametrize(
    ("avx2", "avx512_bf16", "amx", "slowdown", "expected"),
    [
        (True, False, False, 1.0, True),  # whatever a busy machine would say of it
        (True, True, False, 20.0, False),
        (True, False, True, 20.0, False),
        (False, False, False, 20.0, True),  # not asked for there: timed
        (False, False, False, 1.5, False),
    ],
)
def test_whether_a_processor_is_slow_in_bf16_is_asked_of_it_and_timed_where_it_cannot_tell(
    monkeypatch, avx2, avx512_bf16, amx, slowdown, expected
):
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: avx2)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(machine, "bf16_slowdown", lambda: slowdown)
    for has_gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        assert machine.bf16_is_slow() == (expected and not has_gpu)


def test_bf16_is_timed_against_fp32_and_not_guessed_from_names():
    assert 0.01 < machine.bf16_slowdown() < 1000
    has = processors.processor_flags()
    if has and not has["avx512f"] and not has["amx_bf16"] and not torch.cuda.is_available():
        assert machine.bf16_slowdown() > 3, "AVX2 alone multiplies numbers in bf16 one by one"
