"""When an item is decided."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.models import MemberStatus, Status
from tasks.council.progress.completion import Rules, Verdict, deliberation_status, judge

OK, FAILED, EMPTY, TIMEOUT = MemberStatus.OK, MemberStatus.FAILED, MemberStatus.EMPTY, MemberStatus.TIMEOUT
RULES = Rules(total=3, quorum=2, grace_s=None, deadline_s=300)


def answers(*statuses: MemberStatus) -> dict[str, MemberStatus]:
    """Statuses of the first members."""
    return {f"agent-{number}": status for number, status in enumerate(statuses, start=1)}


def at(now: float, *statuses: MemberStatus, rules: Rules = RULES, quorum_at: float | None = None) -> Verdict:
    """The verdict at a moment of an item that started at 1000."""
    return judge(rules, answers(*statuses), now=now, started_at=1000, quorum_at=quorum_at)


def test_an_item_waits_for_its_deadline() -> None:
    """Without answers only time changes something."""
    assert at(1000) == Verdict(Status.IN_PROGRESS, wake_at=1300)


def test_all_answers_complete_it_at_once() -> None:
    """Nothing is missing."""
    assert at(1001, OK, OK, OK) == Verdict(Status.COMPLETED)


def test_a_quorum_without_the_rest_completes_it_degraded() -> None:
    """When the last member has failed."""
    assert at(1001, OK, FAILED, OK) == Verdict(Status.COMPLETED, degraded=True)


def test_a_quorum_waits_for_slow_members_until_the_deadline_by_default() -> None:
    """A slow, healthy member is waited for."""
    assert at(1299, OK, OK, quorum_at=1001) == Verdict(Status.IN_PROGRESS, wake_at=1300)
    assert at(1300, OK, OK, quorum_at=1001) == Verdict(Status.COMPLETED, degraded=True)


def test_a_grace_ends_the_wait_after_the_quorum() -> None:
    """And wakes the caller at its end."""
    rules = replace(RULES, grace_s=5)
    assert at(1005, OK, OK, rules=rules, quorum_at=1001) == Verdict(Status.IN_PROGRESS, wake_at=1006)
    assert at(1006, OK, OK, rules=rules, quorum_at=1001) == Verdict(Status.COMPLETED, degraded=True)


def test_a_grace_does_not_reach_over_the_deadline() -> None:
    """The deadline is the last word."""
    assert at(1299, OK, OK, rules=replace(RULES, grace_s=50), quorum_at=1298).wake_at == 1300


def test_a_quorum_of_unknown_age_counts_as_reached_now() -> None:
    """The caller may learn of it by this very answer."""
    assert at(1010, OK, OK, rules=replace(RULES, grace_s=5)).wake_at == 1015
    assert at(1010, OK, OK, rules=replace(RULES, grace_s=0)).status is Status.COMPLETED


def test_a_deadline_without_the_quorum_is_a_timeout() -> None:
    """With a reason in numbers."""
    verdict = Verdict(Status.TIMEOUT, degraded=True, reason="1 of 3 members answered within 300 s; the quorum is 2")
    assert at(1300, OK, FAILED) == verdict


def test_an_impossible_quorum_fails_at_once_and_names_the_members() -> None:
    """Nobody waits for what cannot come."""
    verdict = judge(
        RULES,
        answers(FAILED, OK, EMPTY),
        now=1001,
        started_at=1000,
        reasons={"agent-1": "connection refused"},
    )
    reason = "quorum of 2 cannot be reached: 2 of 3 members failed (agent-1: connection refused, agent-3: empty)"
    assert verdict == Verdict(Status.FAILED, degraded=True, reason=reason)


def test_a_long_list_of_failures_is_cut_short() -> None:
    """A council may have 128 members."""
    reason = at(1001, *[FAILED] * 9, rules=Rules(9, 5, None, 300)).reason or ""
    assert reason.endswith("(agent-1: failed, agent-2: failed, agent-3: failed, and 6 more)")


def test_members_that_timed_out_make_it_a_timeout_and_not_a_failure() -> None:
    """A run that is resumed between the writing of the timeouts and of the decision says the same."""
    assert at(1001, OK, TIMEOUT, TIMEOUT).status is Status.TIMEOUT
    assert at(1001, FAILED, TIMEOUT, TIMEOUT).status is Status.TIMEOUT
    assert at(1001, FAILED, FAILED, TIMEOUT).status is Status.FAILED


def test_a_cancelled_item_is_cancelled_whatever_else_holds() -> None:
    """Also with every answer there."""
    for now, statuses in ((1001.0, (OK,)), (1300.0, (OK, OK, OK)), (1001.0, (FAILED,) * 3)):
        verdict = judge(RULES, answers(*statuses), now=now, started_at=1000, cancelled=True)
        assert verdict.status is Status.CANCELLED
        assert verdict.degraded is (statuses.count(OK) < 3)


FINAL = st.sampled_from(list(MemberStatus))


@st.composite
def situations(draw: st.DrawFn) -> tuple[Rules, list[MemberStatus], float]:
    """Rules, final answers so far, and seconds since the start."""
    total = draw(st.integers(1, 7))
    grace = draw(st.none() | st.floats(0, 400))
    rules = Rules(total, draw(st.integers(1, total)), grace, 300)
    return rules, draw(st.lists(FINAL, max_size=total)), draw(st.floats(0, 600))


@settings(deadline=None)
@given(situations())
def test_a_verdict_is_either_final_or_says_when_to_look_again(
    situation: tuple[Rules, list[MemberStatus], float],
) -> None:
    """In progress means that time is left, and that answers are missing."""
    rules, statuses, since = situation
    verdict = at(1000 + since, *statuses, rules=rules, quorum_at=1000)
    if verdict.status is Status.IN_PROGRESS:
        assert verdict.wake_at is not None
        assert 1000 + since < verdict.wake_at <= 1300
        assert len(statuses) < rules.total
        assert at(verdict.wake_at, *statuses, rules=rules, quorum_at=1000).status.final
    else:
        assert verdict.status.final
        assert verdict.wake_at is None
        assert verdict.degraded is (statuses.count(OK) < rules.total)
        assert (verdict.reason is None) is (verdict.status is Status.COMPLETED)


@settings(deadline=None)
@given(situations())
def test_it_is_completed_only_with_the_quorum_and_failed_exactly_when_failures_rule_it_out(
    situation: tuple[Rules, list[MemberStatus], float],
) -> None:
    """Members that merely ran out of time are no failures."""
    rules, statuses, since = situation
    status = at(1000 + since, *statuses, rules=rules, quorum_at=1000).status
    failed = sum(one not in (OK, TIMEOUT) for one in statuses)
    assert (status is Status.FAILED) is (rules.total - failed < rules.quorum)
    if statuses.count(OK) < rules.quorum:
        assert status is not Status.COMPLETED
    if since >= 300 or len(statuses) == rules.total:
        assert status.final


@settings(deadline=None)
@given(situations(), st.floats(0, 600))
def test_a_final_status_does_not_change_with_time(
    situation: tuple[Rules, list[MemberStatus], float], later: float
) -> None:
    """Looking again later finds the same."""
    rules, statuses, since = situation
    verdict = at(1000 + since, *statuses, rules=rules, quorum_at=1000)
    if verdict.status.final:
        assert at(1000 + since + later, *statuses, rules=rules, quorum_at=1000) == verdict


@settings(deadline=None)
@given(situations(), FINAL)
def test_one_more_answer_never_takes_a_completed_item_back(
    situation: tuple[Rules, list[MemberStatus], float], more: MemberStatus
) -> None:
    """An answer that comes late can only fill a gap."""
    rules, statuses, since = situation
    before = at(1000 + since, *statuses, rules=rules, quorum_at=1000)
    if before.status is Status.COMPLETED and len(statuses) < rules.total:
        after = at(1000 + since, *statuses, more, rules=rules, quorum_at=1000)
        assert after.status is Status.COMPLETED
        assert after.degraded <= before.degraded


@pytest.mark.parametrize("status", list(Status))
def test_an_agenda_of_one_has_the_status_of_its_item(status: Status) -> None:
    """Whatever it is."""
    assert deliberation_status([status]) is status


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([Status.COMPLETED, Status.FAILED, Status.TIMEOUT], Status.COMPLETED),
        ([Status.COMPLETED, Status.PENDING], Status.IN_PROGRESS),
        ([Status.CANCELLED, Status.IN_PROGRESS], Status.IN_PROGRESS),
        ([Status.CANCELLED, Status.COMPLETED], Status.CANCELLED),
    ],
)
def test_an_agenda_of_many_is_completed_when_every_item_is_final(statuses: list[Status], expected: Status) -> None:
    """And cancelled if any of them was."""
    assert deliberation_status(statuses) is expected
