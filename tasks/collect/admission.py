"""What may begin: items of agendas that share model servers, each server with its window, and one budget.

The driver lets an item begin once there is room for its first calls; those of its later stages follow at once, and what
they take keeps other items back. So one window holds for all agendas, members and hosts, and no slow item is in the way
of another. Agendas are served in the order in which they came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tasks.council.answer import Answer
from tasks.council.budget import NOTHING, Cost, Ledger, cost_of, used_by
from tasks.council.decisions import ItemResult
from tasks.council.models import Deliberation, Item, MemberStatus
from tasks.council.window import Window

Wake = Callable[[], None]


@dataclass
class _Agenda:
    """An agenda at work: who is to be woken, its calls in flight by server, and what its open items have claimed."""

    wake: Wake
    servers: Mapping[str, str]
    """The model server of each member."""
    in_flight: Counter[str] = field(default_factory=Counter)
    claims: dict[str, Cost] = field(default_factory=dict)
    is_waiting: bool = True


class Admission:
    """The windows by model server, the budget, and the agendas that share both. `clock` gives seconds."""

    def __init__(self, windows: Mapping[str, Window], ledger: Ledger, clock: Callable[[], float]) -> None:
        self.windows, self.ledger, self._clock = windows, ledger, clock
        self.heard: Callable[[ItemResult], None] | None = None
        """Is told of every decision of these agendas, those of earlier runs, too."""
        self._agendas: dict[str, _Agenda] = {}
        self._stopped: str | None = None
        self._standing: dict[str, set[str]] = {}
        """Items by agenda that an earlier run decided, until the agenda leaves."""

    @property
    def stopped(self) -> str | None:
        """Why nothing begins any more; None while something may."""
        self._stopped = self._stopped or self.ledger.overtime(self._clock())
        return self._stopped

    @property
    def waiting(self) -> int:
        """Agendas with items that have not begun."""
        return sum(agenda.is_waiting for agenda in self._agendas.values())

    @property
    def joined(self) -> int:
        """Agendas at work."""
        return len(self._agendas)

    def stop(self, reason: str) -> None:
        """Let nothing begin any more."""
        self._stopped = self._stopped or reason
        for agenda in self._agendas.values():
            agenda.wake()

    def join(self, plan: Deliberation, wake: Wake) -> None:
        """An agenda asks for room; `wake` is called where there may be some."""
        servers = {member.agent_id: member.server for member in plan.council.members}
        self._agendas[plan.id] = _Agenda(wake, servers)

    def is_served(self, plan: Deliberation) -> None:
        """All its items have begun."""
        self._agendas[plan.id].is_waiting = False
        self.wake()

    def leave(self, plan: Deliberation) -> None:
        """It is at work no more: what it still held is free again."""
        self.forget(plan.id)
        agenda = self._agendas.pop(plan.id, None)
        if agenda is None:
            return
        for server, calls in agenda.in_flight.items():
            self.windows[server].over(calls)
        for claim in agenda.claims.values():
            self.ledger.correct(claim, NOTHING)
        self.wake()

    def admit(self, plan: Deliberation, item: Item) -> bool:
        """Whether an item begins now; then its first calls are in flight, and what it takes at most is claimed."""
        agenda = self._agendas[plan.id]
        if self.stopped or self._first() is not agenda:
            return False
        calls = Counter(agenda.servers[agent_id] for agent_id in plan.called_first(item))
        if not all(_has_room(self.windows[server], count) for server, count in calls.items()):
            return False
        claim = cost_of(plan, item) if self.ledger.is_bounded else NOTHING
        if not self.ledger.claim(claim):
            if not any(other.claims for other in self._agendas.values()):
                self._stopped = self.ledger.used_up
            return False
        agenda.claims[item.id] = claim
        self._begun(agenda, calls)
        return True

    def entered(self, plan: Deliberation, called: Iterable[str]) -> None:
        """An item's next stage begins, in which these members are called."""
        agenda = self._agendas[plan.id]
        self._begun(agenda, Counter(agenda.servers[agent_id] for agent_id in called))

    def answered(self, answer: Answer) -> None:
        """A member's final answer came, or was written for it."""
        agenda = self._agendas[answer.task_id]
        server = agenda.servers[answer.agent_id]
        agenda.in_flight[server] -= 1
        self.windows[server].over(1)
        if answer.status is MemberStatus.OK:
            self.windows[server].answered(answer.duration_ms / 1000)

    def asked_again(self) -> None:
        """Of an item that is decided a member was asked once more, since its answer could not be used: a call, too."""
        self.ledger.correct(NOTHING, Cost(1))

    def refused(self, plan: Deliberation, agent_id: str) -> None:
        """A call came to nothing, and is made again."""
        self.windows[self._agendas[plan.id].servers[agent_id]].refused(self._clock())

    def settled(self, result: ItemResult, asked_again: int = 0) -> None:
        """An item is decided: what it claimed and did not take is free again."""
        claim = self._agendas[result.id].claims.pop(result.item, None)
        if claim is not None:
            self.ledger.correct(claim, used_by(result).plus(Cost(asked_again)))
            self.wake()
        if self.heard is not None:
            self.heard(result)

    def stands(self, result: ItemResult) -> None:
        """An earlier run decided an item: what that took is used. Told once more it changes nothing."""
        known = self._standing.setdefault(result.id, set())
        if result.item in known:
            return
        known.add(result.item)
        self.ledger.correct(NOTHING, used_by(result))
        if self.heard is not None:
            self.heard(result)

    def forget(self, agenda_id: str) -> None:
        """Nobody tells of this agenda any more what an earlier run decided."""
        self._standing.pop(agenda_id, None)

    def wake(self) -> None:
        """Let the agenda that is served look whether there is room."""
        first = self._first()
        if first is not None:
            first.wake()

    def _first(self) -> _Agenda | None:
        return next((agenda for agenda in self._agendas.values() if agenda.is_waiting), None)

    def _begun(self, agenda: _Agenda, calls: Counter[str]) -> None:
        agenda.in_flight.update(calls)
        for server, count in calls.items():
            self.windows[server].begun(count)


def _has_room(window: Window, calls: int) -> bool:
    """Whether so many calls fit in; where nothing is in flight they do, however small the window is."""
    return window.room >= calls or window.in_flight == 0
