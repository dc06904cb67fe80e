"""`conclave evaluate` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.commands import OF_THE_STACK, conclave

LINES = [
    {"id": "open", "task": "Name a queue", "check": {"type": "regex", "pattern": "."}},
    {"id": "closed", "task": "Count the queues", "check": {"type": "numeric", "answer": 1000}},
]


@pytest.fixture
def questions(tmp_path: Path) -> str:
    """A file of an open question, which any text answers, and a closed one."""
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in LINES))
    return str(path)


async def test_the_arms_are_printed_side_by_side(
    make_council: Any, simulator: Any, questions: str, tmp_path: Path, new_id: str
) -> None:
    """With a warning that it was the simulator, and a row for each question and arm in a file."""
    import pandas as pd

    asked = ("evaluate", questions, "--council", await make_council(3), "--id", new_id, "--deadline", "120")
    ended = await conclave(*asked, "--output", str(tmp_path / "scores.csv"))
    scores = pd.read_csv(tmp_path / "scores.csv")
    table = {" ".join(line.split()) for line in ended.out.splitlines()}
    assert ended.code == 0
    assert ended.out.startswith("SIMULATED: ")
    assert "right accuracy (95 %) points (95 %) tokens/right median" in table
    rows = [line for line in table if " of " in line and "%" in line and "(" in line]
    assert {tuple(line.split()[:4]) for line in rows} >= {
        *(("bare", "1", "of", "2"), ("bare-5", "0", "of", "1"), ("single", "1", "of", "2")),
        *(("majority", "0", "of", "1"), ("rank", "1", "of", "2"), ("synthesize", "1", "of", "2")),
        ("escalate", "1", "of", "2"),
    }
    assert "2 of 2 questions decided" in table
    assert f"deliberation {new_id}" in ended.err
    assert f"--id {new_id}" in ended.err
    assert f"Report in Prefect's UI, artifact evaluation-{new_id}: http://" in ended.err
    assert list(zip(scores["item"], scores["arm"], strict=True)) == [
        *(("open", "bare"), ("open", "single"), ("open", "rank"), ("open", "synthesize"), ("open", "escalate")),
        *(("closed", "bare"), ("closed", "bare-5"), ("closed", "single"), ("closed", "majority"), ("closed", "rank")),
        *(("closed", "synthesize"), ("closed", "escalate")),
    ]
    assert scores["right"].sum() == 5
    assert set((await simulator.calls(new_id)).values()) == {1}


async def test_questions_that_were_not_decided_are_told_by_the_exit_code(
    make_council: Any, simulator: Any, questions: str, new_id: str
) -> None:
    """3; standard output is one JSON document. The closed one is answered, with a number that is wrong."""
    await simulator.fault("404_model", match=f"{new_id}:open:propose-0:")
    ended = await conclave(
        "evaluate", questions, "--council", await make_council(2), "--id", new_id, "--json", "--no-rivals"
    )
    evaluation = json.loads(ended.out)
    assert ended.code == 3
    assert (evaluation["id"], evaluation["engine"], evaluation["undecided"]) == (new_id, "simulator", 1)
    assert [arm["accuracy"]["count"] for arm in evaluation["arms"]] == [0, 0, 0, 0]
    assert [arm["unanswered"] for arm in evaluation["arms"]] == [1, 0, 1, 1]


async def test_wrong_use_is_one_line_and_needs_no_stack(questions: str, tmp_path: Path) -> None:
    """Exit code 2 before anything is looked for; 6 where all is right but the stack."""
    (tmp_path / "bad.jsonl").write_text('{"task": "a", "check": {"type": "numeric", "answer": "many"}}\n')
    (tmp_path / "no.jsonl").write_text('{"task": "a", "check": {"type": "predicate", "function": "no.py:f"}}\n')
    elsewhere = {"CONCLAVE_HOME": str(tmp_path / "home"), **dict.fromkeys(OF_THE_STACK, "")}
    for told, arguments in {
        "bad.jsonl line 1: check.answer: Input should be a valid decimal": (str(tmp_path / "bad.jsonl"),),
        "no.jsonl line 1: check.function: no.py:f: LookupError: there is": (str(tmp_path / "no.jsonl"),),
        "questions: ": (str(tmp_path / "absent.jsonl"),),
        "rounds: ": (questions, "--rounds", "9"),
        "id: 'a.b' is no id": (questions, "--id", "a.b"),
        "output: there is no folder ": (questions, "--output", str(tmp_path / "nowhere" / "scores.csv")),
    }.items():
        ended = await conclave("evaluate", *arguments, **elsewhere)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"conclave: {told}")
        assert ended.err.count("\n") == 1
    absent = await conclave("evaluate", questions, **elsewhere)
    assert (absent.code, absent.out) == (6, "")
    assert "is not up: `conclave up" in absent.err


async def test_help_teaches_by_example() -> None:
    """It is found under what measures."""
    top, verb = await conclave("--help"), await conclave("evaluate", "--help")
    assert (top.code, verb.code) == (0, 0)
    assert "evaluate" in top.out[top.out.index("Measuring") :]
    assert "conclave evaluate docs/examples/questions.jsonl" in verb.out
