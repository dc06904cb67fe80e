"""Cancelling is one flag on the record: the members' calls are closed, and everybody is told CANCELLED."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.conftest import TASK, Stack, flow_run, result_of, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


async def test_a_cancel_closes_the_calls_and_ends_the_run(broken: Stack, new_id: str) -> None:
    """Calls closed, code 5 for who waits, CANCELLED on the record and in Prefect."""
    await broken.fault("hang", match=f"{new_id}:")
    running = await broken.start("deliberate", "--local", TASK, "--id", new_id, "--json")
    await broken.asked(new_id)

    async def closed() -> bool:
        return sum(call["aborted"] for call in await broken.requests(new_id)) == 3

    async with broken.heard(f"$KV.conclave-deliberations.{new_id}", f"deliberations.{new_id}.finished") as heard:
        asking = asyncio.create_task(broken.run("cancel", new_id))
        await until(closed)
        closed_at = time.time()
        asked, ended = await asking, await running.end()
    result = result_of(ended)
    flag = next(at for at, _, body in heard if body.get("cancel_requested"))
    finished = next(at for at, subject, _ in heard if subject.endswith(".finished"))
    print(f"from the flag to the closed calls {closed_at - flag:.2f} s, to CANCELLED {finished - flag:.2f} s")
    assert (asked.code, asked.out, asked.err) == (0, "", f"{new_id} is cancelled\n")
    assert (ended.code, result["status"]) == (5, "CANCELLED")
    assert {member["status"] for member in result["members"]} == {"cancelled"}
    run = (await broken.prefect("flow_runs", flow_runs=flow_run(result)))[0]
    assert (run["state_type"], run["state_name"]) == ("CANCELLED", "Cancelled")
    assert set((await broken.calls(new_id)).values()) == {1}
