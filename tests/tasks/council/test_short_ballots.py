"""The short ballot of a closed task: when it is asked for, what is told, and how it is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.council.closed_answers import Choice
from tasks.council.council import CouncilSpec, Member
from tasks.council.models import Deliberation, DeliberationRequest, Item
from tasks.council.prompt_texts import BUILT_IN, SHORT_REVIEW_CHARTER
from tasks.council.prompts.ballot_forms import FullBallot, ShortBallot, ballot_form
from tasks.council.voting.ballots import (
    DEFAULT_CRITERIA,
    MAX_SHORT_REASON,
    InvalidBallot,
    Review,
    Sheet,
    labels,
    read_short_ballot,
)
from tasks.council.voting.election import Candidate
from tasks.council.voting.tally import tally

CLOSED = Item(id="i", task="Which is the capital of France?", answer_format=Choice(options=("Paris", "Rome")))
SHEET = Sheet(voter="m0", order="reverse", shown=(("D", "m3"), ("C", "m1"), ("A", "m2")))
TEXTS = {"m0": "mine", "m1": "It is.\n\nANSWER: Rome", "m2": "ANSWER: Paris", "m3": "ANSWER: Paris"}


def plan(strategy: str = "rank", rounds: int = 0) -> Deliberation:
    """A plan of three members for the closed task."""
    members = [Member(agent_id=f"m{number}", role="DEV") for number in range(3)]
    council = CouncilSpec(name="c", members=tuple(members))
    fields: dict[str, Any] = {"task": CLOSED.task, "strategy": strategy, "rounds": rounds}
    return Deliberation.plan("d", DeliberationRequest.read(fields), council)


OPEN = CLOSED.model_copy(update={"answer_format": None})
M0 = Member(agent_id="m0", role="DEV")


def form_of(item: Item, feeds_revision: bool = False, max_tokens: int = 2048, shown: Sheet = SHEET) -> Any:
    """The form that is asked for."""
    return ballot_form(item, feeds_revision, BUILT_IN, M0.model_copy(update={"max_tokens": max_tokens}), shown)


def test_a_closed_task_takes_the_short_form_where_no_revision_needs_critiques() -> None:
    """Authors revise from critiques, which a short ballot has none of."""
    assert form_of(CLOSED) == ShortBallot(BUILT_IN)
    assert isinstance(form_of(CLOSED, feeds_revision=True), FullBallot)
    assert isinstance(form_of(OPEN), FullBallot)
    revising = plan(rounds=1)
    assert [stage for stage in revising.stages if revising.feeds_revision(stage)] == ["review-0"]


@pytest.mark.parametrize("max_tokens", [400, 700, 1_000, 2_048, 8_192])
@pytest.mark.parametrize("count", [2, 4, 14, 63])
def test_the_longest_ballot_that_is_asked_for_fits_into_the_limit(count: int, max_tokens: int) -> None:
    """At two characters a token, or at four; where no full one does, a short one. What is told is what is demanded."""
    many = Sheet(voter="m0", order="forward", shown=tuple((label, f"a{label}") for label in labels(count)))
    form = form_of(OPEN, max_tokens=max_tokens, shown=many)
    if isinstance(form, ShortBallot):
        assert max_tokens / count < 120
        return
    score = {"score": 10, "reason": "x" * form.room.reason}
    opinion = {"scores": {one.key: score for one in DEFAULT_CRITERIA}, "critique": "x" * form.room.critique}
    longest = {"opinions": dict.fromkeys(many.labels, opinion), "ranking": list(many.labels)}
    assert len(json.dumps(longest)) <= max_tokens * 4
    assert form.read(json.dumps(longest), many).ranking == many.authors
    told = form.messages(M0, OPEN, many, dict.fromkeys(many.authors, "x"), "s")[1]["content"]
    assert f"at most {form.room.reason} characters" in told
    assert f"at most {form.room.critique} characters" in told


def test_what_is_told_and_what_is_demanded_agree() -> None:
    """The bound of the reason, and each label once."""
    schema = ShortBallot(BUILT_IN).schema(SHEET)
    assert schema["properties"]["reason"]["maxLength"] == MAX_SHORT_REASON
    assert list(schema["properties"]) == ["reason", "ranking"]
    assert all(sorted(ranking) == ["A", "C", "D"] for ranking in schema["properties"]["ranking"]["enum"])
    assert len(schema["properties"]["ranking"]["enum"]) == 6
    system, user = ShortBallot(BUILT_IN).messages(Member(agent_id="m0", role="DEV"), CLOSED, SHEET, TEXTS, "s")
    assert system["content"] == SHORT_REVIEW_CHARTER
    assert f"at most {MAX_SHORT_REASON} characters" in user["content"], "whatever charter a council brings"
    assert user["content"].index("ANSWER: Rome") < user["content"].index("Which answer is right?")
    assert "mine" not in user["content"]
    assert "DEV" not in user["content"]


def test_a_short_ballot_is_read_by_authors_and_tallied() -> None:
    """With its reason and without opinions, also from the record."""
    review = read_short_ballot('{"reason": " Paris is. ", "ranking": ["A", "D", "C"]}', SHEET)
    assert review.ranking == ("m2", "m3", "m1")
    assert (review.reason, review.opinions, review.grades) == ("Paris is.", {}, {})
    assert Review.model_validate_json(review.model_dump_json()) == review
    assert tally([Candidate(one, 0.5) for one in TEXTS], [review]).order[0] == "m2"


@pytest.mark.parametrize(
    "given",
    [
        '{"ranking": ["a", "d", "c"]}',
        '{"reason": "", "ranking": ["A"]}',
        'Here: {"reason": "x", "ranking": ["A", "D",], "winner": "A"} Done.',
        json.dumps({"reason": "long " * 100, "ranking": ["A", "C", "D"]}),
    ],
    ids=["no reason", "empty reason", "prose and a comma", "long reason"],
)
def test_what_can_mean_one_thing_only_is_mended(given: str) -> None:
    """As in the full form."""
    review = read_short_ballot(given, SHEET)
    assert review.ranking[0] == "m2"
    assert len(review.reason or "") <= MAX_SHORT_REASON


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ('{"reason": "x"}', "ranking: "),
        ('{"reason": "x", "ranking": []}', "ranking: it is empty"),
        ('{"reason": "x", "ranking": ["A", "A"]}', "ranking.1: 'A' is ranked twice"),
        ('{"reason": "x", "ranking": ["B"]}', "ranking.0: 'B' is none of D, C, A"),
        ('{"reason": "x", "ranking": "A"}', "ranking: "),
        ('{"ranking": ["A"]} {"ranking": ["C"]}', "ballot: it is not one JSON object"),
        ("A, D, C", "ballot: it is not one JSON object"),
    ],
)
def test_what_is_no_ballot_is_named(given: str, problem: str) -> None:
    """The field, and what would be right."""
    with pytest.raises(InvalidBallot) as caught:
        read_short_ballot(given, SHEET)
    assert str(caught.value).startswith(problem)
