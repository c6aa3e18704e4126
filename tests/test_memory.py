"""Freed memory is returned to the system between jobs."""

import subprocess
import sys

import pytest

RELEASE = """
import re
from deeprank.memory import keep_freed_memory, release_freed_memory

def rss_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1000

assert keep_freed_memory()
before = rss_mb()
blocks = [bytearray(1_000_000) for _ in range(300)]
del blocks
freed = rss_mb()
release_freed_memory()
print(before, freed, rss_mb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_returned_between_jobs() -> None:
    output = subprocess.run([sys.executable, "-c", RELEASE], capture_output=True, text=True, check=True).stdout
    before, freed, released = map(int, output.split())
    assert freed > before + 250
    assert released < before + 100
