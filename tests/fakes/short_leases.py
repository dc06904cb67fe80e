"""Leases that run out soon, so that a test need not wait for seconds."""

from __future__ import annotations

import pytest


def shorten_leases(patch: pytest.MonkeyPatch, lease_s: float) -> None:
    """Let leases last so long, also on the server that is connected to next, and be renewed and asked for in time."""
    import blocks.record.leases
    import blocks.record.server

    for module in (blocks.record.server, blocks.record.leases):
        patch.setattr(module, "LEASE_S", lease_s)
    patch.setattr(blocks.record.leases, "RENEW_S", lease_s / 5)
    patch.setattr(blocks.record.leases, "WAIT_S", lease_s / 20)
