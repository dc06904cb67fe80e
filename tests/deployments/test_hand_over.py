"""What becomes of a flow run that Prefect hands to the worker, where Prefect or the run is not as it should be."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("importable_prefect")


class Handed:
    """A worker whose Prefect answers as it is told, what it did with a run, and that run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from prefect.client.schemas.objects import FlowRun

        from deployments.worker.prefect_worker import ConclaveWorker

        self.run = FlowRun(flow_id=uuid.uuid4(), deployment_id=uuid.uuid4(), name="one")
        self.done: list[Any] = []
        self.worker = ConclaveWorker(work_pool_name="pool")
        self.worker._submitting_flow_run_ids.add(self.run.id)
        self.read: Any = SimpleNamespace(entrypoint="flows.deliberate.deliberate")
        self.pending, self.queue = True, None
        monkeypatch.setattr(self.worker, "_client", SimpleNamespace(read_deployment=self._deployment))
        monkeypatch.setattr(self.worker, "_propose_pending_state", self._answers("pending", "pending"))
        monkeypatch.setattr(self.worker, "_propose_crashed_state", self._answers("crashed"))
        monkeypatch.setattr(self.worker, "_mark_flow_run_as_cancelled", self._answers("cancelled"))
        monkeypatch.setattr(self.worker, "_hand_over", self._answers("queue", "queue"))

    async def _deployment(self, _one: Any) -> Any:
        return _told(self.read)

    def _answers(self, name: str, answer: str | None = None) -> Any:
        async def answers(_run: Any, *arguments: Any) -> Any:
            self.done.append((name, *arguments))
            return _told(getattr(self, answer)) if answer else None

        return answers

    async def submit(self) -> list[Any]:
        await self.worker._submit_run(self.run)
        assert self.run.id not in self.worker._submitting_flow_run_ids  # else no poll would ever find it again
        return self.done


def _told(what: Any) -> Any:
    if isinstance(what, Exception):
        raise what
    return what


@pytest.fixture
def handed(importable_prefect: None, monkeypatch: pytest.MonkeyPatch) -> Handed:
    """A run that Prefect hands over."""
    return Handed(monkeypatch)


async def test_a_run_is_shown_as_pending_and_then_put_into_the_queue(handed: Handed) -> None:
    """In this order, so that no other worker takes it."""
    assert await handed.submit() == [("pending",), ("queue", "flows.deliberate.deliberate")]


async def test_a_run_that_prefect_tells_nothing_of_is_left_for_the_next_poll(handed: Handed) -> None:
    """Nothing is marked, and nothing put into the queue."""
    import httpx

    handed.read = httpx.ConnectError("away")
    assert await handed.submit() == []
    handed.read, handed.pending = SimpleNamespace(entrypoint="x"), httpx.ReadTimeout("slow")
    assert await handed.submit() == [("pending",)]


async def test_a_run_that_another_worker_has_taken_is_not_handed_over(handed: Handed) -> None:
    """Prefect refuses it the state."""
    handed.pending = False
    assert await handed.submit() == [("pending",)]


async def test_a_run_whose_deployment_is_gone_is_cancelled(handed: Handed) -> None:
    """With the reason."""
    from prefect.exceptions import ObjectNotFound

    handed.read = ObjectNotFound(Exception("404"))
    ((what, told),) = await handed.submit()
    assert what == "cancelled" and "no longer exists" in told["message"]


async def test_a_run_that_can_never_be_run_says_why(handed: Handed) -> None:
    """As Prefect's own worker words it."""
    handed.queue = ValueError("no flow of ours")
    assert (await handed.submit())[2:] == [
        ("crashed", "Failed to submit flow run to infrastructure: ValueError: no flow of ours")
    ]


async def test_prefect_s_engine_gets_the_run_without_its_deployment(
    handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold the loop of all runs up, listening for a suspension; the run itself keeps its deployment."""
    from deployments.worker import flow_runs

    seen: list[Any] = []

    async def engine(_flow: Any, flow_run: Any, **_more: Any) -> str:
        seen.append(flow_run)
        return "ended"

    monkeypatch.setattr(flow_runs, "run_flow_async", engine)
    state: Any = await flow_runs.run_flow(None, handed.run, {}, None, None, lambda: None)  # type: ignore[arg-type]
    assert state == "ended"
    assert [(run.id, run.deployment_id) for run in seen] == [(handed.run.id, None)]
    assert handed.run.deployment_id is not None
