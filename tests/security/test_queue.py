"""Whatever stands in the queue: no lane stops, every accepted id ends once, no finished call is made again.

On a real NATS with two workers, that are killed, replaced and sent garbage, other requests, cancels and what a later
version wrote, in random orders.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import uuid
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.blocks.conftest import NatsServer, free_port
from tests.conftest import cases
from tests.security.messages import GARBAGE, TASKS


@pytest.fixture(scope="module")
def nats_url() -> Generator[str, None, None]:
    """A nats-server of these tests' own."""
    with tempfile.TemporaryDirectory(prefix="conclave-queue-") as folder:
        port = free_port()
        command = [*NatsServer(Path(folder), "-js", "-sd", folder)._command]
        command[command.index("-p") + 1] = str(port)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


class _Loop:
    """One event loop with the workers on it, called from hypothesis' synchronous tests."""

    def __init__(self, url: str) -> None:
        from blocks.connections import connections
        from tests.security.queue_rules import Machine

        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        self.machine = Machine(url)
        self._scope = connections()
        self.run(self._scope.__aenter__())
        self.run(self.machine.open(self.patch))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 120))

    def close(self) -> None:
        self.run(self.machine.close())
        self.run(self._scope.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.patch.undo()
        self.loop.close()


def _check(on: _Loop) -> None:
    """What must hold once everything is quiet."""
    from blocks.record.events import Record
    from tasks.council.finished import Finished

    machine, record = on.machine, on.machine.record
    assert isinstance(record, Record)
    on.run(machine.settle())
    assert machine.repeated == []
    for one in machine.accepted:
        finished = on.run(record.last(f"deliberations.{one}.finished"))
        assert finished is not None, f"{one} was accepted and never ended"
        status = on.run(record.statuses.read(one))
        assert status["status"] == Finished.from_record(finished.body).status
        assert on.run(record.next(f"deliberations.{one}.finished", finished.sequence)) is None


class QueueMachine(RuleBasedStateMachine):
    """One example: its ids are its own, the server is shared."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.on = _Loop(self.url)
        self.ids = [uuid.uuid4().hex for _ in range(3)]

    def _ask(self, one: str, task: str, **more: Any) -> bool:
        from tasks.deliberations.submit import Request, enqueue

        request = Request(id=one, parameters={"task": task}, door="gateway", **more)
        return bool(self.on.run(enqueue(self.on.machine.record, request)).queued)

    def _publish(self, subject: str, data: bytes, **headers: str) -> None:
        jetstream = self.on.machine.record.jetstream
        self.on.run(jetstream.publish(subject, data, headers=headers or None))

    @rule(number=st.integers(0, 2), task=TASKS, by_prefect=st.booleans())
    def ask(self, number: int, task: str, by_prefect: bool) -> None:
        """By a door, with or without a flow run: the first request has the id, another one is refused."""
        from tasks.council.exceptions import InvalidRequest

        one, machine = self.ids[number], self.on.machine
        run = machine.prefect.make({"task": task, "deliberation_id": one}) if by_prefect else None
        first = machine.accepted.setdefault(one, task)
        try:
            self._ask(one, task, run=run)
        except InvalidRequest:
            assert first != task
        else:
            assert first == task

    @rule(number=st.integers(0, 2), task=TASKS)
    def publish_past_the_door(self, number: int, task: str) -> None:
        """A message of somebody who may write to the queue, and asked no door."""
        one = self.ids[number]
        if one in self.on.machine.accepted:
            body = {"id": one, "parameters": {"task": task}, "door": "webhook", "new_field": 1}
            self._publish(f"requests.{one}", json.dumps(body).encode())

    @rule(number=st.integers(0, 2), data=GARBAGE)
    def publish_garbage(self, number: int, data: bytes) -> None:
        """Under an id that may be somebody's."""
        self._publish(f"requests.{self.ids[number]}", data)

    @rule(number=st.integers(0, 2))
    def cancel(self, number: int) -> None:
        """As the command does: the flag, and the end of what waits."""
        one, machine = self.ids[number], self.on.machine
        if one not in machine.accepted:
            return

        async def cancel() -> None:
            from blocks.documents import open_leases
            from tasks.collect.end import end
            from tasks.deliberations.submit import ask_to_cancel, queued_request

            await ask_to_cancel(machine.record, one)
            request, leases = await queued_request(machine.record, one), await open_leases()
            if request is not None and (lease := await leases.take(one)) is not None:
                await end(machine.record, one, lease, request.asked)
                await leases.release(lease)

        self.on.run(cancel())

    @rule(first=st.booleans())
    def kill(self, first: bool) -> None:
        """A worker dies in whatever it does, and another one takes its place."""
        worker = self.on.machine.workers.pop(0 if first else -1)
        self.on.run(worker.kill())
        self.on.run(self.on.machine.start_worker())

    @rule(milliseconds=st.integers(0, 150))
    def work(self, milliseconds: int) -> None:
        """Time passes."""
        self.on.run(asyncio.sleep(milliseconds / 1000))

    @invariant()
    def calls_are_made_once(self) -> None:
        """At any time."""
        assert self.on.machine.repeated == []

    def teardown(self) -> None:
        """Everything comes to its end."""
        try:
            _check(self.on)
        finally:
            self.on.close()


def test_any_order_of_asking_killing_cancelling_and_redelivering_ends_each_id_once(nats_url: str) -> None:
    """The rules above, in random orders, on two workers."""
    QueueMachine.url = nats_url
    steps = settings(max_examples=cases(12, each=100), stateful_step_count=14, deadline=None)
    run_state_machine_as_test(QueueMachine, settings=steps)  # type: ignore[no-untyped-call]


def test_a_flood_of_garbage_stops_no_lane(nats_url: str) -> None:
    """Batches of messages that nobody of ours would send, and after each a request, which is decided."""
    from blocks.record.dead_letters import count
    from tasks.deliberations.submit import Request, enqueue

    on = _Loop(nats_url)
    tokens = st.text("abcXYZ019_-;!@#$%&()+=~", min_size=1, max_size=12)
    versions = st.sampled_from([{}, {}, {"ce-schemaversion": "1"}, {"ce-schemaversion": "x"}])
    message = st.tuples(tokens, GARBAGE, versions)

    @settings(max_examples=cases(12, each=40), deadline=None)
    @given(st.lists(message, min_size=1, max_size=40))
    def flood(messages: list[tuple[str, bytes, dict[str, str]]]) -> None:
        machine, before = on.machine, on.run(count(on.machine.record))

        async def publish() -> None:
            for token, data, headers in messages:
                await machine.record.jetstream.publish(f"requests.{token}", data, headers=headers or None)

        on.run(publish())
        one = uuid.uuid4().hex
        machine.accepted[one] = "Choose a queue"
        on.run(enqueue(machine.record, Request(id=one, parameters={"task": "Choose a queue"}, door="gateway")))
        _check(on)
        assert on.run(count(machine.record)) - before <= len(messages)

    try:
        flood()
    finally:
        on.close()
