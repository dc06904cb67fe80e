"""Free ports on loopback: the usual one where it is free, else the next above it, so that it can be guessed.

A port is claimed by a file that names a process, for as long as that process lives: the `up` that chose it, then the
stack's supervisor. So two stacks that start at once do not choose the same one, and the port of a part that is away for
a moment, or is started again, stays its own.
"""

import fcntl
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from deployments.stack.exceptions import NoAnswerError, StackError
from deployments.stack.paths import is_private, write_private

_TRIED = 200
_LOCK_S = 5.0
_LISTENERS = (
    (Path("/proc/net/tcp"), "0100007F"),  # 127.0.0.1
    (Path("/proc/net/tcp"), "00000000"),
    (Path("/proc/net/tcp6"), "0000000000000000FFFF00000100007F"),
    (Path("/proc/net/tcp6"), "0" * 32),
)
"""Where Linux lists who would be given a connection to 127.0.0.1, the first one first (proc_pid_net(5))."""
_LISTEN = "0A"
_CLOCKS_S = 60.0  # by how much a file's time and a process's start may disagree


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


def refuse_stranger(url: str) -> None:
    """Raise `NoAnswerError` where another user listens at a loopback port of ours: it would be sent our key.

    A part that was killed leaves its port to anybody until it is started again. Root may listen: it reads our keys
    anyway. Where the system does not list its listeners, nothing is refused.
    """
    port = urlsplit(url if "//" in url else f"//{url}").port
    user = None if port is None or is_free(port) else _listener(port)  # free: who listens there has another address
    if user not in (None, 0, os.geteuid()):
        raise NoAnswerError(f"another user (uid {user}) listens at port {port} of this stack, and is not told its key")


def _listener(port: int) -> int | None:
    """The id of the user who listens at a loopback port."""
    for path, address in _LISTENERS:
        with suppress(OSError):
            for line in path.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1] == f"{address}:{port:04X}" and fields[3] == _LISTEN:
                    return int(fields[7])
    return None


def pass_on_claims(heir: int) -> None:
    """Let what this process has claimed be claimed by another one, which lives longer."""
    folder, own = _claims(), str(os.getpid())
    if folder is None:
        return
    with _one_at_a_time(folder):
        for claim in folder.iterdir():
            if claim.name.isdigit() and _owner(claim) == own:
                write_private(claim, str(heir))


def _claim(port: int) -> bool:
    """Whether this process may have the port: nobody else alive has claimed it."""
    folder = _claims()
    if folder is None:
        return True
    with _one_at_a_time(folder):  # two at once would both replace the claim of a process that is gone
        claim = folder / str(port)
        if _held(claim):
            return False
        write_private(claim, str(os.getpid()))
        return True


@contextmanager
def _one_at_a_time(folder: Path) -> Generator[None, None, None]:
    """Lock a folder, until this process ends at the latest; after some seconds it is done without."""
    opened, until = os.open(folder, os.O_RDONLY | os.O_DIRECTORY), time.monotonic() + _LOCK_S
    try:
        while time.monotonic() < until:
            with suppress(BlockingIOError):
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.01)
        yield
    finally:
        os.close(opened)


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


def _owner(claim: Path) -> str:
    try:
        return claim.read_text()
    except (OSError, ValueError):
        return ""


def _held(claim: Path) -> bool:
    """Whether it is another's who is alive.

    A process that began after the claim only has the number of the one; one that has ended may wait to be reaped.
    """
    try:
        owner, claimed = int(_owner(claim)), claim.lstat().st_mtime
        process = psutil.Process(owner)
        alive = process.status() != psutil.STATUS_ZOMBIE and process.create_time() < claimed + _CLOCKS_S
        return owner != os.getpid() and alive
    except (OSError, ValueError, OverflowError, psutil.Error):
        return False
