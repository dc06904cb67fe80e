"""Garbage collection in a process that has loaded a lot and then works for long."""

from __future__ import annotations

import gc

YOUNG = 50_000
"""New objects after which the youngest are looked through; Python's own 700 take a twentieth of our work's time."""


def spare_what_is_loaded() -> None:
    """Look through what is loaded by now no more: it stays, and each time would hold up all work for 0.1 s.

    Once in a process: what is under way later is no part of what is loaded.
    """
    if gc.get_freeze_count():
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
