"""The pace of agendas: each server is looked at while calls are out there, and left alone where it says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import looptime
import pytest

pytestmark = pytest.mark.usefixtures("importable_prefect")


class Load(NamedTuple):
    """What a server's metrics say."""

    running: int
    waiting: int


class Server:
    """A server whose metrics say this; when it was looked at is noted."""

    def __init__(self, load: Load | Exception | None) -> None:
        self.load, self.looked = load, list[float]()

    async def server_load(self) -> Load | None:
        """Its metrics."""
        self.looked.append(asyncio.get_running_loop().time())
        if isinstance(self.load, Exception):
            raise self.load
        return self.load


Work = Callable[[Any], Coroutine[Any, Any, None]]


def paced_for(monkeypatch: pytest.MonkeyPatch, servers: dict[str, Server], work: Work, **budget: Any) -> Any:
    """Work under a pace with these servers, on a clock that jumps; the admission as it was at last."""
    from tasks.collect import pacing
    from tasks.council.models import Budget

    async def load(_kind: Any, name: str) -> Server:
        return servers[name]

    async def run() -> Any:
        async with pacing.paced(servers, Budget(**budget) if budget else None, 64) as admission:
            await work(admission)
            return admission

    monkeypatch.setattr(pacing, "load", load)
    loop = looptime.new_event_loop(start=0)
    try:
        return loop.run_until_complete(asyncio.wait_for(run(), 3_600))
    finally:
        loop.close()


def with_calls(calls: int, seconds: float, server: str = "a") -> Work:
    """So many calls are out for so long."""

    async def work(admission: Any) -> None:
        admission.windows[server].begun(calls)
        await asyncio.sleep(seconds)

    return work


def test_a_window_follows_its_servers_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon at first, then twice a second; each server by itself."""
    full, other = Server(Load(64, 0)), Server(Load(0, 0))
    admission = paced_for(monkeypatch, {"a": full, "b": other}, with_calls(64, 2.0))
    assert admission.windows["a"].size == 128  # 64 of 128 is no full window any more
    assert admission.windows["b"].size == 64
    assert full.looked[:5] == pytest.approx([0.15, 0.3, 0.5, 0.75, 1.0])
    assert full.looked[5:] == pytest.approx([1.5, 2.0]) or full.looked[5:] == pytest.approx([1.5])
    assert other.looked == []


def test_where_calls_wait_it_shrinks_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    admission = paced_for(monkeypatch, {"a": Server(Load(16, 48))}, with_calls(64, 0.6))
    assert admission.windows["a"].size == 32


@pytest.mark.parametrize("load", [None, "away"])
def test_a_server_that_says_nothing_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch, load: str | None
) -> None:
    """Its window follows refusals; it may be one that was away just then."""
    from blocks.exceptions import ModelServerUnavailable

    server = Server(None if load is None else ModelServerUnavailable("it is away"))
    admission = paced_for(monkeypatch, {"a": server}, with_calls(64, 70.0))
    assert len(server.looked) == 3
    assert server.looked[1] - server.looked[0] >= 30
    assert admission.windows["a"].size == 64


def test_whoever_waits_for_room_is_woken_where_there_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.council.council import CouncilSpec, Member
    from tasks.council.models import Deliberation, DeliberationRequest

    council = CouncilSpec(name="dev", members=(Member(agent_id="m1", role="DEV", server="a"),))
    plan = Deliberation.plan("d", DeliberationRequest.read({"items": [{"task": "x"}]}), council)
    woken: list[float] = []

    async def work(admission: Any) -> None:
        admission.join(plan, lambda: woken.append(asyncio.get_running_loop().time()))
        admission.windows["a"].begun(64)
        assert not admission.admit(plan, plan.agenda[0])
        await asyncio.sleep(0.2)
        assert admission.admit(plan, plan.agenda[0])

    paced_for(monkeypatch, {"a": Server(Load(64, 0))}, work)
    assert woken == pytest.approx([0.15])


def test_time_that_is_over_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of earlier runs too, where there is a budget of it."""
    from tasks.collect import pacing
    from tasks.council.models import Budget

    async def run() -> list[str | None]:
        async with pacing.paced(["a"], Budget(max_s=60), elapsed_s=50) as admission:
            before = admission.stopped
            await asyncio.sleep(10)
            return [before, admission.stopped]

    loop = looptime.new_event_loop(start=0)
    assert loop.run_until_complete(run()) == [None, "budget: 60 s are over"]
    loop.close()


@pytest.mark.parametrize(("asked", "is_paced"), [({}, False), ({"budget": {"max_calls": 1}}, True)])
def test_one_item_without_a_budget_needs_no_pace(asked: dict[str, Any], is_paced: bool) -> None:
    from tasks.collect.pacing import pace_of
    from tasks.council.council import CouncilSpec, Member
    from tasks.council.models import Deliberation, DeliberationRequest

    council = CouncilSpec(name="dev", members=(Member(agent_id="m1", role="DEV"),))

    async def admission(**fields: Any) -> Any:
        plan = Deliberation.plan("d", DeliberationRequest.read({**fields, **asked}), council)
        async with pace_of(plan) as found:
            return found

    assert (asyncio.run(admission(task="x")) is not None) is is_paced
    assert asyncio.run(admission(items=[{"task": "x"}, {"task": "y"}])) is not None
