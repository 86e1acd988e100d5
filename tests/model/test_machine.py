"""What is computed with on this machine."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
