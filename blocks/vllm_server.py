"""A model server with an OpenAI-compatible API, vLLM first, as a Prefect block.

One aiohttp session serves a process and loop. The block is the one owner of retries of an HTTP attempt: it
tries again only what is worth it, never past the caller's deadline, and tells the caller of every failed
attempt. What vLLM answers when things go wrong was observed with vLLM 0.32 (`docs/model-servers.md`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, field_validator
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_exponential,
    wait_random,
)

from blocks.chat import (
    SHOWN_BYTES,
    ChatCall,
    Completion,
    chat_payload,
    read_completion,
    read_name,
    read_stream,
)
from blocks.connections import Close, shared
from blocks.dialect import TELL_S, UNLISTED, Dialect
from blocks.exceptions import ModelServerError, ModelServerRefused, ModelServerUnavailable
from blocks.model_http import MAX_ANSWER_BYTES, bearer, bounded, new_session, way_to, without_key
from blocks.refusals import Patience, refusal
from blocks.urls import api_of, server_root
from tasks.council.plain import one_line, sound

MAX_ERROR_CHARS = 500
MAX_MODELS = 1_000
"""Models of one server that are looked at."""
INFO_TTL_S = 60.0
MAX_PAUSE_S = 10.0


_log = logging.getLogger(__name__)

Omitted = Literal["max_tokens", "temperature", "seed", "stream_options", "response_format"]
Failed = Callable[[int, ModelServerError, int], Awaitable[None]]
"""Called with the number of the attempt (from 1), its error and its duration in milliseconds."""
Learnt = Callable[[str, Dialect], Awaitable[None]]
"""Called with a model and how it is asked from now on, once its server's refusals have told."""


LOAD = ("num_requests_running", "num_requests_waiting")
"""Gauges of vLLM: requests that are answered now, and those that wait for a place."""
MAX_METRICS_BYTES = 4 * 2**20


class ServerLoad(NamedTuple):
    """Requests that a server answers now, and those that wait, whoever's they are."""

    running: int
    waiting: int


@lru_cache
def _gauge(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"^vllm:" + name.encode() + rb"(?:\{[^\n]*\})? ([0-9.e+]{1,24})$", re.MULTILINE)


@dataclass(frozen=True)
class ServerInfo:
    """What a server says of itself on `/v1/models`: the engine (simulator, vllm, openai) and its models.

    `lists` is False for a server without such a list, which may have any model.
    """

    engine: str
    models: tuple[str, ...]
    lists: bool = True


class VLLM(Block):
    """A model server with an OpenAI-compatible API.

    Example:
        ```python
        from blocks.connections import connections
        from blocks.vllm_server import VLLM

        server = VLLM.load("BLOCK_NAME")
        async with connections():
            print(await server.info())
        ```
    """

    _block_type_name = "vLLM Server"
    _block_type_slug = "vllm"
    _description = "An OpenAI-compatible model server that council members ask; vLLM first."
    _documentation_url = "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html"  # type: ignore[assignment]  # Prefect declares HttpUrl and validates a str

    model_config = ConfigDict(hide_input_in_errors=True)  # what is refused may hold a key

    base_url: str = Field(
        description="Root of the server, such as http://host:8000; with the version in it where that is not /v1."
    )
    model: str | None = Field(None, description="Model to ask; the first that the server lists where left out.")
    api_key: SecretStr | None = Field(None, description="Sent as a bearer token; never logged or recorded.")
    attempts: int = Field(
        4, ge=1, le=20, description="HTTP attempts for one answer, within the deadline; rate limits do not count."
    )
    backoff_s: float = Field(0.25, ge=0, le=60, description="Seconds before the second attempt; doubles after.")
    connect_timeout_s: float = Field(5.0, gt=0, description="Seconds to open a connection.")
    request_timeout_s: float = Field(600.0, gt=0, description="Seconds for one attempt, within the deadline.")
    max_in_flight: int = Field(512, ge=1, le=10_000, description="Calls at once from one process.")
    priority: int | None = Field(
        None,
        description="Lower is served first; only for a server with --scheduling-policy priority. Batches add 10.",
    )
    stream: bool = Field(False, description="Read the answer as it is generated instead of at its end.")
    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="Further fields of every request, such as chat_template_kwargs."
    )
    omit: list[Omitted] = Field(
        default_factory=list,
        description="Fields that this server refuses; what it refuses in OpenAI's or pydantic's words is found anyway.",
    )

    @field_validator("base_url")
    @classmethod
    def _root(cls, value: str) -> str:
        url = server_root(value.strip())
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be the root of a server, such as http://host:8000")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must hold no credentials and no query; a key belongs in api_key")
        return url

    @field_validator("api_key")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        """A key that was read from a file ends in a line break, which no header may hold."""
        return value and SecretStr(value.get_secret_value().strip())

    async def info(self) -> ServerInfo:
        """Engine and models, asked at most once a minute. Raises ModelServerError."""
        cache = await self._cache()
        if (known := cache.get("info")) and time.monotonic() - known[0] < INFO_TTL_S:
            info: ServerInfo = known[1]
            return info
        info = await self._listed()
        cache["info"] = (time.monotonic(), info)
        return info

    async def _listed(self) -> ServerInfo:
        """What `/v1/models` lists; a server that has no such list, or another kind, is asked by name alone."""
        try:
            body = await self._get("/models")
        except ModelServerRefused as error:
            if error.status not in UNLISTED:
                raise
            return ServerInfo("openai", (), lists=False)
        try:
            models = body if isinstance(body, list) else body["data"]
            listed = [(read_name(model["id"]), read_name(model.get("owned_by"))) for model in models[:MAX_MODELS]]
        except (LookupError, TypeError, AttributeError):
            if self.model:
                return ServerInfo("openai", (), lists=False)
            raise ModelServerUnavailable(f"{api_of(self.base_url)}/models did not list models") from None
        return ServerInfo(_engine({owner for _, owner in listed}), tuple(model for model, _ in listed))

    async def server_load(self) -> ServerLoad | None:
        """How many requests run there and wait there, by its metrics; None where it has none. Raises ModelServerError.

        Source: vLLM's `vllm/v1/metrics/loggers.py`.
        """
        async with self._exchange(self.connect_timeout_s):
            session, url = await self._session(), f"{self.base_url}/metrics"
            async with session.get(url, headers=self._headers(), **way_to(url)) as response:
                page = await bounded(response, MAX_METRICS_BYTES)
                if response.status != 200:
                    return None
        found = {name: sum(map(float, _gauge(name).findall(page))) for name in LOAD if _gauge(name).search(page)}
        return ServerLoad(*(int(found[name]) for name in LOAD)) if len(found) == len(LOAD) else None

    async def resolve_model(self, wanted: str | None = None) -> str:
        """The model to ask for: the member's, else the block's, else the first that the server lists."""
        if model := wanted or self.model:
            return model
        info = await self.info()
        if not info.lists:
            raise ModelServerRefused(f"{self.base_url} does not list its models: name one in the block's `model`")
        if not info.models:
            raise ModelServerRefused(f"{self.base_url} serves no model")
        return info.models[0]

    async def complete(
        self, call: ChatCall, deadline: float, failed: Failed, learnt: Learnt | None = None
    ) -> Completion:
        """One answer, tried until `deadline` (of the loop's clock, seconds); `learnt` hears of a new dialect after it.

        Raises ModelServerRefused, ModelServerUnavailable after the last attempt or where the server asks to be left
        alone for longer than that, and TimeoutError when the deadline comes first; `failed` hears of every attempt that
        came to nothing. Attempts that met a rate limit do not count: waiting is what it asks for.
        """
        found: dict[str, Dialect] = {}
        completion = await self._tried(call, deadline, failed, found)
        if learnt is not None:
            for model, dialect in found.items():
                await learnt(model, dialect)
        return completion

    async def _tried(self, call: ChatCall, deadline: float, failed: Failed, found: dict[str, Dialect]) -> Completion:
        """The answer of the first attempt that brings one; `found` is given the dialect that it took."""
        limit = (await self._cache()).setdefault("slots", asyncio.Semaphore(self.max_in_flight))
        async with asyncio.timeout_at(deadline):
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(ModelServerUnavailable),
                stop=Patience(self.attempts, deadline),
                wait=self._pause,
                reraise=True,
            ):
                with attempt:
                    started = time.monotonic()
                    try:
                        async with limit:
                            started = time.monotonic()
                            return await self._attempt(call, found)
                    except ModelServerError as error:
                        elapsed = int((time.monotonic() - started) * 1000)
                        await failed(attempt.retry_state.attempt_number, error, elapsed)
                        raise
        raise AssertionError("unreachable: the loop above returns or raises")

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "retry_after_s", None) or 0.0
        pause = wait_exponential(self.backoff_s, max=MAX_PAUSE_S) + wait_random(0, self.backoff_s)
        return max(asked, pause(state))

    async def _attempt(self, call: ChatCall, found: dict[str, Dialect]) -> Completion:
        info = await self.info()
        model = await self.resolve_model(call.model)
        headers = {**self._headers(), "X-Request-Id": call.request_id}
        dialect = usual = await self.dialect(model)
        while True:
            said = call if dialect.takes_schemas else call.worded()
            payload = dialect.spoken(chat_payload(said, model, self.priority, self.stream, self.extra_body))
            async with self._exchange(self.request_timeout_s), self._post(payload, headers) as response:
                if response.status == 200 and self.stream and response.content_type != "application/json":
                    completion = await read_stream(response, model, info.engine, MAX_ANSWER_BYTES)
                    break
                body = await bounded(response, MAX_ANSWER_BYTES)
                if response.status == 200:
                    completion = self._read(body, model, info.engine)
                    break
                narrower = dialect.after(response.status, body, payload)
                if narrower is None:
                    raise refusal(response, self._without_key(body))
            dialect = narrower
        if dialect != usual:  # only now: a refusal may repeat a task that names fields
            found[model] = await self._learn(model, dialect)
        return completion

    async def _learn(self, model: str, dialect: Dialect) -> Dialect:
        """Ask this server so from now on; what was found, in which what its block leaves out is no finding."""
        told = dialect.usual_in(self.omit)
        await self.recall({model: told})
        _log.warning("%s takes %s for %s, and is asked so from now on", self.base_url, ", ".join(told.changes), model)
        return told

    async def recall(self, dialects: Mapping[str, Dialect]) -> None:
        """Ask this server for these models as it was found to take it, whoever found it."""
        known = await self._dialects()
        for model, dialect in dialects.items():
            known[model] = time.monotonic(), dialect

    def _read(self, body: bytes, model: str, engine: str) -> Completion:
        """The completion in a body; what is said of one that is none is read from it without our key."""
        try:
            return read_completion(body, model, engine)
        except ModelServerError:
            return read_completion(self._without_key(body), model, engine)

    def _without_key(self, body: bytes) -> bytes:
        """An error without our key. An answer keeps it: keys of local servers may be words, such as EMPTY."""
        return without_key(body, self._secret)

    @property
    def _secret(self) -> str | None:
        return self.api_key.get_secret_value() if self.api_key else None

    async def dialect(self, model: str) -> Dialect:
        """How this server is asked for a model: as it was found to take it, without what the block leaves out."""
        known = (await self._dialects()).get(model)
        found = known[1] if known and time.monotonic() - known[0] < TELL_S else Dialect()
        return found.without(self.omit)

    async def forget(self) -> None:
        """Ask this server as any other, whatever this process knows of it."""
        (await self._dialects()).clear()

    async def _dialects(self) -> dict[str, tuple[float, Dialect]]:
        """By model, since when this process knows it, and how the server takes it."""
        dialects: dict[str, tuple[float, Dialect]] = (await self._cache()).setdefault("dialects", {})
        return dialects

    @asynccontextmanager
    async def _post(
        self, payload: dict[str, Any], headers: dict[str, str]
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Ask for a completion."""
        url, session = f"{api_of(self.base_url)}/chat/completions", await self._session()
        async with session.post(
            url,
            json=payload,
            headers=headers,
            timeout=self._timeout(),
            **way_to(url),
        ) as response:
            yield response

    async def _get(self, path: str) -> Any:
        async with self._exchange(self.connect_timeout_s):
            session, url = await self._session(), f"{api_of(self.base_url)}{path}"
            async with session.get(url, headers=self._headers(), **way_to(url)) as response:
                body = await bounded(response, MAX_ANSWER_BYTES)
                if response.status != 200:
                    raise refusal(response, self._without_key(body))
                try:
                    return json.loads(body)
                except (ValueError, RecursionError):
                    raise ModelServerUnavailable(f"{path} is no JSON") from None

    @asynccontextmanager
    async def _exchange(self, seconds: float) -> AsyncGenerator[None, None]:
        """Bound a request and its answer in time, and word what goes wrong: with the server, without the key.

        Nothing is chained to the errors: aiohttp's hold the headers of the request.
        """
        try:
            async with asyncio.timeout(seconds):
                yield
        except ModelServerError as error:
            error.args = (self._told(str(error)),)
            raise
        except aiohttp.ClientError as error:
            raise ModelServerUnavailable(self._told(str(error) or type(error).__name__)) from None
        except TimeoutError:
            raise ModelServerUnavailable(self._told(f"no answer in {seconds:g} s")) from None
        except OSError as error:
            raise ModelServerUnavailable(self._told(str(error) or type(error).__name__)) from None

    def _told(self, text: str) -> str:
        """An error's text as one plain line; the key goes before the cut, so that no part of it stays."""
        told = one_line(sound(text), SHOWN_BYTES)
        if self._secret:
            told = told.replace(self._secret, "***")
        return f"{self.base_url}: {told[:MAX_ERROR_CHARS]}"

    def _headers(self) -> dict[str, str]:
        return bearer(self._secret)

    def _timeout(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=None, sock_connect=self.connect_timeout_s)

    async def _session(self) -> aiohttp.ClientSession:
        return await shared("http", _open_session)

    async def _cache(self) -> dict[str, Any]:
        key = ("server", self.base_url, self.model, self.max_in_flight, self.api_key)
        return await shared(key, _open_cache)


def _engine(owners: Collection[str | None]) -> str:
    """What runs a server, by whom its models name as their owner; vLLM names itself, and so does the simulator."""
    if "conclave-simulator" in owners:
        return "simulator"
    return "vllm" if "vllm" in owners else "openai"


async def _open_session() -> tuple[aiohttp.ClientSession, Close]:
    session = new_session()
    return session, session.close


async def _open_cache() -> tuple[dict[str, Any], Close]:
    async def forget() -> None:
        """A cache goes with its loop, and holds nothing open."""

    return {}, forget
