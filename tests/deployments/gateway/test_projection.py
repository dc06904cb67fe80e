"""The list: each deliberation once, whatever comes meanwhile and whichever stream is read first; made anew."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deployments.gateway import projection
from deployments.gateway.handlers import deliberations
from deployments.gateway.projection import Filter
from tasks.deliberations import councils
from tests.deployments.gateway.parts import MEMBERS, PATH, Gateway, Run, council, gateway_at

pytestmark = pytest.mark.servers


async def caught_up(gateway: Gateway) -> None:
    await gateway.service.projection.catch_up(10.0)


async def pages(gateway: Gateway, query: str = "limit=3", token: str = "") -> list[list[str]]:
    """Ids of all pages."""
    found: list[list[str]] = []
    cursor = ""
    while True:
        told = await gateway.get(f"{PATH}?{query}{cursor}", token)
        assert told.status == 200, told.text
        found.append([one["id"] for one in told.body["deliberations"]])
        if told.body["cursor"] is None:
            return found
        cursor = f"&cursor={told.body['cursor']}"


async def listed(gateway: Gateway, query: str = "", token: str = "") -> set[str]:
    return {one for page in await pages(gateway, f"limit=200&{query}", token) for one in page}


async def test_pages_have_each_once_the_newest_first_while_new_ones_come(either: Gateway) -> None:
    ids = [(await either.post()).body["id"] for _ in range(10)]
    await caught_up(either)
    assert [one for page in await pages(either) for one in page] == ids[::-1]
    told = (await either.get(f"{PATH}?limit=4")).body
    more = [(await either.post()).body["id"] for _ in range(3)]
    await caught_up(either)
    found = [one["id"] for one in told["deliberations"]]
    while told["cursor"] is not None:
        told = (await either.get(f"{PATH}?limit=4&cursor={told['cursor']}")).body
        found += [one["id"] for one in told["deliberations"]]
    assert found == ids[::-1]
    assert await listed(either) == {*ids, *more}


async def test_filters_find_what_they_say(gateway: Gateway) -> None:
    a = (await gateway.post(metadata={"team": "a", "n": 1, "ok": True, "none": None, "x": 1.5, "all": ["é", 2]})).body[
        "id"
    ]
    b = (await gateway.post(metadata={"team": "text", "n": "1", "ok": "true"})).body["id"]
    c = (await gateway.post(council="qa")).body["id"]
    d = (await gateway.post(metadata={"team": "a"})).body["id"]
    await Run(gateway.record, d).whole()
    await caught_up(gateway)
    for query, wanted in {
        "": {a, b, c, d},
        "council=qa": {c},
        "council=nobody": set(),
        "status=PENDING": {a, b, c},
        "status=COMPLETED": {d},
        "status=PENDING,COMPLETED": {a, b, c, d},
        "status=PENDING&status=COMPLETED": {a, b, c, d},
        "metadata.team=a": {a, d},
        "metadata.team=text": {b},
        "metadata.team=a&status=PENDING": {a},
        "metadata.n=1": {a, b},
        "metadata.ok=true": {a, b},
        "metadata.ok=1": set(),
        "metadata.none=null": {a},
        "metadata.x=1.5": {a},
        'metadata.all=["é",2]': {a},
        "metadata.x=real": set(),
    }.items():
        assert await listed(gateway, query) == wanted, query


async def test_an_owner_sees_its_own(gateway: Gateway) -> None:
    a, b, reader = (
        await gateway.new_token(owner="a"),
        await gateway.new_token(owner="b"),
        await gateway.new_token("read"),
    )
    of_a, of_b = (await gateway.post(token=a)).body["id"], (await gateway.post(token=b)).body["id"]
    await caught_up(gateway)
    assert await listed(gateway, token=a) == {of_a}
    assert await listed(gateway, token=b) == {of_b}
    assert await listed(gateway, token=reader) == {of_a, of_b}


async def test_it_catches_up_though_the_last_event_is_none_of_its_own(either: Gateway) -> None:
    """Decisions stand in the stream of the course, and are nothing that it follows."""
    one = (await either.post()).body["id"]
    run = Run(either.record, one, items=[{"task": "x", "id": "a"}, {"task": "y", "id": "b"}], task=None)
    await run.begin()
    for member in MEMBERS:
        await run.answer(member, "a")
    await run.decide("a")
    await either.service.projection.catch_up(2.0)
    told = await either.ask("DELETE", f"{PATH}?council=dev")
    assert (told.status, told.body["cancelled"]) == (202, 1)


@pytest.mark.parametrize("first", ["keys", "course"])
async def test_a_final_status_is_never_undone(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    one = (await gateway.post(metadata={"team": "a"})).body["id"]
    await Run(gateway.record, one, metadata={"team": "a"}).whole()
    made = projection.Projection(gateway.record, None)
    patterns = (projection.KEYS, projection.COURSE)
    for pattern in patterns if first == "keys" else patterns[::-1]:
        async for event in gateway.record.stored(pattern, direct=False):
            await made._take(pattern, [event], event.sequence)
    await gateway.record.statuses.merge(one, {"status": "IN_PROGRESS"})
    event = await gateway.record.last(f"$KV.conclave-deliberations.{one}", direct=False)
    assert event is not None
    await made._take(projection.KEYS, [event], event.sequence)
    (line,) = (await made.page(Filter(), 10)).deliberations
    await made.close()
    assert (line["status"], line["council"], line["metadata"]) == ("COMPLETED", "dev", {"team": "a"})


async def test_it_goes_on_from_where_it_was(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "list.db"
    async with serve(database=file) as gateway:
        first = (await gateway.post()).body["id"]
        await Run(gateway.record, first).whole()
        await caught_up(gateway)
    taken, take = list[str](), projection.learned

    def noted(event: Any) -> Any:
        taken.append(event.subject)
        return take(event)

    monkeypatch.setattr(projection, "learned", noted)
    async with serve(database=file) as gateway:
        await caught_up(gateway)
        assert taken == []
        second = (await gateway.post()).body["id"]
        await caught_up(gateway)
        assert await listed(gateway) == {first, second}
    assert {subject.rpartition(".")[2] for subject in taken} == {second}


def overwrite(file: Path) -> None:
    file.write_bytes(b"nonsense" * 1_000)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5_000])


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4_200:] = b"\xff" * (len(data) - 4_200)
    file.write_bytes(data)


def of_an_older_version(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DROP TABLE deliberations")
        database.execute("CREATE TABLE deliberations (id TEXT PRIMARY KEY, other TEXT)")
        database.execute("UPDATE about SET value = '[0, \"x\"]'")


def of_another_installation(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE about SET value = '[1, \"another\"]'")
        database.execute("UPDATE deliberations SET id = 'x' WHERE id = (SELECT min(id) FROM deliberations)")


@pytest.mark.parametrize("change", [overwrite, cut, damage, of_an_older_version, of_another_installation])
async def test_a_file_that_cannot_be_used_is_made_anew(serve: Any, tmp_path: Path, change: Any) -> None:
    file = tmp_path / "list.db"
    async with serve(database=file) as gateway:
        ids = {(await gateway.post()).body["id"] for _ in range(3)}
        await caught_up(gateway)
    change(file)
    async with serve(database=file) as gateway:
        ids.add((await gateway.post()).body["id"])
        await caught_up(gateway)
        assert await listed(gateway) == ids


async def test_of_one_whose_key_was_let_go_the_list_still_tells_all(either: Gateway) -> None:
    """When it began, too: a list that is made anew has it from the course alone."""
    one = (await either.post(metadata={"team": "a"})).body["id"]
    await Run(either.record, one, metadata={"team": "a"}).whole()
    await either.record.jetstream.purge_stream("KV_conclave-deliberations")
    made = projection.Projection(either.record, None)
    following = asyncio.create_task(made.run())
    await made.catch_up(10.0)
    (line,) = (await made.page(Filter(owner="tester"), 10)).deliberations
    following.cancel()
    await asyncio.wait([following])
    await made.close()
    assert (line["id"], line["status"], line["metadata"]) == (one, "COMPLETED", {"team": "a"})
    assert line["created_at"] != ""


# --- stopping many --------------------------------------------------------------------------------


async def test_many_are_stopped_up_to_a_number(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was accepted just now is among them: the list is waited for."""
    monkeypatch.setattr(deliberations, "MAX_CANCELLED", 4)
    ids = [(await gateway.post(council="qa")).body["id"] for _ in range(6)]
    other = (await gateway.post()).body["id"]
    told = await gateway.ask("DELETE", f"{PATH}?council=qa")
    assert (told.status, told.body) == (202, {"cancelled": 4, "more": True})
    told = await gateway.ask("DELETE", f"{PATH}?council=qa")
    assert (told.status, told.body) == (202, {"cancelled": 2, "more": False})
    statuses = {(await gateway.get(f"{PATH}/{one}")).body["status"] for one in ids}
    assert statuses == {"CANCELLED"}
    assert (await gateway.get(f"{PATH}/{other}")).body["status"] == "PENDING"
    assert (await gateway.ask("DELETE", f"{PATH}?council=qa")).body == {"cancelled": 0, "more": False}


async def test_nobody_stops_all_by_leaving_out_which(gateway: Gateway) -> None:
    told = await gateway.ask("DELETE", PATH)
    assert (told.status, told.problem["field"]) == (422, "council")


async def test_an_owner_stops_its_own(gateway: Gateway) -> None:
    a, b = await gateway.new_token(owner="a"), await gateway.new_token(owner="b")
    of_a, of_b = (await gateway.post(token=a)).body["id"], (await gateway.post(token=b)).body["id"]
    assert (await gateway.ask("DELETE", f"{PATH}?status=PENDING", a)).body["cancelled"] == 1
    assert (await gateway.get(f"{PATH}/{of_a}")).body["status"] == "CANCELLED"
    assert (await gateway.get(f"{PATH}/{of_b}")).body["status"] == "PENDING"


async def test_a_list_that_is_behind_stops_nothing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stands_still(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(gateway.service.projection, "_take", stands_still)
    monkeypatch.setattr(deliberations, "CATCH_UP_S", 0.05)
    await gateway.post()
    told = await gateway.ask("DELETE", f"{PATH}?council=dev")
    assert (told.status, told.problem["type"]) == (503, "list-behind")


# --- councils -------------------------------------------------------------------------------------


async def test_councils_are_those_that_were_mirrored(either: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anybody has mirrored them every name is taken; later those that are not there are refused."""
    monkeypatch.setattr(either.service.councils._mirror, "_kept_s", -1.0)
    assert (await either.get("/v1/councils")).body == {"councils": {}, "mirrored_at": None}
    assert (await either.post(council="anything")).status == 202
    await councils.write_mirror(either.record, {"dev": council("dev"), "qa": council("qa")})
    told = (await either.get("/v1/councils")).body
    assert set(told["councils"]) == {"dev", "qa"}
    assert told["mirrored_at"]
    refused = await either.post(council="anything")
    assert (refused.status, refused.problem["field"]) == (422, "council")
    assert "dev, qa" in refused.problem["detail"]
    changed = council("dev").model_copy(update={"quorum": 3})
    await councils.write_mirror(either.record, {"dev": changed})
    assert (await either.get("/v1/councils/dev")).body["quorum"] == 3
    assert (await either.get("/v1/councils/qa")).status == 404
    await councils.write_mirror(either.record, {"dev": changed, "qa": council("qa")})
    assert set((await either.get("/v1/councils")).body["councils"]) == {"dev", "qa"}
    token = await either.new_token(councils=("qa",))
    assert set((await either.get("/v1/councils", token)).body["councils"]) == {"qa"}
    assert (await either.get("/v1/councils/dev", token)).status == 404


async def test_a_council_is_known_as_soon_as_it_was_applied(gateway: Gateway) -> None:
    """What is kept of the mirror says yes, and never no."""
    await councils.write_mirror(gateway.record, {"dev": council("dev")})
    assert (await gateway.post(council="fresh")).status == 422
    await councils.write_mirror(gateway.record, {"dev": council("dev"), "fresh": council("fresh")})
    assert (await gateway.post(council="fresh")).status == 202
    await councils.write_mirror(gateway.record, {"dev": council("dev")})
    assert (await gateway.get("/v1/councils/fresh")).status == 404
    await councils.write_mirror(gateway.record, {"dev": council("dev"), "fresh": council("fresh")})
    assert (await gateway.get("/v1/councils/fresh")).status == 200


async def test_a_council_that_cannot_be_asked_this_refuses_it(gateway: Gateway) -> None:
    await councils.write_mirror(gateway.record, {"dev": council("dev")})
    told = await gateway.post(members=2, quorum=3)
    assert told.status == 422
    assert await gateway.queued() == []


async def test_the_mirror_of_a_real_server_is_read_by_another_gateway(nats_server: Any) -> None:
    async with gateway_at(nats_server.url) as gateway:
        await councils.write_mirror(gateway.record, {"dev": council("dev")})
    async with gateway_at(nats_server.url) as gateway:
        assert set((await gateway.get("/v1/councils")).body["councils"]) == {"dev"}
