"""Ray's head goes away, with every agent host, while members wait for the model."""

from __future__ import annotations

import pytest

from tests.faults.conftest import TASK, Stack, result_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


async def test_without_ray_nothing_is_decided_and_the_same_id_goes_on(broken: Stack, new_id: str) -> None:
    """The command ends with code 6 and says how to go on; then the finished call is not made again."""
    await broken.fault("slow", match=f"{new_id}:.*[23]$", delay_s=60, times=2)
    running = await broken.start("deliberate", "--local", TASK, "--id", new_id, "--json")
    await broken.asked(new_id)
    first = await broken.answered(new_id)
    broken.kill("ray")
    ended = await running.end()
    assert (ended.code, ended.out) == (6, "")
    assert "the Ray cluster is gone" in ended.err
    assert f"--id {new_id} goes on from there" in ended.err
    assert "Traceback" not in ended.err
    await broken.answers("ray")
    resumed = await broken.run("deliberate", "--local", TASK, "--id", new_id, "--json")
    result = result_of(resumed)
    calls = await broken.calls(new_id)
    assert (resumed.code, result["status"], result["received_count"]) == (0, "COMPLETED", 3)
    once = {call for call, count in calls.items() if count == 1 and call.startswith("propose-0:")}
    assert once == {f"propose-0:{member}" for member in first}
