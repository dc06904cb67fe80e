"""Where the files of a stack are: data and logs under its home, sockets in a short directory of their own.

A unix socket's path ends at 108 bytes and a home may be longer than that, so the supervisor's socket and
Ray's session live in `/tmp/conclave-<user>-<digest of the home>`, which only its owner can enter. Where somebody else
has made that one first, the home notes another, whose name nobody could know.

Every door of the stack has a key: a file of the home, made once, that only its owner can read.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from deployments.stack.exceptions import StackBusyError, StackError, StackRecordError
from deployments.stack.models import NEEDED, StackRecord
from tasks.access.texts import new_text

_START = "---- conclave up"
_PRIVATE = 0o077
PREFECT_USER = "conclave"
SHORTEST_KEY = 32
"""Characters; ours have twice as many."""
NATS_ACCOUNT = "CONCLAVE"
_TEMPORARY = "/tmp"
RUNTIME = "CONCLAVE_STACK_RUNTIME"
"""Variable with the directory for sockets, for the shells that start parts."""


@dataclass(frozen=True)
class StackPaths:
    """The paths of the stack with this home (absolute, resolved)."""

    home: Path

    @classmethod
    def of(cls, home: str | Path) -> "StackPaths":
        """The paths of the stack with this home."""
        return cls(Path(home))

    @property
    def runtime(self) -> Path:
        """A short directory for sockets; the same for the same home, whoever asks."""
        digest = hashlib.sha256(str(self.home).encode()).hexdigest()[:10]
        usual = Path(_TEMPORARY) / f"conclave-{os.getuid()}-{digest}"
        try:
            return Path((self.home / "runtime").read_text().strip() or usual)
        except OSError:
            return usual

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
    def prefect_auth(self) -> Path:
        """What Prefect asks of everyone, as `user:password`."""
        return self.home / "prefect_auth"

    @property
    def nats_password(self) -> Path:
        """The password of NATS' user for our own parts."""
        return self.home / "nats_password"

    @property
    def events_password(self) -> Path:
        """The password of NATS' user for publishers and listeners outside."""
        return self.home / "nats_events_password"

    @property
    def llm_key(self) -> Path:
        """What a model server of ours asks for, where its user gave no key."""
        return self.home / "llm_key"

    @property
    def token(self) -> Path:
        """The token of the gateway, with all rights, for whoever owns the home."""
        return self.home / "token"

    @property
    def gateway_list(self) -> Path:
        """The gateway's list of deliberations, which can be made anew."""
        return self.home / "gateway.sqlite"

    @property
    def keys(self) -> tuple[Path, ...]:
        """The files of all keys."""
        first = self.nats_password, self.events_password, self.llm_key
        return *first, self.prefect_auth, self.ray_token, self.token

    def digests(self) -> dict[str, str]:
        """What tells by the name of its file whether a key is another one than before; it does not tell the key."""
        found = {path.name: read_key(path) or "" for path in self.keys}
        return {name: hashlib.sha256(key.encode()).hexdigest()[:16] for name, key in found.items()}

    @property
    def environments(self) -> Path:
        """A file for each part, with the variables that it gets."""
        return self.home / "environment"

    @property
    def prefect_home(self) -> Path:
        """Prefect's home: its database and profile."""
        return self.home / "prefect"

    def log(self, part: str) -> Path:
        """The log file of a part."""
        return self.home / "logs" / f"{part}.log"

    def create(self) -> None:
        """Make the directories and the keys, closed to others; raises `StackError` if it cannot."""
        for directory in (self.home, self.home / "logs", self.home / "nats", self.prefect_home, self.environments):
            _make_private(directory)
        for entry in (*self.home.iterdir(), *(self.home / "logs").iterdir()):
            if entry.is_file() and not entry.is_symlink():
                entry.chmod(0o600)
        self._make_runtime()
        for key in self.keys:
            if not _is_whole(read_key(key)):
                write_private(key, self._new_key(key))

    def _new_key(self, key: Path) -> str:
        if key == self.token:
            return new_text()
        user = f"{PREFECT_USER}:" if key == self.prefect_auth else ""
        return f"{user}{secrets.token_hex(32)}"

    def _make_runtime(self) -> None:
        """Make the directory for sockets; another one where the usual one is somebody else's."""
        with suppress(OSError):
            self.runtime.mkdir(mode=0o700, exist_ok=True)
        if not is_private(self.runtime):
            made = tempfile.mkdtemp(prefix=f"conclave-{os.getuid()}-", dir=_TEMPORARY)
            write_private(self.home / "runtime", made)

    def clear_runtime(self) -> None:
        """Remove the sockets and the Ray sessions of an earlier stack."""
        for entry in self.runtime.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def adopt_record(self) -> None:
        """Let what NATS kept before it had accounts belong to ours."""
        before, after = self.home / "nats/jetstream/$G", self.home / "nats/jetstream" / NATS_ACCOUNT
        if before.is_dir() and not after.exists():
            before.replace(after)

    def load_record(self) -> StackRecord | None:
        """What was remembered of a stack that was started here, or None.

        Raises StackError where the home cannot be read, StackRecordError where what stands there cannot be used.
        """
        try:
            text = self.record.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StackError(f"cannot read the home {self.home}: {error.strerror or error}") from error
        try:
            record = StackRecord.model_validate_json(text)
        except ValidationError as error:
            raise self._unusable(_problem(error) if text.strip() else "it is empty") from None
        missing = [part for part in NEEDED if part not in record.parts]
        if missing:
            raise self._unusable(f"it does not say where {', '.join(missing)} is")
        return record

    def _unusable(self, why: str) -> StackRecordError:
        then = "`conclave up` ends what it was about and starts the stack anew; the data stays"
        return StackRecordError(f"{self.record} cannot be used: {why}; {then}")


def _problem(error: ValidationError) -> str:
    """The first thing that is wrong with a record, without anything of its values, among which are keys."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return "it is no JSON"
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _is_whole(key: str | None) -> bool:
    """Whether a key is one that nobody guesses; a file that was cut off has a short one."""
    return key is not None and len(key.rpartition(":")[2]) >= SHORTEST_KEY and key.isprintable()


def is_private(directory: Path) -> bool:
    """Whether this is a directory, no link to one, that only its owner, the caller, can enter."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & _PRIVATE


def _make_private(directory: Path) -> None:
    """Make the directory, or close one that is there; raises `StackError` if it is somebody else's."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_uid != os.getuid():  # a link is ours too, since nobody else enters the home
            raise StackError(f"{directory} belongs to somebody else")
        directory.chmod(0o700)
    except OSError as error:
        raise StackError(f"cannot create {directory}: {error.strerror}") from error


def read_key(path: Path) -> str | None:
    """The key in this file, or None."""
    try:
        return path.read_text().strip() or None
    except (OSError, ValueError):
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
def private_files() -> Iterator[None]:
    """Let whatever this process writes meanwhile be closed to others."""
    before = os.umask(_PRIVATE)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def writable(paths: StackPaths) -> Iterator[None]:
    """Raise `StackError` that names the home and the cause, such as a full disk, where a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise StackError(f"cannot write to {paths.home}: {error.strerror or error}") from error


@contextmanager
def locked(paths: StackPaths, timeout_s: float, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the home's lock (it falls with the process); raises `StackBusyError` after the timeout."""
    started, told = time.monotonic(), False
    with os.fdopen(os.open(paths.home / "lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > started + timeout_s:
                    raise StackBusyError(f"another up or down is at work in {paths.home}") from None
                if not told:
                    report(f"waiting for another up or down in {paths.home}")
                    told = True
                time.sleep(0.1)
        yield
