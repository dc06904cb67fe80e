"""Free ports on loopback: the usual one where it is free, else the next above it, so that it can be guessed.

A port is claimed for a while by a file, so that two stacks that start at once do not choose the same one.
"""

import os
import socket
import time
from pathlib import Path

import psutil

from deployments.stack.exceptions import StackError

_TRIED = 200
_CLAIM_S = 300.0  # longer than a part takes to listen


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
        if is_free(port) and _claim(port):
            return port
    raise StackError(f"no free port among {usual} to {usual + _TRIED - 1}")


def _claim(port: int) -> bool:
    """Whether this process may have the port: nobody else alive claimed it in the last minutes."""
    folder = Path(f"/tmp/conclave-{os.getuid()}-ports")
    folder.mkdir(mode=0o700, exist_ok=True)
    claim = folder / str(port)
    try:
        claim.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        try:
            owner, age_s = claim.read_text(), time.time() - claim.stat().st_mtime
        except OSError:
            return False
        alive = not owner or (owner != str(os.getpid()) and psutil.pid_exists(int(owner)))
        if alive and age_s < _CLAIM_S:
            return False
    claim.write_text(str(os.getpid()))
    return True
