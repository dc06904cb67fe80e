"""One member at work: what goes wrong with one item is that item's failed answer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("importable_prefect")


class Record:
    """A record in memory; what is written has to be JSON in UTF-8."""

    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.asked_leader: list[bool] = []
        self.away = False

    async def listen(self, pattern: str, heard: Any) -> Any:
        """Nothing passes by."""

        async def unsubscribe() -> None:
            """Nothing to end."""

        return SimpleNamespace(unsubscribe=unsubscribe)

    async def last(self, subject: str, direct: bool = True) -> Any:
        """What stands there."""
        self.asked_leader.append(not direct)
        return SimpleNamespace(body=self.bodies[subject]) if subject in self.bodies else None

    async def publish_final(self, subject: str, event_id: str, kind: str, body: dict[str, Any]) -> Any:
        """The first one stands."""
        from blocks.exceptions import RecordUnavailable

        if self.away:
            raise RecordUnavailable("JetStream does not answer")
        json.dumps(body, ensure_ascii=False).encode()
        return SimpleNamespace(body=self.bodies[subject]) if self.bodies.setdefault(subject, body) is not body else None

    async def announce(self, subject: str, body: dict[str, Any]) -> None:
        """Nobody listens."""


class Server:
    """A model server that always answers."""

    model = "m"

    async def complete(self, call: Any, deadline: float, failed: Any, learnt: Any) -> Any:
        """One answer."""
        from blocks.chat import Completion
        from tasks.council.proposal import Usage

        return Completion("text", None, "stop", Usage(), "m", "vllm")


class StagePrompt:
    """A stage that fails on items in its own way."""

    def __init__(self, **failing: Any) -> None:
        self.failing = failing

    async def question(self, item: Any) -> Any:
        """Raises for some."""
        from tasks.stages.member_stage import Question

        if item.id == "asked":
            raise self.failing["asked"]
        return Question([])

    def read(self, item: Any, completion: Any) -> dict[str, Any]:
        """Raises for some, and for some says what cannot be written."""
        if item.id == "read":
            raise self.failing["read"]
        if item.id == "odd":
            return {"status": "no status"}
        return {"status": "ok", "error": "\ud800" if item.id == "written" else None}

    def again(self, question: Any, completion: Any, fields: Any) -> None:
        """Once is enough."""


def member_stage(record: Record, *items: str) -> Any:
    """A member with these items."""
    from tasks.council.council import CouncilSpec, Member
    from tasks.council.models import Deliberation, DeliberationRequest
    from tasks.stages.member_stage import MemberStage

    council = CouncilSpec(name="dev", members=(Member(agent_id="m1", role="DEV"),))
    asked = DeliberationRequest.read({"items": [{"id": item, "task": "t"} for item in items]})
    plan = Deliberation.plan("d", asked, council)
    server: Any = Server()
    return MemberStage(plan, plan.council.members[0], "propose-0", record, server, "vllm")


async def test_what_goes_wrong_with_one_item_is_its_failed_answer() -> None:
    """Before, in and after the call, and where the answer cannot be written; the reason is short and plain."""
    record = Record()
    items = ("a", "asked", "read", "odd", "written", "z")
    prompt = StagePrompt(asked=KeyError("x" * 10**6), read=ValueError("\ud800\x1b[2J"))
    found = await member_stage(record, *items).answer_all(prompt)
    assert found == {"ok": 2, "failed": 4}
    answers = {subject.split(".")[2]: body for subject, body in record.bodies.items()}
    assert [answers[item]["status"] for item in items] == ["ok", "failed", "failed", "failed", "failed", "ok"]
    assert (answers["asked"]["error_type"], answers["read"]["error"]) == ("KeyError", "\ufffd[2J")
    assert max(len(body["error"] or "") for body in answers.values()) < 3_000
    assert all(record.asked_leader)


async def test_a_record_that_is_away_ends_the_task() -> None:
    """Nothing can be answered then; the task runs again later."""
    from blocks.exceptions import RecordUnavailable

    record = Record()
    record.away = True
    with pytest.raises(ExceptionGroup) as raised:
        await member_stage(record, "a", "b").answer_all(StagePrompt())
    assert raised.group_contains(RecordUnavailable)


async def test_an_answer_of_a_later_version_stands() -> None:
    """Its form may be unknown here: no call is wasted on it, and the others go on."""
    record = Record()
    subject = "answers.d.a.propose-0.m1"
    record.bodies[subject] = {"status": "ok", "new": 1}
    assert await member_stage(record, "a", "b").answer_all(StagePrompt()) == {"ok": 2}
    assert record.bodies[subject] == {"status": "ok", "new": 1}
