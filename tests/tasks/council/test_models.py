"""The frozen data of the domain: what is refused, and with which field named."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from blocks.record.envelope import SCHEMA_VERSION
from tasks.council.answer import Answer, answer_id, seed_of
from tasks.council.base import MAX_TEXT, Frozen
from tasks.council.council import MAX_MEMBERS, CouncilSpec, Member
from tasks.council.decisions import Ballots, ItemResult, MemberOutcome, StageCost, StageOutcome, Synthesis
from tasks.council.exceptions import InvalidRequest
from tasks.council.finished import Finished
from tasks.council.models import (
    MAX_ITEMS,
    Deliberation,
    DeliberationRequest,
    Item,
    MemberStatus,
    Status,
    digest,
)
from tasks.council.progress.stage_end import Closing
from tasks.council.proposal import Check, Proposal, RankedProposal, Usage
from tasks.council.voting.ballots import Opinion, Review, Score
from tasks.council.voting.election import Candidate
from tasks.council.voting.firmness import Firmness
from tasks.council.voting.majority import Majority
from tasks.council.voting.tally import tally
from tasks.council.voting.worth import BallotWorth
from tasks.deliberations.submit import Request, version_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)

BAD_NAMES = ["a.b", "a*", "a>", "a b", "", " ", "a\n", "é", "x" * 65, "a/b"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=5,
)


def council(size: int = 3, **fields: object) -> CouncilSpec:
    """A council with as many members, two roles by turns."""
    members = [Member(agent_id=f"agent-{number:03d}", role=("DEV", "QA")[number % 2]) for number in range(1, size + 1)]
    return CouncilSpec.model_validate({"name": "dev", "members": members, **fields})


def fields_of(error: ValidationError) -> list[str]:
    """The fields that a validation error names."""
    return [str(one["loc"][-1]) for one in error.errors()]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_member_id_that_is_no_subject_token_is_refused_by_its_field(name: str) -> None:
    """Dots, stars, blanks and the like would change the meaning of a NATS subject."""
    with pytest.raises(ValidationError) as caught:
        Member(agent_id=name, role="DEV")
    assert fields_of(caught.value) == ["agent_id"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_item_id_that_is_no_subject_token_is_refused_by_its_field(name: str) -> None:
    """The request names the item's position and field."""
    with pytest.raises(InvalidRequest) as caught:
        DeliberationRequest.read({"items": [{"id": name, "task": "x"}]})
    assert caught.value.field == "items.0.id"


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_deliberation_id_that_is_no_subject_token_is_refused_by_its_field(name: str) -> None:
    """An id comes from outside, too."""
    with pytest.raises(InvalidRequest, match=r"^id: "):
        Deliberation.plan(name, DeliberationRequest(task="x"), council())


@pytest.mark.parametrize("count", [0, -1, MAX_MEMBERS + 1, 1000])
def test_an_impossible_number_of_members_is_refused_by_its_field(count: int) -> None:
    """Zero and a thousand members are both refused before anything starts."""
    with pytest.raises(InvalidRequest) as caught:
        DeliberationRequest.read({"task": "x", "members": count})
    assert caught.value.field == "members"


@pytest.mark.parametrize("size", [0, 1000])
def test_a_council_of_zero_or_a_thousand_members_is_refused(size: int) -> None:
    """The limits hold for the block, not only for the request."""
    with pytest.raises(ValidationError) as caught:
        council(size)
    assert fields_of(caught.value) == ["members"]


def test_a_council_that_lists_a_member_twice_is_refused_by_the_member() -> None:
    """Two members of one name would share one answer."""
    twice = [Member(agent_id="a", role="DEV"), Member(agent_id="a", role="QA")]
    with pytest.raises(ValidationError, match="agent_id a appears more than once"):
        CouncilSpec(name="dev", members=tuple(twice))


def test_a_quorum_above_the_members_is_refused() -> None:
    """In the council itself as well as in a request against it."""
    with pytest.raises(ValidationError, match="quorum: 4 is above the number of members, 3"):
        council(quorum=4)
    with pytest.raises(InvalidRequest, match="quorum: 3 is above the number of members, 2"):
        Deliberation.plan("d", DeliberationRequest(task="x", members=2, quorum=3), council())


def test_an_unknown_key_is_refused_by_its_name() -> None:
    """A typing error in a request does not pass silently."""
    with pytest.raises(InvalidRequest) as caught:
        DeliberationRequest.read({"task": "x", "quorom": 2})
    assert caught.value.field == "quorom"


@pytest.mark.parametrize("task", ["", "   \n", "x" * (MAX_TEXT + 1)])
def test_an_empty_or_oversized_task_is_refused_by_its_field(task: str) -> None:
    """Blanks alone are no task, and a prompt has its limit."""
    with pytest.raises(InvalidRequest) as caught:
        DeliberationRequest.read({"task": task})
    assert caught.value.field == "task"


def test_a_task_of_exactly_the_limit_is_accepted() -> None:
    """The limit itself is allowed."""
    assert len(DeliberationRequest(task="x" * MAX_TEXT).agenda()[0].task) == MAX_TEXT


@pytest.mark.parametrize("fields", [{}, {"task": "x", "items": [{"task": "y"}]}])
def test_a_request_without_exactly_one_agenda_is_refused(fields: dict[str, object]) -> None:
    """Either one task or items."""
    with pytest.raises(InvalidRequest) as caught:
        DeliberationRequest.read(fields)
    assert caught.value.field == "task"


@pytest.mark.parametrize("items", [[], [{"task": "x"}] * (MAX_ITEMS + 1), [{"id": "a", "task": "x"}] * 2])
def test_an_agenda_of_a_wrong_size_or_with_a_repeated_id_is_refused(items: list[dict[str, str]]) -> None:
    """An item's id is its subject, so it is unique."""
    with pytest.raises(InvalidRequest) as caught:
        DeliberationRequest.read({"items": items})
    assert caught.value.field == "items"


def test_items_without_an_id_are_numbered_around_the_taken_ones() -> None:
    """A number that the user gave is not given again."""
    request = DeliberationRequest.read({"items": [{"task": "a"}, {"id": "item-0001", "task": "b"}, {"task": "c"}]})
    assert [item.id for item in request.agenda()] == ["item-0002", "item-0001", "item-0003"]


def test_an_item_keeps_its_own_brief_before_the_shared_one() -> None:
    """What the request says for all applies where an item says nothing."""
    request = DeliberationRequest.read(
        {
            "items": [{"task": "a", "rubric": "own", "context": {"k": 2}}, {"task": "b"}],
            "rubric": "shared",
            "context": {"k": 1, "l": 1},
        }
    )
    first, second = request.agenda()
    assert (first.rubric, first.context) == ("own", {"k": 2, "l": 1})
    assert (second.rubric, second.context) == ("shared", {"k": 1, "l": 1})


@pytest.mark.parametrize(("size", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_the_default_quorum_is_a_majority(size: int, quorum: int) -> None:
    """floor(n / 2) + 1."""
    assert Deliberation.plan("d", DeliberationRequest(task="x"), council(size)).quorum == quorum


def test_a_request_overrides_the_rules_of_its_council() -> None:
    """A grace of zero is a value, not a gap."""
    request = DeliberationRequest(task="x", grace_s=0, deadline_s=5, quorum=1)
    plan = Deliberation.plan("d", request, council(quorum=3, grace_s=9, deadline_s=60))
    assert (plan.quorum, plan.grace_s, plan.deadline_s) == (1, 0, 5)


def test_a_council_of_its_own_size_stays_as_it_is() -> None:
    """Its quorum included."""
    same = council(3, quorum=3)
    assert same.sized(3) == same


def test_a_smaller_council_is_the_first_members_without_the_quorum() -> None:
    """A quorum for three says nothing about two."""
    small = council(3, quorum=3).sized(2)
    assert [member.agent_id for member in small.members] == ["agent-001", "agent-002"]
    assert small.quorum is None


def test_a_larger_council_numbers_further_members_in_the_same_roles_with_diversity() -> None:
    """So that they do not write the same text twice."""
    extra = council(2).sized(5).members[2:]
    assert [(member.agent_id, member.role, member.diversity) for member in extra] == [
        ("agent-003", "QA", True),
        ("agent-004", "DEV", True),
        ("agent-005", "QA", True),
    ]


@settings(deadline=None)
@given(size=st.integers(1, 8), count=st.integers(1, MAX_MEMBERS))
def test_a_sized_council_has_that_many_members_with_distinct_ids(size: int, count: int) -> None:
    """Whatever the two sizes are."""
    assert len({member.agent_id for member in council(size).sized(count).members}) == count


@settings(deadline=None)
@given(value=st.dictionaries(st.text(st.characters(codec="utf-8")), JSON))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    """The same content is the same content."""
    assert digest(dict(reversed(value.items()))) == digest(value)


def test_requests_differ_in_their_digest_where_they_differ() -> None:
    """And agree where only the order of the keys differs."""
    one = DeliberationRequest.read({"task": "x", "context": {"a": 1, "b": 2}})
    same = DeliberationRequest.read({"context": {"b": 2, "a": 1}, "task": "x"})
    other = DeliberationRequest.read({"task": "x", "context": {"a": 1, "b": 3}})
    assert one.digest == same.digest
    assert one.digest != other.digest


def test_a_model_cannot_be_changed() -> None:
    """Frozen data can be shared without copies."""
    with pytest.raises(ValidationError):
        Item(id="a", task="x").task = "y"  # type: ignore[misc]


def test_usage_adds_up() -> None:
    """Field by field."""
    total = Usage(prompt_tokens=1, cached_tokens=2) + Usage(prompt_tokens=3, completion_tokens=4)
    assert total == Usage(prompt_tokens=4, completion_tokens=4, cached_tokens=2)


@settings(deadline=None)
@given(st.text())
def test_a_seed_is_a_non_negative_31_bit_number(call: str) -> None:
    """Servers take a signed 32-bit seed."""
    assert 0 <= seed_of(call) < 2**31


def test_an_answers_id_names_deliberation_item_stage_and_member() -> None:
    """And no attempt."""
    assert answer_id("d", "i", "propose-0", "m") == "d:i:propose-0:m"


def test_only_pending_and_in_progress_are_not_final() -> None:
    """Everything else ends an item."""
    assert [status for status in Status if not status.final] == [Status.PENDING, Status.IN_PROGRESS]


# --- versions: what was written by another one --------------------------------------------------------------

LATER = "since_2031"
"""A field that nobody knows yet."""
ASKED_OF_VERSION_1 = {
    "DeliberationRequest": {
        *("task", "items", "council", "rubric", "requirements", "context", "answer_format", "strategy", "rounds"),
        *("members", "quorum", "grace_s", "deadline_s", "metadata"),
    },
    "ItemRequest": {"id", "task", "rubric", "requirements", "context", "answer_format"},
    "Choice": {"type", "options"},
    "Number": {"type"},
    "TextExact": {"type"},
}
"""What a worker of version 1 knows of a request in the queue; anything else it refuses for good."""
SINCE_VERSION_3 = {
    "DeliberationRequest": {"budget"},
    "Budget": {"max_calls", "max_tokens", "max_s"},
}
"""What only a worker of version 3 knows of one; 2 has brought no field, but another strategy and times."""


def test_a_new_field_of_a_request_needs_a_higher_version() -> None:
    """A request refuses what it does not know, so a worker of before would end it FAILED in place of leaving it."""
    schema = DeliberationRequest.model_json_schema()
    models = {"DeliberationRequest": schema, **schema["$defs"]}
    asked = {name: set(model["properties"]) for name, model in models.items()}
    assert SCHEMA_VERSION == 3, "pin here what a request of the new version has"
    pinned = {name: ASKED_OF_VERSION_1.get(name, set()) | SINCE_VERSION_3.get(name, set()) for name in models}
    assert asked == pinned, (
        "a worker of an earlier version refuses a request with a field that it does not know: a new one needs a higher "
        "SCHEMA_VERSION (blocks/record/envelope.py), and is pinned here then"
    )
    assert pinned.keys() >= ASKED_OF_VERSION_1.keys()
    for fields in ({"task": "x", LATER: 1}, {"items": [{"task": "x", LATER: 1}]}):
        with pytest.raises(InvalidRequest, match=f"{LATER}: is no field of"):
            DeliberationRequest.read(fields)


def test_what_has_a_budget_is_of_version_3_and_what_has_none_is_what_it_was() -> None:
    """A worker that knows no budget would spend more, so it leaves such a request to a newer one."""
    bare = DeliberationRequest.read({"task": "x", "strategy": "propose"})
    bound = DeliberationRequest.read({"task": "x", "strategy": "propose", "budget": {"max_calls": 5}})
    told = bare.model_dump(mode="json")
    assert told.pop("budget") is None
    assert bare.digest == digest(told)
    assert bare.digest == "62bf79df646c85b78d16b4d1c7ea34779b54fa49ec420351e06a136f341053b0"
    assert bound.digest == digest(bound.model_dump(mode="json")) != bare.digest
    assert DeliberationRequest.read(bound.given) == bound
    for request, version in ((bare, 1), (bound, 3)):
        plan = Deliberation.plan("d", request, council())
        assert (plan.version, plan.budget) == (version, request.budget)
        assert version_of(Request(id="d", parameters=request.given, door="gateway")) == version


USAGE = Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1)
PROPOSAL = Proposal(author_id="b", author_role="DEV", content="x", model="m", tokens=2, finish_reason="stop")
REVIEW = Review(
    voter="a",
    shown=("b", "c"),
    ranking=("c", "b"),
    order="forward",
    opinions={"b": Opinion(scores={"clarity": Score(score=3, reason="plain")}, critique="more tests")},
)
AGENDA = [
    {"task": "x", "context": {"k": {"l": 1}}, "answer_format": form}
    for form in ({"type": "choice", "options": ["yes", "no"]}, {"type": "number"}, {"type": "text-exact"})
]
WRITTEN = (
    Answer(
        task_id="d",
        item="task",
        stage="review-0",
        agent_id="a",
        role="DEV",
        status=MemberStatus.OK,
        proposal=PROPOSAL,
        ballot=REVIEW,
        usage=USAGE,
        num_agents=3,
        timestamp=NOW,
    ),
    Closing(task_id="d", item="task", stage="propose-0", proposals={"a": "propose-0"}, called=("a",), epoch=2),
    Finished(task_id="d", status=Status.COMPLETED, counts={"items": 1}, usage=USAGE, completed_at=NOW),
    ItemResult(
        id="d",
        item="task",
        task="x",
        status=Status.COMPLETED,
        degraded=False,
        council="dev",
        engine="vllm",
        strategy="synthesize",
        total_agents=3,
        received_count=3,
        failed_count=0,
        results=(
            RankedProposal(
                proposal=PROPOSAL,
                score=1,
                rank=1,
                checks=(Check(name="length", passed=True, score=1, weight=1, evidence="12 words"),),
            ),
        ),
        members=(
            MemberOutcome(
                agent_id="a",
                role="DEV",
                status=MemberStatus.OK,
                reason=None,
                duration_ms=1,
                usage=USAGE,
                model="m",
                stages={"review-0": StageOutcome(status=MemberStatus.OK, reason=None)},
            ),
        ),
        majority=Majority(
            answer="yes", winner_id="b", votes={"yes": ("b",)}, silent=("a",), unanimous=False, tied=False
        ),
        ballots=Ballots(
            expected=3,
            counted=0,
            tally=tally([Candidate("b", 0.5), Candidate("c", 0.5)], []),
            worth=BallotWorth(first_shown=1, of=2, first_shown_p=0.5, agreement_p=1, least_p=0.1),
        ),
        firmness=Firmness(without_voter={"a": "c"}, voters=2, members=1, rules=2),
        synthesis=Synthesis(
            chairman_id="a", status=MemberStatus.OK, reason=None, content="x", model="m", sources=("b",)
        ),
        stages=(StageCost(stage="propose-0", called=3, ok=3, duration_ms=1, usage=USAGE),),
        winner_id="b",
        decision="x",
        error_message=None,
        duration_ms=1,
        usage=USAGE,
        completed_at=NOW,
    ),
    Deliberation.plan(
        "d",
        DeliberationRequest.read({"items": AGENDA, "budget": {"max_calls": 9, "max_tokens": 99, "max_s": 1.5}}),
        council(2, chairman=Member(agent_id="chair", role="DEV")),
    ),
)
"""Each body of the record with everything in it that it may have."""


def with_more(value: Any, met: set[str]) -> Any:
    """The value as a later version would write it, with a field more in every model; `met` gets their names."""
    if isinstance(value, BaseModel):
        met.add(type(value).__name__)
        return {**{name: with_more(one, met) for name, one in value}, LATER: {"a": [1]}}
    if isinstance(value, dict):
        return {key: with_more(one, met) for key, one in value.items()}
    if isinstance(value, tuple):
        return [with_more(one, met) for one in value]
    return value


@pytest.mark.parametrize("written", WRITTEN, ids=lambda one: type(one).__name__)
def test_what_a_later_version_wrote_on_the_record_is_read_without_what_is_new(written: Frozen) -> None:
    """At every depth, and with the rest as it was written; elsewhere an unknown field stays an error."""
    met = set[str]()
    body = json.loads(to_json(with_more(written, met)))
    parts = written.model_json_schema().get("$defs", {})
    assert met == {type(written).__name__, *(name for name, part in parts.items() if "properties" in part)}
    assert type(written).from_record(body) == written
    with pytest.raises(ValidationError, match=LATER):
        type(written).model_validate(body)


SINCE = {
    "ItemResult": ("firmness", "answers_short"),
    "Ballots": ("worth", "set_aside"),
    "Majority": ("by",),
    "CouncilSpec": ("tally",),
    "Deliberation": ("budget",),
}
"""Fields that bodies of before do not have."""


def as_before(value: Any) -> Any:
    """The value as a version of before wrote it, at every depth without what is new."""
    if isinstance(value, BaseModel):
        new = SINCE.get(type(value).__name__, ())
        return {name: as_before(one) for name, one in value if name not in new}
    if isinstance(value, dict):
        return {key: as_before(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [as_before(one) for one in value]
    return value


@pytest.mark.parametrize("written", WRITTEN, ids=lambda one: type(one).__name__)
def test_what_an_earlier_version_wrote_on_the_record_is_read(written: Frozen) -> None:
    """What is new is then unknown, and a council tallies as councils did."""
    body = json.loads(to_json(as_before(written)))
    read = type(written).from_record(body)
    assert as_before(read) == as_before(written)
    if isinstance(read, ItemResult):
        assert read.ballots is not None
        assert (read.firmness, read.answers_short, read.ballots.worth, read.ballots.set_aside) == (None,) * 4
    if isinstance(read, Deliberation):
        assert (read.council.tally, read.budget) == ("borda", None)


def test_a_council_keeps_its_identity_where_it_tallies_as_before() -> None:
    """The digest of a council is what it was when it had no choice of a rule."""
    usual = council(3)
    before = usual.model_dump(mode="json")
    assert before.pop("tally") == "borda"
    assert before.pop("prompts") is None
    assert before.pop("callback_url") is None
    assert usual.digest == digest(before)
    other = usual.model_copy(update={"tally": "schulze"})
    assert other.digest == digest(other.model_dump(mode="json", exclude={"prompts", "callback_url"})) != usual.digest
    assert other.sized(5).tally == "schulze"
    with pytest.raises(ValidationError, match="'borda', 'copeland' or 'schulze'"):
        CouncilSpec.model_validate({**before, "tally": "guess"})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"task": "x", "requirements": [""] * 300_000}, "requirements.0"),
        ({"items": [{"task": ""}] * 300_000}, "items.0.task"),
        ({"task": "x", "answer_format": {"type": "choice", "options": [""] * 300_000}}, "answer_format"),
    ],
)
def test_of_a_list_of_wrong_values_the_first_is_told(fields: dict[str, Any], field: str) -> None:
    """And not each of them, which would take gigabytes."""
    with pytest.raises(InvalidRequest) as refused:
        DeliberationRequest.read(fields)
    assert refused.value.field.startswith(field)
    assert isinstance(refused.value.__cause__, ValidationError)
    assert refused.value.__cause__.error_count() <= 5
