"""Settings of the gateway, from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from limits import parse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from blocks.public_http import Networks, read_networks
from deployments.gateway.sending import CallbackSettings
from deployments.settings import OFF, SettingsError
from tasks.council.problems import first_problem

TOKEN_FILE = "CONCLAVE_TOKEN_FILE"  # noqa: S105  # a variable's name


def _rate(value: str) -> str:
    try:
        parse(value)
    except ValueError:
        raise ValueError("must be a rate such as 100/second or 6000/minute") from None
    return value


def _names(value: object) -> object:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return read_networks(value)
    except ValueError as error:
        raise ValueError(f"must be networks apart by commas, such as 10.1.0.0/16: {error}") from None


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(_host(address)).is_loopback
    except ValueError:
        return _host(address) == "localhost"


class GatewaySettings(BaseModel):
    """What the environment says; a description is what a right value looks like."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    listen: str = Field("127.0.0.1:8080", validation_alias="CONCLAVE_GATEWAY", pattern=r"^.+:\d{1,5}$")
    grpc: str = Field("", validation_alias="CONCLAVE_GRPC", pattern=r"^(off|.+:\d{1,5})?$")
    nats_url: str = Field("nats://127.0.0.1:4222", validation_alias="NATS_URL", min_length=1)
    token_file: Path | None = Field(None, validation_alias=TOKEN_FILE)
    open: bool = Field(False, validation_alias="CONCLAVE_OPEN")
    hosts: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field((), validation_alias="CONCLAVE_HOSTS")
    rate: Annotated[str, AfterValidator(_rate)] = Field("1000/second", validation_alias="CONCLAVE_RATE")
    queue: int = Field(10_000, validation_alias="CONCLAVE_QUEUE", ge=1)
    database: Path | None = Field(None, validation_alias="CONCLAVE_GATEWAY_DATABASE")
    webhooks: Path | None = Field(None, validation_alias="CONCLAVE_WEBHOOKS")
    public_url: str = Field("", validation_alias="CONCLAVE_PUBLIC_URL", pattern=r"^(https?://[^\s@?#]+)?$")
    callback_networks: Annotated[Networks, BeforeValidator(_networks)] = Field(
        (), validation_alias="CONCLAVE_CALLBACK_NETWORKS"
    )
    patience_s: float = Field(5.0, gt=0)

    @property
    def grpc_listen(self) -> str | None:
        """Where it listens for gRPC; None where it does not."""
        return None if self.grpc in ("", OFF) else self.grpc

    @property
    def host(self) -> str:
        """Where it listens, without the port."""
        return _host(self.listen)

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self.listen.rpartition(":")[2])

    @property
    def callbacks(self) -> CallbackSettings:
        """What callbacks are sent with."""
        return CallbackSettings(self.public_url.rstrip("/"), self.callback_networks)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return all(map(_is_loopback, filter(None, (self.listen, self.grpc_listen))))

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> GatewaySettings:
        if self.open and not self.on_loopback:
            raise ValueError("CONCLAVE_OPEN: open to everybody only on loopback; elsewhere tokens are needed")
        return self


def gateway_settings(environ: Mapping[str, str] | None = None) -> GatewaySettings:
    """Read them; an empty variable counts as unset. Raises SettingsError that names the variable."""
    source = os.environ if environ is None else environ
    names = {str(field.validation_alias) for field in GatewaySettings.model_fields.values() if field.validation_alias}
    try:
        return GatewaySettings.model_validate({name: source[name] for name in names if source.get(name)})
    except ValidationError as error:
        problem = first_problem(error)
        raise SettingsError(f"{problem.field}: {problem.text}" if problem.field else problem.text) from None
