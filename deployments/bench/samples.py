"""One measured council each way: the floor (plain aiohttp), and the flow on a given task runner.

All read the same clock, and the simulator's own book says when it got and sent what.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
from prefect.client.orchestration import get_client

from blocks.completions import chat_payload
from blocks.record import Record
from blocks.vllm_server import ChatCall
from flows.deliberate import deliberate
from tasks.council.models import CouncilSpec, DeliberationRequest, seed_of
from tasks.council.prompts import propose_messages, temperature_of

TASK = "Write a Python function to merge sorted arrays"
REQUIREMENTS = ["Use type hints", "Add docstring"]


@dataclass(frozen=True)
class Sample:
    """One council, in seconds: from the call and from the run's start to the decision, and what the server saw."""

    from_call_s: float
    from_start_s: float
    spread_s: float
    tail_s: float

    def as_dict(self) -> dict[str, float]:
        """For the JSON."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


async def floor(session: aiohttp.ClientSession, url: str, council: CouncilSpec, model: str) -> float:
    """Seconds that a plain client needs for the same prompts: all at once, until the last byte."""
    item = DeliberationRequest(task=TASK, requirements=tuple(REQUIREMENTS)).agenda()[0]
    payloads = []
    for member in council.members:
        request_id = f"floor-{uuid.uuid4()}:{member.agent_id}"
        call = ChatCall(
            messages=propose_messages(member, item),
            request_id=request_id,
            seed=seed_of(request_id),
            temperature=temperature_of(member),
            max_tokens=member.max_tokens,
        )
        payloads.append((request_id, chat_payload(call, model, None, False, {})))

    async def ask(request_id: str, payload: dict[str, Any]) -> None:
        headers = {"X-Request-Id": request_id}
        async with session.post(f"{url}/v1/chat/completions", json=payload, headers=headers) as answer:
            answer.raise_for_status()
            await answer.read()

    started = time.perf_counter()
    await asyncio.gather(*(ask(*each) for each in payloads))
    return time.perf_counter() - started


async def council(session: aiohttp.ClientSession, url: str, record: Record, runner: Any, size: int) -> Sample:
    """One deliberation of `size` members on `runner`, in this process."""
    deliberation_id = f"bench-{uuid.uuid4()}"
    decided: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def heard(subject: str) -> None:
        if not decided.done():
            decided.set_result(time.time())

    listening = await record.listen(f"decisions.{deliberation_id}.*", heard)
    called = time.time()
    flow = deliberate.with_options(task_runner=runner)
    state = await flow(
        task=TASK, requirements=REQUIREMENTS, members=size, deliberation_id=deliberation_id, return_state=True
    )
    await listening.unsubscribe()
    if not state.is_completed() or not decided.done():
        raise RuntimeError(f"the measured deliberation ended {state.name}: {state.message}")
    requests = await _book(session, url, deliberation_id)
    arrived = [line["received_at"] for line in requests]
    return Sample(
        from_call_s=decided.result() - called,
        from_start_s=decided.result() - await _start_time(state.state_details.flow_run_id),
        spread_s=max(arrived) - min(arrived),
        tail_s=decided.result() - max(line["sent_at"] for line in requests),
    )


async def _book(session: aiohttp.ClientSession, url: str, deliberation_id: str) -> list[dict[str, Any]]:
    async with session.get(f"{url}/sim/calls") as answer:
        lines = (await answer.json())["requests"]
    return [line for line in lines if str(line["request_id"]).startswith(f"{deliberation_id}:")]


async def _start_time(flow_run_id: Any) -> float:
    async with get_client() as client:
        run = await client.read_flow_run(flow_run_id)
    if run.start_time is None:
        raise RuntimeError("Prefect has no start time of the measured run")
    return run.start_time.timestamp()
