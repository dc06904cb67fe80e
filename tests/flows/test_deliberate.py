"""The flow on the real parts: what a council decides, and what the record says of it."""

from __future__ import annotations

from typing import Any

TASK = "Write a function to merge sorted arrays"


async def test_a_council_decides_and_every_answer_stands_on_the_record(
    deliberate: Any, record: Any, simulator: Any, new_id: str
) -> None:
    """Three members answer, each call is made once, and the result says who and what."""
    state, result = await deliberate(task=TASK, council="dev", requirements=["Use type hints"])
    assert state.name == "Completed"
    assert (result["status"], result["degraded"], result["received_count"]) == ("COMPLETED", False, 3)
    assert result["engine"] == "simulator"
    assert {entry["rank"] for entry in result["results"]} == {1, 2, 3}
    assert result["decision"] == result["results"][0]["proposal"]["content"]
    assert result["winner_id"] == result["results"][0]["proposal"]["author_id"]
    assert set((await simulator.calls(new_id)).values()) == {1}
    for member in ("agent-dev-001", "agent-dev-002", "agent-dev-003"):
        answer = await record.last(f"answers.{new_id}.task.propose-0.{member}")
        assert answer.body["status"] == "ok"
        assert answer.body["usage"]["completion_tokens"] > 0
