"""A cancel of an evaluation is heard whenever it comes: its council, its plain calls and its waves stop.

The flow itself on a NATS in memory, with parts that end at once; `tests/flows/` has one with real parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

Happens = Callable[[str], Awaitable[None]]
CANCELS = ["Ctrl-C", "conclave cancel"]


class Evaluation:
    """An evaluation whose parts are noted in `done`; `happens` is called once each has ended, or waits to be asked."""

    def __init__(self, record: Any, patch: pytest.MonkeyPatch, happens: Happens) -> None:
        import flows.evaluate as module

        self.record, self.done, self._happens, self._flow = record, list[str](), happens, module.evaluate
        questions = SimpleNamespace(items=[], try_checks=self._nothing)
        for name, stand_in in {
            "questions_named": self._giving(questions),
            "check_size": self._nothing,
            "with_agents": self._giving(self._council),
            "bare_assignments": self._giving([SimpleNamespace(agent_id="m1", stage="bare-0")]),
            "bare": SimpleNamespace(submit=lambda _assignment: self.done.append("bare")),
            "all_ended": self._all_ended,
            "score": self._giving((None, None)),
            "show": self._nothing,
            "evaluated": lambda *_: "figures",
        }.items():
            patch.setattr(module, name, stand_in)

    async def run(self, one: str) -> Any:
        """The state or the figures that it ends with."""
        return await self._flow.fn("q.jsonl", deliberation_id=one)

    async def _nothing(self, *_: Any) -> None:
        """Takes no time."""

    def _giving(self, found: Any) -> Any:
        async def give(*_: Any) -> Any:
            return found

        return give

    async def _council(self, deliberation_id: str, strategy: str, **_: Any) -> Any:
        """A deliberation that ends COMPLETED, or CANCELLED where that is asked for until then."""
        self.done.append(strategy)
        await self.record.statuses.create(deliberation_id, {"id": deliberation_id, "status": "IN_PROGRESS"})
        if strategy == "escalate":
            await self._happens("in waves")
        status = await self.record.statuses.read(deliberation_id)
        ended = "CANCELLED" if status.get("cancel_requested") else "COMPLETED"
        body = {"task_id": deliberation_id, "status": ended, "completed_at": datetime.now(UTC).isoformat()}
        subject = f"deliberations.{deliberation_id}.finished"
        await self.record.publish_final(subject, f"{deliberation_id}:finished", "deliberation.finished", body)
        await self.record.statuses.merge(deliberation_id, {"status": ended})
        if strategy == "synthesize":
            await self._happens("council")
        return f"the end of {strategy}"

    async def _all_ended(self, *_: Any) -> bool:
        await self._happens("bare")
        return True


def cancelling(record: Any, one: str, how: str, when: str) -> Happens:
    """What happens: somebody cancels the evaluation once that part has ended."""
    from blocks.documents import open_leases
    from tasks.deliberations.cancel import stop
    from tasks.deliberations.submit import ask_to_cancel

    async def happens(part: str) -> None:
        if part == when:
            await (ask_to_cancel(record, one) if how == "Ctrl-C" else stop(record, await open_leases(), one))
        if part == when == "in waves":
            async with asyncio.timeout(5):
                while not (await record.statuses.read(f"{one}-escalate")).get("cancel_requested"):
                    await asyncio.sleep(0.01)

    return happens


@pytest.mark.parametrize("how", CANCELS)
@pytest.mark.parametrize(
    ("when", "done"),
    [
        ("council", ["synthesize"]),
        ("bare", ["synthesize", "bare"]),
        ("in waves", ["synthesize", "bare", "escalate"]),
    ],
)
async def test_no_part_begins_or_goes_on_after_a_cancel(
    record: Any, monkeypatch: pytest.MonkeyPatch, new_id: str, how: str, when: str, done: list[str]
) -> None:
    """Also one that comes while nothing is under way."""
    evaluation = Evaluation(record, monkeypatch, cancelling(record, new_id, how, when))

    ended = await evaluation.run(new_id)

    assert evaluation.done == done
    assert ended != "figures"


async def test_what_an_earlier_run_was_asked_is_over(record: Any, monkeypatch: pytest.MonkeyPatch, new_id: str) -> None:
    """The same id again resumes: nobody asked this run to stop."""
    cancelled = Evaluation(record, monkeypatch, cancelling(record, new_id, "Ctrl-C", "council"))
    await cancelled.run(new_id)
    resumed = Evaluation(record, monkeypatch, cancelling(record, new_id, "Ctrl-C", "never"))

    assert await resumed.run(new_id) == "figures"
    assert resumed.done == ["synthesize", "bare", "escalate"]


async def test_plain_calls_that_are_under_way_hear_a_cancel_that_came_before_them(
    record: Any, monkeypatch: pytest.MonkeyPatch, new_id: str
) -> None:
    """It is not taken back when they begin."""
    import tasks.collect.agents
    from tasks.deliberations.submit import ask_to_cancel
    from tasks.evaluate.bare import all_ended

    monkeypatch.setattr(tasks.collect.agents, "LEAVING_S", 0.1)
    await ask_to_cancel(record, new_id)
    async with asyncio.timeout(5):
        assert not await all_ended(new_id, _endless())


def _endless() -> dict[Any, Any]:
    """A plain call that never ends by itself."""
    from tasks.collect.agents import AgentKey

    return {AgentKey("m1", "bare-0"): SimpleNamespace(wrapped_future=asyncio.Future())}
