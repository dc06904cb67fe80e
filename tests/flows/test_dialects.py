"""A model server that takes less than vLLM does: what one call has learnt, other runs, processes and hosts know."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from infra.simulator import SimulatorServer, SimulatorSettings, simulator

TASK = "Write a function to merge sorted arrays"
DIALECTS = ("no_seed", "max_completion_tokens")


def statuses(server: SimulatorServer) -> Counter[int]:
    """How the simulator answered its requests so far."""
    return Counter(entry["status"] for entry in server._state.calls.listed()["requests"])


@pytest.fixture
def council_of(connected: Any, make_council: Any) -> Any:
    """`council = await council_of(url)`: three members who ask this server."""

    async def make(url: str) -> Any:
        from blocks.vllm_server import VLLM

        await VLLM(base_url=url).save("picky", overwrite=True)
        return await make_council(3, server="picky")

    return make


async def test_what_a_member_learns_of_a_server_is_noted(deliberate: Any, record: Any, council_of: Any) -> None:
    """By the server's URL and the model's name; no attempt is spent on it."""
    from blocks.dialect import Dialect
    from blocks.record.dialects import noted_dialects

    async with simulator(SimulatorSettings(latency_s=0, dialects=DIALECTS)) as server:
        _, result = await deliberate(task=TASK, council=await council_of(server.url))
        noted = (await noted_dialects(record))[server.url]

    assert (result["status"], result["degraded"]) == ("COMPLETED", False)
    assert noted == {"simulated": Dialect(seed=None, max_tokens="max_completion_tokens")}
    assert statuses(server)[200] == 3


async def test_no_host_asks_in_a_way_that_is_known_to_be_refused(deliberate: Any, record: Any, council_of: Any) -> None:
    """Though none of them, nor the driver, has ever asked that server: somebody else has."""
    from blocks.dialect import Dialect
    from blocks.record.dialects import note_dialect

    async with simulator(SimulatorSettings(latency_s=0, dialects=DIALECTS)) as server:
        await note_dialect(record, server.url, "simulated", Dialect(seed=None, max_tokens="max_completion_tokens"))
        _, result = await deliberate(task=TASK, council=await council_of(server.url))

    assert result["status"] == "COMPLETED"
    assert statuses(server) == {200: 3}


async def test_the_doctors_question_finds_a_servers_dialect_anew(record: Any, council_of: Any) -> None:
    """A server that takes more than it did is asked for all of it from then on."""
    from blocks.dialect import Dialect
    from blocks.record.dialects import note_dialect, noted_dialects
    from tasks.operate.diagnose import councils_answer, look_at

    async with simulator(SimulatorSettings(latency_s=0)) as server:
        council = await council_of(server.url)
        await note_dialect(record, server.url, "simulated", Dialect(temperature=None))
        found = [finding async for finding in councils_answer([council], look_at)]
        assert (await noted_dialects(record))[server.url] == {"simulated": Dialect()}
    assert [finding.state for finding in found] == ["ok", "ok"]
    assert "it takes" not in found[-1].text


@pytest.mark.parametrize(("dialect", "holds"), [("harmony", True), ("no_response_format", False)])
async def test_the_doctor_says_who_does_not_hold_to_a_schema(council_of: Any, dialect: Any, holds: bool) -> None:
    """Thinking before an object is none of it."""
    from tasks.operate.diagnose import councils_answer, look_at

    async with simulator(SimulatorSettings(latency_s=0, dialects=(dialect,))) as server:
        found = [finding async for finding in councils_answer([await council_of(server.url)], look_at)]
    assert ("does not hold to a JSON schema" in found[-1].text) is not holds


async def test_who_goes_on_with_a_deliberation_asks_as_the_first_has_learnt(
    deliberate: Any, record: Any, council_of: Any, new_id: str
) -> None:
    """The same id again: its plan stands as ever, and the session that takes it up knows the servers' dialects."""
    from blocks.dialect import Dialect
    from blocks.record import subjects
    from tasks.deliberations.plan import resume

    async with simulator(SimulatorSettings(latency_s=0, dialects=DIALECTS)) as server:
        await deliberate(task=TASK, council=await council_of(server.url), deliberation_id=new_id)
        plan = await record.last(subjects.plan(new_id))
        decided = await record.last(subjects.finished(new_id), direct=False)
        await record.jetstream.purge_stream("CONCLAVE_DECISIONS", subject=decided.subject)
        session = await resume(record, new_id)
    assert "dialects" not in str(plan.body)
    assert session.servers["picky"].dialects == {"simulated": Dialect(seed=None, max_tokens="max_completion_tokens")}
