"""The warm task runner on the real stack: it does what the stock one does, and nothing is lost when hosts end."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

PATIENCE_S = 20.0
LONG_S = 60.0


@pytest_asyncio.fixture(scope="session")
async def client(stack: Any) -> AsyncGenerator[Any, None]:
    """A client of the stack's Prefect."""
    from blocks.prefect_api import prefect_clients

    async with prefect_clients():
        from prefect.client.orchestration import get_client

        yield get_client()


@pytest.fixture(scope="session")
def flows(client: Any) -> Any:
    """The module of tasks that the hosts import too."""
    from tests.blocks import warm_runner_flows

    return warm_runner_flows


@pytest.fixture(scope="session")
def runner(stack: Any) -> Any:
    """A runner whose two hosts most tests share."""
    from blocks.warm.runner import WarmRayTaskRunner

    found = WarmRayTaskRunner(hosts=2)
    found.warm()
    return found


@pytest.fixture
def make_runner(stack: Any) -> Callable[..., Any]:
    """A runner on hosts that no other test has: `runner, pool = make_runner(concurrency=2)`."""
    from blocks.warm.pool import connect
    from blocks.warm.runner import WarmRayTaskRunner

    pools = []

    def make(hosts: int = 1, **settings: Any) -> Any:
        # the concurrency is part of a host's name, and a number above what a test needs does not change it
        concurrency = settings.pop("concurrency", 100_000 + uuid.uuid4().int % 100_000)
        connect(None)
        made = WarmRayTaskRunner(hosts=hosts, concurrency=concurrency, **settings)
        pools.append(made.pool())
        return made, pools[-1]

    yield make
    import ray

    for pool in pools:
        for host in pool.hosts():
            ray.kill(host)


@pytest.fixture(scope="session")
def lone(stack: Any) -> Any:
    """A runner with one host, for the tests that end it, and its pool."""
    from blocks.warm.runner import WarmRayTaskRunner

    made = WarmRayTaskRunner(hosts=1, concurrency=99)
    made.warm()
    return made, made.pool()


@pytest.fixture
def in_flow(flows: Any, runner: Any) -> Callable[..., Awaitable[Any]]:
    """Await `body()` inside of a flow run on the runner."""

    async def run(body: Callable[[], Awaitable[Any]], task_runner: Any = None) -> Any:
        key = uuid.uuid4().hex
        flows.bodies[key] = body
        return await flows.asynchronous.with_options(task_runner=task_runner or runner)(key)

    return run


@pytest.fixture
def recorded(client: Any) -> Callable[..., Awaitable[Any]]:
    """The task run as Prefect's API tells it, as soon as it has the state (events take a moment)."""
    from prefect.exceptions import ObjectNotFound

    async def read(future: Any, state: str) -> Any:
        run = None
        for _ in range(int(PATIENCE_S / 0.2)):
            try:
                run = await client.read_task_run(future.task_run_id)
            except ObjectNotFound:
                run = None
            if run is not None and run.state_name == state:
                return run
            await asyncio.sleep(0.2)
        pytest.fail(f"Prefect says {run.state_name if run else 'nothing'} of the task run, not {state}")

    return read


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for the condition, patiently."""
    for _ in range(int(PATIENCE_S / 0.1)):
        if await condition():
            return
        await asyncio.sleep(0.1)
    pytest.fail("it did not come true")


async def stats(pool: Any) -> list[Any]:
    """What each of the pool's hosts has in hand."""
    return list(await asyncio.gather(*(host.stats.remote() for host in pool.hosts())))


def running(pool: Any, count: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return sum(each.running for each in await stats(pool)) == count

    return check


async def states(futures: Any) -> list[str]:
    """The names of the final states."""
    return [state.name for state in await asyncio.gather(*(future.settled() for future in futures))]


async def results(futures: Any) -> list[Any]:
    """What the task runs returned."""
    settled = await asyncio.gather(*(future.settled() for future in futures))
    return list(await asyncio.gather(*(state.aresult() for state in settled)))


# --- what every task runner does -------------------------------------------------------------------


@pytest.mark.stack
async def test_six_first_tasks_on_fresh_hosts_succeed_and_the_loop_runs_on(
    in_flow: Any, flows: Any, make_runner: Any
) -> None:
    """Hosts set themselves up once, however many ask, and the flow's loop ticks while it waits."""
    fresh, _ = make_runner(hosts=2)
    ticks = 0

    async def ticker() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    async def body() -> Any:
        futures = [flows.rest.submit(0.5) for _ in range(6)]
        ticking = asyncio.create_task(ticker())
        found = await results(futures)
        ticking.cancel()
        return found

    pids = await in_flow(body, fresh)
    assert (len(pids), len(set(pids))) == (6, 2)
    assert ticks > 20


async def test_results_failures_and_sync_tasks_come_back(in_flow: Any, flows: Any, recorded: Any) -> None:
    """Async and sync tasks give their result, and an exception becomes a Failed state that carries it."""

    async def body() -> None:
        added, pid, failed = flows.add.submit(2, 3), flows.where_sync.submit(), flows.fail.submit("broken")
        assert await results([added, pid]) == [5, (await results([pid]))[0]]
        assert (await results([pid]))[0] != os.getpid()
        state = await failed.settled()
        assert (state.name, repr(await state.aresult(raise_on_failure=False))) == ("Failed", "ValueError('broken')")
        assert (await recorded(failed, "Failed")).state_type.value == "FAILED"

    await in_flow(body)


async def test_map_makes_a_task_run_for_each_element(in_flow: Any, flows: Any) -> None:
    """`map` takes lists and unmapped values."""
    from prefect import unmapped

    async def body() -> Any:
        return await results(flows.add.map([1, 2, 3], right=unmapped(10)))

    assert await in_flow(body) == [11, 12, 13]


async def test_a_task_is_retried_and_its_runs_are_counted(in_flow: Any, flows: Any, recorded: Any) -> None:
    """Two failures and a success are one task run that ran three times."""

    async def body() -> None:
        future = flows.third_time_lucky.submit(uuid.uuid4().hex)
        assert await results([future]) == [3]
        assert (await recorded(future, "Completed")).run_count == 3

    await in_flow(body)


async def test_a_task_that_takes_too_long_is_timed_out(in_flow: Any, flows: Any, recorded: Any) -> None:
    """The engine's own timeout is told from a cancel."""

    async def body() -> None:
        future = flows.rest.with_options(timeout_seconds=0.2).submit(30)
        assert await states([future]) == ["TimedOut"]
        assert (await recorded(future, "TimedOut")).state_type.value == "FAILED"

    await in_flow(body)


async def test_names_tags_and_logs_reach_prefect(in_flow: Any, flows: Any, recorded: Any, client: Any) -> None:
    """The run name, the tags in force at the submit, and what the task logs."""
    from prefect import tags
    from prefect.client.schemas.filters import LogFilter, LogFilterTaskRunId

    async def body() -> None:
        said = uuid.uuid4().hex
        with tags("night"):
            tagged = flows.say.with_options(task_run_name="say-{text}").submit(said)
        plain = flows.add.submit(1)
        assert await states([tagged, plain]) == ["Completed", "Completed"]
        run = await recorded(tagged, "Completed")
        assert (run.name, run.tags) == (f"say-{said}", ["night"])
        assert (await recorded(plain, "Completed")).tags == []

        async def logged() -> bool:
            filter_ = LogFilter(task_run_id=LogFilterTaskRunId(any_=[tagged.task_run_id]))
            return said in [log.message for log in await client.read_logs(filter_, limit=10, offset=0)]

        await until(logged)

    await in_flow(body)


async def test_a_task_submits_tasks_to_the_same_hosts(
    in_flow: Any, flows: Any, runner: Any, recorded: Any, client: Any
) -> None:
    """Children run on the hosts of their parent, are its children in Prefect, and no other host starts."""
    import ray
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
    from prefect.client.schemas.sorting import TaskRunSort
    from prefect.runtime import flow_run

    before = {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}

    async def body() -> None:
        asynchronous, synchronous = flows.parent.submit(4), flows.parent_sync.submit(5)
        (*pids, added), other = await results([asynchronous, synchronous])
        assert (set(pids) <= set(runner.warm()), added, other) == (True, 5, 6)
        await recorded(asynchronous, "Completed")
        owner = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run.id]))

        async def children() -> bool:
            runs = await client.read_task_runs(task_run_filter=owner, sort=TaskRunSort.ID_DESC, limit=50, offset=0)
            parents = [str(link.id) for run in runs for link in run.task_inputs.get("__parents__", [])]
            expected = [str(asynchronous.task_run_id)] * 3 + [str(synchronous.task_run_id)]
            return sorted(parents) == sorted(expected)

        await until(children)

    await in_flow(body)
    assert {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)} == before


async def test_a_parent_that_would_block_its_host_is_refused(in_flow: Any, flows: Any) -> None:
    """`result()` on the host's loop could wait for ever for a child on the same host."""

    async def body() -> Any:
        return await results([flows.blocking_parent.submit()])

    assert await in_flow(body) == ["refused"]


async def test_the_edges_are_the_same_as_with_the_stock_runner(in_flow: Any, flows: Any, recorded: Any) -> None:
    """Futures as parameters, in a list and a dict, and `wait_for`: same results, same inputs in Prefect."""
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    from blocks.warm.runner import settled

    async def body() -> Any:
        with remote_options(num_cpus=0):
            first = flows.add.submit(1)
            second = flows.add.submit(first, right=10)
            summed = flows.total.submit([first, 5], more={"second": second})
            after = flows.where.submit(wait_for=[summed])
        futures = {"first": first, "second": second, "summed": summed, "after": after}
        ended = {name: await settled(future) for name, future in futures.items()}
        names = {str(future.task_run_id): name for name, future in futures.items()}
        edges = {}
        for name, future in futures.items():
            inputs = (await recorded(future, "Completed")).task_inputs
            edges[name] = {
                key: sorted(names[str(link.id)] for link in links if hasattr(link, "id"))
                for key, links in sorted(inputs.items())
            }
        return edges, await ended["summed"].aresult()  # type: ignore[union-attr]

    warm, stock = await in_flow(body), await in_flow(body, RayTaskRunner())
    assert warm == stock
    assert warm[0]["after"] == {"wait_for": ["summed"]}
    assert warm[1] == 2 + 5 + 12


async def test_a_task_after_a_failed_one_is_not_run(in_flow: Any, flows: Any) -> None:
    """As with the stock runner the state is NotReady."""

    async def body() -> Any:
        failed = flows.fail.submit("upstream")
        return await states([flows.add.submit(failed), flows.where.submit(wait_for=[failed])])

    assert await in_flow(body) == ["NotReady", "NotReady"]


async def test_a_sync_flow_waits_and_reads_results(flows: Any, runner: Any) -> None:
    """The blocking `wait` and `result` work where there is no loop to block."""

    def body() -> Any:
        added, slow, failed = flows.add.submit(1), flows.rest.submit(LONG_S), flows.fail.submit("told")
        added.wait()
        slow.wait(0.1)
        slow.cancel()
        with pytest.raises(ValueError, match="told"):
            failed.result()
        slow.wait()
        return added.state.name, added.result(), slow.state.name, failed.result(raise_on_failure=False).args

    key = uuid.uuid4().hex
    flows.bodies[key] = body
    found = await asyncio.to_thread(flows.synchronous.with_options(task_runner=runner), key)
    assert found == ("Completed", 2, "Cancelled", ("told",))


async def test_waiting_for_a_while_does_not_end_the_task(in_flow: Any, flows: Any) -> None:
    """`settled` with a timeout gives None, and the state later."""
    from blocks.warm.runner import settled

    async def body() -> Any:
        future = flows.rest.submit(1)
        return await settled(future, 0.1), (await future.settled()).name

    assert await in_flow(body) == (None, "Completed")


async def test_a_host_has_what_its_runner_gives_it(
    in_flow: Any, flows: Any, make_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables of this process, modules, and the context in which all work is done."""
    monkeypatch.setenv("PASSED", "as it is here")
    given, _ = make_runner(
        pass_env=("PASSED", "NOWHERE"), preload=("colorsys",), lifespan="tests.blocks.warm_runner_flows:lifespan"
    )

    async def body() -> Any:
        return await results([flows.surroundings.submit()])

    assert await in_flow(body, given) == [("as it is here", "", True, "entered")]


# --- cancelling ------------------------------------------------------------------------------------


async def test_a_cancel_reaches_the_code_and_the_run_ends_cancelled(
    in_flow: Any, flows: Any, recorded: Any, tmp_path: Path
) -> None:
    """The task's code sees CancelledError, and Prefect says Cancelled and not Crashed."""
    note = tmp_path / "note"

    async def begun() -> bool:
        return note.exists()

    async def body() -> None:
        future = flows.note_cancel.submit(str(note))
        await until(begun)
        future.cancel()
        assert await states([future]) == ["Cancelled"]
        assert (await recorded(future, "Cancelled")).state_type.value == "CANCELLED"

    await in_flow(body)
    assert note.read_text() == "cancelled"


async def test_a_cancel_that_comes_while_the_engine_starts_is_kept(in_flow: Any, flows: Any, recorded: Any) -> None:
    """Whenever it comes, the run ends Cancelled."""

    async def body() -> None:
        futures = []
        for delay_s in (0, 0.001, 0.003, 0.005, 0.01, 0.02, 0.04):
            futures.append(flows.rest.submit(LONG_S))
            await asyncio.sleep(delay_s)
            futures[-1].cancel()
        assert await states(futures) == ["Cancelled"] * len(futures)
        for future in futures:
            await recorded(future, "Cancelled")

    await in_flow(body)


async def test_a_cancel_closes_the_http_request(in_flow: Any, flows: Any) -> None:
    """The server sees its client go away."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        assert await reader.read() == b""
        left.set()
        writer.close()

    async def body() -> Any:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            future = flows.fetch.submit(f"http://127.0.0.1:{port}/")
            await asyncio.wait_for(asked.wait(), PATIENCE_S)
            assert not left.is_set()
            future.cancel()
            await asyncio.wait_for(left.wait(), PATIENCE_S)
            return await states([future])

    assert await in_flow(body) == ["Cancelled"]


async def test_a_task_that_raises_cancelled_error_itself_is_crashed(in_flow: Any, flows: Any, recorded: Any) -> None:
    """Nobody cancelled it: that is an accident, and the future and Prefect agree."""

    async def body() -> None:
        future = flows.cancel_oneself.submit()
        assert await states([future]) == ["Crashed"]
        await recorded(future, "Crashed")

    await in_flow(body)


# --- bounds ----------------------------------------------------------------------------------------


async def test_a_host_runs_as_many_as_it_may_and_says_when_too_many_wait(
    in_flow: Any, flows: Any, make_runner: Any, recorded: Any
) -> None:
    """With two slots two run, the others wait and can be cancelled, and too many are refused with a reason."""
    from blocks.warm.exceptions import AgentsUnavailable

    narrow, pool = make_runner(concurrency=2)

    async def body() -> None:
        key = uuid.uuid4().hex
        assert max(await results([flows.crowd.submit(key) for _ in range(8)])) == 2
        futures = [flows.rest.submit(LONG_S) for _ in range(20)]
        with pytest.raises(AgentsUnavailable, match="limit"):
            flows.rest.submit(LONG_S)
        futures[-1].cancel()
        assert await states(futures[-1:]) == ["Cancelled"]

        async def full() -> bool:
            (found,) = await stats(pool)
            return (found.running, found.waiting) == (2, 17)

        await until(full)
        for future in reversed(futures[:-1]):
            future.cancel()
        assert await states(futures) == ["Cancelled"] * 20
        for future in futures:
            await recorded(future, "Cancelled")
        assert await states([flows.where.submit()]) == ["Completed"]

    await in_flow(body, narrow)


async def test_a_flow_run_that_has_ended_is_forgotten(in_flow: Any, flows: Any, runner: Any) -> None:
    """Whatever contexts it had, with tags and in tasks of tasks, on every host."""
    from prefect import tags

    pool = runner.pool()

    async def body() -> int:
        with tags("one"):
            futures = [flows.where.submit() for _ in range(4)]
        with tags("two"):
            futures += [flows.parent.submit(1) for _ in range(4)]
        await states(futures)
        return sum(each.scopes for each in await stats(pool))

    assert await in_flow(body) > 4

    async def forgotten() -> bool:
        return [(each.scopes, each.running) for each in await stats(pool)] == [(0, 0), (0, 0)]

    await until(forgotten)


@pytest.mark.stack
async def test_contexts_that_nobody_releases_do_not_pile_up(
    in_flow: Any, flows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver may die: the oldest idle contexts go, those at work never."""
    import ray

    from blocks.warm import host as agent_host
    from blocks.warm.runner import _context_of_run

    monkeypatch.setattr(agent_host, "MAX_SCOPES", 3)

    async def body() -> None:
        host, context = agent_host.AgentHost((), 100), ray.put(_context_of_run())

        def submission(task: Any) -> Any:
            scope = agent_host.ScopeId("a dead driver", uuid.uuid4().hex)
            return agent_host.Submission(scope, context, ray.put(task), uuid.uuid4(), {}, [], None)

        flows.held.clear()
        at_work = [submission(flows.wait_held) for _ in range(2)]
        waiting = [asyncio.create_task(host.run(each)) for each in at_work]
        for _ in range(8):
            assert (await host.run(submission(flows.where))).name == "Completed"
        assert (await host.stats()).scopes == 3
        assert {each.scope_id for each in at_work} <= set(host._scopes)
        more = [asyncio.create_task(host.run(submission(flows.wait_held))) for _ in range(4)]
        await asyncio.sleep(0.2)
        flows.held.set()
        assert [(await each).name for each in waiting + more] == ["Completed"] * 6
        assert (await host.run(submission(flows.where))).name == "Completed"
        assert (await host.stats()).scopes == 3
        await host.release("a dead driver")
        assert (await host.stats()).scopes == 0
        await asyncio.create_task(host._closing.aclose(), context=host._base)

    await in_flow(body)


# --- hosts that end --------------------------------------------------------------------------------


async def test_a_task_that_exits_harms_nobody_else(in_flow: Any, flows: Any, runner: Any, recorded: Any) -> None:
    """`sys.exit` in a task is a crash of that task run; the host and its other work go on."""
    pids = runner.warm()

    async def body() -> None:
        others = [flows.rest.submit(1) for _ in range(2)]
        leaving = [flows.leave.submit(), flows.leave_sync.submit()]
        assert await states(leaving) == ["Crashed", "Crashed"]
        assert await states(others) == ["Completed", "Completed"]
        for future in leaving:
            await recorded(future, "Crashed")

    await in_flow(body)
    assert runner.warm() == pids


@pytest.mark.stack
async def test_work_of_a_killed_host_is_run_again(in_flow: Any, flows: Any, lone: Any, recorded: Any) -> None:
    """Ray restarts the host, and no task run stays Running."""
    lone_runner, pool = lone

    async def body() -> None:
        futures = [flows.rest.submit(2) for _ in range(4)]
        await until(running(pool, 4))
        (before,) = await stats(pool)
        os.kill(before.pid, signal.SIGKILL)
        after = await results(futures)
        assert (len(set(after)), before.pid in after) == (1, False)
        for future in futures:
            await recorded(future, "Completed")

    await in_flow(body, lone_runner)


@pytest.mark.stack
async def test_work_of_a_host_that_is_gone_for_good_goes_to_a_new_one(
    in_flow: Any, flows: Any, lone: Any, recorded: Any
) -> None:
    """The future submits again, also for more than one who waits, and a second end is a crash."""
    import ray

    lone_runner, pool = lone

    async def body() -> None:
        future, cancelled = flows.rest.submit(2), flows.rest.submit(LONG_S)
        await until(running(pool, 2))
        ray.kill(pool.hosts()[0])
        cancelled.cancel()
        assert await states([future, cancelled]) == ["Completed", "Cancelled"]
        await recorded(future, "Completed")
        await recorded(cancelled, "Cancelled")
        twice = flows.rest.submit(LONG_S)
        ending = asyncio.create_task(states([twice]))
        for _ in range(2):
            await until(running(pool, 1))
            ray.kill(pool.hosts()[0])
            await asyncio.sleep(1)
        assert await ending == ["Crashed"]
        await recorded(twice, "Crashed")

    await in_flow(body, lone_runner)


@pytest.mark.stack
async def test_a_task_that_kills_every_host_ends_crashed(in_flow: Any, flows: Any, lone: Any, recorded: Any) -> None:
    """Ray tries it three times, and then Prefect hears of the crash from the future."""
    lone_runner, _ = lone

    async def body() -> None:
        future = flows.die.submit()
        assert await states([future]) == ["Crashed"]
        assert (await recorded(future, "Crashed")).name.startswith("die")

    await in_flow(body, lone_runner)


# --- who shares hosts ------------------------------------------------------------------------------


def _name(*packages: str, concurrency: int = 1, **settings: Any) -> str:
    from blocks.warm import pool as agent_pool
    from blocks.warm.runner import WarmRayTaskRunner

    agent_pool._source_digest.cache_clear()
    agent_pool._pool.cache_clear()
    return str(WarmRayTaskRunner(hosts=1, concurrency=concurrency, packages=packages, **settings).pool()._name)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source of a package that nothing imports; its name is that of its folder."""
    folder = tmp_path / f"package_{uuid.uuid4().hex}"
    folder.mkdir()
    (folder / "__init__.py").write_text("VERSION = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


async def test_other_code_other_settings_or_another_server_mean_other_hosts(
    runner: Any, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name says so; what is the same has the same name, and a package that is not there is an error."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_LOGGING_LEVEL,
        PREFECT_WORKER_QUERY_SECONDS,
        temporary_settings,
    )

    name = _name(package.name)
    family, _, code = name.rpartition("-")
    assert _name(package.name) == name
    with temporary_settings({PREFECT_WORKER_QUERY_SECONDS: 7.0}):  # a worker's own: it shares the hosts of others
        assert _name(package.name) == name
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        other_server = _name(package.name).rpartition("-")
    with temporary_settings({PREFECT_LOGGING_LEVEL: "ERROR"}):
        other_settings = _name(package.name).rpartition("-")
    other_concurrency = _name(package.name, concurrency=2).rpartition("-")
    monkeypatch.setenv("HOSTS_OF", "one")
    with_variable = _name(package.name, pass_env=("HOSTS_OF",)).rpartition("-")
    monkeypatch.setenv("HOSTS_OF", "another")
    other_variable = _name(package.name, pass_env=("HOSTS_OF",)).rpartition("-")
    other_lifespan = _name(package.name, lifespan=f"{package.name}:lifespan").rpartition("-")
    other_modules = _name(package.name, preload=(package.name,)).rpartition("-")
    (package / "more.py").write_text("")
    other_code = _name(package.name).rpartition("-")
    other_families = (other_server, other_settings, other_concurrency, with_variable, other_variable)
    assert len({family, *(other[0] for other in other_families)}) == 6
    assert {other[2] for other in other_families} == {code}
    other_codes = (other_code, other_lifespan, other_modules)
    assert {other[0] for other in other_codes} == {family}
    assert len({code, *(other[2] for other in other_codes)}) == 4
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        _name("no_such_package")


@pytest.mark.stack
async def test_hosts_of_older_code_finish_their_work_and_end(
    in_flow: Any, flows: Any, make_runner: Any, package: Path, monkeypatch: pytest.MonkeyPatch, recorded: Any
) -> None:
    """A new program asks them to; what they have begun, and what their own driver still gives them, is done."""
    import ray

    from blocks.warm import pool as agent_pool

    monkeypatch.setattr(agent_pool, "RETIRE_IDLE_S", 0.5)
    concurrency = 200_000 + uuid.uuid4().int % 100_000
    old, old_pool = make_runner(concurrency=concurrency, packages=(package.name,))
    go = package.with_name("go")

    def living() -> set[str]:
        return {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}

    async def body() -> None:
        begun = flows.wait_for_file.submit(str(go))
        await until(running(old_pool, 1))
        (old_host,) = await stats(old_pool)
        (package / "__init__.py").write_text("VERSION = 2\n")
        agent_pool._source_digest.cache_clear()
        agent_pool._pool.cache_clear()
        _, new_pool = make_runner(concurrency=concurrency, packages=(package.name,))
        (new_pid,) = new_pool.check(PATIENCE_S * 2)
        later = flows.where.submit()
        assert await results([later]) == [old_host.pid]
        assert new_pid != old_host.pid
        go.touch()
        assert await results([begun]) == [old_host.pid]
        old_name, new_name = f"{old_pool._name}-0", f"{new_pool._name}-0"

        async def ended() -> bool:
            return old_name not in living()

        await until(ended)
        assert new_name in living()
        await recorded(begun, "Completed")
        await recorded(later, "Completed")
        assert await states([flows.where.submit()]) == ["Completed"]

    await in_flow(body, old)


async def test_a_runner_is_its_settings(runner: Any) -> None:
    """Pickled, duplicated and compared by them."""
    from prefect_ray import RayTaskRunner

    from blocks.ray_agents import RayAgents
    from blocks.warm.runner import WarmRayTaskRunner

    one = WarmRayTaskRunner("10.0.0.5:6379", {"log_to_driver": True}, hosts=3, concurrency=7, packages=("blocks",))
    ours = RayAgents().task_runner()
    for runner in (one, ours):
        for same in (runner.duplicate(), pickle.loads(pickle.dumps(runner))):
            assert (same == runner, same is runner, type(same)) == (True, False, type(runner))
    for same in (one.duplicate(), pickle.loads(pickle.dumps(one))):
        assert (same.address, same.hosts, same.concurrency) == ("10.0.0.5:6379", 3, 7)
    assert one != WarmRayTaskRunner("10.0.0.5:6379", hosts=3, concurrency=7, packages=("blocks",))
    assert one != RayTaskRunner("10.0.0.5:6379", {"log_to_driver": True})
    assert type(RayAgents(runner="stock").task_runner()) is RayTaskRunner


# --- which Ray -------------------------------------------------------------------------------------


async def test_ray_address_is_used(stack: Any, runner: Any) -> None:
    """A runner without an address connects to the cluster of RAY_ADDRESS."""
    import ray

    assert os.environ["RAY_ADDRESS"] == stack.ray
    assert ray.get_runtime_context().gcs_address == stack.ray


async def _in_a_process(program: str, **environment: str) -> Any:
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | environment
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(program),
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        told, trouble = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, trouble.decode()[-2000:]
    return json.loads(told.decode().splitlines()[-1])


@pytest.mark.stack
async def test_a_cluster_that_is_not_there_is_an_error_that_names_it(stack: Any) -> None:
    """Soon, for `auto` and for an address, also where something else answers; and the right one works after.

    The runner of our block raises our own error.
    """
    found = await _in_a_process(
        """
        import functools, json, os, socket
        from ray._private import services
        from blocks.warm import pool as agent_pool
        from blocks.warm.pool import connect
        from blocks.warm.exceptions import AgentsUnavailable
        from blocks.ray_agents import RayAgents
        import blocks.exceptions

        services._cached_find_gcs_addresses = functools.lru_cache(lambda: set())   # whatever else runs here
        services.find_bootstrap_address = lambda folder: None
        agent_pool.CONNECT_S = 1.0
        silent = socket.create_server(("127.0.0.1", 0))
        told = []
        for address in ("auto", "127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}", "ray://127.0.0.1:1",
                        "nowhere.invalid:6379", "no address"):
            try:
                connect(address)
                told.append(None)
            except AgentsUnavailable as error:
                told.append(repr(address) in str(error))
        ours = RayAgents(address="127.0.0.1:1").task_runner()
        for asked in (ours.warm, ours.__enter__):
            try:
                asked()
                told.append(None)
            except blocks.exceptions.AgentsUnavailable as error:
                told.append("127.0.0.1:1" in str(error))
        os.environ["RAY_ADDRESS"] = os.environ["RIGHT"]
        connect(None)
        import ray
        told.append(ray.get_runtime_context().gcs_address)
        print(json.dumps(told))
        """,
        RIGHT=stack.ray,
    )
    assert found == [True] * 8 + [stack.ray]


@pytest.mark.stack
async def test_without_a_cluster_a_local_ray_is_started_and_stays(stack: Any) -> None:
    """A second flow of the process finds the Ray and the hosts of the first."""
    first, second = await _in_a_process(
        """
        import asyncio, json
        import ray
        from blocks.warm.runner import WarmRayTaskRunner
        from tests.blocks import warm_runner_flows as flows

        async def main():
            told = []
            for value in (1, 2):
                async def body():
                    added, where = flows.add.submit(value), flows.where.submit()
                    return await (await added.settled()).aresult(), await (await where.settled()).aresult()
                flows.bodies["body"] = body
                flow = flows.asynchronous.with_options(task_runner=WarmRayTaskRunner(hosts=1))
                told.append([*await flow("body"), ray.is_initialized(), ray.get_runtime_context().gcs_address])
            print(json.dumps(told))

        asyncio.run(main())
        """,
        PYTHONPATH=str(Path(__file__).parents[2]),
    )
    assert (first[0], second[0]) == (2, 3)
    assert first[1:] == second[1:]
    assert first[2] and first[3] != stack.ray


# --- the product -----------------------------------------------------------------------------------


async def test_a_council_on_the_stock_runner_decides_the_same(deliberate: Any, make_council: Any) -> None:
    """By configuration only: statuses, members, counts and checks are those of the warm runner."""
    from blocks.ray_agents import RayAgents

    name = await make_council(2)

    async def decided(task_runner: Any, deliberation_id: str) -> Any:
        state, result = await deliberate(
            task="Write a function to merge sorted arrays",
            council=name,
            deadline_s=120,
            task_runner=task_runner,
            deliberation_id=deliberation_id,
        )
        return {
            "state": state.name,
            "result": {key: result[key] for key in ("status", "degraded", "total_agents", "received_count")},
            "fields": sorted(result),
            "members": sorted((member["agent_id"], member["status"]) for member in result["members"]),
            "ranks": sorted(entry["rank"] for entry in result["results"]),
            "checks": [sorted(check["name"] for check in entry["checks"]) for entry in result["results"]],
        }

    warm = await decided(RayAgents().task_runner(), f"t-{uuid.uuid4()}")
    stock = await decided(RayAgents(runner="stock").task_runner(), f"t-{uuid.uuid4()}")
    assert warm == stock
    assert (warm["state"], warm["result"]["received_count"]) == ("Completed", 2)
