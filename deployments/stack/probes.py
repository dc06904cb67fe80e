"""One real question to each part: a part is ready when it answers it, not when its port is open.

Every probe takes at most `TIMEOUT_S` seconds or so and raises `NoAnswerError`. The libraries are imported
inside, so that a command that asks nothing does not pay for them; Ray is asked over plain gRPC, without
importing it.
"""

import asyncio
import http.client
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from deployments.stack.exceptions import NoAnswerError

TIMEOUT_S = 3.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach our loopback


def ask_nats(url: str) -> None:
    """Connect and ask for the JetStream account; a server without JetStream counts as no answer."""
    import nats
    from nats.errors import Error as NatsError

    async def ignore(_error: Exception) -> None:
        """Failed attempts are told by the exception; nats-py would also log each with its traceback."""

    async def ask() -> None:
        client = await nats.connect(
            url.split(","),
            connect_timeout=2,
            allow_reconnect=False,
            max_reconnect_attempts=0,
            error_cb=ignore,
        )
        try:
            await client.jetstream(timeout=2).account_info()
        finally:
            await client.close()

    try:
        asyncio.run(asyncio.wait_for(ask(), TIMEOUT_S))
    except (NatsError, OSError, ValueError, TimeoutError) as error:
        raise NoAnswerError(str(error) or type(error).__name__) from error


def ask_prefect(api_url: str) -> None:
    """GET the API's health."""
    if _get_json(f"{api_url}/health") is not True:
        raise NoAnswerError("its health is not `true`")


def ask_ray(address: str, token: str | None) -> None:
    """Ask Ray's control service whether a node is alive; a `ray://` address only for a connection."""
    import grpc  # type: ignore[import-untyped]  # neither ships type information
    from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
    from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]

    metadata = [("authorization", f"Bearer {token}")] if token else None
    try:
        with grpc.insecure_channel(address.removeprefix("ray://"), [("grpc.enable_http_proxy", 0)]) as channel:
            if address.startswith("ray://"):
                grpc.channel_ready_future(channel).result(timeout=TIMEOUT_S)
                return
            ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
            reply = ask(b"\x08\x01", timeout=TIMEOUT_S, metadata=metadata)  # field 1, limit: 1
    except grpc.RpcError as error:
        raise NoAnswerError(str(error.details())) from error
    except grpc.FutureTimeoutError as error:
        raise NoAnswerError(f"no connection in {TIMEOUT_S:g} s") from error
    fields = UnknownFieldSet(Empty.FromString(reply))
    if not any(field.field_number == 2 for field in fields):  # node_info_list
        raise NoAnswerError("no node has joined yet")


def ask_llm(url: str, api_key: str | None) -> dict[str, str]:
    """GET /v1/models and give each model's name and owner."""
    answer = _get_json(f"{url}/v1/models", api_key)
    try:
        return {str(model["id"]): str(model.get("owned_by")) for model in answer["data"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise NoAnswerError("/v1/models does not list models") from error


def ask_worker(url: str) -> None:
    """GET a worker's health: it takes requests, or says what it waits for."""
    told = _health(url)
    if not told.get("ready"):
        raise NoAnswerError("it drains" if told.get("draining") else f"it waits: {told.get('waiting_for')}")


def in_work(url: str) -> int:
    """How many requests a worker is at; 0 where it does not say."""
    try:
        return int(_health(url).get("in_work") or 0)
    except NoAnswerError:
        return 0


def _health(url: str) -> dict[str, Any]:
    try:
        told = _get_json(f"{url}/healthz")
    except NoAnswerError as error:
        said = error.__cause__
        if not isinstance(said, urllib.error.HTTPError):
            raise
        return _json_of(said)
    return told if isinstance(told, dict) else {}


def _json_of(error: urllib.error.HTTPError) -> dict[str, Any]:
    try:
        told = json.loads(error.read(1 << 16))
    except (OSError, ValueError):
        told = None
    return told if isinstance(told, dict) else {"waiting_for": f"{error.code} {error.reason}"}


def users_ray_token() -> str | None:
    """The token that Ray itself would find here for a cluster that is not ours, or None."""
    given = os.environ.get("RAY_AUTH_TOKEN")
    if given:
        return given
    return read_token(Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"))


def read_token(path: Path) -> str | None:
    """The token in this file, or None."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _get_json(url: str, bearer: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    try:
        with _DIRECT.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read(1 << 20))
    except urllib.error.HTTPError as error:
        raise NoAnswerError(f"{error.code} {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NoAnswerError(str(getattr(error, "reason", error)) or type(error).__name__) from error
