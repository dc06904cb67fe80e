"""Free ports on loopback: the usual one where it is free, else the next above it, so that it can be guessed.

A port is claimed for a while by a file, so that two stacks that start at once do not choose the same one.
"""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import psutil

from deployments.stack.exceptions import StackError
from deployments.stack.places import is_private, write_private

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
    folder = _claims()
    if folder is None:
        return True
    claim, mine = folder / str(port), folder / f".{port}.{os.getpid()}"
    write_private(mine, str(os.getpid()))
    try:
        claim.hardlink_to(mine)
    except FileExistsError:
        if _held(claim):
            return False
        mine.replace(claim)
    finally:
        mine.unlink(missing_ok=True)
    return True


def _claims() -> Path | None:
    """A folder for claims that nobody else can write to; without one, claims are done without."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and is_private(Path(given)):
        folder = Path(given) / "conclave-ports"
    else:
        folder = Path(f"/tmp/conclave-{os.getuid()}-ports")
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder if is_private(folder) else None


def _held(claim: Path) -> bool:
    try:
        owner, age_s = int(claim.read_text()), time.time() - claim.lstat().st_mtime
        return age_s < _CLAIM_S and owner != os.getpid() and psutil.pid_exists(owner)
    except (OSError, ValueError, OverflowError):
        return False
