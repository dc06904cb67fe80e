"""What a tally says to a reader."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.council.decisions import Ballots, ItemResult, StageCost, Synthesis
from tasks.council.models import MemberStatus
from tasks.council.proposal import Usage
from tasks.council.report.wording import (
    answer_in_words,
    firmness_in_words,
    how_decided,
    in_short,
    in_words,
    listed,
    missing_in_words,
    skipped_in_words,
    statuses,
    worth_in_words,
)
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.firmness import Firmness
from tasks.council.voting.majority import Majority
from tasks.council.voting.tally import tally
from tasks.council.voting.worth import BallotWorth

CANDIDATES = [Candidate("m1", 0.9), Candidate("m2", 0.8), Candidate("m3", 0.8)]


def ballot(voter: str, *ranking: str) -> Ballot:
    """A ballot on everything that it ranks."""
    return Ballot(voter=voter, shown=ranking, ranking=ranking)


@pytest.mark.parametrize(
    ("ballots", "expected", "ended_early", "said"),
    [
        ([], 0, "the outstanding ballots compare nothing", "No ballots were asked for: the outstanding ballots"),
        ([], 3, None, "None of 3 ballots could be counted."),
        (
            [ballot("m1", "m2", "m3"), ballot("m2", "m1", "m3"), ballot("m3", "m1", "m2")],
            3,
            None,
            "3 of 3 ballots were counted (borda). m1 leads m2 by a clear margin of 0.50. It beats every other one to",
        ),
        (
            [ballot("m1", "m2", "m3"), ballot("m2", "m3", "m1"), ballot("m3", "m1", "m2")],
            3,
            None,
            "m1 and m2 have the same votes. No proposal beats every other one to one.",
        ),
        ([ballot("m1", "m2", "m3")], 3, "m2 cannot be overtaken", "since m2 cannot be overtaken"),
    ],
    ids=["skipped", "none", "clear", "cycle", "early"],
)
def test_a_reader_is_told_how_it_went(ballots: list[Ballot], expected: int, ended_early: str | None, said: str) -> None:
    """In whole sentences, what was counted first."""
    outcome = tally(CANDIDATES, ballots)
    told = in_words(Ballots(expected=expected, counted=len(ballots), ended_early=ended_early, tally=outcome))
    assert said in told


def test_ties_are_told_with_what_broke_them() -> None:
    """The checks where their scores differ, else a hash."""
    for candidates, by in ((CANDIDATES, "a hash"), (CANDIDATES[:2], "the checks")):
        told = in_words(Ballots(expected=3, counted=0, tally=tally(candidates, [])))
        assert f"Ties were broken: {listed([one.id for one in candidates])} by {by}." in told


# --- how it was decided ---------------------------------------------------------------------------

ORDERED = tally(CANDIDATES, [ballot("m1", "m2", "m3"), ballot("m2", "m1", "m3"), ballot("m3", "m1", "m2")])
COUNTED = Ballots(expected=3, counted=3, tally=ORDERED)
SET_ASIDE = COUNTED.model_copy(update={"set_aside": "the ballots agree no further than drawn lots often do"})
UNCOUNTED = Ballots(expected=3, counted=0, tally=tally(CANDIDATES, []))
VOTE = Majority(
    answer="42", winner_id="m1", votes={"42": ("m1", "m2"), "7": ("m3",)}, silent=(), unanimous=False, tied=False
)


def stage(name: str, called: int = 3, **fields: Any) -> StageCost:
    """What a stage took."""
    return StageCost(stage=name, called=called, ok=called, duration_ms=1, usage=Usage(), **fields)


def synthesis(content: str | None) -> Synthesis:
    """The chairman's, which ended by its deadline where it has no content."""
    status = MemberStatus.OK if content else MemberStatus.TIMEOUT
    reason = None if content else "no answer within 9 s."
    return Synthesis(
        chairman_id="m1", status=status, reason=reason, content=content, model="m", sources=("m1", "m2", "m3")
    )


def result(**fields: Any) -> ItemResult:
    """A decided item of three, without proposals."""
    common = {"id": "d", "item": "i", "task": "t", "status": "COMPLETED", "council": "dev", "engine": "vllm"}
    counts = {"degraded": False, "total_agents": 3, "received_count": 3, "failed_count": 0, "duration_ms": 1}
    empty = {"strategy": "rank", "results": (), "members": (), "error_message": None, "usage": Usage()}
    decision = {"winner_id": "m1", "decision": "text", "completed_at": datetime(2026, 1, 1, tzinfo=UTC)}
    return ItemResult.model_validate({**common, **counts, **empty, **decision, **fields})


@pytest.mark.parametrize(
    ("fields", "said", "short"),
    [
        (
            {"decided_by": "synthesis", "synthesis": synthesis("whole"), "ballots": COUNTED},
            "Written by the chairman m1 from the proposals of m1, m2 and m3, best first by the ballots.",
            "synthesis by m1",
        ),
        (
            {"decided_by": "synthesis", "synthesis": synthesis("whole"), "ballots": UNCOUNTED},
            "Written by the chairman m1 from the proposals of m1, m2 and m3, best first by the checks.",
            "synthesis by m1",
        ),
        ({"decided_by": "ballots", "ballots": COUNTED}, "The proposal of m1, which the ballots put first.", "m1"),
        (
            {"decided_by": "ballots", "ballots": COUNTED, "synthesis": synthesis(None)},
            "The proposal of m1, which the ballots put first. The synthesis of the chairman m1 failed "
            "(timeout: no answer within 9 s), so the best proposal stands.",
            "m1",
        ),
        (
            {"decided_by": "majority", "majority": VOTE, "answer": "42"},
            "The proposal of m1, which the majority gives: 2 of 3 proposals answer 42, "
            "and of these the checks put it first.",
            "answer 42, 2 of 3",
        ),
        (
            {"decided_by": "majority", "majority": VOTE, "answer": "42", "ballots": SET_ASIDE},
            "The proposal of m1, which the majority gives: 2 of 3 proposals answer 42, "
            "and of these the checks put it first, since the ballots agree no further than drawn lots often do.",
            "answer 42, 2 of 3",
        ),
        (
            {"decided_by": "synthesis", "synthesis": synthesis("whole"), "majority": VOTE, "ballots": SET_ASIDE},
            "Written by the chairman m1 from the proposals of m1, m2 and m3, best first by the answers' votes.",
            "synthesis by m1",
        ),
        ({"decided_by": "checks"}, "The proposal of m1, which the checks put first.", "m1"),
        (
            {"decided_by": "checks", "ballots": UNCOUNTED},
            "The proposal of m1, which the checks put first, since no ballot could be counted.",
            "m1",
        ),
        (
            {"decided_by": "checks", "received_count": 1, "stages": (stage("synthesize", 0, skipped="m1 is alone"),)},
            "The proposal of m1, the only one that can be used. No synthesis was asked for, since m1 is alone.",
            "m1",
        ),
        ({"winner_id": None, "decision": None}, "", "nobody"),
    ],
    ids=[
        *("synthesis", "of checks", "ballots", "no synthesis", "majority", "set aside", "of votes", "checks"),
        *("no ballot", "alone", "nothing"),
    ],
)
def test_a_reader_is_told_how_the_decision_came_about(fields: dict[str, Any], said: str, short: str) -> None:
    """Whatever decided, in a sentence, and for a title."""
    assert how_decided(result(**fields)) == said
    assert in_short(result(**fields)) == short


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"majority": VOTE, "answer": "42"}, "Answers of the proposals: 42 by m1 and m2; 7 by m3."),
        (
            {"majority": VOTE.model_copy(update={"silent": ("m4",), "tied": True}), "answer": "42"},
            "Answers of the proposals: 42 by m1 and m2; 7 by m3; none that can be read by m4. "
            "Of the answers with the most votes the one counts whose proposal the checks put first.",
        ),
        ({"majority": VOTE, "answer": "7"}, "7 by m3. That is not the answer that most proposals give."),
        ({"majority": VOTE}, "7 by m3. The decision itself gives no answer that can be read."),
        (
            {"majority": VOTE.model_copy(update={"tied": True, "by": "ballots"}), "answer": "42"},
            "Of the answers with the most votes the one counts whose proposal the ballots put first.",
        ),
        ({"answers_short": "0 of 3 answers readable"}, "No proposal gives an answer that can be read."),
        ({}, ""),
    ],
    ids=["plain", "silent and tied", "another", "unreadable", "told apart by ballots", "none", "open"],
)
def test_a_reader_is_told_who_gave_which_answer(fields: dict[str, Any], said: str) -> None:
    """And where the decision departs from it."""
    told = answer_in_words(result(**fields))
    assert told.endswith(said)
    assert bool(told) == bool(said)


def test_what_was_not_held_and_what_is_missing_is_told_once_for_all_whom_it_concerns() -> None:
    """By reason; a ballot that was not waited for is not missing."""
    stages = (stage("propose-0"), stage("review-0", ended_early="m1 leads"), *(stage("x", 0, skipped="why"),) * 2)
    member = {"role": "DEV", "duration_ms": 1, "usage": Usage(), "model": None}
    late = {"status": "timeout", "reason": "too late"}
    members = (
        {**member, "agent_id": "m1", **late, "stages": {}},
        {**member, "agent_id": "m2", **late, "stages": {}},
        {
            **member,
            "agent_id": "m3",
            "status": "ok",
            "reason": None,
            "stages": {
                "review-0": {"status": "cancelled", "reason": "m1 leads"},
                "revise-1": {"status": "ok", "reason": None},
                "revise-2": {"status": "empty", "reason": "no text"},
            },
        },
    )
    told = result(members=members, stages=stages)
    assert missing_in_words(told) == ["m1 and m2: too late", "m3: revise-2: no text"]
    assert skipped_in_words(told.stages) == ["Not held: x and x, since why."]
    assert [statuses(told.members[2], kind, told.stages) for kind in ("review", "revise", "synthesize")] == [
        "-",
        "empty",
        "-",
    ]


def test_long_lists_of_names_are_cut() -> None:
    """And counted."""
    assert [listed([f"m{number}" for number in range(count)]) for count in (0, 1, 2)] == ["", "m0", "m0 and m1"]
    assert listed([f"m{number}" for number in range(20)]).endswith("m10, m11 and 8 more")


# --- what it is worth -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"first_shown_p": 0.5, "agreement_p": 0.01}, ""),
        ({"first_shown_p": 0.5, "agreement_p": 0.05}, ""),
        (
            {"first_shown_p": 0.5, "agreement_p": 0.06},
            "Drawn lots agree as far in 6% of elections, so it may be chance.",
        ),
        (
            {"first_shown_p": 0.05, "agreement_p": 0.01},
            "Ballots follow the order in which proposals were shown: 4 of 5 put first what was shown first.",
        ),
        (
            {"first_shown_p": 1, "agreement_p": 0.8, "least_p": 0.25},
            "So few ballots could be drawn lots, whatever they say.",
        ),
    ],
    ids=["worth something", "just", "lots", "places", "too few"],
)
def test_a_reader_is_told_where_ballots_are_worth_nothing(fields: dict[str, float], said: str) -> None:
    """And nothing where they are."""
    worth = BallotWorth.model_validate({"first_shown": 4, "of": 5, "least_p": 0.001, **fields})
    assert worth_in_words(worth) == said
    assert worth_in_words(None) == ""
    told = in_words(COUNTED.model_copy(update={"worth": worth, "set_aside": said or None}))
    assert told.endswith("The vote of the answers decided in their place.") is bool(said)


LOOKED_AT = {"voters": 3, "members": 2, "rules": 2}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (LOOKED_AT, "Holds without any one voter or member, and under every tally rule."),
        ({**LOOKED_AT, "rules": 0}, "Holds without any one voter or member."),
        ({**LOOKED_AT, "without_member": {"m2": "m3"}}, "The decision turns to m3 without m2."),
        ({**LOOKED_AT, "without_voter": {"m2": "m3"}}, "The decision turns to m3 without the vote of m2."),
        (
            {**LOOKED_AT, "without_voter": {"m2": "m3", "m1": "m3"}, "without_member": {"m2": "m3", "m4": "m3"}},
            "The decision turns to m3 without m2 or m4 and without the vote of m1.",
        ),
        (
            {**LOOKED_AT, "without_member": {"m2": "no", "m3": "yes"}, "by_rule": {"copeland": "no", "schulze": "no"}},
            "The decision turns to no without m2 and by copeland or schulze; to yes without m3.",
        ),
        ({"unknown": "there was only one voter"}, ""),
        (
            {"unknown": "there are more than 24 proposals"},
            "Whether it hangs on one voter, member or tally rule was not looked at: there are more than 24 proposals.",
        ),
    ],
    ids=["holds", "a vote holds", "member", "voter", "both", "to two", "alone", "unknown"],
)
def test_a_reader_is_told_what_a_decision_hangs_on(fields: dict[str, Any], said: str) -> None:
    """By what stands first then; of who gives way with ballot and proposal the ballot is not told again."""
    assert firmness_in_words(Firmness(**fields)) == said
    assert firmness_in_words(None) == ""


def test_long_lists_of_causes_are_cut() -> None:
    """And counted."""
    told = firmness_in_words(Firmness(without_member={f"m{number:02d}": "m99" for number in range(20)}))
    assert told.endswith("m10, m11 or one of 8 more.")


def test_few_answers_that_can_be_read_stand_in_the_headline() -> None:
    """Before what the stages lack."""
    stages = (stage("propose-0"), stage("review-0").model_copy(update={"ok": 2}))
    told = result(answers_short="1 of 3 answers readable", degraded=True, stages=stages)
    assert told.headline == "3 of 3, 1 of 3 answers readable, 2 of 3 ballots: degraded"
