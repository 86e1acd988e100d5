"""What is freed on a processor is used again: the system need not clear the same pages at every step."""

import subprocess
import sys

import pytest

LARGE = 64 * 2**20

CODE = f"""
import resource, torch
from pathlib import Path
from lpr_lab.model.machine import keep_freed_memory

def faults_of_ten():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones({LARGE}, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

faults_of_ten()
without = faults_of_ten()
with keep_freed_memory():
    with keep_freed_memory():
        faults_of_ten()
    kept, held = faults_of_ten(), resident()
print(without, kept, held - resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the GNU C library")
def test_freed_memory_is_used_again_as_long_as_a_block_lasts_and_given_back_at_its_end():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    without, kept, given_back = map(int, done.stdout.split())
    assert kept * 20 < without
    assert given_back > LARGE // 2
