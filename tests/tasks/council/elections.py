"""Elections for the tests of tallies: by hand, drawn, and in all the ways in which they may end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations, product

from hypothesis import strategies as st

from tasks.council.voting.ballots import MAX_SCORE, MIN_SCORE, Opinion, Review, Score
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.rules.registry import DEFAULT
from tasks.council.voting.tally import Tally, tally

RANKING = ("borda", "copeland", "schulze")
"""Rules that go by the rankings alone and put what all prefer first."""
GRADE = st.integers(MIN_SCORE, MAX_SCORE)
CHECKED = st.sampled_from([0.2, 0.5, 0.8])
COUNTS = [st.integers(0, most) for most in range(8)]
"""By the most; a strategy that is made anew in every case is also checked anew."""
ORDERS = [st.permutations(range(count)) for count in range(8)]
"""By how many are put in an order."""


def standing(ids: Iterable[str]) -> list[Candidate]:
    """Candidates in the order of the checks, with scores that differ."""
    listed = list(ids)
    return [Candidate(one, 1 - number / 200) for number, one in enumerate(listed)]


def vote(voter: str, ranking: Iterable[str], shown: Iterable[str] | None = None) -> Ballot:
    """A ballot; without `shown` it ranks all that it was shown, in alphabetical order."""
    ranked = tuple(ranking)
    return Ballot(voter=voter, shown=tuple(sorted(ranked) if shown is None else shown), ranking=ranked)


def election(*blocs: tuple[int, str]) -> list[Ballot]:
    """Blocs of voters, who are no candidates, with their ranking."""
    rankings = [ranking for count, ranking in blocs for _ in range(count)]
    return [vote(f"voter-{number}", ranking) for number, ranking in enumerate(rankings)]


def outcome(ids: str, ballots: Iterable[Ballot], rule: str = DEFAULT) -> Tally:
    """The tally of candidates that the checks put in the order given."""
    return tally(standing(ids), ballots, rule)


def graded(ballot: Ballot, scores: Iterable[int]) -> Review:
    """The ballot with opinions: one score for each that it was shown."""
    opinions = {
        one: Opinion(scores={"quality": Score(score=score, reason="It is.")}, critique="More.")
        for one, score in zip(ballot.shown, scores, strict=True)
    }
    return Review(**ballot.model_dump(), order="forward", opinions=opinions)


def graded_by_rank(ballot: Ballot) -> Review:
    """Scores that say the ranking again: the best for the first, the worst for what it leaves out."""
    places = {one: place for place, one in enumerate(ballot.ranking)}
    return graded(ballot, [max(MIN_SCORE, MAX_SCORE - places.get(one, MAX_SCORE)) for one in ballot.shown])


def ordered(draw: st.DrawFn, ids: Sequence[str]) -> list[str]:
    """These ids in some order."""
    return [ids[place] for place in draw(ORDERS[len(ids)])]


@st.composite
def councils(
    draw: st.DrawFn, least: int = 1, most: int = 6, full: bool = False, grades: bool = False
) -> tuple[list[Candidate], list[Ballot]]:
    """Members who judge one another, and sometimes one who judges all; some vote in part, some not at all.

    With `grades` they give scores, too, which need not follow their ranking.
    """
    ids = [f"m{number}" for number in range(draw(st.integers(least, most)))]
    voters = [*ids, *(["guest"] if draw(st.booleans()) and not full else [])]
    ballots: list[Ballot] = []
    for voter in voters:
        shown = ordered(draw, [one for one in ids if one != voter])
        ranking = ordered(draw, shown)
        kept = len(ranking) if full else draw(COUNTS[len(ranking)])
        if full or draw(COUNTS[4]):
            ballots.append(vote(voter, ranking[:kept], shown))
    if grades:
        ballots = [graded(one, [draw(GRADE) for _ in one.shown]) for one in ballots]
    ties = [Candidate(one, draw(CHECKED)) for one in ordered(draw, ids)]
    return sorted(ties, key=lambda candidate: -candidate.score), ballots


@st.composite
def unfinished(draw: st.DrawFn, grades: bool = False) -> tuple[list[Candidate], list[Ballot], list[str]]:
    """A small council with some ballots there and one or two outstanding."""
    candidates, ballots = draw(councils(least=1, most=4, grades=grades))
    ids = [candidate.id for candidate in candidates]
    guests = draw(COUNTS[3])
    for number in range(guests):
        ranking = ordered(draw, ids)
        ballot = vote(f"guest-{number}", ranking[: draw(COUNTS[len(ids)])], ranking)
        ballots.append(graded_by_rank(ballot) if grades else ballot)
    open_voters = [one for one in [*ids, "late"] if one not in {ballot.voter for ballot in ballots}]
    outstanding = draw(st.lists(st.sampled_from(open_voters), min_size=1, max_size=2, unique=True))
    return candidates, ballots, outstanding


def completions(ids: Sequence[str], outstanding: Sequence[str]) -> Iterator[list[Ballot]]:
    """All that the outstanding voters may do: rank any number of the others in any order, or not vote.

    Their grades follow their ranking, so that each candidate is graded up alone, and each down, in one of them.
    """
    choices = []
    for voter in outstanding:
        shown = [one for one in ids if one != voter]
        ranked = [ranking for count in range(1, len(shown) + 1) for ranking in permutations(shown, count)]
        choices.append([None, *(graded_by_rank(vote(voter, ranking, shown)) for ranking in ranked)])
    for combination in product(*choices):
        yield [ballot for ballot in combination if ballot is not None]
