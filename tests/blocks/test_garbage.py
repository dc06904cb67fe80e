"""What is loaded is no garbage to look for, in a process of its own: the tests' has spared theirs already."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from blocks.warm.garbage import THRESHOLDS, spare_what_is_loaded
spare_what_is_loaded()
spared = gc.get_freeze_count()
later = [[] for _ in range(1000)]
spare_what_is_loaded()
assert gc.get_freeze_count() <= spared > 1000, "what came later is looked through"
assert gc.get_threshold() == THRESHOLDS
cycle = []
cycle.append(cycle)
del cycle
assert gc.collect() > 0, "and garbage is still found"
"""


def test_what_is_loaded_is_spared_once() -> None:
    """Garbage that comes later is found as before."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
