"""The window of calls at a model server: it begins full, follows what the server shows, and never leaves its bounds.

The server is a small one with a clock of its own: slots, a time that an answer takes, calls of others, and metrics or
refusals.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.council.window import FIRST, MOST, STAYS, Window

ANSWER_S = 2.0
FIRST_LOOKS_S = (0.15, 0.15, 0.2, 0.25, 0.25)
LOOK_S = 0.5


class Server:
    """A model server with so many slots; calls beyond them wait, or are refused where `waiting` wait already."""

    def __init__(self, slots: int, waiting: int | None = None, others: int = 0) -> None:
        self.slots, self.waiting, self.others = slots, waiting, others
        self.now = 0.0
        self._running: list[float] = []
        self._queue: deque[float] = deque()
        self.answered = 0

    @property
    def running(self) -> int:
        """Calls that have a slot, those of others among them."""
        return len(self._running) + self.others

    def call(self, window: Window) -> bool:
        """A call is made; False where it is refused at once."""
        if self.running < self.slots:
            heapq.heappush(self._running, self.now + ANSWER_S)
        elif self.waiting is None or len(self._queue) < self.waiting:
            self._queue.append(self.now)
        else:
            return False
        window.begun(1)
        return True

    def until(self, when: float, window: Window) -> None:
        """Answer what is answered until then; the window takes new calls as it has room."""
        while self._running and self._running[0] <= when:
            self.now = heapq.heappop(self._running)
            self.answered += 1
            window.over(1)
            window.answered(ANSWER_S)
            while self._queue and self.running < self.slots:
                self._queue.popleft()
                heapq.heappush(self._running, self.now + ANSWER_S)
            self.fill(window)
        self.now = when

    def fill(self, window: Window) -> None:
        """As many calls as there is room for; one that is refused is made again after the next answer."""
        while window.room > 0:
            if not self.call(window):
                window.refused(self.now)
                return

    def look(self, window: Window) -> None:
        """What its metrics say."""
        window.looked(self.running, len(self._queue), self.now)

    @property
    def queued(self) -> int:
        """Calls that wait."""
        return len(self._queue)


def watched(server: Server, window: Window, seconds: float) -> None:
    """Let calls be made for so long, with looks at the metrics as `pacing` makes them."""
    end, looks = server.now + seconds, iter(FIRST_LOOKS_S)
    server.fill(window)
    while server.now < end:
        server.until(min(end, server.now + next(looks, LOOK_S)), window)
        server.look(window)
        server.fill(window)


def unwatched(server: Server, window: Window, seconds: float) -> None:
    """The same at a server that has no metrics."""
    end = server.now + seconds
    server.fill(window)
    while server.now < end:
        server.until(server.now + 0.1, window)
        server.fill(window)


def test_it_begins_full() -> None:
    """What is gained by beginning small costs more than it brings."""
    window = Window()
    assert (window.size, window.room) == (FIRST, FIRST)
    window.begun(FIRST)
    assert window.room == 0


@pytest.mark.parametrize("slots", [64, 256, 700])
def test_it_finds_the_slots_of_a_server_that_has_metrics(slots: int) -> None:
    """After a moment all slots are busy, and no more waits than what takes a slot that is free at once."""
    server, window = Server(slots), Window()
    watched(server, window, 6 * ANSWER_S)
    assert server.running == slots
    assert server.queued <= max(2, slots // 8)
    assert slots <= window.size <= 2 * slots


@pytest.mark.parametrize("slots", [64, 256, 700])
def test_hardly_any_slot_is_idle_meanwhile(slots: int) -> None:
    """Against a client that has always as many calls in flight as there are slots."""
    server, window = Server(slots), Window()
    watched(server, window, 20 * ANSWER_S)
    assert server.answered >= 0.9 * 20 * slots


def test_it_follows_slots_that_come_and_go() -> None:
    """256, then 32, then 256 again, as where servers behind one address are taken away and put back."""
    server, window = Server(256), Window()
    watched(server, window, 4 * ANSWER_S)
    assert server.running == 256
    server.slots = 32
    watched(server, window, 8 * ANSWER_S)
    assert server.running == 32
    assert window.size <= 64
    server.slots = 256
    watched(server, window, 10 * ANSWER_S)
    assert server.running == 256
    assert server.queued <= 32


def test_what_others_run_is_left_to_them() -> None:
    """Three quarters of the slots are somebody else's: the window is about what is left."""
    server, window = Server(256, others=192), Window()
    watched(server, window, 8 * ANSWER_S)
    assert window.in_flight - server.queued == 64
    assert server.queued <= 16
    assert window.size <= 128


def test_a_server_that_others_fill_is_still_asked() -> None:
    """At least one call is in flight, however full it is."""
    server, window = Server(64, others=64), Window()
    watched(server, window, 20 * ANSWER_S)
    assert 1 <= window.size <= 4


def test_where_calls_wait_it_is_looked_three_times_before_it_is_cut() -> None:
    """A queue of a moment is none."""
    window = Window()
    window.begun(FIRST)
    sizes = []
    for look in range(STAYS):
        window.looked(running=64, waiting=192, now=look * 0.2)
        sizes.append(window.size)
    assert sizes == [FIRST, FIRST, FIRST / 2]
    for look in range(STAYS - 1):
        window.looked(running=64, waiting=192, now=1 + look * 0.2)
    window.looked(running=64, waiting=0, now=2)
    window.looked(running=64, waiting=192, now=2.2)
    assert window.size == FIRST / 2


def test_it_is_cut_to_what_the_server_runs_and_not_below() -> None:
    """Where calls wait, those that run say what it can do."""
    window = Window()
    window.begun(256)
    for look in range(STAYS):
        window.looked(running=220, waiting=36, now=look * 0.2)
    assert window.size == 220 + 220 // 16


def test_a_few_that_wait_are_no_reason() -> None:
    """A sixteenth may: a slot that is free is then taken at once."""
    window = Window()
    window.begun(FIRST)
    for look in range(20):
        window.looked(running=240, waiting=16, now=look * 0.5)
    assert window.size == FIRST


def test_it_does_not_grow_where_there_is_not_enough_to_do() -> None:
    """What bounds is the file then."""
    window = Window()
    window.begun(10)
    for look in range(20):
        window.looked(running=10, waiting=0, now=look * 0.5)
    assert window.size == FIRST


@pytest.mark.parametrize("slots", [8, 64, 200])
def test_a_server_without_metrics_is_followed_by_its_refusals(slots: int) -> None:
    """Halved where it refuses, grown again by what is answered: near its slots, and never far above."""
    server, window = Server(slots, waiting=0), Window()
    unwatched(server, window, 10 * ANSWER_S)
    before, began = server.answered, server.now
    unwatched(server, window, 20 * ANSWER_S)
    assert server.answered - before >= 0.7 * slots * (server.now - began) / ANSWER_S
    assert window.size <= 2 * slots + 2


def test_a_larger_server_without_metrics_is_found_by_doubling() -> None:
    """By one for each answer, as long as nothing is refused; and after the first refusals nearly all of it is used."""
    server, window = Server(700, waiting=0), Window()
    unwatched(server, window, 4 * ANSWER_S)
    before = server.answered
    unwatched(server, window, 16 * ANSWER_S)
    assert server.answered - before >= 0.8 * 16 * 700


def test_refusals_that_belong_together_cut_once() -> None:
    """A hundred calls that a server refuses at once are one piece of news; later ones are the next."""
    window = Window()
    window.begun(FIRST)
    told = [window.refused(now=5 + number / 1_000) for number in range(100)]
    assert told == [True] + [False] * 99
    assert window.size == FIRST / 2
    assert not window.refused(now=5.9)
    window.over(FIRST // 2)
    assert window.refused(now=6.1)
    assert window.size == FIRST / 4


def test_refusals_within_an_answers_time_belong_together() -> None:
    """Those of calls that were made before the cut still come in."""
    window = Window()
    window.begun(FIRST)
    window.answered(30.0)
    assert window.refused(now=100)
    assert not window.refused(now=125)
    assert window.refused(now=131)


def test_of_a_server_with_metrics_answers_say_nothing_more() -> None:
    """They would let it grow where calls wait."""
    window = Window(size=10, _threshold=5)
    window.begun(10)
    window.answered(1.0)
    assert window.size > 10
    window.looked(running=10, waiting=2, now=1)
    size = window.size
    window.answered(1.0)
    assert window.size == size


def test_it_grows_by_doubling_to_nearly_where_it_was_cut_then_by_one_a_round() -> None:
    """A window that stayed at the half would take half of a large server for minutes."""
    window = Window(size=64)
    window.begun(64)
    window.refused(now=0)
    assert window.size == 32
    for _ in range(32):
        window.over(1)
        window.answered(1.0)
        window.begun(window.room)
    assert 60 <= window.size < 61  # a sixteenth below 64, and from there on by one a round
    for _ in range(60):
        window.over(1)
        window.answered(1.0)
        window.begun(window.room)
    assert 61 <= window.size < 62


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begun"), st.integers(0, 5_000), st.just(0)),
        st.tuples(st.just("over"), st.integers(0, 5_000), st.just(0)),
        st.tuples(st.just("answered"), st.integers(0, 600), st.just(0)),
        st.tuples(st.just("refused"), st.just(0), st.just(0)),
        st.tuples(st.just("looked"), st.integers(0, 10_000), st.integers(0, 10_000)),
    ),
    max_size=60,
)


@given(steps=STEPS, first=st.floats(1, MOST), most=st.integers(1, MOST))
def test_whatever_comes_it_stays_within_its_bounds(steps: list[tuple[str, int, int]], first: float, most: int) -> None:
    """Never below one call, never above the most; a cut at most once a second."""
    window, cuts = Window(size=min(first, most), most=most), []
    clock = count()
    for kind, number, further in steps:
        now, size = next(clock) * 0.3, window.size
        if kind == "refused":
            window.refused(now)
        elif kind == "looked":
            window.looked(number, further, now)
        elif kind == "answered":
            window.answered(number / 10)
        else:
            getattr(window, kind)(number)
        assert 1 <= window.size <= most
        assert window.in_flight >= 0
        if kind == "refused" and window.size < size:
            cuts.append(now)
    assert all(later - earlier >= 1 for earlier, later in pairwise(cuts))
