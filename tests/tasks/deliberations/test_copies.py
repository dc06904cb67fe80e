"""More members than a council has: the further ones are in the same roles, and whoever asked for them is told once."""

from __future__ import annotations

from typing import Any

import pytest

TOLD = "agent-qa-004 and agent-dev-005 are further copies of roles: council dev has 3 of the 5 members asked for."


def council() -> Any:
    """A council of three."""
    from tasks.council.council import CouncilSpec, Member

    seats = (("agent-qa-001", "QA"), ("agent-dev-002", "DEV"), ("agent-data-003", "DATA"))
    return CouncilSpec(name="dev", members=tuple(Member(agent_id=one, role=role) for one, role in seats))


def request(members: int | None) -> Any:
    """A request that may ask for another number of members."""
    from tasks.council.models import DeliberationRequest

    return DeliberationRequest.read({"task": "Choose a queue", "members": members})


def planned(one: str, members: int | None) -> Any:
    """Its plan."""
    from tasks.council.models import Deliberation

    return Deliberation.plan(one, request(members), council())


@pytest.mark.parametrize(
    ("members", "told"),
    [
        (None, ""),
        (2, ""),
        (3, ""),
        (4, "agent-qa-004 is a further copy of a role: council dev has 3 of the 4 members asked for."),
        (5, TOLD),
    ],
)
async def test_whoever_watches_is_told_once(record: Any, new_id: str, members: int | None, told: str) -> None:
    """Before the first answer; nothing where the council has them all."""
    from tasks.deliberations.watch import Watcher, watching

    said: list[str] = []

    class Listening(Watcher):
        def say(self, text: str) -> None:
            said.append(text)

    async with watching(record, planned(new_id, members), Listening()):
        assert said == [told] * bool(told)
    assert said == [told] * bool(told)


def test_a_long_list_is_cut() -> None:
    """A hundred names are no sentence."""
    from tasks.council.report.wording import copies_in_words

    assert "agent-data-015 and 113 more are further copies" in copies_in_words(planned("d", 128))


class HeldLease:
    """A lease that nobody else wants."""

    epoch, holder, waited = 1, b"one", False

    async def check(self) -> None:
        """It is still held."""


@pytest.mark.parametrize(("members", "copies"), [(None, []), (5, ["agent-qa-004", "agent-dev-005"])])
async def test_the_result_names_them(
    record: Any, monkeypatch: pytest.MonkeyPatch, new_id: str, members: int | None, copies: list[str]
) -> None:
    """From its start on, and still when its key is let go."""
    from tasks.deliberations import plan
    from tasks.deliberations.result import result_of

    async def spec(_name: str, _at_hand: Any = None) -> Any:
        return council()

    monkeypatch.setattr(plan, "council_spec", spec)
    session = await plan.convene(record, new_id, request(members))
    await plan.begin(record, session, HeldLease(), None)  # type: ignore[arg-type]

    found = await result_of(record, new_id)
    assert found is not None
    assert found["copies"] == copies


def test_the_report_says_so_at_its_head() -> None:
    """Above what was decided."""
    from tasks.council.proposal import Usage
    from tasks.council.report.markup import escape
    from tasks.council.report.report import report

    head = report(planned("d", 5), [], [], Usage()).split("\n\n")
    assert head[1] == escape(TOLD)
    assert "further" not in report(planned("d", 3), [], [], Usage())
