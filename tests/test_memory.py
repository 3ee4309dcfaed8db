"""What a process of the server has freed does not stay with it."""

import subprocess
import sys

import pytest

GIVES_BACK = """
import time
from pathlib import Path
from auditplane.http import memory

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

if {keeps}:
    memory.keep()
memory.GIVE_BACK_SECONDS = 0.5
held = [bytes([at % 256]) * 16_384 for at in range(8_000)]  # 125 MiB
most = resident_mib()
del held[::2]  # half of it, between what is in use
stayed = most - resident_mib()
memory.give_back_regularly()
deadline = time.monotonic() + 20
while (given := most - resident_mib()) < 40 and time.monotonic() < deadline:
    time.sleep(0.05)
print(stayed, given)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
@pytest.mark.parametrize("keeps", [False, True], ids=["the main process", "a worker"])
def test_what_is_free_is_given_back(keeps: bool) -> None:
    """Also between what is in use, where it would stay for good."""
    program = [sys.executable, "-c", GIVES_BACK.format(keeps=keeps)]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    stayed, given = map(int, ran.stdout.split())
    assert stayed < 5
    assert given >= 40
