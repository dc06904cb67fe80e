"""What variables each part gets: those that it needs, and no more.

The operator's own environment holds keys of all kinds. So a part is given names from a list, and each secret only
where it is asked for or asked with. The values stand in a file for each part, `environment/PART` in the home, that the
part's shell reads: neither the supervisor's environment nor a command line holds a secret.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import deployments
from blocks import names
from deployments.settings import Settings
from deployments.stack import processes
from deployments.stack.models import StackRecord
from deployments.stack.observation import MAX_PARAMETERS, environment, status
from deployments.stack.parts import GATEWAY, WORKER, model_key
from deployments.stack.paths import RUNTIME, StackPaths, read_key, write_private
from deployments.stack.proxies import without_socks

STARTS_ON_POSTGRESQL = 16
"""Flow runs that a worker starts at the same moment where Prefect's database is no SQLite."""
LEASES_OF_LIMITS = "prefect.server.concurrency.lease_storage.filesystem"
"""Where Prefect keeps the slots of a deployment's concurrency limit: in memory, its default, a restart forgets them and
a run that holds one is ended when it renews it."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Names:
    """Names of variables: in full, or where they end in `*` their beginnings; what `but` names is not among them."""

    names: tuple[str, ...]
    but: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        return _among(name, self.names) and not _among(name, self.but)

    def of(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables of an environment with one of these names, but for those that no shell takes as a name."""
        return {name: value for name, value in environ.items() if name in self and _NAME.fullmatch(name)}


def _among(name: str, patterns: tuple[str, ...]) -> bool:
    return any(_matches(name, pattern) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return name == pattern


BASE = Names(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_*"),
        *("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONHASHSEED", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD"),
        *("OPENBLAS_*", "OMP_*", "MKL_*", "MALLOC_*", "SSL_CERT_*"),
    )
)
_OUT = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_GOES_OUT = (*_OUT, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_GPU = ("CUDA_*", "NVIDIA_*", "ROCR_*", "HIP_*")
_PREFECTS_SECRETS = ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY")
_MODEL = ("HF_*", "HUGGING*", "TRANSFORMERS_*", "TORCH*", "NCCL_*", "TRITON_*", "TOKENIZERS_*", "DO_NOT_TRACK")
_WORKERS = ("PREFECT_*", "RAY_*", "CONCLAVE_*", "DELIBERATION_*", "GRPC_*", "DO_NOT_TRACK")
_NOT_A_WORKERS = (
    *("CONCLAVE_LLM_API_KEY", "CONCLAVE_PREFECT_DATABASE", "CONCLAVE_TOKEN*", "CONCLAVE_URL", processes.MARK),
    *("PREFECT_SERVER_API_AUTH_*", "PREFECT_SERVER_DATABASE_*", "PREFECT_API_DATABASE_*", "PREFECT_SERVER_DOCKET_*"),
)
INHERITED = {
    "nats": Names(()),
    "simulator": Names(()),
    GATEWAY: Names(("CONCLAVE_HOSTS", "CONCLAVE_RATE", "CONCLAVE_QUEUE", "CONCLAVE_PUBLIC_URL", "CONCLAVE_CALLBACK_*")),
    "llm": Names(("VLLM_*", *_GPU, *_MODEL, *_GOES_OUT), but=("VLLM_URL", "VLLM_MODEL", "VLLM_API_KEY")),
    "prefect": Names(("PREFECT_*",), but=(*_PREFECTS_SECRETS, "PREFECT_SERVER_API_CORS_*", "PREFECT_SERVER_CORS_*")),
    "ray": Names(("RAY_*", *_GPU, *_GOES_OUT)),
    WORKER: Names((*_WORKERS, *_GOES_OUT), but=_NOT_A_WORKERS),
}
"""What a part gets of the operator's own environment beside the base."""


def supervisors_environment(settings: Settings) -> dict[str, str]:
    """What supervisord gets, and with it every part: nothing secret, and the mark that its processes are found by."""
    root = str(Path(deployments.__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {
        **BASE.of(os.environ),
        processes.MARK: str(settings.home),
        RUNTIME: str(StackPaths.of(settings.home).runtime),
        "PYTHONPATH": search,
        "PYTHONUNBUFFERED": "1",
    }


def write_environments(settings: Settings, paths: StackPaths, record: StackRecord) -> None:
    """Write what each part of ours gets beside that."""
    own: dict[str, Callable[[], dict[str, str]]] = {
        "nats": dict,
        GATEWAY: lambda: _gateway(settings, paths, record),
        "llm": lambda: _llm(settings, paths),
        "prefect": lambda: _prefect(settings, paths, record),
        "ray": lambda: _ray(settings),
        WORKER: lambda: _worker(settings, record),
    }
    secrets = _webhooks(settings)
    for name, part in record.parts.items():
        if not part.external:
            names_of = INHERITED["simulator" if name == "llm" and record.simulated else name]
            inherited = names_of.of(without_socks(os.environ))
            inherited = {key: value for key, value in inherited.items() if key not in secrets}
            if not record.parts["prefect"].external:
                inherited.pop("PREFECT_API_KEY", None)  # it is for another Prefect
            lines = [f"{key}={shlex.quote(value)}\n" for key, value in (inherited | own[name]()).items()]
            write_private(paths.environments / name, "".join(sorted(lines)))


def _gateway(settings: Settings, paths: StackPaths, record: StackRecord) -> dict[str, str]:
    return {
        **_webhooks(settings).of(os.environ),
        "CONCLAVE_WEBHOOKS": str(settings.webhooks or ""),  # absolute: parts run in the home
        "NATS_URL": record.parts["nats"].url,
        "CONCLAVE_GATEWAY": settings.gateway or urlsplit(record.parts[GATEWAY].url).netloc,
        "CONCLAVE_GRPC": record.parts[GATEWAY].grpc or "",
        "CONCLAVE_TOKEN_FILE": str(paths.token),
        "CONCLAVE_GATEWAY_DATABASE": str(paths.gateway_list),
        "CONCLAVE_OPEN": "1" if record.open else "",
    }


def _webhooks(settings: Settings) -> Names:
    """The variables that the file of webhooks says secrets are in: no other part gets them."""
    if settings.webhooks is None:
        return Names(())
    from deployments.webhooks.configuration import read_webhooks  # every command imports this module

    references = chain.from_iterable(webhook.references for webhook in read_webhooks(settings.webhooks).values())
    return Names(tuple(one.env for one in references if one.env is not None))


def _llm(settings: Settings, paths: StackPaths) -> dict[str, str]:
    key = model_key(settings, external=False)
    return {
        "VLLM_API_KEY": key.get_secret_value() if key else "",
        "VLLM_RPC_BASE_PATH": str(paths.runtime),  # else each start leaves some sockets in /tmp
    }


def _prefect(settings: Settings, paths: StackPaths, record: StackRecord) -> dict[str, str]:
    url = record.parts["prefect"].url
    origin = url.removesuffix("/api")
    values = {
        "PREFECT_HOME": str(paths.prefect_home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_API_AUTH_STRING": read_key(paths.prefect_auth) or "",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": f"{origin},{origin.replace('127.0.0.1', 'localhost')}",
        "PREFECT_SERVER_API_MAX_PARAMETER_SIZE": str(MAX_PARAMETERS),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES_OF_LIMITS,
        "PREFECT_SERVER_UI_API_URL": url,
        "PREFECT_CLI_PROMPT": "false",
    }
    if settings.prefect_database:
        values["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = settings.prefect_database.get_secret_value()
    return values


def _ray(settings: Settings) -> dict[str, str]:
    told = environment(status(settings, ask=False))
    return Names(("RAY_*",)).of(told) | {
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # else a living actor holds up the end for 30 s
        "RAY_worker_niceness": "0",  # Ray's 15 on top of ours would starve the agents behind the server
    }


def _worker(settings: Settings, record: StackRecord) -> dict[str, str]:
    told = environment(status(settings, ask=False))
    mine = Names(("CONCLAVE_HOME", names.VARIABLE, "NATS_URL", "PREFECT_*", "RAY_*", "NO_PROXY", "no_proxy")).of(told)
    mine["CONCLAVE_WORKER_HEALTH"] = record.parts[WORKER].url.rpartition("/")[2]
    mine["PREFECT_WORKER_QUERY_SECONDS"] = os.environ.get("PREFECT_WORKER_QUERY_SECONDS") or "0.2"
    mine["PREFECT_CLI_PROMPT"] = "false"
    if settings.listeners:  # absolute: parts run in the home
        mine["CONCLAVE_LISTENERS"] = str(settings.listeners)
    if settings.evaluations:
        mine["CONCLAVE_EVALUATIONS"] = str(settings.evaluations)
    if settings.batches:
        mine["CONCLAVE_BATCHES"] = ",".join(settings.batches)
    if settings.notify:
        mine["CONCLAVE_NOTIFY"] = settings.notify
    if record.database == "postgresql" and not os.environ.get("CONCLAVE_WORKER_STARTS"):
        mine["CONCLAVE_WORKER_STARTS"] = str(STARTS_ON_POSTGRESQL)
    return mine
