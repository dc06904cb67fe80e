"""Settings of a Conclave process, read from the environment when asked for and never at import.

A frozen pydantic model with one environment variable per field. Plain pydantic instead of pydantic-settings:
the command line pays for this import on every call, and reading a mapping is all that is needed here.
"""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from blocks import names
from blocks.urls import server_root
from tasks.council.exceptions import WrongUse


class SettingsError(WrongUse):
    """An environment variable has an unusable value; the text names it and says what would be right."""


def _url(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        for one in value.split(","):
            parts = urlsplit(one)
            if parts.scheme not in schemes or not parts.hostname:
                raise ValueError("not such a URL")
        return value.rstrip("/")

    return AfterValidator(check)


def _ray_address(value: str) -> str:
    if not re.fullmatch(r"(ray://)?[^\s:/]+:\d{1,5}", value):
        raise ValueError("not such an address")
    return value


def _listen_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError("not such an address")
    return value


OFF = "off"
"""In place of an address: nobody listens."""


def _listen_address_or_off(value: str) -> str:
    return value if value == OFF else _listen_address(value)


def _postgresql(value: SecretStr) -> SecretStr:
    """The URL with the driver that Prefect's server uses."""
    scheme, separator, rest = value.get_secret_value().partition("://")
    if scheme not in ("postgres", "postgresql", "postgresql+asyncpg") or not separator or not rest:
        raise ValueError("not such a URL")
    return SecretStr(f"postgresql+asyncpg://{rest}")


def _stripped(value: SecretStr) -> SecretStr:
    """A key that was read from a file ends in a line break, which no header may hold."""
    return SecretStr(value.get_secret_value().strip())


def _words(value: object) -> object:
    """The words of a text as a shell would split it; ValueError for a quote that is not closed."""
    return tuple(shlex.split(value)) if isinstance(value, str) else value


def _places(value: object) -> object:
    """Folders, which become absolute, and URLs, separated by commas; ValueError for what is neither."""
    if not isinstance(value, str):
        return value
    from tasks.batch.places import Places

    named = tuple(map(_place, filter(None, map(str.strip, value.split(",")))))
    Places(named)
    return named


def _place(value: str) -> str:
    return value if "://" in value else str(_home(Path(value)))


def _home(value: Path) -> Path:
    return value.expanduser().resolve()


HttpUrl = Annotated[str, _url("http", "https")]
Home = Annotated[Path, AfterValidator(_home)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _default_home() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state) / "conclave"


class Settings(BaseModel):
    """What the environment says; every field's description is what a right value looks like."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    home: Home = Field(
        default_factory=_default_home,
        validation_alias="CONCLAVE_HOME",
        validate_default=True,
        description="a directory for state, logs and data, such as ~/.local/state/conclave",
    )
    nats_url: Annotated[str, _url("nats", "tls", "ws", "wss")] | None = Field(
        default=None, validation_alias="NATS_URL", description="a NATS URL such as nats://127.0.0.1:4222"
    )
    prefect_api_url: HttpUrl | None = Field(
        default=None,
        validation_alias="PREFECT_API_URL",
        description="a URL such as http://127.0.0.1:4200/api",
    )
    prefect_database: Annotated[SecretStr, AfterValidator(_postgresql)] | None = Field(
        default=None,
        validation_alias="CONCLAVE_PREFECT_DATABASE",
        description="a URL such as postgresql://user:password@host/prefect (without it Prefect uses SQLite)",
    )
    ray_address: Annotated[str, AfterValidator(_ray_address)] | None = Field(
        default=None,
        validation_alias="RAY_ADDRESS",
        description="host:port of a Ray head, or ray://host:port",
    )
    prefix: Annotated[str, Field(pattern=f"^{names.PATTERN}$")] | None = Field(
        default=None,
        validation_alias=names.VARIABLE,
        description=f"what our names in Prefect carry where several installations share it: {names.RULE}",
    )
    llm_url: Annotated[HttpUrl, AfterValidator(server_root)] | None = Field(
        default=None,
        validation_alias="VLLM_URL",
        description="a model server's URL such as http://127.0.0.1:8000",
    )
    llm_model: str | None = Field(
        default=None,
        validation_alias="VLLM_MODEL",
        min_length=1,
        description="a model name as the server lists it",
    )
    llm_api_key: Annotated[SecretStr, AfterValidator(_stripped)] | None = Field(
        default=None, validation_alias="CONCLAVE_LLM_API_KEY", description="the model server's API key"
    )
    vllm: Path | None = Field(
        default=None, validation_alias="CONCLAVE_VLLM", description="the path of a vllm executable"
    )
    vllm_args: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(
        default=(),
        validation_alias="CONCLAVE_VLLM_ARGS",
        description="further arguments of `vllm serve`, quoted as in a shell, such as '--max-model-len 8192'",
    )
    deadline_s: Seconds = Field(
        default=300.0, validation_alias="DELIBERATION_TIMEOUT", description="seconds per item, such as 300"
    )
    cleanup_s: Seconds = Field(
        default=3600.0,
        validation_alias="DELIBERATION_CLEANUP",
        description="seconds that a finished status is kept, such as 3600",
    )
    start_timeout_s: Seconds = Field(
        default=180.0,
        validation_alias="CONCLAVE_START_TIMEOUT",
        description="seconds to wait for a part, such as 180",
    )
    worker_concurrency: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=100,
        validation_alias="CONCLAVE_WORKER_CONCURRENCY",
        description="deliberations at once in one worker, 1 to 10000, such as 100",
    )
    worker_batch: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=10,
        validation_alias="CONCLAVE_WORKER_BATCH",
        description="runs of the queue `batch` at once in one worker, beside the others, such as 10",
    )
    worker_starts: Annotated[int, Field(ge=1, le=1_000)] = Field(
        default=4,
        validation_alias="CONCLAVE_WORKER_STARTS",
        description="flow runs that start at the same moment in one worker: 4 suits Prefect on SQLite, 16 PostgreSQL",
    )
    worker_drain_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        default=30.0,
        validation_alias="CONCLAVE_WORKER_DRAIN",
        description="seconds that running deliberations may take to finish when a worker is told to stop, such as 30",
    )
    worker_health: Annotated[str, AfterValidator(_listen_address)] | None = Field(
        default=None,
        validation_alias="CONCLAVE_WORKER_HEALTH",
        description="host:port where the worker tells its health over HTTP, such as 127.0.0.1:8090",
    )
    gateway: Annotated[str, AfterValidator(_listen_address)] | None = Field(
        default=None,
        validation_alias="CONCLAVE_GATEWAY",
        description="host:port where the gateway listens, such as 127.0.0.1:8080",
    )
    grpc: Annotated[str, AfterValidator(_listen_address_or_off)] | None = Field(
        default=None,
        validation_alias="CONCLAVE_GRPC",
        description="host:port where the gateway listens for gRPC, such as 127.0.0.1:50055, or off",
    )
    listeners: Annotated[Path, AfterValidator(_home)] | None = Field(
        default=None,
        validation_alias="CONCLAVE_LISTENERS",
        description="a file of listeners such as docs/examples/listeners.yaml",
    )
    webhooks: Annotated[Path, AfterValidator(_home)] | None = Field(
        default=None,
        validation_alias="CONCLAVE_WEBHOOKS",
        description="a file of webhooks such as docs/examples/webhooks.yaml",
    )
    evaluations: Annotated[Path, AfterValidator(_home)] | None = Field(
        default=None,
        validation_alias="CONCLAVE_EVALUATIONS",
        description="a folder of questions, which runs of the deployment `evaluate` may name, such as /srv/evaluations",
    )
    batches: Annotated[tuple[str, ...], BeforeValidator(_places)] = Field(
        default=(),
        validation_alias="CONCLAVE_BATCHES",
        description="folders and URLs, separated by commas, such as /srv/batches,s3://bucket/batches",
    )
    notify: str | None = Field(
        default=None,
        validation_alias="CONCLAVE_NOTIFY",
        pattern=r"^[a-z0-9-]+/[a-z0-9-]+$",
        description="a notification block of Prefect's, by its type and name, such as slack-webhook/ops",
    )
    nats_server: Annotated[Path, AfterValidator(_home)] | None = Field(
        default=None,
        validation_alias="CONCLAVE_NATS_SERVER",
        description="the path of a nats-server to start, such as /usr/local/bin/nats-server",
    )
    nats_sync: Literal["interval", "always"] = Field(
        default="interval",
        validation_alias="CONCLAVE_NATS_SYNC",
        description="interval (survives SIGKILL) or always (survives a power cut, slower)",
    )


SECRET_FIELDS = ("llm_api_key", "prefect_database")


def variable(field: str) -> str:
    """The environment variable that a field of `Settings` is read from."""
    return str(Settings.model_fields[field].validation_alias)


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environ` (default: the process's own); an empty variable counts as unset.

    Raises `SettingsError` that names each bad variable and what would be right.
    """
    source = os.environ if environ is None else environ
    names = {variable(field): field for field in Settings.model_fields}
    try:
        return Settings.model_validate({name: source[name] for name in names if source.get(name)})
    except ValidationError as error:
        refused = {str(item["loc"][0]) for item in error.errors()}
        raise SettingsError("; ".join(_refusal(name, names[name], source) for name in sorted(refused))) from None


def _refusal(name: str, field: str, source: Mapping[str, str]) -> str:
    secret = field in SECRET_FIELDS or "@" in source[name]  # a URL may carry a password
    shown = "" if secret else f"={source[name]!r}"
    return f"{name}{shown} is not usable: it should be {Settings.model_fields[field].description}"
