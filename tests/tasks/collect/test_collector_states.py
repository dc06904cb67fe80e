"""Whatever happens to a council: each item ends once, no finished call is made again, and nothing poses as an answer.

Runs of one deliberation begin, are overtaken and are killed; members answer, answer badly and die; somebody cancels,
NATS goes away, acknowledgements are lost and time passes. On a clock of its own, so that an example takes a moment.
Once more with an admission: items begin as there is room and budget, and the words that members are told get lost.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.conftest import cases
from tests.tasks.collect.world import DEADLINE_S, World

pytestmark = pytest.mark.usefixtures("importable_prefect")

KINDS = st.sampled_from(["ok", "ok", "ok", "ok", "empty", "cut", "broken", "error"])
WRITTEN_FOR_A_MEMBER = ("failed", "timeout", "cancelled")
"""Statuses of final answers that are no member's text."""


class CouncilMachine(RuleBasedStateMachine):
    """One deliberation."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.world: World | None = None

    @initialize(
        members=st.integers(1, 4),
        items=st.integers(1, 2),
        strategy=st.sampled_from(["propose", "rank", "synthesize", "escalate"]),
        rounds=st.integers(0, 1),
        closed=st.booleans(),
        grace_s=st.sampled_from([None, 0.0, 5.0]),
    )
    def convene(self, **asked: Any) -> None:
        """A council of a few is asked for one or two items."""
        if asked["strategy"] == "escalate":
            asked["rounds"] = 0
        self.world = World(self.patch, **{name: value for name, value in asked.items() if value is not None})
        self.world.begin()

    @property
    def one(self) -> World:
        """The deliberation."""
        assert self.world is not None
        return self.world

    @rule(number=st.integers(0, 20), kind=KINDS)
    def answer(self, number: int, kind: str) -> None:
        """A call that waits is answered, well or badly."""
        self.one.answer(number, kind)

    @rule(count=st.integers(1, 12))
    def answer_many(self, count: int) -> None:
        """Many calls are answered well, so that later stages come."""
        for number in range(count):
            self.one.answer(number, "ok")

    @rule(number=st.integers(0, 20))
    def kill_agent(self, number: int) -> None:
        """A member's agent task dies."""
        self.one.kill_agent(number)

    @rule(agents_too=st.booleans())
    def kill_run(self, agents_too: bool) -> None:
        """The driver dies; nobody else notices."""
        self.one.kill_run(agents_too)

    @rule()
    def begin(self) -> None:
        """Another run begins, whether or not the one before is at work."""
        if len(self.one.runs) < 4:
            self.one.begin()

    @rule()
    def cancel(self) -> None:
        """Somebody asks for the end."""
        self.one.cancel()

    @rule(seconds=st.sampled_from([0.0, 0.5, 4.0, DEADLINE_S]))
    def wait(self, seconds: float) -> None:
        """Time passes, perhaps past grace or deadline."""
        self.one.wait(seconds)

    @rule(seconds=st.sampled_from([0.1, 2.0]))
    def interrupt(self, seconds: float) -> None:
        """NATS is away for less than our patience."""
        self.one.interrupt(seconds)

    @rule(count=st.integers(1, 3))
    def lose_acknowledgements(self, count: int) -> None:
        """Writes that are stored, and whose writers are not told."""
        self.one.lose_acknowledgements(count)

    @invariant()
    def no_finished_call_is_made_again(self) -> None:
        """At any time."""
        assert self.world is None or self.one.server.repeated == []

    @invariant()
    def what_stands_is_never_written_over(self) -> None:
        """One final answer of a member to an item in a stage, one decision of an item, one end."""
        if self.world is None:
            return
        for pattern in (
            f"answers.{self.one.id}.>",
            f"decisions.{self.one.id}.*",
            f"deliberations.{self.one.id}.finished",
        ):
            subjects = [subject for subject, _ in self.one.stored(pattern)]
            assert len(subjects) == len(set(subjects))

    @invariant()
    def a_run_that_was_overtaken_decides_nothing(self) -> None:
        """Nor does it close a stage, or end the deliberation."""
        assert self.world is None or self.one.written_late() == []

    @invariant()
    def nothing_poses_as_an_answer(self) -> None:
        """A text on the record is what the model server answered to that very call."""
        if self.world is None:
            return
        for _, body in self.one.stored(f"answers.{self.one.id}.>"):
            call = f"{self.one.id}:{body['item']}:{body['stage']}:{body['agent_id']}"
            given = [self.one.server.texts.get(one) for one in (call, f"{call}:again")]
            if body["proposal"] is not None:
                assert body["proposal"]["content"] in given
            if body["ballot"] is not None:
                assert any(given)
            if body["status"] in WRITTEN_FOR_A_MEMBER:
                assert (body["proposal"], body["ballot"]) == (None, None)
            elif body["status"] == "ok":
                assert any(given)

    def teardown(self) -> None:
        """It comes to its end, and the end fits what stands."""
        try:
            if self.world is not None:
                self.one.finish()
                self.no_finished_call_is_made_again()
                self.a_run_that_was_overtaken_decides_nothing()
                self.what_stands_is_never_written_over()
                self.nothing_poses_as_an_answer()
                self._check_the_end()
        finally:
            if self.world is not None:
                self.world.close()
            self.patch.undo()

    def _check_the_end(self) -> None:
        decided = {body["item"]: body for _, body in self.one.stored(f"decisions.{self.one.id}.*")}
        assert sorted(decided) == sorted(item.id for item in self.one.plan.agenda)
        (_, finished), *others = self.one.stored(f"deliberations.{self.one.id}.finished")
        assert others == []
        assert finished["counts"]["decided"] == len(decided)
        answers = [body for _, body in self.one.stored(f"answers.{self.one.id}.>")]
        for item, decision in decided.items():
            proposed = [body for body in answers if body["item"] == item and body["stage"].startswith("propose")]
            ok = {body["agent_id"] for body in proposed if body["status"] == "ok"}
            # A run that was overtaken may still write for a member of an item that a later one has left out.
            is_left_out = str(decision["error_message"]).startswith("budget")
            asked = ok if is_left_out else {body["agent_id"] for body in proposed}
            assert decision["received_count"] == len(ok)
            assert asked <= {one["agent_id"] for one in decision["members"] if one["status"] != "not_asked"}
            assert decision["total_agents"] + decision["not_asked"] == len(self.one.plan.council.members)
            assert (decision["status"] == "COMPLETED") <= (len(ok) >= self.one.plan.quorum_of(decision["total_agents"]))
            assert decision["winner_id"] is None or decision["winner_id"] in ok
            assert (decision["decision"] is None) == (decision["status"] != "COMPLETED")
        statuses = {decision["status"] for decision in decided.values()}
        if len(decided) == 1:
            assert {finished["status"]} == statuses
        else:
            assert finished["status"] == ("CANCELLED" if "CANCELLED" in statuses else "COMPLETED")


class AdmittedMachine(CouncilMachine):
    """One whose items begin as an admission lets them."""

    @initialize(
        members=st.integers(1, 3),
        items=st.integers(1, 4),
        strategy=st.sampled_from(["propose", "rank", "escalate"]),
        closed=st.booleans(),
        grace_s=st.sampled_from([None, 5.0]),
        window=st.sampled_from([1, 4, 30]),
        most=st.sampled_from([None, {"max_calls": 3}, {"max_calls": 12}, {"max_s": 30.0}]),
    )
    def convene(self, most: dict[str, Any] | None = None, **asked: Any) -> None:
        """A council of a few is asked for a few items, with little room or much, and perhaps a budget."""
        given = {name: value for name, value in {**asked, "budget": most}.items() if value is not None}
        self.world = World(self.patch, **given)
        self.world.begin()

    @rule()
    def begin(self) -> None:
        """Another run begins where the one before was killed: its lease would keep it from one that lives."""
        if len(self.one.runs) < 4:
            if not self.one.runs[-1].is_over:
                self.one.kill_run(agents_too=False)
            self.one.begin()

    @rule(is_deaf=st.booleans())
    def lose_words(self, is_deaf: bool) -> None:
        """What is said on core NATS alone comes to nobody, or does again."""
        self.one.is_deaf = is_deaf

    @invariant()
    def what_is_left_out_is_never_asked(self) -> None:
        """An item for which nothing was left of the budget costs nothing."""
        if self.world is None:
            return
        for _, body in self.one.stored(f"decisions.{self.one.id}.*"):
            if str(body["error_message"]).startswith("budget"):
                called = [call for call in self.one.server.asked if call.startswith(f"w:{body['item']}:")]
                assert called == []

    @invariant()
    def no_more_calls_are_made_than_there_are(self) -> None:
        """By one run; those that it had in flight when it was killed are made again by the next one."""
        if self.world is None or len(self.one.runs) > 1 or self.one.plan.budget is None:
            return
        most = self.one.plan.budget.max_calls
        assert most is None or self.one.server.asked.total() <= most

    def teardown(self) -> None:
        """As of the others; and nothing is held any more by who has ended."""
        if self.world is not None:
            self.one.is_deaf = False
        super().teardown()
        for run in self.world.runs if self.world is not None else ():
            if run.is_over:
                assert (run.admission.joined, run.admission.windows["default"].in_flight) == (0, 0)


def test_any_order_of_answers_deaths_cancels_and_resumes_ends_each_item_once(importable_prefect: None) -> None:
    """The rules above, in random orders."""
    steps = settings(max_examples=cases(60, each=20), stateful_step_count=20, deadline=None)
    run_state_machine_as_test(CouncilMachine, settings=steps)  # type: ignore[no-untyped-call]


def test_the_same_where_items_begin_as_an_admission_lets_them(importable_prefect: None) -> None:
    """Whatever is lost, killed or left out."""
    steps = settings(max_examples=cases(40, each=20), stateful_step_count=20, deadline=None)
    run_state_machine_as_test(AdmittedMachine, settings=steps)  # type: ignore[no-untyped-call]
