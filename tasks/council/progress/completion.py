"""When an item is decided: the status rules as a function of what is known at one moment.

Nothing here keeps state or reads a clock. The caller says which final answers there are and what time it
is, and gets a verdict: a final status, or the next moment at which time alone changes something. So the
rules give the same verdict live, after a crash and when a record is read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.council.models import MemberStatus, Status

NAMED_MEMBERS = 3
"""Members that a reason names; the others are counted."""


@dataclass(frozen=True)
class Rules:
    """What decides an item; times in seconds, `grace_s` None is until the deadline."""

    total: int
    quorum: int
    grace_s: float | None
    deadline_s: float


@dataclass(frozen=True)
class Verdict:
    """How an item stands; `wake_at` is set while it is in progress, `reason` where it was not completed."""

    status: Status
    degraded: bool = False
    wake_at: float | None = None
    reason: str | None = None


def judge(
    rules: Rules,
    statuses: Mapping[str, MemberStatus],
    *,
    now: float,
    started_at: float,
    quorum_at: float | None = None,
    cancelled: bool = False,
    reasons: Mapping[str, str] | None = None,
    where: str = "",
) -> Verdict:
    """The verdict at `now` on the final answers so far, by member.

    `now`, `started_at` and `quorum_at` are seconds of one monotonic clock; without `quorum_at` a quorum
    counts as reached now. `reasons` tells by member why it failed, in place of its status; `where` is told, too.
    """
    ok = sum(status is MemberStatus.OK for status in statuses.values())
    degraded = ok < rules.total
    deadline = started_at + rules.deadline_s
    if cancelled:
        return Verdict(Status.CANCELLED, degraded, reason=f"cancelled{where} with {ok} of {rules.total} answers")
    if ok < rules.quorum:
        lost = _lost(rules, statuses, overdue=now >= deadline)
        if lost is None:
            return Verdict(Status.IN_PROGRESS, wake_at=deadline)
        return Verdict(lost, degraded, reason=_reason(lost, rules, ok, statuses, reasons or {}))
    closing = deadline
    if rules.grace_s is not None:
        closing = min(deadline, (now if quorum_at is None else quorum_at) + rules.grace_s)
    if len(statuses) >= rules.total or now >= closing:
        return Verdict(Status.COMPLETED, degraded)
    return Verdict(Status.IN_PROGRESS, wake_at=closing)


def _lost(rules: Rules, statuses: Mapping[str, MemberStatus], *, overdue: bool) -> Status | None:
    """The final status of an item without its quorum, or None while the quorum can still come.

    A member's own `timeout` is the deadline seen from its side. Where the quorum would still be possible
    without counting those, the item timed out, so a run that is resumed says the same as the first one.
    """
    timeouts = sum(status is MemberStatus.TIMEOUT for status in statuses.values())
    missed = sum(status is not MemberStatus.OK for status in statuses.values())
    if rules.total - (missed - timeouts) < rules.quorum:
        return Status.FAILED
    if overdue or rules.total - missed < rules.quorum:
        return Status.TIMEOUT
    return None


def _reason(
    status: Status, rules: Rules, ok: int, statuses: Mapping[str, MemberStatus], reasons: Mapping[str, str]
) -> str:
    if status is Status.TIMEOUT:
        answered = f"{ok} of {rules.total} members answered within {rules.deadline_s:g} s"
        return f"{answered}; the quorum is {rules.quorum}"
    missed = sorted(member for member, member_status in statuses.items() if member_status is not MemberStatus.OK)
    named = [f"{member}: {reasons.get(member) or statuses[member].value}" for member in missed[:NAMED_MEMBERS]]
    if len(missed) > NAMED_MEMBERS:
        named.append(f"and {len(missed) - NAMED_MEMBERS} more")
    return (
        f"quorum of {rules.quorum} cannot be reached: "
        f"{len(missed)} of {rules.total} members failed ({', '.join(named)})"
    )


def deliberation_status(item_statuses: Iterable[Status]) -> Status:
    """Status of a deliberation: its one item's, or for an agenda whether every item is final.

    An agenda with a cancelled item is CANCELLED once nothing runs any more; one whose items are all final
    is COMPLETED, whatever they came to, and `counts` says what.
    """
    statuses = tuple(item_statuses)
    if len(statuses) == 1:
        return statuses[0]
    if not all(status.final for status in statuses):
        return Status.IN_PROGRESS
    return Status.CANCELLED if Status.CANCELLED in statuses else Status.COMPLETED
