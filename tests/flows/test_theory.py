"""What a council makes of members of known accuracy, beside what theory says of them."""

from __future__ import annotations

import json
from itertools import product
from math import comb, sqrt
from pathlib import Path
from typing import Any

import pytest

ID = "theory-of-three"
"""A fixed id: the players' draws are made from it, so that this test always sees the same."""
QUESTIONS = 240
ACCURACY, JUDGEMENT, BIAS = 0.65, 0.85, 0.5


def majority_of_three(right: float) -> float:
    """Condorcet's jury theorem (1785)."""
    return right**3 + 3 * right**2 * (1 - right)


def majority_of_five(right: float) -> float:
    """The same of five."""
    return sum(comb(5, votes) * right**votes * (1 - right) ** (5 - votes) for votes in (3, 4, 5))


def in_waves(right: float) -> float:
    """Two samples of one that agree, else the majority of its first one's and two others' answers; of two options."""
    agree, differ = right**2, 2 * right * (1 - right)
    first_right, first_wrong = 1 - (1 - right) ** 2, right**2
    return agree + differ * (first_right + first_wrong) / 2


def ranked_first_of_three(right: float, sees: float) -> float:
    """Probability that the ballots of three put a right one first.

    Each pair has one judge, which prefers the right one of two with `sees`; a cycle goes to one of the three at random.
    """
    total = 0.0
    for truth in product((True, False), repeat=3):
        for picks in product((True, False), repeat=3):
            chance, wins = 1.0, [0, 0, 0]
            for one in truth:
                chance *= right if one else 1 - right
            for (i, j), first in zip(((0, 1), (0, 2), (1, 2)), picks, strict=True):
                prefers_first = 0.5 if truth[i] == truth[j] else sees if truth[i] else 1 - sees
                chance *= prefers_first if first else 1 - prefers_first
                wins[i if first else j] += 1
            best = [truth[number] for number in range(3) if wins[number] == max(wins)]
            total += chance * sum(best) / len(best)
    return total


def synthesised(right: float, sees: float) -> float:
    """The chairman takes over the first with `sees`, else answers on its own; nobody is asked where all agree.

    Three ballots are too few to decide a closed task, so the first is an author of the majority's answer.
    """
    agree_right, agree_wrong = right**3, (1 - right) ** 3
    first = majority_of_three(right)
    return agree_right + sees * (first - agree_right) + (1 - sees) * right * (1 - agree_right - agree_wrong)


async def test_each_arm_of_an_evaluation_is_as_right_as_theory_says(
    connected: Any, simulator: Any, make_council: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 99.9 % of the binomial; the reviewers' bias shows in how often the one shown first has won."""
    from flows.evaluate import evaluate
    from tasks.deliberations.result import retallied

    answers = ["yes", "no"]
    lines, key = [], []
    for number in range(QUESTIONS):
        task, answer = f"Question {number:03d}: does it hold?", answers[number % 2]
        check = {"type": "exact", "answer": answer, "options": answers}
        lines.append(json.dumps({"id": f"q{number:03d}", "task": task, "check": check}))
        key.append({"match": f"Question {number:03d}:", "answer": answer, "options": answers})
    player = {"match": f"^{ID}(-escalate)?:", "accuracy": ACCURACY, "judgement": JUDGEMENT, "position_bias": BIAS}
    await simulator.play(players=[player], key=key)
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(lines))
    monkeypatch.setenv("CONCLAVE_EVALUATIONS", str(tmp_path))
    council = await make_council(3, deadline_s=170)

    state = await evaluate(str(questions), council=council, deliberation_id=ID, return_state=True)
    evaluation, _ = await state.aresult()
    expected = {
        "bare": ACCURACY,
        "bare-5": majority_of_five(ACCURACY),
        "single": ACCURACY,
        "majority": majority_of_three(ACCURACY),
        "rank": ranked_first_of_three(ACCURACY, JUDGEMENT),
        "synthesize": synthesised(ACCURACY, JUDGEMENT),
        "escalate": in_waves(ACCURACY),
    }
    seen = {arm.arm: arm.accuracy.count / arm.questions for arm in evaluation.arms}
    print({arm: (round(seen[arm], 3), round(theory, 3)) for arm, theory in expected.items()})
    assert (evaluation.undecided, evaluation.questions) == (0, QUESTIONS)
    for arm, theory in expected.items():
        assert abs(seen[arm] - theory) < 3.3 * sqrt(theory * (1 - theory) / QUESTIONS), arm
    assert seen["single"] < seen["majority"] < seen["rank"]
    tokens = {arm.arm: arm.usage.completion_tokens for arm in evaluation.arms}
    assert tokens["single"] < tokens["escalate"] < tokens["majority"] < tokens["bare-5"] < tokens["synthesize"]

    tallies = (await retallied(connected, ID, "borda")).values()
    compared = sum(one.position.comparisons for one in tallies)
    first = sum(one.position.first_share * one.position.comparisons for one in tallies) / compared
    assert first - 3.3 * sqrt(0.25 / compared) > 0.5
