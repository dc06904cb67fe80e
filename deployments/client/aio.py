"""The client for code that runs on an event loop, on aiohttp."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Self

import aiohttp

from deployments.client.answers import (
    SILENT_S,
    WAIT_S,
    Cancelled,
    Event,
    EventLines,
    GatewayAway,
    GatewayError,
    NothingFollows,
    Receipt,
    Result,
    Retries,
    address,
    broken_off,
    document_in,
    error_of,
    json_of,
    path_of,
    path_of_batch,
    path_of_many,
    result_in,
    row_in,
    submission,
)

AWAY = (aiohttp.ClientError, TimeoutError)


class AsyncClient:
    """Talks to the gateway at `url` with a token, inside of `async with`; its methods are those of `Client`."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 30.0, retry: bool = True) -> None:
        address(url)
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s, self._retry = timeout_s, retry
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        everything = aiohttp.TCPConnector(limit=0)  # else a hundred streams of events would hold up every call
        self._session = aiohttp.ClientSession(headers=self._headers, connector=everything, read_bufsize=1 << 20)
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def submit(self, *, key: str | None = None, **fields: Any) -> Receipt:
        """Ask for a deliberation; as `Client.submit`."""
        data, headers = submission(fields, key)
        got, body = await self._call("POST", "/v1/deliberations", data, headers)
        return Receipt(body["id"], body["status"], got.get("Idempotency-Replayed") == "true")

    async def result(self, deliberation_id: str) -> Result:
        """The deliberation as far as it is."""
        return result_in((await self._call("GET", path_of(deliberation_id)))[1])

    async def wait(self, deliberation_id: str, timeout_s: float | None = None) -> Result:
        """The result once it has ended. Raises TimeoutError where that takes longer."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = WAIT_S if until is None else min(WAIT_S, max(0.0, until - time.monotonic()))
            path = path_of(deliberation_id, "wait", timeout_s=f"{left:.3f}")
            result = result_in((await self._call("GET", path, until=until, waits_s=left))[1])
            if result.final:
                return result
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"{deliberation_id} has not ended within {timeout_s:g} s")

    async def cancel(self, deliberation_id: str) -> str:
        """Ask it to stop; its status then."""
        return str((await self._call("DELETE", path_of(deliberation_id)))[1]["status"])

    async def deliberations(
        self, *, council: str | None = None, status: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Those that match; as `Client.deliberations`."""
        cursor: str | None = None
        while True:
            _, page = await self._call("GET", path_of_many(council, status, metadata, cursor))
            for one in page["deliberations"]:
                yield one
            cursor = page["cursor"]
            if cursor is None:
                return

    async def cancel_many(
        self, *, council: str | None = None, status: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Cancelled:
        """Ask all to stop that match and have not ended, at most 1 000."""
        answered = (await self._call("DELETE", path_of_many(council, status, metadata)))[1]
        return Cancelled(answered["cancelled"], answered["more"])

    async def deliveries(self, deliberation_id: str) -> list[dict[str, Any]]:
        """Who is told of its end, and what became of that: in the order of their numbers."""
        return list((await self._call("GET", path_of(deliberation_id, "deliveries")))[1]["deliveries"])

    async def deliver_again(self, deliberation_id: str, number: int) -> dict[str, Any]:
        """Let the delivery of that number be made again, now."""
        return dict((await self._call("POST", path_of(deliberation_id, "deliveries", str(number))))[1])

    async def councils(self) -> dict[str, dict[str, Any]]:
        """The councils, by name."""
        return dict((await self._call("GET", "/v1/councils"))[1]["councils"])

    async def ready(self) -> dict[str, Any]:
        """Whether requests are taken, and each part by name."""
        try:
            return dict((await self._call("GET", "/readyz"))[1])
        except GatewayError as error:
            return error.document

    async def send_rows(self, batch_id: str, number: int, agenda: Mapping[str, Any]) -> None:
        """Send the rows of an agenda of a batch, before it is started; the same ones again are no fault."""
        data, headers = json_of(agenda)
        await self._call("PUT", path_of_batch(batch_id, "agendas", str(number)), data, headers)

    async def start_batch(self, batch_id: str, **fields: Any) -> dict[str, Any]:
        """Start a batch whose rows were sent; as `Client.start_batch`."""
        data, headers = json_of({name: value for name, value in fields.items() if value is not None})
        return dict((await self._call("PUT", path_of_batch(batch_id), data, headers))[1])

    async def batch(self, batch_id: str) -> dict[str, Any]:
        """A batch as far as it is."""
        return dict((await self._call("GET", path_of_batch(batch_id)))[1])

    async def cancel_batch(self, batch_id: str) -> dict[str, Any]:
        """Ask a batch to stop."""
        return dict((await self._call("DELETE", path_of_batch(batch_id)))[1])

    async def batch_results(
        self, batch_id: str, after: str | None = None
    ) -> AsyncGenerator[dict[str, Any] | None, None]:
        """The decided rows of a batch as they come, to its end; as `Client.batch_results`."""
        retries = Retries(self._retry)
        while True:
            try:
                async for row in self._rows(batch_id, after):
                    after = row["after"] if row else after
                    retries.heard()
                    yield row
                return
            except (GatewayAway, GatewayError) as error:
                await asyncio.sleep(retries.pause_s(error))

    async def events(self, deliberation_id: str, after: str | None = None) -> AsyncGenerator[Event, None]:
        """What happens in it, up to its end; as `Client.events`."""
        retries = Retries(self._retry)
        while True:
            try:
                async for event in self._events(deliberation_id, after):
                    after = event.id
                    retries.heard()
                    yield event
                    if event.kind == "finished":
                        return
            except NothingFollows:
                return
            except (GatewayAway, GatewayError) as error:
                await asyncio.sleep(retries.pause_s(error))

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _there(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("an AsyncClient is used inside of `async with`")
        return self._session

    async def _call(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        until: float | None = None,
        waits_s: float = 0.0,
    ) -> tuple[Any, Any]:
        """A call that is tried again until a time; the gateway may take `waits_s` longer for its answer."""
        retries = Retries(self._retry)
        while True:
            try:
                return await self._once(method, path, data, headers, self._timeout_s + waits_s)
            except (GatewayError, GatewayAway) as error:
                pause = retries.pause_s(error)
                if until is not None and time.monotonic() + pause > until:
                    raise TimeoutError(f"{path.partition('?')[0]}: no answer in time: {error}") from error
                await asyncio.sleep(pause)

    async def _once(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str] | None, patience_s: float
    ) -> tuple[Any, Any]:
        limit = aiohttp.ClientTimeout(total=patience_s)
        try:
            async with self._there.request(
                method, self.url + path, data=data, headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                body = await answer.read()
        except AWAY as error:
            raise GatewayAway(f"no gateway answers at {self.url}: {error}") from error
        if answer.status >= 400:
            raise error_of(answer.status, body, answer.headers.get("Retry-After"))
        return answer.headers, document_in(self.url, answer.status, body)

    async def _rows(self, batch_id: str, after: str | None) -> AsyncGenerator[dict[str, Any] | None, None]:
        limit, heard = aiohttp.ClientTimeout(total=None, sock_read=SILENT_S), False
        url = self.url + path_of_batch(batch_id, "results", **({"after": after} if after else {}))
        try:
            async with self._there.get(url, timeout=limit, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise error_of(answer.status, await answer.read(), answer.headers.get("Retry-After"))
                rest = b""
                async for chunk in answer.content.iter_any():
                    heard = True
                    *whole, rest = (rest + chunk).split(b"\n")
                    for row in map(row_in, whole):
                        if row is not None and "result" not in row:
                            return
                        yield row
            raise broken_off(self.url, heard)
        except AWAY as error:
            raise broken_off(self.url, heard, error) from error

    async def _events(self, deliberation_id: str, after: str | None) -> AsyncGenerator[Event, None]:
        headers = {"Last-Event-ID": after} if after else {}
        limit, lines, heard = aiohttp.ClientTimeout(total=None, sock_read=SILENT_S), EventLines(), False
        url = self.url + path_of(deliberation_id, "events")
        try:
            async with self._there.get(url, headers=headers, timeout=limit, allow_redirects=False) as answer:
                if answer.status == 204:
                    raise NothingFollows
                if answer.status != 200:
                    raise error_of(answer.status, await answer.read(), answer.headers.get("Retry-After"))
                rest = b""
                async for chunk in answer.content.iter_any():
                    heard = True
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        for event in lines.take(line):
                            yield event
            raise broken_off(self.url, heard)
        except AWAY as error:
            raise broken_off(self.url, heard, error) from error
