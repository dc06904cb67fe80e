"""What may begin: agendas in their order, as far as there is room at each server and something left of the budget."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.collect.admission import Admission
from tasks.council.answer import Answer
from tasks.council.budget import Ledger
from tasks.council.council import CouncilSpec, Member
from tasks.council.decisions import ItemResult, StageCost
from tasks.council.models import Budget, Deliberation, DeliberationRequest, MemberStatus
from tasks.council.proposal import Usage
from tasks.council.window import Window
from tests.tasks.batch.output.finished import decided


class Clock:
    """Seconds, which stand until they are set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Agendas:
    """Agendas that share an admission; who was woken is noted."""

    def __init__(self, sizes: Mapping[str, float] | None = None, **budget: Any) -> None:
        self.clock = Clock()
        windows = {server: Window(size) for server, size in (sizes or {"default": 100}).items()}
        self.admission = Admission(windows, Ledger(Budget(**budget), self.clock()), self.clock)
        self.woken: list[str] = []

    def plan(
        self, name: str, items: int = 3, servers: tuple[str, ...] = ("default",) * 3, **asked: Any
    ) -> Deliberation:
        """An agenda that has joined; a member for each server."""
        members = [Member(agent_id=f"m{number}", role="DEV", server=one) for number, one in enumerate(servers)]
        given = {"strategy": "propose", "items": [{"id": f"i{number}", "task": "x"} for number in range(items)]}
        council = CouncilSpec(name="dev", members=tuple(members))
        plan = Deliberation.plan(name, DeliberationRequest.read({**given, **asked}), council)
        self.admission.join(plan, lambda: self.woken.append(name))
        return plan

    def admit(self, plan: Deliberation, number: int = 0) -> bool:
        """Whether that item begins."""
        return self.admission.admit(plan, plan.agenda[number])

    def in_flight(self, server: str = "default") -> int:
        """Calls that are out at a server."""
        return self.admission.windows[server].in_flight


def answer(plan: Deliberation, agent_id: str, **fields: Any) -> Answer:
    """A member's answer to the first item, after two seconds."""
    given: dict[str, Any] = {"item": "i0", "stage": "propose-0", "agent_id": agent_id, "role": "DEV", "num_agents": 3}
    given |= {"task_id": plan.id, "status": MemberStatus.OK, "duration_ms": 2_000, "timestamp": datetime.now(UTC)}
    return Answer.model_validate({**given, **fields})


def result(plan: Deliberation, number: int = 0, calls: int = 3, tokens: int = 0) -> ItemResult:
    """An item that took so many calls and tokens."""
    usage = Usage(prompt_tokens=tokens)
    stages = (StageCost(stage="propose-0", called=calls, ok=calls, duration_ms=1, usage=usage),)
    return decided(id=plan.id, item=plan.agenda[number].id, stages=stages, usage=usage)


def test_the_agenda_that_came_first_is_served_until_all_its_items_have_begun() -> None:
    """So that rows begin in the order of their file; then the next one is woken, and served."""
    agendas = Agendas()
    first, second = agendas.plan("a"), agendas.plan("b")
    assert agendas.admission.waiting == agendas.admission.joined == 2
    assert not agendas.admit(second)
    assert all(agendas.admit(first, number) for number in range(3))
    assert not agendas.admit(second)
    agendas.admission.is_served(first)
    assert agendas.woken[-1] == "b"
    assert (agendas.admission.waiting, agendas.admission.joined) == (1, 2)
    assert agendas.admit(second)


def test_an_item_begins_where_all_its_first_calls_have_room() -> None:
    """Not some of them: it is one call a member."""
    agendas = Agendas({"default": 8})
    plan = agendas.plan("a")
    assert [agendas.admit(plan, number) for number in range(3)] == [True, True, False]
    assert agendas.in_flight() == 6
    agendas.admission.answered(answer(plan, "m0"))
    assert agendas.admit(plan, 2)


def test_room_is_that_of_each_server() -> None:
    """A council may have members at several; the one that is full keeps the item back."""
    agendas = Agendas({"a": 4, "b": 1})
    plan = agendas.plan("x", servers=("a", "a", "b"))
    assert agendas.admit(plan, 0)
    assert not agendas.admit(plan, 1)
    assert (agendas.in_flight("a"), agendas.in_flight("b")) == (2, 1)
    agendas.admission.answered(answer(plan, "m2"))
    assert agendas.admit(plan, 1)


def test_where_nothing_is_in_flight_an_item_begins_however_small_the_window_is() -> None:
    """Else a council of five at a server with room for two would never begin."""
    agendas = Agendas({"default": 1})
    plan = agendas.plan("a", servers=("default",) * 5)
    assert agendas.admit(plan)
    assert not agendas.admit(plan, 1)
    for number in range(5):
        agendas.admission.answered(answer(plan, f"m{number}"))
    assert agendas.admit(plan, 1)


def test_later_stages_follow_at_once_and_keep_other_items_back() -> None:
    """What has begun is brought to its end first."""
    agendas = Agendas({"default": 6})
    plan = agendas.plan("a", strategy="rank")
    assert agendas.admit(plan)
    for number in range(3):
        agendas.admission.answered(answer(plan, f"m{number}"))
    agendas.admission.entered(plan, ("m0", "m1", "m2"))
    assert agendas.in_flight() == 3
    assert agendas.admit(plan, 1)
    assert not agendas.admit(plan, 2)
    agendas.admission.entered(plan, ("m0", "m1", "m2"))
    assert agendas.in_flight() == 9


def test_waves_ask_for_room_for_those_who_are_asked_first() -> None:
    """Two to compare, or one of a closed answer."""
    agendas = Agendas({"default": 5})
    plan = agendas.plan("a", strategy="escalate")
    assert agendas.admit(plan)
    assert agendas.in_flight() == 2
    closed = agendas.plan("b", strategy="escalate", answer_format={"type": "number"})
    agendas.admission.is_served(plan)
    assert agendas.admit(closed)
    assert agendas.in_flight() == 3


def test_who_leaves_gives_back_what_it_held() -> None:
    """Its calls, and what its items have claimed; the next one is woken."""
    agendas = Agendas(max_calls=6)
    first, second = agendas.plan("a"), agendas.plan("b")
    assert agendas.admit(first, 0)
    assert agendas.admit(first, 1)
    agendas.admission.answered(answer(first, "m0"))
    agendas.admission.leave(first)
    assert agendas.in_flight() == 0
    assert agendas.woken[-1] == "b"
    assert agendas.admission.joined == 1
    assert agendas.admit(second, 0)
    assert agendas.admit(second, 1)
    agendas.admission.leave(first)  # twice is no fault
    assert agendas.in_flight() == 6


def test_what_an_item_did_not_take_is_free_again() -> None:
    """A ballot that was not needed, a wave that was not asked."""
    agendas = Agendas(max_calls=9)
    plan = agendas.plan("a", strategy="rank")
    assert agendas.admit(plan)  # claims three calls, and three ballots twice
    assert not agendas.admit(plan, 1)
    assert agendas.admission.stopped is None
    agendas.admission.settled(result(plan, calls=6))
    assert agendas.woken == ["a"]
    assert agendas.admission.ledger.used.calls == 6
    assert not agendas.admit(plan, 1)
    assert agendas.admission.stopped == "budget: 6 of 9 calls are used, and the next item takes more than is left"


def test_nothing_begins_any_more_once_nothing_at_work_can_give_back() -> None:
    """As long as an item is open what it claimed may be free again, also one of another agenda."""
    agendas = Agendas(max_calls=5)
    first, second = agendas.plan("a", items=1), agendas.plan("b", items=2)
    assert agendas.admit(first)
    agendas.admission.is_served(first)
    assert not agendas.admit(second)
    assert agendas.admission.stopped is None
    agendas.admission.settled(result(first, calls=2))
    assert agendas.admit(second, 0)
    agendas.admission.settled(result(second, 0, calls=3))
    assert not agendas.admit(second, 1)
    assert str(agendas.admission.stopped).startswith("budget: 5 of 5 calls")
    assert not agendas.admit(second, 1)


def test_what_earlier_runs_took_is_used() -> None:
    """A run that follows has no other budget."""
    agendas = Agendas(max_calls=6, max_tokens=10**9)
    plan, heard = agendas.plan("a"), []
    agendas.admission.heard = heard.append
    agendas.admission.stands(result(plan, 0, calls=4, tokens=100))
    assert agendas.admission.ledger.used == (4, 100)
    assert [one.item for one in heard] == ["i0"]
    assert not agendas.admit(plan, 1)
    assert agendas.admission.stopped is not None


def test_after_its_time_nothing_begins() -> None:
    """And the reason stays, whatever is free again."""
    agendas = Agendas(max_s=10)
    plan = agendas.plan("a")
    agendas.clock.now = 9.9
    assert agendas.admit(plan, 0)
    agendas.clock.now = 10
    assert not agendas.admit(plan, 1)
    assert agendas.admission.stopped == "budget: 10 s are over"
    assert agendas.in_flight() == 3


def test_an_answer_that_was_written_for_a_member_gives_its_call_back_and_says_nothing_of_the_server() -> None:
    """The time that it took is the deadline's."""
    agendas = Agendas({"default": 3})
    plan = agendas.plan("a")
    assert agendas.admit(plan)
    agendas.admission.answered(answer(plan, "m0", status=MemberStatus.TIMEOUT, duration_ms=300_000))
    assert agendas.in_flight() == 2
    assert agendas.admission.windows["default"].size == 3
    agendas.admission.answered(answer(plan, "m1"))
    agendas.admission.refused(plan, "m2")
    assert agendas.admission.windows["default"].size < 3


def test_every_decision_is_heard() -> None:
    """By the batch, which counts them."""
    agendas, heard = Agendas(), []
    plan = agendas.plan("a")
    agendas.admission.heard = heard.append
    agendas.admit(plan)
    agendas.admission.settled(result(plan, 0))
    agendas.admission.settled(result(plan, 1))  # one that was left out, which had claimed nothing
    assert [one.item for one in heard] == ["i0", "i1"]


@given(
    size=st.integers(1, 12),
    calls=st.integers(1, 30) | st.none(),
    steps=st.lists(st.tuples(st.sampled_from(["admit", "answer", "settle", "leave"]), st.integers(0, 50)), max_size=80),
)
def test_room_and_budget_hold_whatever_happens(size: int, calls: int | None, steps: list[tuple[str, int]]) -> None:
    """Calls in flight stay within the window but for one item; calls that were made within the budget."""
    agendas = Agendas({"default": size}, max_calls=calls)
    plans = [agendas.plan(name, items=4) for name in "abc"]
    begun: dict[str, list[int]] = {plan.id: [] for plan in plans}
    waiting: dict[tuple[str, int], int] = {}
    gone = set[str]()
    for kind, number in steps:
        plan = plans[number % 3]
        if plan.id in gone:
            continue
        following = len(begun[plan.id])
        if kind == "admit" and following < 4 and agendas.admit(plan, following):
            begun[plan.id].append(following)
            waiting[plan.id, following] = 3
            if following == 3:
                agendas.admission.is_served(plan)
        elif kind == "answer" and (mine := [key for key, left in waiting.items() if key[0] == plan.id and left]):
            waiting[mine[0]] -= 1
            agendas.admission.answered(answer(plan, f"m{waiting[mine[0]]}", item=f"i{mine[0][1]}"))
        elif kind == "settle" and (mine := [key for key, left in waiting.items() if key[0] == plan.id and not left]):
            del waiting[mine[0]]
            agendas.admission.settled(result(plan, mine[0][1]))
        elif kind == "leave":
            gone.add(plan.id)
            waiting = {key: left for key, left in waiting.items() if key[0] != plan.id}
            agendas.admission.leave(plan)
        assert agendas.in_flight() == sum(waiting.values())
        assert agendas.in_flight() <= max(agendas.admission.windows["default"].size, 3)
        ledger = agendas.admission.ledger
        assert calls is None or ledger.used.calls + ledger.claimed.calls <= calls
