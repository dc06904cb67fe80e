"""Garbage collection in a process that has loaded a lot and then works for long."""

from __future__ import annotations

import gc

THRESHOLDS = (20_000, 5, 5)
"""New objects after which the youngest are looked through, and how often that is done before the older ones are.

Python's own are 700, 10 and 10. The first takes a twentieth of our work's time; with the others as they are, garbage
among many times as many objects would wait.
"""


def spare_what_is_loaded() -> None:
    """Look through what is loaded by now no more: it stays, and each time would hold up all work for 0.1 s.

    Once in a process: what is under way later is no part of what is loaded.
    """
    if gc.get_freeze_count():
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
