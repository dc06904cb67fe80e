"""A budget: what is claimed is set aside, what was taken is used, and nothing is claimed beyond it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.council.budget import CHARTER_TOKENS, NOTHING, USED_UP, Cost, Ledger, cost_of, used_by
from tasks.council.council import CouncilSpec, Member
from tasks.council.decisions import StageCost
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Budget, Deliberation, DeliberationRequest
from tasks.council.proposal import Usage
from tests.tasks.batch.output.finished import decided

ANSWER_TOKENS = 100


def plan(task: str = "x" * 300, **asked: Any) -> Deliberation:
    """Three members and a chair, each of which may answer with 100 tokens."""
    members = [Member(agent_id=f"m{number}", role="DEV", max_tokens=ANSWER_TOKENS) for number in (1, 2, 3)]
    chair = Member(agent_id="chair", role="DEV", max_tokens=ANSWER_TOKENS)
    council = CouncilSpec(name="dev", members=tuple(members), chairman=chair)
    return Deliberation.plan("d", DeliberationRequest.read({"task": task, **asked}), council)


# --- what an item takes at most -------------------------------------------------------------------


GIVEN = CHARTER_TOKENS + 100
"""Tokens of a prompt with a task of 300 characters."""
SHOWN = GIVEN + 3 * ANSWER_TOKENS
"""Of one that shows the proposals of all three."""


@pytest.mark.parametrize(
    ("asked", "calls", "tokens"),
    [
        ({"strategy": "propose"}, 3, 3 * (GIVEN + 100)),
        ({"strategy": "rank"}, 3 + 6, 3 * (GIVEN + 100) + 6 * (SHOWN + 100)),
        ({"strategy": "synthesize"}, 3 + 6 + 1, 3 * (GIVEN + 100) + 7 * (SHOWN + 100)),
        ({"strategy": "propose", "rounds": 1}, 3 + 6 + 3, 3 * (GIVEN + 100) + 9 * (SHOWN + 100)),
        ({"strategy": "rank", "rounds": 1}, 3 + 6 + 3 + 6, 3 * (GIVEN + 100) + 15 * (SHOWN + 100)),
        ({"strategy": "escalate"}, 5 + 6, 5 * (GIVEN + 100) + 6 * (SHOWN + 100)),
        ({"strategy": "propose", "members": 2}, 2, 2 * (GIVEN + 100)),
    ],
    ids=str,
)
def test_an_item_takes_every_stage_with_everybody_in_it_and_each_ballot_twice(
    asked: dict[str, Any], calls: int, tokens: int
) -> None:
    """At most: waves that agree, and ballots that can change nothing, take less."""
    one = plan(**asked)
    assert cost_of(one, one.agenda[0]) == Cost(calls, tokens)


@pytest.mark.parametrize("more", ["rubric", "requirements", "context"])
def test_what_stands_beside_the_task_is_estimated_too(more: str) -> None:
    """A rubric of 3 000 characters is a thousand tokens of every prompt."""
    text = "y" * 3_000
    given = {"rubric": text, "requirements": [text], "context": {"k": text}}[more]
    bare, full = plan(strategy="propose"), plan(strategy="propose", **{more: given})
    difference = cost_of(full, full.agenda[0]).tokens - cost_of(bare, bare.agenda[0]).tokens
    assert 3 * 1_000 <= difference <= 3 * 1_010


def test_what_was_used_are_the_calls_that_were_made_and_their_tokens() -> None:
    """Ballots that nobody waited for were not."""
    usage = Usage(prompt_tokens=30, completion_tokens=15, cached_tokens=20)
    stages = (
        StageCost(stage="propose-0", called=3, ok=2, duration_ms=1, usage=usage),
        StageCost(stage="review-0", called=3, ok=2, duration_ms=1, usage=usage, unneeded=1),
    )
    assert used_by(decided(stages=stages, usage=usage)) == Cost(5, 45)


# --- claims ---------------------------------------------------------------------------------------


def test_what_is_claimed_is_set_aside_until_it_is_known_what_it_took() -> None:
    """What was claimed and not taken is free again."""
    ledger = Ledger(Budget(max_calls=10), began=0)
    assert ledger.claim(Cost(6))
    assert not ledger.claim(Cost(5))
    assert ledger.claim(Cost(4))
    assert not ledger.claim(Cost(1))
    ledger.correct(Cost(6), Cost(2))
    assert (ledger.used, ledger.claimed) == (Cost(2), Cost(4))
    assert ledger.claim(Cost(4))
    assert not ledger.claim(Cost(1))


def test_a_claim_that_is_refused_leaves_nothing() -> None:
    """Neither of calls nor of tokens, whichever was short."""
    ledger = Ledger(Budget(max_calls=10, max_tokens=100), began=0)
    assert not ledger.claim(Cost(1, 101))
    assert not ledger.claim(Cost(11, 1))
    assert ledger.claimed == NOTHING
    assert ledger.claim(Cost(10, 100))


def test_what_earlier_runs_used_counts() -> None:
    """It is told to a ledger by a correction, or at its beginning."""
    ledger = Ledger(Budget(max_calls=10), began=0, used=Cost(8))
    assert not ledger.claim(Cost(3))
    assert ledger.claim(Cost(2))


@pytest.mark.parametrize("budget", [None, Budget(), Budget(max_s=5)])
def test_without_a_bound_every_claim_holds(budget: Budget | None) -> None:
    """A bound of time is none of claims."""
    ledger = Ledger(budget, began=0)
    assert not ledger.is_bounded
    assert ledger.claim(Cost(10**9, 10**12))


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (Budget(max_calls=2_000), "1,995 of 2,000 calls"),
        (Budget(max_tokens=9_000), "8,500 of 9,000 tokens"),
        (Budget(max_calls=2_000, max_tokens=9_000), "1,995 of 2,000 calls and 8,500 of 9,000 tokens"),
    ],
    ids=str,
)
def test_what_is_used_up_is_told_in_words(budget: Budget, told: str) -> None:
    """With how much there was."""
    ledger = Ledger(budget, began=0, used=Cost(1_995, 8_500))
    assert ledger.used_up == f"{USED_UP}: {told} are used, and the next item takes more than is left"


def test_time_is_counted_from_the_beginning() -> None:
    """The reason stands from the moment on at which it is over."""
    ledger = Ledger(Budget(max_s=90.5), began=1_000)
    assert ledger.overtime(1_090.4) is None
    assert ledger.overtime(1_090.5) == "budget: 90.5 s are over"
    assert Ledger(Budget(max_calls=1), began=0).overtime(1e9) is None


@given(
    most=st.integers(1, 50),
    items=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans()), max_size=40),
)
def test_no_more_calls_are_used_than_there_are(most: int, items: list[tuple[int, int, bool]]) -> None:
    """Whatever is claimed and corrected, as long as nothing takes more than it claimed."""
    ledger, open_claims = Ledger(Budget(max_calls=most), began=0), list[tuple[Cost, Cost]]()
    for claimed, took, first_ends in items:
        if first_ends and open_claims:
            ledger.correct(*open_claims.pop(0))
        if ledger.claim(Cost(claimed)):
            open_claims.append((Cost(claimed), Cost(min(took, claimed))))
        assert ledger.used.calls + ledger.claimed.calls <= most
    for one in open_claims:
        ledger.correct(*one)
    assert ledger.claimed == NOTHING
    assert ledger.used.calls <= most


# --- as it is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_calls", value) for value in (0, -1, 10**9 + 1, 1.5, "many")),
        *(("max_tokens", value) for value in (0, 10**12 + 1)),
        *(("max_s", value) for value in (0, -1, float("nan"), float("inf"), 1e9)),
    ],
)
def test_a_bound_that_is_none_is_refused_by_its_field(field: str, value: object) -> None:
    """Whatever door it comes by."""
    with pytest.raises(InvalidRequest) as refused:
        DeliberationRequest.read({"task": "x", "budget": {field: value}})
    assert refused.value.field == f"budget.{field}"


def test_an_unknown_bound_is_refused() -> None:
    """Else nothing would be bounded, and nobody would know."""
    with pytest.raises(ValidationError, match="max_cost"):
        Budget.model_validate({"max_cost": 1})
    with pytest.raises(InvalidRequest, match="max_cost"):
        DeliberationRequest.read({"task": "x", "budget": {"max_cost": 1}})
