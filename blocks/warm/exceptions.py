"""What can go wrong with the hosts themselves; what a task raises is in its state."""

from __future__ import annotations


class AgentsUnavailable(Exception):
    """There is no Ray cluster at the address, it is gone, or none of its agent hosts answers."""
