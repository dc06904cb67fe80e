"""Requests that cannot be run: refused at the door with the field's name, and nothing of them on the record."""

from __future__ import annotations

from typing import Any

import pytest

TASK = "Write a function to merge sorted arrays"


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"council": "nowhere"}, "council: 'nowhere' is unknown; known are "),
        ({"council": "no.where"}, "council: 'no.where' is no name; one is 1 to 64 of A-Z"),
        ({"task": ""}, "task: "),
        ({"task": "  \n"}, "task: "),
        ({"task": "x" * 100_001}, "task: String should have at most 100000 characters"),
        ({"task": None}, "task: give either one task or a list of items"),
        ({"items": [{"task": TASK}]}, "task: give either one task or a list of items"),
        ({"members": 0}, "members: Input should be greater than or equal to 1, got 0"),
        ({"members": 1000}, "members: Input should be less than or equal to 128, got 1000"),
        ({"quorum": 4}, "quorum: 4 is above the number of members, 3"),
        ({"quorum": 3, "members": 2}, "quorum: 3 is above the number of members, 2"),
        ({"deadline_s": 0}, "deadline_s: Input should be greater than 0, got 0"),
        ({"grace_s": -1}, "grace_s: "),
        ({"grace_s": float("inf")}, "grace_s: "),
        ({"strategy": "guess"}, "strategy: "),
        ({"rounds": 4}, "rounds: Input should be less than or equal to 3, got 4"),
        ({"answer_format": {"type": "vote"}}, 'answer_format: must be {"type": "number"}'),
        ({"answer_format": {"type": "number", "x": 1}}, "answer_format.number.x: is no field of this format"),
        ({"task": None, "items": []}, "items: "),
        ({"task": None, "items": [{"task": TASK, "bogus": 1}]}, "items.0.bogus: is no field of an item"),
        ({"task": None, "items": [{"id": "a.b", "task": TASK}]}, "items.0.id: 'a.b' is no name"),
        ({"task": None, "items": [{"id": "a*", "task": TASK}]}, "items.0.id: 'a*' is no name"),
        ({"task": None, "items": [{"id": "a b", "task": TASK}]}, "items.0.id: 'a b' is no name"),
        ({"task": None, "items": [{"id": "a", "task": TASK}] * 2}, "items: an id appears more than once"),
        ({"deliberation_id": "a.b"}, "deliberation_id: 'a.b' is no id"),
        ({"deliberation_id": "a*"}, "deliberation_id: 'a*' is no id"),
        ({"deliberation_id": "a>"}, "deliberation_id: 'a>' is no id"),
        ({"deliberation_id": "a b"}, "deliberation_id: 'a b' is no id"),
        ({"deliberation_id": "x" * 65}, "deliberation_id: "),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_request_that_cannot_be_run_is_refused_by_its_field(
    connected: Any, recorded: Any, make_council: Any, new_id: str, fields: dict[str, Any], refusal: str
) -> None:
    """The flow ends Failed with the field and what would be right, before a plan or a status is written."""
    from flows.deliberate import deliberate

    async def written() -> list[int]:
        streams = ("CONCLAVE_DECISIONS", "KV_conclave-deliberations")
        return [(await recorded.client.jetstream().stream_info(name)).state.last_seq for name in streams]

    request = {"task": TASK, "council": await make_council(3), "deliberation_id": new_id, **fields}
    before = await written()
    state = await deliberate(**request, return_state=True)
    assert state.name == "Failed"
    assert f"InvalidRequest: {refusal}" in str(state.message)
    assert await written() == before


async def test_a_council_whose_server_has_no_block_is_refused(
    deliberate: Any, record: Any, make_council: Any, new_id: str
) -> None:
    """The error names the council's field and the block that is missing."""
    council = await make_council(3, server="absent")
    state, result = await deliberate(task=TASK, council=council)
    assert (state.name, result) == ("Failed", {})
    assert f"council.{council}.members.server: no block vllm/absent" in state.message
    assert await record.last(f"deliberations.{new_id}.plan") is None
