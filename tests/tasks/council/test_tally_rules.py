"""What every tally rule obeys, a new one too: these tests take the rules from the registry."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.exceptions import WrongUse
from tasks.council.voting.ballots import Review
from tasks.council.voting.early_end import decided_early
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.profile import profile_of
from tasks.council.voting.rules.registry import BROKEN_BY, CHECKS, HASH, RULES, rule_named
from tasks.council.voting.rules.rule import TallyRule
from tasks.council.voting.tally import Tally, tally
from tasks.council.voting.ties import Tie, best_first, parted_by
from tests.conftest import cases
from tests.tasks.council.elections import completions, councils, outcome, standing, unfinished, vote

Council = tuple[list[Candidate], list[Ballot]]

each_rule = pytest.mark.parametrize("rule", RULES)


# --- the registry ---------------------------------------------------------------------------------


def test_the_schema_names_the_rules_and_what_breaks_ties() -> None:
    """As the registry has them."""
    schema = Tally.model_json_schema()
    assert schema["properties"]["rule"] == {"enum": list(RULES), "title": "Rule", "type": "string"}
    broken_by = schema["$defs"]["Tie"]["properties"]["broken_by"]
    assert broken_by == {"enum": list(BROKEN_BY), "title": "Broken By", "type": "string"}


@each_rule
def test_a_rule_has_words(rule: str) -> None:
    """They stand inside a sentence; what breaks its ties is its own or has a name of its own."""
    known = RULES[rule]
    for words in (known.words, *(way.words for way in known.tie_breaks)):
        assert words == words.strip().rstrip(".")
        assert words
    for way in known.tie_breaks:
        assert way.name not in (CHECKS, HASH)
        assert BROKEN_BY[way.name] == way.words


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    """And not taken for another."""
    refusal = f"rule: 'guess' is unknown; the rules are {', '.join(RULES)}"
    with pytest.raises(WrongUse, match=refusal):
        rule_named("guess")
    with pytest.raises(WrongUse, match=refusal):
        outcome("ab", [], "guess")
    with pytest.raises(WrongUse, match=refusal):
        decided_early(standing("ab"), [], [], "guess")


def test_a_rule_cannot_leave_out_when_it_is_decided() -> None:
    """There is nothing that it would fall back to."""
    named: dict[str, Any] = {"name": "lots", "words": "drawn", "scores": dict}
    with pytest.raises(TypeError, match="necessary_winner"):
        TallyRule(**named)


# --- tallies --------------------------------------------------------------------------------------


@each_rule
@settings(deadline=None, max_examples=cases(50))
@given(council=councils(grades=True), shuffler=st.randoms())
def test_a_tally_is_sound_whatever_the_ballots(council: Council, rule: str, shuffler: random.Random) -> None:
    """Everybody is in the order once, best score first, and the order of the ballots changes nothing."""
    candidates, ballots = council
    result = tally(candidates, ballots, rule)
    assert sorted(result.order) == sorted(one.id for one in candidates)
    assert list(result.scores) == list(result.order)
    scores = list(result.scores.values())
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert result.winner == result.order[0]
    assert result.ballots + result.abstained == len(ballots)
    position = result.position
    shares = (result.agreement, result.agreement_by_chance, position.flip_rate, position.baseline, position.first_share)
    assert all(share is None or 0 <= share <= 1 for share in shares)
    assert Tally.model_validate_json(result.model_dump_json()) == result
    shuffler.shuffle(ballots)
    again = tally(candidates, ballots, rule)
    assert again == result


@each_rule
@settings(deadline=None, max_examples=cases(50))
@given(council=councils(grades=True), data=st.data())
def test_a_name_is_worth_nothing(council: Council, rule: str, data: st.DataObject) -> None:
    """With the names exchanged the outcome is the same, in the other names."""
    candidates, ballots = council
    ids = [candidate.id for candidate in candidates]
    other = dict(zip(ids, data.draw(st.permutations(ids)), strict=True))
    renamed = [Candidate(other[one.id], one.score) for one in candidates]
    before, after = tally(candidates, ballots, rule), tally(renamed, [_renamed(one, other) for one in ballots], rule)
    assert after.order == tuple(other[one] for one in before.order)
    assert after.scores == {other[one]: score for one, score in before.scores.items()}
    assert [tie.broken_by for tie in after.ties] == [tie.broken_by for tie in before.ties]


def _renamed(ballot: Ballot, names: dict[str, str]) -> Ballot:
    """The same ballot on candidates of other names."""
    assert isinstance(ballot, Review)
    changed = {
        "voter": names.get(ballot.voter, ballot.voter),
        "shown": tuple(names[one] for one in ballot.shown),
        "ranking": tuple(names[one] for one in ballot.ranking),
        "opinions": {names[one]: opinion for one, opinion in ballot.opinions.items()},
    }
    return ballot.model_copy(update=changed)


@each_rule
@settings(deadline=None, max_examples=cases(50))
@given(council=councils(least=2, grades=True))
def test_equal_scores_are_put_in_an_order_and_told(council: Council, rule: str) -> None:
    """By the rule's own ways, then the checks; only the hash can part what these do not."""
    candidates, ballots = council
    result = tally(candidates, ballots, rule)
    profile = profile_of(candidates, ballots)
    ways = {way.name: way.values(profile) for way in RULES[rule].tie_breaks}
    own = {one: [values[one] for values in ways.values()] for one in profile.ids}
    for first, second in pairwise(result.order):
        equal = any(first in tie.candidates and second in tie.candidates for tie in result.ties)
        assert equal is (result.scores[first] == result.scores[second])
        assert not equal or own[first] >= own[second]
        assert not equal or own[first] > own[second] or profile.ids.index(first) < profile.ids.index(second)
    tied = [one for tie in result.ties for one in tie.candidates]
    assert len(tied) == len(set(tied))
    checks = dict(candidates)
    for tie in result.ties:
        by_own = {tuple(own[one]) for one in tie.candidates}
        by_both = {(*own[one], checks[one]) for one in tie.candidates}
        assert (tie.broken_by in ways) is (len(by_own) == len(tie.candidates))
        assert (tie.broken_by == HASH) is (len(by_both) < len(tie.candidates))


@each_rule
def test_without_a_ballot_the_order_of_the_checks_stands(rule: str) -> None:
    """And the result says how many were discarded."""
    result = tally([Candidate("b", 0.9), Candidate("a", 0.7), Candidate("c", 0.7)], [], rule, discarded=3)
    assert (result.order, result.ballots, result.discarded) == (("b", "a", "c"), 0, 3)
    assert result.ties == (Tie(candidates=("b", "a", "c"), broken_by="hash"),)
    assert result.position.first_share is None


@each_rule
def test_a_council_of_one_has_its_proposal(rule: str) -> None:
    """There is nothing to compare and nothing to measure."""
    result = outcome("a", [], rule)
    assert (result.winner, result.margin, result.agreement, result.condorcet) == ("a", None, None, None)
    assert decided_early(standing("a"), [], ["a"], rule) == "there is only one proposal"


@each_rule
def test_a_council_of_two_cannot_compare(rule: str) -> None:
    """Each is shown one proposal, so the order of the checks stands and no ballot is counted."""
    result = outcome("ba", [vote("a", "b"), vote("b", "a")], rule)
    assert (result.order, result.ballots, result.abstained, result.margin) == (("b", "a"), 0, 2, 0)
    assert result.agreement is None
    assert decided_early(standing("ba"), [], ["a", "b"], rule) == "the outstanding ballots compare nothing"


# --- ties -----------------------------------------------------------------------------------------


def test_a_rules_own_ways_come_before_the_checks_and_are_told() -> None:
    """The last one that was needed; the hash, where the checks have equal scores too."""
    scores = dict.fromkeys("abcd", Fraction(1, 2)) | {"e": Fraction(1)}
    first = {"a": Fraction(0), "b": Fraction(1), "c": Fraction(1), "d": Fraction(0), "e": Fraction(0)}
    second = {"a": Fraction(2), "b": Fraction(0), "c": Fraction(3), "d": Fraction(2), "e": Fraction(0)}
    assert best_first("abcde", scores, []) == list("eabcd")
    assert best_first("abcde", scores, [first]) == list("ebcad")
    assert best_first("abcde", scores, [first, second]) == list("ecbad")
    ways = {"first": first, "second": second, CHECKS: {"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.4}}
    assert [parted_by(group, ways) for group in ("ab", "bc", "cab", "ad", "abcd")] == [
        *("first", "second", "second", CHECKS, CHECKS)
    ]
    assert parted_by("ad", {**ways, CHECKS: dict.fromkeys("ad", 0.5)}) == HASH


# --- the end before the last ballot ---------------------------------------------------------------


@each_rule
@settings(deadline=None, max_examples=cases(250, each=10))
@given(situation=unfinished(grades=True))
def test_an_early_end_never_changes_the_winner(
    situation: tuple[list[Candidate], list[Ballot], list[str]], rule: str
) -> None:
    """Against every way in which the outstanding ballots could come."""
    candidates, ballots, outstanding = situation
    if decided_early(candidates, ballots, outstanding, rule) is None:
        return
    ids = [candidate.id for candidate in candidates]
    winners = {tally(candidates, [*ballots, *more], rule).winner for more in completions(ids, outstanding)}
    assert winners == {tally(candidates, ballots, rule).winner}


@each_rule
def test_where_nobody_is_outstanding_nothing_ends_early(rule: str) -> None:
    """The tally says the rest."""
    assert decided_early(standing("abc"), [vote("x", "abc")], [], rule) is None
