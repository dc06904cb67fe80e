"""Supervisor as our process supervisor: its generated configuration, its start, and a client of its XML-RPC.

Everything that parts need to know reaches them through their environment: `supervisord`'s, and the file
`environment/PART` that each part's shell reads. All paths are relative to the home that it runs in. So the
configuration holds no secret and needs no quoting of whatever a home may be called. The client is xmlrpc's own over a
unix socket, with a timeout.
"""

import http.client
import re
import shlex
import socket
import subprocess
import sys
import xmlrpc.client
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.stack.exceptions import SupervisorError
from deployments.stack.models import PartState
from deployments.stack.parts import PART_NAMES, Part
from deployments.stack.paths import RUNTIME, StackPaths, write_private

_STATES: dict[str, PartState] = {
    "RUNNING": "running",
    "STARTING": "starting",
    "STOPPING": "stopped",
    "STOPPED": "stopped",
    "BACKOFF": "failed",
    "EXITED": "failed",
    "FATAL": "failed",
}
_SPAWNED = re.compile(r"INFO spawned: '([^']+)' with pid")
_WITH_ITS_ENVIRONMENT = (
    'set -a; . "environment/$0"; set +a; '
    f'[ -d "${RUNTIME}" ] && command -v flock >/dev/null && exec 9<"${RUNTIME}" && flock -x -n 9; '
    'exec "$@"'
)
"""Runs a part. The lock on the directory for sockets, which falls with the part, keeps systemd-tmpfiles from all that
is below it (tmpfiles.d(5)), such as Ray's session: it removes what nobody has touched for ten days."""
_RPC_TIMEOUT_S = 5.0
_DAEMON_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Supervised:
    """A part as its supervisor sees it; `reason` is why it does not run."""

    state: PartState
    pid: int | None
    reason: str | None
    uptime_s: float | None = None


def configuration(parts: list[Part], paths: StackPaths) -> str:
    """The text of the supervisor's configuration for the parts that are ours."""
    sections = [_DAEMON.format(socket=_escaped(str(paths.socket)))]
    sections += [_program(part) for part in parts if part.command is not None]
    return "\n".join(sections)


_DAEMON = """\
[supervisord]
logfile=logs/supervisord.log
logfile_maxbytes=5MB
logfile_backups=1
pidfile=supervisord.pid
umask=077
strip_ansi=true

[unix_http_server]
file={socket}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""


def _program(part: Part) -> str:
    command = ("sh", "-c", _WITH_ITS_ENVIRONMENT, part.name, *(part.command or ()))
    if part.nice:
        command = ("nice", "-n", str(part.nice), *command)
    return f"""\
[program:{part.name}]
command={_escaped(shlex.join(command))}
priority={PART_NAMES.index(part.name)}
autostart=false
autorestart=true
startsecs={part.steady_s}
startretries=1000
stopwaitsecs={part.stop_s}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=logs/{part.name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def start_supervisor(parts: list[Part], paths: StackPaths, environ: dict[str, str]) -> None:
    """Start the supervisor as a daemon in a session of its own; raises `SupervisorError` if it refuses."""
    write_private(paths.config, configuration(parts, paths))
    command = [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(paths.config)]
    try:
        done = subprocess.run(
            command,
            cwd=paths.home,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DAEMON_TIMEOUT_S,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise SupervisorError(f"supervisord did not start within {_DAEMON_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        raise SupervisorError(f"supervisord did not start: {(done.stderr or done.stdout).strip()}")


class Supervisor:
    """A client of the supervisor that listens on this socket; every call raises `SupervisorError`."""

    def __init__(self, path: Path) -> None:
        """Connect at the first call."""
        self._server = xmlrpc.client.ServerProxy("http://localhost", transport=_UnixTransport(path))

    def pid(self) -> int:
        """Its own process id."""
        return int(self._call("getPID"))

    def parts(self) -> dict[str, Supervised]:
        """All parts, by name."""
        return {info["name"]: _supervised(info) for info in self._call("getAllProcessInfo")}

    def start(self, part: str) -> None:
        """Start a part, without waiting for it."""
        self._call("startProcess", part, False)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._server.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as error:
            raise SupervisorError(f"{method}{arguments}: {error.faultString}") from error
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise SupervisorError(f"the supervisor does not answer: {error}") from error


def restarts(paths: StackPaths) -> Counter[str]:
    """How often each part was started again since the supervisor's own start, as its log tells."""
    starts: Counter[str] = Counter()
    try:
        with paths.log("supervisord").open(errors="replace") as file:
            for line in file:
                if "supervisord started with pid" in line:
                    starts.clear()
                elif spawned := _SPAWNED.search(line):
                    starts[spawned[1]] += 1
    except OSError:
        return Counter()
    return Counter({name: count - 1 for name, count in starts.items()})


def _supervised(info: dict[str, Any]) -> Supervised:
    state = _STATES.get(info["statename"], "failed")
    reason = (info["spawnerr"] or info["description"] or None) if state in ("failed", "stopped") else None
    if reason and info["statename"] == "STOPPED":
        reason = f"stopped: {reason}"  # all that is told is when
    uptime_s = float(max(0, info["now"] - info["start"])) if state == "running" else None
    return Supervised(state, info["pid"] or None, reason, uptime_s)


class _UnixTransport(xmlrpc.client.Transport):
    """xmlrpc's HTTP transport over a unix socket; as ever it retries a kept connection that was closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, _host: object) -> http.client.HTTPConnection:
        return _UnixConnection(self._path)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_RPC_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_RPC_TIMEOUT_S)
        self.sock.connect(str(self._path))
