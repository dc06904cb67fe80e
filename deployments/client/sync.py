"""The client for code that waits: the standard library alone, one connection that is kept, one more for events."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

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

AWAY = (OSError, http.client.HTTPException)


class Client:
    """Talks to the gateway at `url` with a token. All methods raise GatewayError and GatewayAway.

    Not to be used from several threads at once. `retry=False` makes each call once.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 30.0, retry: bool = True) -> None:
        self.url = url
        self._secure, self._host, self._port, self._below = address(url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s, self._retry = timeout_s, retry
        self._connection: http.client.HTTPConnection | None = None

    def submit(self, *, key: str | None = None, **fields: Any) -> Receipt:
        """Ask for a deliberation: `task=` or `items=`, `council=`, and the other fields of a request.

        The same `key`, or `id=`, and fields get the same deliberation, however often they are sent.
        """
        data, headers = submission(fields, key)
        answer, body = self._call("POST", "/v1/deliberations", data, headers)
        return Receipt(body["id"], body["status"], answer.getheader("Idempotency-Replayed") == "true")

    def result(self, deliberation_id: str) -> Result:
        """The deliberation as far as it is."""
        return result_in(self._call("GET", path_of(deliberation_id))[1])

    def wait(self, deliberation_id: str, timeout_s: float | None = None) -> Result:
        """The result once it has ended. Raises TimeoutError where that takes longer."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = WAIT_S if until is None else min(WAIT_S, max(0.0, until - time.monotonic()))
            path = path_of(deliberation_id, "wait", timeout_s=f"{left:.3f}")
            result = result_in(self._call("GET", path, until=until, waits_s=left)[1])
            if result.final:
                return result
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"{deliberation_id} has not ended within {timeout_s:g} s")

    def cancel(self, deliberation_id: str) -> str:
        """Ask it to stop; its status then."""
        return str(self._call("DELETE", path_of(deliberation_id))[1]["status"])

    def deliberations(
        self, *, council: str | None = None, status: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Those that match, the newest first, page by page; several statuses are apart by commas."""
        cursor: str | None = None
        while True:
            page = self._call("GET", path_of_many(council, status, metadata, cursor))[1]
            yield from page["deliberations"]
            cursor = page["cursor"]
            if cursor is None:
                return

    def cancel_many(
        self, *, council: str | None = None, status: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Cancelled:
        """Ask all to stop that match and have not ended, at most 1 000."""
        answered = self._call("DELETE", path_of_many(council, status, metadata))[1]
        return Cancelled(answered["cancelled"], answered["more"])

    def deliveries(self, deliberation_id: str) -> list[dict[str, Any]]:
        """Who is told of its end, and what became of that: in the order of their numbers."""
        return list(self._call("GET", path_of(deliberation_id, "deliveries"))[1]["deliveries"])

    def deliver_again(self, deliberation_id: str, number: int) -> dict[str, Any]:
        """Let the delivery of that number be made again, now."""
        return dict(self._call("POST", path_of(deliberation_id, "deliveries", str(number)))[1])

    def councils(self) -> dict[str, dict[str, Any]]:
        """The councils, by name."""
        return dict(self._call("GET", "/v1/councils")[1]["councils"])

    def ready(self) -> dict[str, Any]:
        """Whether requests are taken, and each part by name."""
        try:
            return dict(self._call("GET", "/readyz")[1])
        except GatewayError as error:
            return error.document

    def send_rows(self, batch_id: str, number: int, agenda: Mapping[str, Any]) -> None:
        """Send the rows of an agenda of a batch, before it is started; the same ones again are no fault."""
        data, headers = json_of(agenda)
        self._call("PUT", path_of_batch(batch_id, "agendas", str(number)), data, headers)

    def start_batch(self, batch_id: str, **fields: Any) -> dict[str, Any]:
        """Start a batch whose rows were sent: `agendas=` how many, `council=`, and what else is asked."""
        data, headers = json_of({name: value for name, value in fields.items() if value is not None})
        return dict(self._call("PUT", path_of_batch(batch_id), data, headers)[1])

    def batch(self, batch_id: str) -> dict[str, Any]:
        """A batch as far as it is."""
        return dict(self._call("GET", path_of_batch(batch_id))[1])

    def cancel_batch(self, batch_id: str) -> dict[str, Any]:
        """Ask a batch to stop."""
        return dict(self._call("DELETE", path_of_batch(batch_id))[1])

    def batch_results(self, batch_id: str, after: str | None = None) -> Iterator[dict[str, Any] | None]:
        """The decided rows of a batch as they come, from the beginning or behind a place, to its end.

        None comes whenever nothing came for a while. A connection that breaks is made again where it was left.
        """
        retries = Retries(self._retry)
        while True:
            try:
                for row in self._rows(batch_id, after):
                    after = row["after"] if row else after
                    retries.heard()
                    yield row
                return
            except (GatewayAway, GatewayError) as error:
                time.sleep(retries.pause_s(error))

    def events(self, deliberation_id: str, after: str | None = None) -> Iterator[Event]:
        """What happens in it, from the beginning or behind a cursor, up to its end; each event once.

        A connection that breaks is made again where it was left.
        """
        retries = Retries(self._retry)
        while True:
            try:
                for event in self._events(deliberation_id, after):
                    after = event.id
                    retries.heard()
                    yield event
                    if event.kind == "finished":
                        return
            except NothingFollows:
                return
            except (GatewayAway, GatewayError) as error:
                time.sleep(retries.pause_s(error))

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- inside -----------------------------------------------------------------------------------

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=timeout_s)

    def _call(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        until: float | None = None,
        waits_s: float = 0.0,
    ) -> tuple[http.client.HTTPResponse, Any]:
        """A call that is tried again until a time; the gateway may take `waits_s` longer for its answer."""
        retries = Retries(self._retry)
        while True:
            try:
                return self._once(method, path, data, {**self._headers, **(headers or {})}, self._timeout_s + waits_s)
            except (GatewayError, GatewayAway) as error:
                pause = retries.pause_s(error)
                if until is not None and time.monotonic() + pause > until:
                    raise TimeoutError(f"{path.partition('?')[0]}: no answer in time: {error}") from error
                time.sleep(pause)

    def _once(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str], patience_s: float
    ) -> tuple[http.client.HTTPResponse, Any]:
        kept, self._connection = self._connection, None
        connection = kept or self._connect(patience_s)
        connection.timeout = patience_s
        try:
            try:
                answer = self._asked(connection, method, path, data, headers)
            except ConnectionError:  # a timeout is none: the call may be at work
                if kept is None:
                    raise
                connection.close()  # a kept connection may have been closed meanwhile
                connection = self._connect(patience_s)
                answer = self._asked(connection, method, path, data, headers)
            body = answer.read()
        except AWAY as error:
            connection.close()
            raise GatewayAway(f"no gateway answers at {self.url}: {error}") from error
        self._connection = connection
        if answer.status >= 400:
            raise error_of(answer.status, body, answer.getheader("Retry-After"))
        return answer, document_in(self.url, answer.status, body)

    def _asked(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        data: bytes | None,
        headers: dict[str, str],
    ) -> http.client.HTTPResponse:
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        connection.request(method, self._below + path, data, headers)
        return connection.getresponse()

    def _rows(self, batch_id: str, after: str | None) -> Iterator[dict[str, Any] | None]:
        connection, heard = self._connect(SILENT_S), False
        more = {"after": after} if after else {}
        try:
            connection.request("GET", self._below + path_of_batch(batch_id, "results", **more), headers=self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise error_of(answer.status, answer.read(), answer.getheader("Retry-After"))
            while (line := answer.readline()).endswith(b"\n"):  # half of one is none: the connection broke
                heard = True
                row = row_in(line)
                if row is not None and "result" not in row:
                    return
                yield row
            raise broken_off(self.url, heard)
        except AWAY as error:
            raise broken_off(self.url, heard, error) from error
        finally:
            with suppress(OSError):
                connection.close()

    def _events(self, deliberation_id: str, after: str | None) -> Iterator[Event]:
        headers = {**self._headers, **({"Last-Event-ID": after} if after else {})}
        connection, lines, heard = self._connect(SILENT_S), EventLines(), False
        try:
            connection.request("GET", self._below + path_of(deliberation_id, "events"), headers=headers)
            answer = connection.getresponse()
            if answer.status == 204:
                raise NothingFollows
            if answer.status != 200:
                raise error_of(answer.status, answer.read(), answer.getheader("Retry-After"))
            while line := answer.readline():
                heard = True
                yield from lines.take(line)
            raise broken_off(self.url, heard)
        except AWAY as error:
            raise broken_off(self.url, heard, error) from error
        finally:
            with suppress(OSError):
                connection.close()
