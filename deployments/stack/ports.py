"""Free ports on loopback: the usual one where it is free, else the next above it, so that it can be guessed.

Nothing is reserved: two stacks that start in the same instant can choose the same port, and one of them
then fails with its part's own message.
"""

import socket

from deployments.stack.exceptions import StackError

_TRIED = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now (one on all addresses takes it, too)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(usual: int) -> int:
    """The usual port, or the first free one of the 200 from there; raises `StackError` if all are taken."""
    for port in range(usual, min(usual + _TRIED, 65536)):
        if is_free(port):
            return port
    raise StackError(f"no free port among {usual} to {usual + _TRIED - 1}")
