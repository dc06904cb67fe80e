"""Both clients against a gateway that listens: the same calls, the same answers, whatever breaks on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deployments.client import AsyncClient, Client, GatewayAway, GatewayError, answers
from deployments.client.answers import Cancelled, Event, EventLines
from deployments.gateway.handlers import events
from tasks.deliberations import councils
from tests.deployments.gateway.parts import TASK, Gateway, Run, council, heard_whole
from tests.deployments.gateway.test_batches import decide, end, rows

pytestmark = pytest.mark.servers


class Threaded:
    """The client for code that waits, each call in a thread, as the other one is called."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any, **fields: Any) -> Any:
            return await asyncio.to_thread(getattr(self._client, name), *arguments, **fields)

        return call

    async def events(self, *arguments: Any, **fields: Any) -> AsyncIterator[Event]:
        found = self._client.events(*arguments, **fields)
        while (event := await asyncio.to_thread(next, found, None)) is not None:
            yield event

    async def batch_results(self, *arguments: Any, **fields: Any) -> AsyncIterator[dict[str, Any] | None]:
        found, ended = self._client.batch_results(*arguments, **fields), object()
        while (row := await asyncio.to_thread(next, found, ended)) is not ended:
            yield row  # type: ignore[misc]

    async def deliberations(self, **fields: Any) -> AsyncIterator[dict[str, Any]]:
        for one in await asyncio.to_thread(lambda: list(self._client.deliberations(**fields))):
            yield one


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`async with client() as talking`: one of the two, with a token of the scope admin."""
    monkeypatch.setattr(answers, "AGAIN_S", 0.001)

    @asynccontextmanager
    async def opened(token: str | None = None, url: str = "", **options: Any) -> AsyncIterator[Any]:
        address = (url or gateway.url, token or gateway.text)
        if request.param == "async":
            async with AsyncClient(*address, **options) as talking:
                yield talking
            return
        plain = Client(*address, **options)
        yield Threaded(plain)
        plain.close()

    return opened


async def test_ask_again_wait_and_read(client: Any, gateway: Gateway) -> None:
    async with client() as talking:
        first = await talking.submit(task=TASK, key="k", council=None)
        second = await talking.submit(task=TASK, key="k")
        assert (first.replayed, second.replayed, first.id) == (False, True, second.id)
        assert first.status == "PENDING"
        assert not (await talking.result(first.id)).final
        with pytest.raises(TimeoutError):
            await talking.wait(first.id, timeout_s=0.01)
        waiting = asyncio.create_task(talking.wait(first.id, timeout_s=60))
        await Run(gateway.record, first.id).whole()
        result = await waiting
        assert (result.final, result.status, result.decision, result.winner_id) == (True, "COMPLETED", "RabbitMQ", "m1")
        assert result.body["links"]["self"].endswith(first.id)


async def test_two_that_are_asked_without_a_key_are_two(client: Any) -> None:
    async with client() as talking:
        assert (await talking.submit(task=TASK)).id != (await talking.submit(task=TASK)).id
        assert (await talking.submit(task=TASK, id="mine")).id == "mine"
        assert (await talking.submit(task=TASK, id="mine")).replayed


async def test_stop_councils_and_readiness(client: Any, gateway: Gateway) -> None:
    async with client() as talking:
        await councils.write_mirror(gateway.record, {"dev": council("dev")})
        gateway.service.councils._kept = None
        assert set(await talking.councils()) == {"dev"}
        one = (await talking.submit(task=TASK)).id
        assert await talking.cancel(one) == "CANCELLED"


async def test_many_are_listed_page_by_page_and_stopped(client: Any, gateway: Gateway) -> None:
    async with client() as talking:
        meant = {(await talking.submit(task=TASK, metadata={"batch": "a&b"})).id for _ in range(60)}
        other = (await talking.submit(task=TASK)).id
        await gateway.service.projection.catch_up(5)
        listed = [one["id"] async for one in talking.deliberations(metadata={"batch": "a&b"})]
        assert (len(listed), set(listed)) == (60, meant)
        assert await talking.cancel_many(council="dev", metadata={"batch": "a&b"}) == Cancelled(60, more=False)
        assert not {(await talking.result(one)).status for one in meant} - {"CANCELLED"}
        await gateway.service.projection.catch_up(5)
        assert [one["id"] async for one in talking.deliberations(status="PENDING,IN_PROGRESS")] == [other]


async def served(answer: Any) -> TestServer:
    """Something that answers every request in one way."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    return server


@pytest.mark.parametrize("status", [200, 301, 307])
async def test_what_is_no_gateway_is_told_as_that(client: Any, status: int) -> None:
    """A page, or a redirect, which would take a POST for a GET."""

    async def page(_request: web.Request) -> web.Response:
        return web.Response(status=status, text="<html>", headers={"Location": "http://127.0.0.1:9/"})

    server = await served(page)
    async with client(url=str(server.make_url("")).rstrip("/"), retry=False) as talking:
        for call in (talking.submit(task=TASK), talking.result("x"), talking.councils()):
            with pytest.raises(GatewayAway, match=f"no gateway: status {status}"):
                await call
    await server.close()


async def test_a_silent_gateway_is_waited_for_as_long_as_was_said(client: Any) -> None:
    """Only a question that waits for a result is given longer."""
    asked: list[str] = []

    async def silent(request: web.Request) -> web.Response:
        asked.append(request.method)
        await asyncio.sleep(30)
        return web.Response()

    server = await served(silent)
    began = asyncio.get_running_loop().time()
    async with client(url=str(server.make_url("")).rstrip("/"), retry=False, timeout_s=0.2) as talking:
        with pytest.raises(GatewayAway):
            await talking.cancel("x")
        with pytest.raises(GatewayAway):
            await talking.wait("x", timeout_s=0.1)
    assert asyncio.get_running_loop().time() - began < 15
    assert asked == ["DELETE", "GET"]
    await server.close()


async def test_who_waits_waits_no_longer_than_was_said(client: Any) -> None:
    """However long the gateway asks to be left alone."""

    async def later(_request: web.Request) -> web.Response:
        return web.json_response({"type": "rate-limit", "detail": "later"}, status=429, headers={"Retry-After": "100"})

    server = await served(later)
    async with client(url=str(server.make_url("")).rstrip("/")) as talking:
        with pytest.raises(TimeoutError, match="later"):
            await asyncio.wait_for(talking.wait("x", timeout_s=0.5), 20)
    await server.close()


async def test_events_are_followed_over_any_number_of_connections_that_work(client: Any) -> None:
    """A proxy cuts each after a while; what brings nothing at all is given up after some tries."""
    cuts = 0

    async def cut(request: web.Request) -> web.StreamResponse:
        nonlocal cuts
        cuts += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if cuts <= 3 * answers.TRIES:
            await response.write(b": heartbeat\n\n")
        elif cuts == 3 * answers.TRIES + 1:
            await response.write(b'id: 1\nevent: finished\ndata: {"status": "COMPLETED"}\n\n')
        return response

    server = await served(cut)
    async with client(url=str(server.make_url("")).rstrip("/")) as talking:
        assert [event.kind async for event in talking.events("x")] == ["finished"]
        with pytest.raises(GatewayAway):
            [event async for event in talking.events("x")]
    await server.close()


async def test_an_error_names_the_field(client: Any) -> None:
    async with client() as talking:
        with pytest.raises(GatewayError) as caught:
            await talking.submit(task="")
        assert (caught.value.status, caught.value.type, caught.value.field) == (422, "invalid-field", "task")
        with pytest.raises(GatewayError) as caught:
            await talking.result("no/body?x=1#é")
        assert (caught.value.status, caught.value.type) == (404, "unknown-deliberation")
    async with client("cnc_wrong") as talking:
        with pytest.raises(GatewayError) as caught:
            await talking.result("x")
        assert (caught.value.status, caught.value.field) == (401, None)


async def test_where_nobody_answers_it_says_so(client: Any) -> None:
    async with client(url="http://127.0.0.1:1", retry=False) as talking:
        with pytest.raises(GatewayAway, match=r"http://127\.0\.0\.1:1"):
            await talking.result("x")
        with pytest.raises(GatewayAway):
            [event async for event in talking.events("x")]


async def test_what_is_worth_it_is_tried_again_with_the_same_key(
    client: Any, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 503 and a 429 are; the deliberation is one."""
    from deployments.gateway import acceptance, problems

    monkeypatch.setattr(answers, "MAX_AGAIN_S", 0.001)
    told, enqueue = [503, 429], acceptance.enqueue

    async def sometimes(*arguments: Any, **options: Any) -> Any:
        accepted = await enqueue(*arguments, **options)
        if told:
            raise problems.later(told.pop(), "later", "later")
        return accepted

    monkeypatch.setattr(acceptance, "enqueue", sometimes)
    async with client() as talking:
        receipt = await talking.submit(task=TASK)
        assert receipt.replayed
    assert await gateway.queued() == [f"requests.{receipt.id}"]


@pytest.mark.parametrize("how", ["ended", "aborted"])
async def test_events_over_a_connection_that_breaks_at_every_event_come_once(
    client: Any, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Also of one that ended long ago, whose result is no sign that all was heard."""
    send = events.EventSourceResponse.send

    async def then_break(self: Any, *arguments: Any, **options: Any) -> None:
        await send(self, *arguments, **options)
        if how == "aborted":
            await asyncio.sleep(0.005)
            self._req.transport.close()
        raise ConnectionResetError

    monkeypatch.setattr(events.EventSourceResponse, "send", then_break)
    async with client() as talking:
        for whole_before in (True, False):
            run = Run(gateway.record, (await talking.submit(task=TASK)).id)
            writing = asyncio.create_task(run.whole())
            if whole_before:
                await writing
            found = [event async for event in talking.events(run.id)]
            await writing
            assert heard_whole(found)
            assert [event async for event in talking.events(run.id, after=found[-1].id)] == []
            after = [event async for event in talking.events(run.id, after=found[2].id)]
            assert [event.id for event in after] == [event.id for event in found[3:]]


async def test_a_connection_that_was_closed_meanwhile_is_made_again(client: Any, gateway: Gateway) -> None:
    from tests.deployments.gateway.parts import listening

    async with listening(gateway.service, gateway.text) as other, client(url=other.url) as talking:
        await talking.submit(task=TASK, key="k")
        await asyncio.sleep(0)
        assert (await talking.submit(task=TASK, key="k")).replayed


async def test_a_path_in_its_address_is_kept(client: Any) -> None:
    """As where a proxy has the gateway below one."""

    async def councils_below(_request: web.Request) -> web.Response:
        return web.json_response({"councils": {"dev": {}}, "mirrored_at": None})

    app = web.Application()
    app.router.add_get("/below/v1/councils", councils_below)
    async with TestServer(app) as server, client(url=f"http://127.0.0.1:{server.port}/below/") as talking:
        assert await talking.councils() == {"dev": {}}


def test_lines_become_events_whatever_they_are_cut_into() -> None:
    text = b': heartbeat\r\n\r\nid: 1\r\nevent: plan\r\ndata: {\r\ndata: "a": 1}\r\n\r\ndata:[]\n\nid: 2\n\n'
    lines = EventLines()
    found = [event for line in text.split(b"\n") for event in lines.take(line)]
    assert found == [Event("plan", "1", {"a": 1}), Event("message", "1", [])]  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://x", "http://"])
def test_what_is_no_url_is_told_before_anything_is_sent(url: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="is no URL of a gateway"):
            kind(url)


# --- batches --------------------------------------------------------------------------------------


async def test_both_have_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")} - {"close"}

    assert methods(AsyncClient) == methods(Client)


async def test_a_batch_is_sent_started_followed_and_stopped(client: Any, gateway: Gateway) -> None:
    async with client() as talking:
        await talking.send_rows("b", 1, rows(1, 2))
        await talking.send_rows("b", 1, rows(1, 2))
        started = await talking.start_batch("b", agendas=1, strategy=None, budget={"max_calls": 9})
        assert (started["status"], started["rows"], started["asked"]["strategy"]) == ("PENDING", 2, None)
        assert await talking.batch("b") == started
        assert (await talking.start_batch("b", agendas=1, budget={"max_calls": 9}))["id"] == "b"
        followed = talking.batch_results("b")
        coming = asyncio.ensure_future(anext(followed))
        await decide(gateway.record, "i2", "i1")
        found = [await coming]
        assert (await talking.cancel_batch("b"))["cancel_requested"] is True
        await end(gateway.record, "CANCELLED")
        found += [row async for row in followed]
        assert [row["id"] for row in found] == ["r2", "r1"]
        behind = [row["id"] async for row in talking.batch_results("b", found[0]["after"])]
        assert behind == ["r1"]
        assert (await talking.cancel_batch("b"))["status"] == "CANCELLED"


async def test_errors_of_batches_name_the_field(client: Any) -> None:
    async with client() as talking:
        for call, status, field in (
            (talking.send_rows("b", 1, {"rows": []}), 422, "rows"),
            (talking.send_rows("b", 0, rows(1)), 422, "number"),
            (talking.start_batch("b", agendas=1), 422, "agendas"),
            (talking.batch("no/body?x=1#é"), 404, None),
            (talking.cancel_batch("b"), 404, None),
        ):
            with pytest.raises(GatewayError) as caught:
                await call
            assert (caught.value.status, caught.value.field) == (status, field)
        with pytest.raises(GatewayError) as caught:
            [row async for row in talking.batch_results("b")]
        assert caught.value.status == 404
    async with client(url="http://127.0.0.1:1", retry=False) as talking:
        with pytest.raises(GatewayAway):
            [row async for row in talking.batch_results("b")]


@pytest.mark.parametrize("how", ["ended", "aborted"])
async def test_rows_over_a_connection_that_breaks_at_every_line_come_once(
    client: Any, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Each time it goes on behind the last row, and is whole only with its last line."""
    write = web.StreamResponse.write

    async def then_break(self: web.StreamResponse, data: bytes) -> None:
        await write(self, data)
        if how == "aborted":
            await asyncio.sleep(0.005)
            self._req.transport.close()  # type: ignore[union-attr]
        if b"result" in data:
            raise ConnectionResetError

    monkeypatch.setattr(web.StreamResponse, "write", then_break)
    async with client() as talking:
        await talking.send_rows("b", 1, rows(*range(1, 9)))
        await talking.start_batch("b", agendas=1)
        await decide(gateway.record, *(f"i{number}" for number in range(1, 9)))
        await end(gateway.record)
        found = [row["id"] async for row in talking.batch_results("b") if row is not None]
        assert found == [f"r{number}" for number in range(1, 9)]


async def test_a_line_that_breaks_off_is_read_anew(client: Any) -> None:
    """Half of a row is none, and no fault in the program."""
    asked: list[str] = []
    lines = [json.dumps({"id": f"r{number}", "after": f"1-{number}", "result": {}}).encode() for number in (1, 2)]

    async def breaks(request: web.Request) -> web.StreamResponse:
        asked.append(request.query.get("after", ""))
        response = web.StreamResponse()
        await response.prepare(request)
        if len(asked) == 1:
            await response.write(lines[0] + b"\n" + lines[1][:20])
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(b"\n" + lines[1] + b'\n{"status": "COMPLETED"}\n')
        return response

    server = await served(breaks)
    async with client(url=str(server.make_url("")).rstrip("/")) as talking:
        found = [row and row["id"] async for row in talking.batch_results("x")]
    assert found == ["r1", None, "r2"]
    assert asked == ["", "1-1"]
    await server.close()


async def test_rows_are_followed_over_any_number_of_connections_that_work(client: Any) -> None:
    """A proxy cuts each after a while; what brings nothing at all is given up after some tries."""
    cuts = 0

    async def cut(request: web.Request) -> web.StreamResponse:
        nonlocal cuts
        cuts += 1
        response = web.StreamResponse()
        await response.prepare(request)
        if cuts <= 3 * answers.TRIES:
            await response.write(b"\n")
        elif cuts == 3 * answers.TRIES + 1:
            await response.write(b'{"status": "COMPLETED"}\n')
        return response

    server = await served(cut)
    async with client(url=str(server.make_url("")).rstrip("/")) as talking:
        assert {row async for row in talking.batch_results("x")} == {None}
        with pytest.raises(GatewayAway):
            [row async for row in talking.batch_results("x")]
    await server.close()
