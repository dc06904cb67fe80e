"""One real question to each part: a part is ready when it answers it, not when its port is open.

Every probe takes at most `TIMEOUT_S` seconds or so and raises `NoAnswerError`. The libraries are imported
inside, so that a command that asks nothing does not pay for them; Ray is asked over plain gRPC, without
importing it.
"""

import asyncio
import base64
import http.client
import json
import os
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from blocks.dialect import UNLISTED
from blocks.urls import api_of, proxy_for
from deployments.stack.exceptions import NoAnswerError
from deployments.stack.paths import read_key

TIMEOUT_S = 3.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: urllib would take the key along, to wherever they lead."""

    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        """Nowhere."""


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
"""For questions to parts of ours: no proxy, which cannot reach our loopback, and no redirects."""
_UNPRINTABLE = "our key for it has a control character, which no header may hold"


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
        said = str(error) or type(error).__name__
        raise NoAnswerError(f"it refuses our key ({said})" if "uthorization" in said else said) from error


def ask_prefect(api_url: str, key: str | None) -> None:
    """GET the API's health, and what only those with a key get; `key` is the whole header."""
    if _get_json(f"{api_url}/health", key) is not True:
        raise NoAnswerError("its health is not `true`")
    try:
        _get_json(f"{api_url}/admin/version", key)
    except NoAnswerError as error:
        said = error.__cause__
        if not isinstance(said, urllib.error.HTTPError) or said.code != 404:  # Prefect Cloud has no such thing
            raise


def ask_gateway(url: str) -> None:
    """GET its readiness, which says what it waits for."""
    told = _get_json(f"{url}/readyz", None)
    if not isinstance(told, dict) or told.get("ready") is not True:
        raise NoAnswerError("it is not ready")


def basic(auth: str | None) -> str | None:
    """The header for `user:password`."""
    return f"Basic {base64.b64encode(auth.encode()).decode()}" if auth else None


def users_prefect_key(kept: Mapping[str, str]) -> str | None:
    """The header that Prefect's own client would send to a server that is not ours, or None.

    `kept` are keys that `up` was given.
    """
    given = {**_prefect_profile(), **kept, **os.environ}
    if auth := given.get("PREFECT_API_AUTH_STRING"):
        return basic(auth)
    return f"Bearer {key}" if (key := given.get("PREFECT_API_KEY")) else None


def _prefect_profile() -> dict[str, str]:
    """What the profile says that Prefect's client would use here."""
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    try:
        read = tomllib.loads((home / "profiles.toml").read_text())
        profile = read["profiles"][os.environ.get("PREFECT_PROFILE") or read["active"]]
        return {name: value for name, value in profile.items() if isinstance(value, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


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


def ask_llm(url: str, api_key: str | None, external: bool = False) -> dict[str, str]:
    """GET /v1/models and give each model's name and owner; none where the server has no such list.

    It is asked in the way in which members ask: by the same client, through the environment's proxy, without redirects.
    One from `external` hands is also asked for a completion, with a request that says nothing and so costs nothing:
    what stands before a server may answer for its list and not for the rest.
    """
    if not (api_key or "").isprintable():
        raise NoAnswerError(_UNPRINTABLE)
    return asyncio.run(_ask_llm(api_of(url), api_key, external))


async def _ask_llm(api: str, key: str | None, external: bool) -> dict[str, str]:
    listed = await _exchange("GET", f"{api}/models", key)
    models = {} if listed.status in UNLISTED else _models(listed)
    if external:
        asked = await _exchange("POST", f"{api}/chat/completions", key)
        if 300 <= asked.status < 400 or (asked.status in UNLISTED and listed.status in UNLISTED):
            raise NoAnswerError(asked.refused)
    return models


class _Said(NamedTuple):
    """What a model server answers: HTTP status, body, and the same as a refusal, in words without our key."""

    status: int
    body: bytes
    refused: str


async def _exchange(method: str, url: str, key: str | None) -> _Said:
    """One request to a model server, a POST with an empty object. Raises NoAnswerError where nothing comes back."""
    import aiohttp

    from blocks.exceptions import ModelServerError
    from blocks.model_http import bearer, bounded, new_session, way_to, without_key
    from blocks.refusals import refusal

    body: dict[str, Any] | None = {} if method == "POST" else None
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            new_session() as session,
            session.request(method, url, json=body, headers=bearer(key), **way_to(url)) as answer,
        ):
            said = await bounded(answer)
            return _Said(answer.status, said, str(refusal(answer, without_key(said, key))))
    except TimeoutError:
        raise NoAnswerError(f"no answer to {method} {url} in {TIMEOUT_S:g} s") from None
    except (aiohttp.ClientError, OSError, ModelServerError) as error:  # nothing is chained: aiohttp's hold the header
        raise NoAnswerError(str(error) or type(error).__name__) from None


def _models(listed: _Said) -> dict[str, str]:
    """Names and owners in a list of models."""
    if listed.status in (401, 403):
        raise NoAnswerError(f"it refuses our key ({listed.refused})")
    if listed.status != 200:
        raise NoAnswerError(listed.refused)
    try:
        answer = json.loads(listed.body)
        models = answer["data"] if isinstance(answer, dict) else answer
        return {str(model["id"]): str(model.get("owned_by")) for model in models}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise NoAnswerError("/v1/models does not list models") from None


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


def users_ray_token(kept: Mapping[str, str]) -> str | None:
    """The token that Ray itself would find here for a cluster that is not ours, or None; `kept`: as above."""
    given = {**kept, **os.environ}
    if token := given.get("RAY_AUTH_TOKEN"):
        return token
    return read_key(Path(given.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"))


def _opener(url: str) -> urllib.request.OpenerDirector:
    """What gets to a URL as other clients of this environment do: past its proxies to loopback, else through them."""
    proxy = proxy_for(url)
    if proxy is None:
        return DIRECT
    return urllib.request.build_opener(urllib.request.ProxyHandler({urlsplit(url).scheme: proxy}), _NoRedirect)


def _get_json(url: str, authorization: str | None = None) -> Any:
    headers = {"Authorization": authorization} if authorization else {}
    if not (authorization or "").isprintable():  # http.client would refuse it in words that hold the key
        raise NoAnswerError(_UNPRINTABLE)
    try:
        with _opener(url).open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read(1 << 20))
    except urllib.error.HTTPError as error:
        told = f"{error.code} {error.reason}"
        raise NoAnswerError(f"it refuses our key ({told})" if error.code in (401, 403) else told) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NoAnswerError(str(getattr(error, "reason", error)) or type(error).__name__) from error
