"""What came after the former system: a chairman's synthesis with a round of revision, and closed answers."""

from __future__ import annotations

from typing import Any


async def test_a_chairman_writes_the_decision_after_a_round_of_revision(deliberate: Any) -> None:
    """First texts are kept with the revised ones, the chairman's text is the decision, every stage has its costs."""
    _, result = await deliberate(task="Name the risks of a rewrite", strategy="synthesize", rounds=1)
    stages, written = result["stages"], result["synthesis"]
    used = [stage["usage"]["completion_tokens"] for stage in stages]
    assert (result["status"], result["degraded"], result["decided_by"]) == ("COMPLETED", False, "synthesis")
    assert [stage["stage"] for stage in stages] == ["propose-0", "review-0", "revise-1", "review-1", "synthesize"]
    assert all(stage["ok"] > 0 and tokens > 0 for stage, tokens in zip(stages, used, strict=True))
    assert sum(used) == result["usage"]["completion_tokens"]
    assert result["decision"] == written["content"]
    assert (written["chairman_id"], written["status"]) == ("agent-dev-001", "ok")
    assert written["sources"][0] == result["winner_id"]
    for entry in result["results"]:
        first, last = entry["proposal"]["revisions"], entry["proposal"]["content"]
        assert len(first) == 1
        assert first[0] not in ("", last)


async def test_a_closed_task_is_answered_with_one_of_its_options(deliberate: Any, rehearsal: Any) -> None:
    """A live model has to, and so do the simulator's players; where all agree nobody reviews."""
    task, options = "Is 97 a prime number?", ["yes", "no"]
    if rehearsal:
        key = [{"match": task, "answer": "yes", "options": options}]
        await rehearsal.play(players=[{"match": "", "accuracy": 1, "judgement": 1}], key=key)
    _, result = await deliberate(task=task, answer_format={"type": "choice", "options": options})
    assert result["status"] == "COMPLETED"
    assert result["answer"] in options
    assert sum(map(len, result["majority"]["votes"].values())) + len(result["majority"]["silent"]) == 3
    if result["majority"]["unanimous"]:
        assert (result["decided_by"], result["ballots"]["expected"]) == ("majority", 0)
    assert result["answer"] == "yes" or not rehearsal
