"""Two deliberations under one id, at the same time, in two processes."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.conftest import TASK, Ended, Stack, result_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


async def test_two_at_once_are_one(broken: Stack, new_id: str) -> None:
    """The same request twice: one decision, told by both, and each member asked once; another request is refused."""
    await broken.fault("slow", match=f"{new_id}:", delay_s=5)
    asked = ("deliberate", "--local", TASK, "--id", new_id, "--json")
    first, second, other = await asyncio.gather(
        broken.run(*asked),
        broken.run(*asked),
        _run_once_asked(broken, "deliberate", "--local", "Another task", "--id", new_id),
    )
    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    assert result_of(first) == result_of(second)
    assert result_of(first)["received_count"] == 3
    calls = await broken.calls(new_id)
    assert set(calls.values()) == {1}
    assert sum(call.startswith("propose-0:") for call in calls) == 3
    assert (other.code, other.out) == (2, "")
    assert f"'{new_id}' was already asked with another request" in other.err


async def test_two_requests_that_race_for_an_id(broken: Stack, new_id: str) -> None:
    """Whichever comes first is decided, the other one is refused with code 2, however close they are."""
    ended = await asyncio.gather(
        broken.run("deliberate", "--local", TASK, "--id", new_id),
        broken.run("deliberate", "--local", "Another task", "--id", new_id),
    )
    refused = max(ended)
    assert sorted(one.code for one in ended) == [0, 2], ended
    assert f"'{new_id}' was already asked with another request" in refused.err
    assert set((await broken.calls(new_id)).values()) == {1}


async def _run_once_asked(broken: Stack, *arguments: str) -> Ended:
    await broken.asked(arguments[-1])
    return await broken.run(*arguments)
