"""An evaluation from its questions to its figures, on a real stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SAYS = {"type": "regex", "pattern": "Simulated|Synthesis|proposal", "flags": "i"}
QUESTIONS = [
    {"id": "right", "task": "Name a queue", "check": SAYS},
    {"id": "closed", "task": "Count the queues", "check": {"type": "numeric", "answer": 1000}},
    {"id": "lost", "task": "Name a lock", "check": SAYS},
    {"id": "alone", "task": "Name a map", "check": SAYS},
    {"id": "told", "task": "Name a heap", "check": {"type": "predicate", "function": "checks.py:is_long"}},
    {"id": "raised", "task": "Name a tree", "check": {"type": "predicate", "function": "checks.py:raises"}},
    {"id": "agreed", "task": "Count the locks", "check": {"type": "numeric", "answer": 3}},
]
CHECKS = """
def is_long(text, question):
    return len(text) > 100 and question["id"] == "told"

def raises(text, question):
    raise ValueError("not today")
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`path = write(questions)`: a file of questions beside its functions, in the folder that parameters may name."""
    monkeypatch.setenv("CONCLAVE_EVALUATIONS", str(tmp_path))

    def written(questions: list[dict[str, Any]]) -> str:
        (tmp_path / "checks.py").write_text(CHECKS)
        path = tmp_path / "questions.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in questions))
        return str(path)

    return written


async def answer(record: Any, new_id: str, item: str, member: str, content: str) -> None:
    """Put a proposal on the record, as an earlier run may have done."""
    proposal = {"author_id": member, "author_role": "DEV", "content": content, "model": "m", "tokens": 7}
    body = {"task_id": new_id, "item": item, "stage": "propose-0", "agent_id": member, "role": "DEV", "status": "ok"}
    body |= {"proposal": proposal | {"finish_reason": "stop"}, "num_agents": 3, "timestamp": "2026-11-01T00:00:00Z"}
    body |= {"usage": {"prompt_tokens": 5, "completion_tokens": 7}, "duration_ms": 10, "engine": "simulator"}
    subject = f"answers.{new_id}.{item}.propose-0.{member}"
    await record.publish_final(subject, f"{new_id}:{item}:propose-0:{member}", "answer", body)


def counts(evaluation: Any) -> dict[str, tuple[int, int, int]]:
    """By arm how many are right, of how many, and how many have no answer."""
    return {arm.arm: (arm.accuracy.count, arm.questions, arm.unanswered) for arm in evaluation.arms}


async def test_the_arms_are_scored_over_one_deliberation(
    record: Any, simulator: Any, shown: Any, three: str, write: Any, new_id: str
) -> None:
    """A lost synthesis, a council without its quorum, a predicate that raises: each is counted where it belongs.

    Again under the same id with another check, the same answers are scored anew, without a call.
    """
    from flows.evaluate import evaluate

    await simulator.fault("404_model", match=f"{new_id}:lost:propose-0:m[23]")
    await simulator.fault("404_model", match=f"{new_id}:right:synthesize")
    await simulator.fault("404_model", match=f"{new_id}:alone:propose-0:m1")
    for member in ("m1", "m2", "m3"):
        await answer(record, new_id, "agreed", member, f"So says {member}.\nANSWER: 3.0")
    asked = {"council": three, "deadline_s": 60, "rivals": False, "deliberation_id": new_id}
    state = await evaluate(write(QUESTIONS), **asked, return_state=True)
    evaluation, sheet = await state.aresult()
    calls = await simulator.calls(new_id)
    report = (await shown.artifact("evaluation", new_id))["data"]
    arms = json.loads((await shown.artifact("arms", new_id))["data"])

    # `lost` and `alone` are questions 2 and 3 from 0: m3 and m1 are their single members, and both failed.
    assert counts(evaluation) == {
        "single": (3, 7, 2),
        "majority": (1, 2, 0),  # the simulator answers with numbers below 100
        "rank": (4, 7, 1),
        "synthesize": (4, 7, 1),
    }
    assert (evaluation.engine, evaluation.questions, evaluation.undecided) == ("simulator", 7, 1)
    assert evaluation.problems == ("raised: ValueError: not today",)
    rank = evaluation.arms[2]
    assert (rank.versus_single.gained, rank.versus_single.lost, rank.versus_single.of) == (1, 0, 7)
    assert state.name == "Degraded"
    assert "right: single 3 of 7, majority 1 of 2, rank 4 of 7, synthesize 4 of 7" in (state.message or "")
    assert "**SIMULATED: " in report
    assert "not today" in report
    assert [row["right"] for row in arms] == [3, 1, 4, 4]

    by_arm = {(score.item, score.arm): score for score in sheet.scores}
    told = [by_arm["told", arm] for arm in ("single", "rank", "synthesize")]
    assert [one.usage.completion_tokens for one in told] == sorted({one.usage.completion_tokens for one in told})
    assert [one.duration_ms for one in told] == sorted({one.duration_ms for one in told})

    agreed = [by_arm["agreed", arm] for arm in ("single", "majority", "rank", "synthesize")]
    assert [one.usage.prompt_tokens for one in agreed] == [5, 15, 15, 15]

    other = [
        {**one, "check": {"type": "regex", "pattern": "^never"}} if one["id"] == "told" else one for one in QUESTIONS
    ]
    again, _ = await (await evaluate(write(other), **asked, return_state=True)).aresult()
    assert [arm.accuracy.count for arm in again.arms] == [2, 1, 3, 3]
    assert await simulator.calls(new_id) == calls
    assert set(calls.values()) == {1}


async def test_rivals_are_asked_once_and_scored_beside_the_council(
    record: Any, simulator: Any, three: str, write: Any, new_id: str
) -> None:
    """Five plain calls for a question, in stages of their own; the same in waves; again under the id without a call.

    One plain call that fails is an answer that nobody can read, and a vote of four.
    """
    from flows.evaluate import evaluate

    await simulator.fault("404_model", match=f"{new_id}:closed:bare-1:m1")
    questions = [one for one in QUESTIONS if one["id"] in ("right", "closed")]
    asked = {"council": three, "deadline_s": 60, "deliberation_id": new_id}
    state = await evaluate(write(questions), **asked, return_state=True)
    evaluation, sheet = await state.aresult()
    calls = await simulator.calls(new_id)

    assert [arm.arm for arm in evaluation.arms] == [
        *("bare", "bare-5", "single", "majority", "rank", "synthesize", "escalate")
    ]
    plain = sorted(call.split(":", 2)[2] for call in calls if ":closed:bare" in call)
    assert plain == ["bare-0:m1", "bare-0:m2", "bare-0:m3", "bare-1:m1", "bare-1:m2"]
    stages = {subject.split(".")[3] for subject in await subjects_of(record, f"answers.{new_id}-escalate.>")}
    assert stages >= {"propose-0", "propose-1"}
    assert (evaluation.readings.bare.count, evaluation.readings.bare.of) == (4, 5)
    by_arm = {(score.item, score.arm): score for score in sheet.scores}
    assert by_arm["closed", "bare-5"].answered
    assert ("right", "bare-5") not in by_arm
    assert by_arm["right", "bare"].usage.completion_tokens > 0

    again, _ = await (await evaluate(write(questions), **asked, return_state=True)).aresult()
    assert again == evaluation
    assert await simulator.calls(new_id) == calls


async def subjects_of(record: Any, pattern: str) -> list[str]:
    """Subjects on the record."""
    return [event.subject async for event in record.stored(pattern)]


async def test_what_cannot_be_asked_starts_nothing(record: Any, three: str, write: Any, new_id: str) -> None:
    """A line that is wrong, a function that is absent, more than Prefect takes: named, and nothing is on the record."""
    from prefect.settings import PREFECT_SERVER_API_MAX_PARAMETER_SIZE, temporary_settings

    from flows.evaluate import evaluate
    from tasks.council.exceptions import InvalidRequest

    large = [{"id": f"q{number}", "task": "a" * 60_000, "check": SAYS} for number in range(9)]
    absent = {"task": "a", "check": {"type": "predicate", "function": "checks.py:absent"}}
    for questions, told in (
        ([{"task": "a"}], "questions.jsonl line 1: check: is missing"),
        (large, "questions: questions.jsonl comes to 540,"),
        ([QUESTIONS[0], absent], "questions.jsonl line 2: check.function: checks.py:absent: LookupError: "),
    ):
        with temporary_settings({PREFECT_SERVER_API_MAX_PARAMETER_SIZE: 512 * 1024}):
            state = await evaluate(write(questions), council=three, deliberation_id=new_id, return_state=True)
        failure = await state.aresult(raise_on_failure=False)
        assert isinstance(failure, InvalidRequest)
        assert str(failure).startswith(told)
    assert await record.last(f"deliberations.{new_id}.plan") is None


async def test_a_request_that_is_refused_is_told_as_such(three: str, write: Any, new_id: str) -> None:
    """What ended the deliberation ends the evaluation."""
    from flows.evaluate import evaluate
    from tasks.council.exceptions import InvalidRequest

    state = await evaluate(write(QUESTIONS), council=three, rounds=9, deliberation_id=new_id, return_state=True)
    assert isinstance(await state.aresult(raise_on_failure=False), InvalidRequest)


async def test_a_cancelled_evaluation_has_no_figures(
    record: Any, shown: Any, three: str, write: Any, new_id: str
) -> None:
    """Its flow ends Cancelled."""
    from flows.evaluate import evaluate

    await record.statuses.create(new_id, {"id": new_id, "cancel_requested": True})
    state = await evaluate(write(QUESTIONS), council=three, deliberation_id=new_id, return_state=True)
    assert state.is_cancelled()
    assert await shown.found("artifacts", artifacts={"key": {"any_": [f"evaluation-{new_id}"]}}) == []
