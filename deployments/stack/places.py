"""Where the files of a stack are: data and logs under its home, sockets in a short directory of their own.

A unix socket's path ends at 108 bytes and a home may be longer than that, so the supervisor's socket and
Ray's session live in `/tmp/conclave-<user>-<digest of the home>`, which only its owner can enter.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.stack.exceptions import StackBusyError, StackError
from deployments.stack.models import StackRecord

_START = "---- conclave up"


@dataclass(frozen=True)
class Places:
    """The paths of the stack with this home (absolute, resolved)."""

    home: Path

    @classmethod
    def of(cls, home: str | Path) -> "Places":
        """The places of the stack with this home."""
        return cls(Path(home))

    @property
    def runtime(self) -> Path:
        """A short directory for sockets; the same for the same home, whoever asks."""
        digest = hashlib.sha256(str(self.home).encode()).hexdigest()[:10]
        return Path("/tmp") / f"conclave-{os.getuid()}-{digest}"

    @property
    def socket(self) -> Path:
        """The supervisor's socket."""
        return self.runtime / "supervisor.sock"

    @property
    def ray_sessions(self) -> Path:
        """Ray's temporary directory (sockets and session logs)."""
        return self.runtime / "ray"

    @property
    def config(self) -> Path:
        """The supervisor's generated configuration."""
        return self.home / "supervisord.conf"

    @property
    def nats_config(self) -> Path:
        """The generated configuration of nats-server."""
        return self.home / "nats.conf"

    @property
    def record(self) -> Path:
        """The state file."""
        return self.home / "stack.json"

    @property
    def ray_token(self) -> Path:
        """The token that Ray asks of everyone who connects."""
        return self.home / "ray_token"

    @property
    def prefect_home(self) -> Path:
        """Prefect's home: its database and profile."""
        return self.home / "prefect"

    def log(self, part: str) -> Path:
        """The log file of a part."""
        return self.home / "logs" / f"{part}.log"

    def create(self) -> None:
        """Make the directories and the Ray token, closed to others; raises `StackError` if it cannot."""
        for directory in (self.home, self.home / "logs", self.home / "nats", self.prefect_home, self.runtime):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StackError(f"cannot create {directory}: {error.strerror}") from error
        found = self.runtime.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise StackError(f"{self.runtime} is not a directory that only you can enter; remove it")
        if not self.ray_token.exists():
            write_private(self.ray_token, secrets.token_hex(32))

    def clear_runtime(self) -> None:
        """Remove the sockets and the Ray sessions of an earlier stack."""
        for entry in self.runtime.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def load_record(self) -> StackRecord | None:
        """What was remembered of a stack that was started here, or None."""
        try:
            return StackRecord.model_validate_json(self.record.read_text())
        except (FileNotFoundError, ValueError):
            return None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, at once or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def mark_log(path: Path) -> None:
    """Write a line that says that a new start begins here."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
        file.write(f"{_START} {time.strftime('%Y-%m-%d %H:%M:%S')}\n")


def log_tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log since the last start, indented, of at most 16 kB; empty if there are none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    recent = text.rpartition(_START)[2].splitlines()[1:] if _START in text else text.splitlines()
    return "\n".join(f"    {line}" for line in recent[-lines:])


@contextmanager
def writable(places: Places) -> Iterator[None]:
    """Raise `StackError` that names the home and the cause, such as a full disk, where a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise StackError(f"cannot write to {places.home}: {error.strerror or error}") from error


@contextmanager
def locked(places: Places, timeout_s: float, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the home's lock (it falls with the process); raises `StackBusyError` after the timeout."""
    started, told = time.monotonic(), False
    with (places.home / "lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > started + timeout_s:
                    raise StackBusyError(f"another up or down is at work in {places.home}") from None
                if not told:
                    report(f"waiting for another up or down in {places.home}")
                    told = True
                time.sleep(0.1)
        yield
