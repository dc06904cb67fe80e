"""Questions and their checks, the arms, and what their scores come to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.council.answer import Answer
from tasks.council.council import CouncilSpec
from tasks.council.decisions import ItemResult
from tasks.council.evaluation.answered import Answered, bare_answers, bare_calls
from tasks.council.evaluation.arms import Arm, Reached, Scoresheet, reached
from tasks.council.evaluation.figures import holm, median, paired_difference, percentile_95, share, sign_test
from tasks.council.evaluation.questions import Question, Verdict, read_questions
from tasks.council.evaluation.readings import Readings, texts_of
from tasks.council.evaluation.report import figures, notes, report
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Deliberation, DeliberationRequest, MemberStatus, Status
from tasks.council.progress.completion import Verdict as Ruling
from tasks.council.progress.item import ENDED_EARLY, ItemProgress, NextStage
from tasks.council.progress.result import item_result
from tasks.council.proposal import Proposal, Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NUMBER = {"type": "number"}
CHOICE = {"type": "choice", "options": ["__init__", "__new__"]}
EARLY = {"status": MemberStatus.CANCELLED, "error": "it cannot be overtaken", "error_type": ENDED_EARLY}
FAILED = {"status": MemberStatus.FAILED, "error": "HTTP 500"}


def question(**check: Any) -> Question:
    """A question with this check, read from a line."""
    brief = {name: check.pop(name) for name in ("answer_format",) if name in check}
    (found,) = read_questions([json.dumps({"task": "Say it", "check": check, **brief})]).values()
    return found


# --- checks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ({"type": "exact", "answer": "Paris"}, "Well.\nANSWER: Paris", "ANSWER: paris"),
        ({"type": "exact", "answer": "Paris"}, "**ANSWER:** `Paris`", "It is Paris."),
        ({"type": "exact", "answer": "yes", "options": ["Yes", "No"]}, "ANSWER: YES.", "ANSWER: no"),
        ({"type": "exact", "answer": "1,000.0", "answer_format": NUMBER}, "ANSWER: 1000", "ANSWER: 100"),
        ({"type": "numeric", "answer": 42}, "ANSWER: 42.0", "ANSWER: 42.0001"),
        ({"type": "numeric", "answer": "0.3", "tolerance": 0.1}, "ANSWER: 0.4", "ANSWER: 0.40000001"),
        ({"type": "numeric", "answer": -5, "tolerance": 1}, "ANSWER: -6", "ANSWER: 5"),
        ({"type": "numeric", "answer": 1e14}, "ANSWER: 1e14", "ANSWER: " + "1" + "0" * 13 + "1"),
        ({"type": "numeric", "answer": 42}, "ANSWER: 41\nNo:\nANSWER: 42", "ANSWER: 42\nANSWER: about 42"),
        ({"type": "regex", "pattern": "a.c", "flags": "is"}, "xA\nC", "abbc"),
        ({"type": "regex", "pattern": "^b$", "flags": "m"}, "a\nb\nc", "ab"),
        ({"type": "regex", "pattern": "here"}, "here" + "x" * 99_996, "here" + "x" * 99_997),
    ],
)
def test_a_check_tells_right_from_wrong(check: dict[str, Any], right: str, wrong: str) -> None:
    """Exact and numeric read the line of the answer; a pattern searches the end of a text."""
    asked = question(**check)
    assert (asked.is_right(right), asked.is_right(wrong)) == (True, False)


@pytest.mark.parametrize(
    ("check", "form"),
    [
        ({"type": "exact", "answer": "a"}, {"type": "text-exact"}),
        ({"type": "exact", "answer": "a", "options": ["a", "b"]}, {"type": "choice", "options": ["a", "b"]}),
        ({"type": "numeric", "answer": 1}, NUMBER),
        ({"type": "regex", "pattern": "a"}, None),
        ({"type": "regex", "pattern": "a", "answer_format": NUMBER}, NUMBER),
        ({"type": "predicate", "function": "a.py:f"}, None),
    ],
)
def test_a_check_gives_the_answer_its_form(check: dict[str, Any], form: dict[str, Any] | None) -> None:
    """So that the majority of closed answers can be told; the council is never shown the check."""
    item = question(**check).as_item()
    assert item.get("answer_format") == form
    assert "check" not in item
    assert DeliberationRequest.read({"items": [item]}).agenda()[0].id == "line-1"


def test_a_predicate_is_not_called_here() -> None:
    """Only its own process does."""
    with pytest.raises(TypeError, match="function of the user's"):
        question(type="predicate", function="a.py:f").is_right("text")


# --- the file -------------------------------------------------------------------------------------

REGEX = '"check": {"type": "regex", "pattern": "a"}'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", ": is no JSON; a question is one JSON object on one line"),
        ("[" * 100_000, ": is no JSON"),
        ("[]", ": is no JSON object; a question is"),
        ("{" + REGEX + "}", ": task: is missing"),
        ('{"task": "a"}', ": check: is missing"),
        ('{"task": " ", ' + REGEX + "}", ": task: String should have at least 1 character"),
        ('{"task": 3, ' + REGEX + "}", ": task: has to be a text"),
        ('{"task": "\\ud800", ' + REGEX + "}", ": is no JSON"),
        ('{"task": "a", "chek": 1, ' + REGEX + "}", ": chek: is no field of a question like this; the fields are "),
        ('{"task": "a", "id": "a b", ' + REGEX + "}", ": id: 'a b' is no id; one is 1 to 64 of"),
        ('{"task": "a", "requirements": "b", ' + REGEX + "}", ": requirements: has to be a list"),
        ('{"task": "a", "context": {"b": NaN}, ' + REGEX + "}", ": context: is no JSON object of sound text"),
        ('{"task": "a", "answer_format": {"type": "b"}, ' + REGEX + "}", ": answer_format.type: is one of choice, "),
    ],
)
def test_a_bad_line_is_named_with_its_field(line: str, told: str) -> None:
    """Number of the line, field, and what would be right."""
    good = '{"task": "a", ' + REGEX + "}"
    with pytest.raises(InvalidRequest) as refused:
        read_questions([good, "", line], "q.jsonl")
    assert str(refused.value).startswith(f"q.jsonl line 3{told}")


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ("3", "check: has to be an object"),
        ("{}", "check.type: is one of exact, numeric, regex, predicate"),
        ('{"type": "guess"}', "check.type: is one of exact, numeric, regex, predicate"),
        ('{"type": "exact"}', "check.answer: is missing"),
        ('{"type": "exact", "answer": 3}', "check.answer: has to be a text"),
        ('{"type": "exact", "answer": "a", "tolerance": 1}', "check.tolerance: is no field of a check like this; the"),
        ('{"type": "exact", "answer": "a", "options": ["a"]}', "check.options: must have at least 2 items"),
        ('{"type": "exact", "answer": "a", "options": ["b", "B"]}', "check.options: they have to differ in more"),
        ('{"type": "exact", "answer": "a", "options": ["b", "c"]}', "check.answer: 'a' can never be given; the form"),
        ('{"type": "numeric", "answer": "a"}', "check.answer: Input should be a valid decimal"),
        ('{"type": "numeric", "answer": true}', "check.answer: Decimal input should be an integer, float"),
        ('{"type": "numeric", "answer": NaN}', "check.answer: Input should be a finite number"),
        ('{"type": "numeric", "answer": "1e999999999"}', "check.answer: Decimal input should have no more than 60"),
        ('{"type": "numeric", "answer": 1, "tolerance": -1}', "check.tolerance: Input should be greater than or equal"),
        (
            '{"type": "regex", "pattern": "a", "flags": "iq"}',
            "check.flags: q is unknown; the flags are a, i, m",
        ),
        ('{"type": "predicate", "function": "is_valid"}', "check.function: 'is_valid' names no function; one is named"),
        ('{"type": "predicate", "function": "a.py:b c"}', "check.function: 'a.py:b c' names no function; one is"),
    ],
)
def test_a_bad_check_is_named_with_its_field(check: str, told: str) -> None:
    """The same for what stands in the check."""
    with pytest.raises(InvalidRequest) as refused:
        read_questions(['{"task": "a", "check": ' + check + "}"], "q.jsonl")
    assert str(refused.value).startswith(f"q.jsonl line 1: {told}")


@pytest.mark.parametrize(
    ("form", "check", "told"),
    [
        ({"type": "text-exact"}, {"type": "numeric", "answer": 1}, "answer_format: a numeric check needs"),
        (
            NUMBER,
            {"type": "exact", "answer": "many"},
            "check.answer: 'many' can never be given; the form wants",
        ),
        (
            NUMBER,
            {"type": "exact", "answer": "1e20"},
            "check.answer: '1e20' can never be given; the form wants a decimal",
        ),
        (
            NUMBER,
            {"type": "numeric", "answer": 1e20},
            "check.answer: no number that can be given is so near to it; the",
        ),
        (NUMBER, {"type": "numeric", "answer": "1e-10"}, "check.answer: no number that can be given is so near"),
        (
            {"type": "text-exact"},
            {"type": "exact", "answer": "a" * 201},
            f"check.answer: '{'a' * 201}' can never be given",
        ),
        (
            {"type": "text-exact"},
            {"type": "exact", "answer": "`a`"},
            "check.answer: '`a`' can never be given; the form",
        ),
        (NUMBER, {"type": "exact", "answer": "a", "options": ["a", "b"]}, "check.options: the question has an answer"),
    ],
)
def test_a_check_that_does_not_fit_the_form_is_refused(form: Any, check: Any, told: str) -> None:
    """Such a question could never be answered rightly."""
    with pytest.raises(InvalidRequest) as refused:
        read_questions([json.dumps({"task": "a", "answer_format": form, "check": check})])
    assert str(refused.value).startswith(f"questions line 1: {told}")


@pytest.mark.parametrize(
    ("form", "check", "given"),
    [
        (NUMBER, {"type": "numeric", "answer": "3.14159265358979", "tolerance": 1e-9}, "3.141592654"),
        (NUMBER, {"type": "numeric", "answer": 1e15, "tolerance": 1}, "999999999999999.5"),
        ({"type": "text-exact"}, {"type": "exact", "answer": "a" * 200}, "a" * 200),
        (CHOICE, {"type": "exact", "answer": "__init__"}, "__init__"),
    ],
)
def test_a_check_that_something_can_pass_is_taken(form: Any, check: Any, given: str) -> None:
    """At the bounds of what a structured answer can be."""
    assert question(answer_format=form, **check).is_right(f"ANSWER: {given}")


@pytest.mark.parametrize("number", ["123456789.123456789", "12345678901234.56789", "0.1"])
def test_a_number_has_the_digits_that_it_is_written_with(number: str) -> None:
    """No float stands between the file and the check."""
    line = f'{{"task": "a", "check": {{"type": "numeric", "answer": {number}}}, "context": {{"x": 0.1}}}}'
    (found,) = read_questions([line]).values()
    assert found.is_right(f"ANSWER: {number}")
    assert not found.is_right(f"ANSWER: {number}1")
    assert found.as_item()["context"] == {"x": 0.1}


def test_a_file_as_a_whole_is_checked() -> None:
    """Ids are there once, something is asked, and not too much."""
    line = '{"id": "line-2", "task": "a", ' + REGEX + "}"
    with pytest.raises(InvalidRequest, match="q line 2: id: 'line-2' is the id of line 1 already"):
        read_questions([line, line.replace('"id": "line-2", ', "")], "q")
    with pytest.raises(InvalidRequest, match="q: there is no question"):
        read_questions(["", " \n"], "q")
    with pytest.raises(InvalidRequest, match="q: more than 10000 questions are too many to be asked at once"):
        read_questions(['{"task": "a", ' + REGEX + "}"] * 10_001, "q")


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(count: int, of: int, low: float, high: float) -> None:
    """Table I, method 3, of Newcombe, Statistics in Medicine 17 (1998)."""
    found = share(count, of)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_the_paired_interval_is_the_published_one() -> None:
    """Airway hyper-responsiveness before and after transplantation (Bentur et al., 2009), 1 and 7 of 21 changed.

    Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), chapter 8.
    """
    found = paired_difference(1, 7, 21)
    assert found is not None
    assert found.value == pytest.approx(-0.286, abs=5e-4)
    assert (found.low, found.high) == (pytest.approx(-0.508, abs=5e-4), pytest.approx(-0.013, abs=5e-4))
    assert found.p_value == pytest.approx(0.0703, abs=5e-5)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_the_binomial_sum(gained: int, lost: int) -> None:
    """Exactly, and the same the other way round."""
    tail = sum(comb(gained + lost, k) for k in range(min(gained, lost) + 1))
    assert sign_test(gained, lost) == sign_test(lost, gained)
    assert sign_test(gained, lost) == float(min(Fraction(1), Fraction(2 * tail, 2 ** (gained + lost))))


@given(st.integers(1, 10_000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_intervals_hold_their_share(counts: tuple[int, int]) -> None:
    """Within 0 and 1 (or -1 and 1), around the value, wherever it is."""
    count, of = counts
    found, paired = share(count, of), paired_difference(count, 0, of)
    assert found is not None and paired is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert -1 <= paired.low < paired.high <= 1
    assert 0 <= paired.p_value <= 1


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]), ([0.6, 0.5], [1, 1]), ([0.03], [0.03]), ([], [])],
)
def test_several_comparisons_are_corrected_by_holm(p_values: list[float], adjusted: list[float]) -> None:
    """As R's `p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")` does it, and at its bounds."""
    assert holm(p_values) == pytest.approx(adjusted)


def test_nothing_has_no_figures() -> None:
    """None instead of a number."""
    assert share(0, 0) is paired_difference(0, 0, 0) is median([]) is percentile_95([]) is None
    assert percentile_95([7]) == 7
    assert percentile_95(list(range(101))) == 95


# --- arms -----------------------------------------------------------------------------------------


def plan(closed: bool = True, rounds: int = 0, members: int = 3) -> Deliberation:
    """A council of m1 to m3 with one question."""
    council = CouncilSpec.model_validate(
        {"name": "c", "members": [{"agent_id": f"m{number + 1}", "role": "DEV"} for number in range(members)]}
    )
    fields = {"task": "How many?", "answer_format": NUMBER if closed else None}
    request = DeliberationRequest.read({**fields, "strategy": "synthesize", "rounds": rounds})
    return Deliberation.plan("d", request, council)


def answer(stage: str, member: str, text: str | None = None, ms: int = 100, tokens: int = 10, **fields: Any) -> Answer:
    """A member's answer in a stage."""
    proposal = text and Proposal(
        author_id=member, author_role="DEV", content=text, model="m", tokens=tokens, finish_reason="stop"
    )
    return Answer.model_validate(
        {
            "task_id": "d",
            "item": "task",
            "stage": stage,
            "agent_id": member,
            "role": "DEV",
            "num_agents": 3,
            "status": MemberStatus.OK,
            "proposal": proposal or None,
            "duration_ms": ms,
            "timestamp": NOW,
            "usage": Usage(prompt_tokens=1, completion_tokens=tokens),
            "engine": "vllm",
            **fields,
        }
    )


def ballot(member: str, *ranking: str, stage: str = "review-0", **fields: Any) -> Answer:
    """A member's ballot."""
    opinions = {one: {"scores": {}, "critique": "none"} for one in ranking}
    given = {"voter": member, "shown": ranking, "ranking": ranking, "order": "forward", "opinions": opinions}
    return answer(stage, member, ballot=given, **fields)


def arms_of(
    asked: Deliberation, *answers: Answer, number: int = 0, status: Status = Status.COMPLETED
) -> tuple[ItemResult, dict[Arm, Reached]]:
    """The item's result as the collector publishes it, and what each arm came to, read from the answers alone."""
    progress, read = ItemProgress(asked, asked.agenda[0]), dict[str, dict[str, Answer]]()
    for one in answers:
        if one.stage not in progress.answers:
            called = tuple(each.agent_id for each in answers if each.stage == one.stage)
            progress.enter(one.stage, NextStage(called))
        progress.take(one)
        read.setdefault(one.stage, {})[one.agent_id] = one
    result = item_result(progress, Ruling(status), 1000, NOW)
    return result, reached(Answered(ItemProgress.read(asked, asked.agenda[0], read), result), number)


PROPOSALS = (
    answer("propose-0", "m1", "One.\nANSWER: 1", ms=100, tokens=10),
    answer("propose-0", "m2", "Two.\nANSWER: 2", ms=300, tokens=20),
    answer("propose-0", "m3", "Two, too.\nANSWER: 2", ms=200, tokens=30),
)
BALLOTS = (
    ballot("m1", "m3", "m2", ms=50, tokens=1),
    ballot("m2", "m1", "m3", ms=70, tokens=1),
    ballot("m3", "m1", "m2", ms=60, tokens=1),
)


def test_the_arms_are_read_from_the_same_answers() -> None:
    """The lone member's text, the vote's, what the ballots put first, and the chairman's; each costs what led to it.

    Three ballots are too few to decide a closed task, so its decision is the vote's; the arm tells of the ballots.
    """
    written = answer("synthesize", "m1", "Both.\nANSWER: 3", ms=400, tokens=100)
    result, arms = arms_of(plan(), *PROPOSALS, *BALLOTS, written)
    most_voted = {"Two.\nANSWER: 2", "Two, too.\nANSWER: 2"}
    assert result.majority is not None
    assert result.winner_id == result.majority.winner_id
    assert arms["single"] == ("One.\nANSWER: 1", Usage(prompt_tokens=1, completion_tokens=10), 100)
    assert arms["majority"].text in most_voted
    assert arms["majority"][1:] == (Usage(prompt_tokens=3, completion_tokens=60), 300)
    assert arms["rank"] == ("One.\nANSWER: 1", Usage(prompt_tokens=6, completion_tokens=63), 370)
    assert arms["synthesize"] == ("Both.\nANSWER: 3", Usage(prompt_tokens=7, completion_tokens=163), 770)


def test_the_single_member_changes_from_question_to_question() -> None:
    """In turn, so that none is favoured."""
    texts = [arms_of(plan(), *PROPOSALS, number=number)[1]["single"].text for number in range(5)]
    assert [text and text[-1] for text in texts] == ["1", "2", "2", "1", "2"]
    assert texts[1] != texts[2]


def test_a_single_member_that_failed_has_no_text() -> None:
    """It is not replaced by one that answered; what it cost stays."""
    failed = answer("propose-0", "m1", ms=900, tokens=0, **FAILED)
    _, arms = arms_of(plan(), failed, *PROPOSALS[1:])
    assert arms["single"] == (None, Usage(prompt_tokens=1), 900)
    assert arms["majority"].text is not None
    assert arms["rank"].text is not None
    cut = answer("propose-0", "m1", "ANSWER: 1", status=MemberStatus.TRUNCATED, error="cut")
    assert arms_of(plan(), cut, *PROPOSALS[1:])[1]["single"].text is None


def test_where_all_agree_ranking_and_synthesis_cost_no_more_than_the_vote() -> None:
    """Nobody is called for a review then: the best proposal stands for all three."""
    same = [answer("propose-0", f"m{number}", f"{number} says:\nANSWER: 2") for number in (1, 2, 3)]
    result, arms = arms_of(plan(), *same)
    assert result.decided_by == "majority"
    assert arms["majority"] == arms["rank"] == arms["synthesize"]
    assert arms["rank"].text == result.decision


def test_a_failed_synthesis_leaves_the_best_proposal() -> None:
    """As the product decides; it is paid for all the same."""
    lost = answer("synthesize", "m1", ms=5000, tokens=7, **FAILED)
    result, arms = arms_of(plan(), *PROPOSALS, *BALLOTS, lost)
    assert result.decided_by == "majority"
    assert arms["synthesize"].text == arms["majority"].text == result.decision
    assert arms["synthesize"].usage.completion_tokens == arms["rank"].usage.completion_tokens + 7
    assert arms["synthesize"].duration_ms == arms["rank"].duration_ms + 5000


def test_without_ballots_the_order_that_stands_is_ranked() -> None:
    """All reviewers failed: the vote decides, then the checks; a tie is broken by the checks."""
    nobody = [answer("review-0", f"m{number}", **FAILED) for number in (1, 2, 3)]
    result, arms = arms_of(plan(), *PROPOSALS, *nobody)
    assert result.decided_by == "majority"
    assert arms["rank"].text == arms["majority"].text
    tied, two = arms_of(plan(members=2), *PROPOSALS[:2])
    assert tied.majority is not None and tied.majority.tied
    assert two["majority"].text == two["rank"].text == tied.decision


def test_an_open_question_has_no_majority() -> None:
    """The arm is left out there; where no answer can be read it stands without a text."""
    assert set(arms_of(plan(closed=False), *PROPOSALS)[1]) == {"single", "rank", "synthesize"}
    mute = [answer("propose-0", f"m{number}", "I do not know") for number in (1, 2, 3)]
    arms = arms_of(plan(), *mute)[1]
    assert arms["majority"].text is None
    assert arms["rank"].text == "I do not know"


def test_without_a_decision_only_the_single_member_has_a_text() -> None:
    """It needed no quorum; the council came to nothing, and its calls are counted."""
    others = [answer("propose-0", f"m{number}", **FAILED) for number in (2, 3)]
    _, arms = arms_of(plan(), PROPOSALS[0], *others, status=Status.FAILED)
    assert [arm for arm, one in arms.items() if one.text is not None] == ["single"]
    assert set(arms) == {"single", "majority", "rank", "synthesize"}
    assert arms["majority"].usage.completion_tokens == 30
    progress = ItemProgress.read(plan(), plan().agenda[0], {})
    assert {one.text for one in reached(Answered(progress, None), 0).values()} == {None}


def test_revisions_count_for_the_ranking_and_not_for_the_vote() -> None:
    """The vote is of the first proposals; the ranking is of what its authors made of them."""
    revised = [answer("revise-1", f"m{number}", "All new.\nANSWER: 4", ms=1000, tokens=5) for number in (1, 2, 3)]
    again = [ballot(f"m{n}", *(f"m{o}" for o in (1, 2, 3) if o != n), stage="review-1", ms=10) for n in (1, 2, 3)]
    _, arms = arms_of(plan(rounds=1), *PROPOSALS, *BALLOTS, *revised, *again)
    assert (arms["majority"].text or "")[-1] == "2"
    assert (arms["rank"].text or "")[-1] == "4"
    assert arms["majority"].duration_ms == 300
    assert arms["rank"].duration_ms == 300 + 70 + 1000 + 10


def test_who_is_not_waited_for_makes_no_stage_longer_and_a_late_one_does() -> None:
    """Though the record has a duration for both."""
    short = (*BALLOTS[:2], answer("review-0", "m3", ms=2000, **EARLY))
    assert arms_of(plan(), *PROPOSALS, *short)[1]["rank"].duration_ms == 370
    late = {"status": MemberStatus.TIMEOUT, "error": "no answer within the deadline"}
    waited = (*BALLOTS[:2], answer("review-0", "m3", ms=2000, **late))
    assert arms_of(plan(), *PROPOSALS, *waited)[1]["rank"].duration_ms == 300 + 2000


# --- rivals ---------------------------------------------------------------------------------------


def plain(*texts: str | None) -> list[Answer | None]:
    """Plain calls in their order; None is one that was lost."""
    return [text and answer("bare-0", "m1", text, ms=50, tokens=5) for text in texts]  # type: ignore[misc]


def answered(*answers: Answer, bare: Sequence[Answer | None] = (), escalated: Any = None) -> Answered:
    """A question as the record has it."""
    result, _ = arms_of(plan(), *answers)
    read: dict[str, dict[str, Answer]] = {}
    for one in answers:
        read.setdefault(one.stage, {})[one.agent_id] = one
    return Answered(ItemProgress.read(plan(), plan().agenda[0], read), result, bare, escalated)


def test_plain_calls_are_asked_of_the_members_in_turn_and_five_of_them_vote() -> None:
    """A council of three is asked in two stages; the call of a question is that of the member whose turn it is."""
    calls = [(member.agent_id, stage) for member, stage in bare_calls(plan().council)]
    assert calls == [("m1", "bare-0"), ("m2", "bare-0"), ("m3", "bare-0"), ("m1", "bare-1"), ("m2", "bare-1")]
    asked = answered(*PROPOSALS, bare=plain("ANSWER: 1", "ANSWER: 2", "ANSWER: 3", "ANSWER: 3", "ANSWER: 2"))
    said = [reached(asked, number)["bare"].text for number in range(6)]
    assert said == [f"ANSWER: {number}" for number in (1, 2, 3, 1, 2, 3)]
    votes = [reached(asked, number)["bare-5"].text for number in range(3)]
    assert votes == ["ANSWER: 2", "ANSWER: 2", "ANSWER: 3"], "a tie goes to the first from that call on"
    assert reached(asked, 0)["bare-5"][1:] == (Usage(prompt_tokens=5, completion_tokens=25), 50)


def test_a_plain_call_that_was_lost_is_no_answer_and_wrong() -> None:
    """It is not left out, else accuracy would rise by what was lost; without rivals there is no such arm."""
    asked = answered(*PROPOSALS, bare=plain(None, None, None, None, None))
    arms = reached(asked, 0)
    assert (arms["bare"].text, arms["bare-5"].text) == (None, None)
    assert not {"bare", "bare-5", "escalate"} & set(reached(answered(*PROPOSALS), 0))
    assert bare_answers(plan().council, {}) == (None,) * 5


def test_what_ballots_put_first_is_told_beside_a_lot_and_beside_what_was_shown_first() -> None:
    """And how much could be read: of three proposals one cannot, of five plain calls four can, of three ballots two."""
    cut = answer("review-0", "m3", status=MemberStatus.INVALID, error="no ballot", error_type="InvalidBallot")
    proposals = (*PROPOSALS[:2], answer("propose-0", "m3", "I do not know"))
    ballots = (ballot("m1", "m2", "m3"), ballot("m2", "m3", "m1"), cut)
    asked = answered(*proposals, *ballots, bare=plain("ANSWER: 1", "ANSWER: 2", None, "ANSWER: 3", "ANSWER: 2"))
    made, right = Scoresheet(), "Two.\nANSWER: 2"
    verdicts = {text: Verdict(text == right) for text in texts_of(asked)}
    assert len(verdicts) == 3
    made.look_at(asked, verdicts)
    found = made.evaluation(plan())
    assert found.readings is not None and found.ballots_beside is not None
    read = (found.readings.proposals, found.readings.bare, found.readings.ballots)
    assert [(one.count, one.of) for one in read if one] == [(2, 3), (4, 5), (2, 3)]
    assert found.ballots_beside.questions == 1
    assert found.ballots_beside.ballots.count == 1, "m2 has the best share of those that it was compared with"
    assert found.ballots_beside.lot == pytest.approx(1 / 3)
    assert found.ballots_beside.shown_first == pytest.approx(1 / 2)


# --- side by side ---------------------------------------------------------------------------------


def sheet(*questions: dict[Arm, str | None], **fields: Any) -> Scoresheet:
    """A sheet of questions with what each arm said; "right" is right, "?" is a check that cannot tell."""
    verdicts = {"right": Verdict(True), "wrong": Verdict(False), "?": Verdict(False, "it raised")}
    made, (result, _) = Scoresheet(), arms_of(plan(), *PROPOSALS, **fields)
    for number, said in enumerate(questions):
        costs = {"single": 10, "majority": 30, "rank": 60, "synthesize": 80}
        arms = {arm: Reached(text, Usage(completion_tokens=costs[arm]), costs[arm]) for arm, text in said.items()}
        made.add(f"q{number}", result, arms, verdicts)
    return made


def said(*texts: str | None) -> dict[Arm, str | None]:
    """What single, majority, rank and synthesize said; without the second where there are three."""
    names: tuple[Arm, ...] = ("single", "majority", "rank", "synthesize")
    return dict(zip(names if len(texts) == 4 else (names[0], *names[2:]), texts, strict=True))


def agenda(count: int) -> Deliberation:
    """A plan of so many questions."""
    items = [{"id": f"q{number}", "task": "a"} for number in range(count)]
    return Deliberation.plan("d", DeliberationRequest.read({"items": items}), plan().council)


def test_arms_stand_over_the_questions_they_apply_to_and_nothing_is_dropped() -> None:
    """No answer is wrong; the difference to single is over the same questions; tokens are those of all answers."""
    found = sheet(
        said("wrong", "right", "right", "right"),
        said("right", "wrong", "right", None),
        said("right", "right", "right"),
        said(None, "right", "wrong", "?"),
    ).evaluation(agenda(4))
    single, majority, rank, synthesize = found.arms
    assert [(arm.questions, arm.not_applicable, arm.unanswered) for arm in found.arms] == [
        *((4, 0, 1), (3, 1, 0), (4, 0, 0)),
        (4, 0, 1),
    ]
    assert [arm.accuracy and arm.accuracy.count for arm in found.arms] == [2, 2, 3, 2]
    assert single.versus_single is None
    assert majority.versus_single is not None and synthesize.versus_single is not None
    assert (majority.versus_single.gained, majority.versus_single.lost, majority.versus_single.of) == (2, 1, 3)
    assert (synthesize.versus_single.gained, synthesize.versus_single.lost) == (1, 1)
    assert [arm.tokens_per_right_answer for arm in found.arms] == [20, 45, 80, 160]
    assert (rank.latency_median_ms, rank.latency_p95_ms) == (60, 60)
    assert (found.check_problems, found.problems) == (1, ("q3: it raised",))
    assert (found.engine, found.undecided, found.degraded) == ("vllm", 0, 0)


def test_no_right_answer_has_no_price() -> None:
    """A dash, neither zero nor infinity; and so for an arm without a question."""
    found = sheet(said("wrong", "wrong", "wrong")).evaluation(agenda(1))
    shown = figures(found)
    assert shown["tokens per right"] == ["-", "-", "-", "-"]
    assert shown["right"] == ["0 of 1", "-", "0 of 1", "0 of 1"]
    assert "no question has a closed answer, so there is no majority" in notes(found)
    assert shown["accuracy"][1] == shown["points vs single"][1] == "-"


def test_a_small_p_is_not_told_as_zero() -> None:
    """Eleven gained and none lost; nothing gained is 1."""
    found = sheet(*[said("wrong", "right", "wrong")] * 11).evaluation(agenda(11))
    assert figures(found)["p (McNemar)"] == ["-", "-", "< 0.001", "1.000"]


def test_better_is_said_of_what_chance_does_not_explain_among_all_comparisons() -> None:
    """Six gained of six are 0.031 alone, and 0.063 of the two arms that are compared; seven are 0.016 and 0.031."""
    for gained, told in ((6, "these questions show no difference between single"), (7, "rank did better than single")):
        found = sheet(*[said("wrong", None, "right", "wrong")] * gained).evaluation(agenda(gained))
        assert any(note.startswith(told) for note in notes(found)), notes(found)


def test_what_could_be_read_is_told_where_there_was_something() -> None:
    """Without an answer nothing is."""
    found = sheet(said("right", None, "right")).evaluation(agenda(1))
    nothing = found.model_copy(update={"readings": Readings(proposals=None, bare=None, ballots=None)})
    assert not [note for note in notes(nothing) if note.startswith("could be read")]


def test_what_was_not_decided_is_told() -> None:
    """In words under the table."""
    found = sheet(said("right", None, None, None), status=Status.TIMEOUT).evaluation(agenda(1))
    assert (found.undecided, found.degraded) == (1, 0)
    assert notes(found)[0].startswith("0 of 1 questions decided; the others count as wrong")


def test_the_report_says_that_it_was_the_simulator_and_renders_nothing_of_others() -> None:
    """A problem may carry any text."""
    scored = sheet(said("right", "right", "?"))
    scored.engines = {"vllm", "simulator"}
    scored.scores = [one._replace(problem=one.problem and "<b>[x](y)|") for one in scored.scores]
    text = report(scored.evaluation(agenda(1)))
    assert "**SIMULATED: " in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text and "[x](y)" not in text
    assert "| right | 1 of 1 | - | 1 of 1 | 0 of 1 |" in text
