"""What a reviewer is shown, and how its ballot is read; what it is asked is in `tasks/council/prompts/review.py`.

A reviewer sees the others' proposals under labels, its own left out, and never a name. Labels are drawn from a
digest, one draw for all reviewers of an item, so that two orders, forward and reverse, serve a whole council:
those who see the same order share the start of their prompt, and the model server computes it once. Whoever
wrote a proposal in the second half is shown the forward order, the others the reverse one: what is left out is
then always in the half that comes last, and each half of the reviewers shares at least half of the proposals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from string import ascii_uppercase
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, TypeVar

from pydantic import Field, StrictInt, StringConstraints, ValidationError

from tasks.council.base import Frozen, Name, digest
from tasks.council.exceptions import WrongUse
from tasks.council.plain import SHOWN_INPUT, plain, shortened
from tasks.council.problems import first_problem
from tasks.council.voting.election import Ballot
from tasks.council.voting.repairs import Bounds, mended, mended_short, only_object

Order = Literal["forward", "reverse"]
Form = TypeVar("Form", bound=Frozen)

MIN_SCORE, MAX_SCORE = 1, 10
MAX_REASON = 240
"""Characters of the reason for one score."""
MAX_CRITIQUE = 800
"""Characters of the critique of one proposal."""
MIN_ROOM_REASON, MIN_ROOM_CRITIQUE = 40, 80
"""Characters below which a reason or a critique says nothing, so that a ballot is asked for without them."""
CHARACTERS = (2, 4)
"""Of a ballot that are reckoned with for a token: two, which most scripts have; English has four, so where two leave
texts that say nothing it is tried with these."""
FRAME = 50
"""Characters of a full ballot for each proposal beside its texts and scores: label, keys, its place in the ranking."""
SCORE_FRAME = 32
"""Characters of a score beside its criterion's key and its reason."""
MAX_SHORT_REASON = 120
"""Characters of the reason of a short ballot."""
MAX_BALLOT = 400_000
"""Characters of an answer that is read as a ballot; more is refused unread."""
MAX_CRITERIA = 8
BOUNDS = Bounds(MIN_SCORE, MAX_SCORE, MAX_REASON, MAX_CRITIQUE)


class Criterion(Frozen):
    """One thing that proposals are scored by: the key in the ballot, and what it means."""

    key: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,48}$")]
    text: str


DEFAULT_CRITERIA = (
    Criterion(key="correctness", text="What it says and does is right, and would work as it stands."),
    Criterion(key="completeness", text="It answers the whole task and every requirement."),
    Criterion(key="clarity", text="It can be put to work without asking back."),
)


class Room(NamedTuple):
    """Characters that the texts of a full ballot may have each."""

    reason: int
    critique: int


ALL_ROOM = Room(MAX_REASON, MAX_CRITIQUE)


def room_for(max_tokens: int, shown: int, criteria: Sequence[Criterion]) -> Room | None:
    """What fits into an answer of so many tokens on so many proposals; None where reasons would say nothing.

    A reason for each score and the critique share what is left of a proposal's part, in the relation of their bounds.
    """
    frame = FRAME + sum(SCORE_FRAME + len(one.key) for one in criteria)
    for characters in CHARACTERS:
        left = (max_tokens * characters - FRAME) // max(shown, 1) - frame
        share = left / (len(criteria) * MAX_REASON + MAX_CRITIQUE)
        room = Room(*(int(bound * min(share, 1)) for bound in ALL_ROOM))
        if room.reason >= MIN_ROOM_REASON and room.critique >= MIN_ROOM_CRITIQUE:
            return room
    return None


_LIST_ITEM = re.compile(r"^\s*(?:[-*+\u2022]|\d{1,3}[.)])\s+(.+)$")


def criteria_of(rubric: str | None) -> tuple[Criterion, ...]:
    """The criteria of a rubric: each entry of a list in it, up to 8; a rubric without a list is one criterion."""
    if rubric is None:
        return DEFAULT_CRITERIA
    entries = [found[1].strip() for line in rubric.splitlines() if (found := _LIST_ITEM.match(line))]
    texts = entries[:MAX_CRITERIA] or [rubric.strip()]
    criteria: dict[str, Criterion] = {}
    for number, text in enumerate(texts, start=1):
        words = re.findall(r"[a-z0-9]+", text.lower())[:4]
        key = "_".join(words)[:40].strip("_") or f"criterion_{number}"
        key = f"{key}_{number}" if key in criteria else key
        criteria[key] = Criterion(key=key, text=text)
    return tuple(criteria.values())


# --- who is shown what ----------------------------------------------------------------------------


class Sheet(Frozen):
    """What one reviewer is shown: the labels in their order, each with the author that only we know."""

    voter: Name
    order: Order
    shown: tuple[tuple[str, Name], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order shown."""
        return tuple(label for label, _ in self.shown)

    @property
    def authors(self) -> tuple[str, ...]:
        """The authors, in the order shown."""
        return tuple(author for _, author in self.shown)


def labels(count: int) -> tuple[str, ...]:
    """The first labels: A to Z, then AA, AB and so on."""
    named = []
    for number in range(count):
        label, rest = "", number + 1
        while rest:
            rest, letter = divmod(rest - 1, len(ascii_uppercase))
            label = ascii_uppercase[letter] + label
        named.append(label)
    return tuple(named)


def label_authors(authors: Iterable[str], salt: str) -> dict[str, str]:
    """Author by label, in the forward order; `salt` names the deliberation, item and stage.

    Drawn by a digest that is not the one which breaks ties, so that no label stands for a better chance.
    """
    drawn = sorted(authors, key=lambda author: digest(["label", salt, author]))
    return dict(zip(labels(len(drawn)), drawn, strict=True))


def sheets(authors: Iterable[str], voters: Iterable[str], salt: str) -> dict[str, Sheet]:
    """The sheet of each voter; those without a proposal of their own fill the smaller half."""
    labelled = label_authors(authors, salt)
    forward = tuple(labelled.items())
    late = set(tuple(labelled.values())[len(forward) // 2 :])
    early = set(labelled.values()) - late
    listed = sorted(voters, key=lambda voter: digest(["order", salt, voter]))
    ahead = sum(voter in late for voter in listed)
    behind = sum(voter in early for voter in listed)
    drawn: dict[str, Sheet] = {}
    for voter in listed:
        order: Order = "forward" if voter in late else "reverse"
        if voter not in late and voter not in early:
            order = "forward" if ahead <= behind else "reverse"
            ahead, behind = ahead + (order == "forward"), behind + (order == "reverse")
        drawn[voter] = _sheet(voter, order, forward)
    return drawn


def _sheet(voter: str, order: Order, forward: Sequence[tuple[str, str]]) -> Sheet:
    """What a voter is shown in this order: all proposals but its own."""
    shown = forward if order == "forward" else forward[::-1]
    return Sheet(voter=voter, order=order, shown=tuple(pair for pair in shown if pair[1] != voter))


# --- the answer -----------------------------------------------------------------------------------


class InvalidBallot(WrongUse):
    """An answer that is no ballot; `field` names what is wrong, `problem` says what would be right."""

    def __init__(self, field: str, problem: str) -> None:
        self.field, self.problem = shortened(field, SHOWN_INPUT), shortened(problem)
        super().__init__(self.field, self.problem)

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class Score(Frozen):
    """A score for one criterion, with its reason."""

    score: Annotated[StrictInt, Field(ge=MIN_SCORE, le=MAX_SCORE)]
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REASON)]


class Opinion(Frozen):
    """What a reviewer thinks of one proposal: scores by criterion, and what would improve it."""

    scores: dict[str, Score]
    critique: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_CRITIQUE)]

    @property
    def grade(self) -> Fraction:
        """The mean of its scores, 0 to 1."""
        above = sum(one.score - MIN_SCORE for one in self.scores.values())
        return Fraction(above, (MAX_SCORE - MIN_SCORE) * len(self.scores))


class Review(Ballot):
    """A ballot as it goes on the record: by authors and no longer by labels, with its opinions.

    A short ballot has a `reason` in their place.
    """

    order: Order
    opinions: dict[Name, Opinion] = Field(default_factory=dict)
    reason: str | None = None

    @property
    def grades(self) -> Mapping[str, Fraction]:
        """By author what its opinion comes to; none of an opinion without a score."""
        return {author: opinion.grade for author, opinion in self.opinions.items() if opinion.scores}


class _Answer(Frozen):
    """The form of an answer; which labels and criteria it has is checked against the sheet."""

    opinions: dict[str, Opinion]
    ranking: tuple[str, ...]


def read_ballot(text: str, sheet: Sheet, criteria: Sequence[Criterion]) -> Review:
    """The review in a model's answer, without its thinking; its form is mended where it can mean one thing only.

    A ranking may leave labels out, but not all. Raises InvalidBallot.
    """
    asked = [one.key for one in criteria]
    answer = _parsed(_Answer, mended(_json_of(text), sheet.labels, asked, BOUNDS))
    known = dict(sheet.shown)
    _same_keys("opinions", answer.opinions, sheet.labels)
    for label, opinion in answer.opinions.items():
        _same_keys(f"opinions.{label}.scores", opinion.scores, asked)
    _check_ranking(answer.ranking, sheet.labels)
    return Review(
        voter=sheet.voter,
        order=sheet.order,
        shown=sheet.authors,
        ranking=tuple(known[label] for label in answer.ranking),
        opinions={author: answer.opinions[label] for label, author in sheet.shown},
    )


class _ShortAnswer(Frozen):
    """The form of a short answer."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_SHORT_REASON)] = ""
    ranking: tuple[str, ...]


def read_short_ballot(text: str, sheet: Sheet) -> Review:
    """The review in an answer of the short form, mended and held against the sheet as in `read_ballot`.

    The reason may be missing: it is there for the model to think, and only the ranking counts. Raises InvalidBallot.
    """
    answer = _parsed(_ShortAnswer, mended_short(_json_of(text), sheet.labels, MAX_SHORT_REASON))
    _check_ranking(answer.ranking, sheet.labels)
    known = dict(sheet.shown)
    return Review(
        voter=sheet.voter,
        order=sheet.order,
        shown=sheet.authors,
        ranking=tuple(known[label] for label in answer.ranking),
        reason=answer.reason or None,
    )


def _parsed(form: type[Form], answer: Any) -> Form:
    try:
        return form.model_validate(answer)
    except ValidationError as error:
        problem = first_problem(error)
        field = ".".join(str(part)[:48] for part in problem.path) or "ballot"
        raise InvalidBallot(field, problem.text[:200]) from error


def _check_ranking(ranking: Sequence[str], shown: Sequence[str]) -> None:
    """Hold a ranking against the labels that were shown; it may leave some out."""
    for number, label in enumerate(ranking):
        if label not in shown:
            raise InvalidBallot(f"ranking.{number}", _unknown(label, shown))
        if label in ranking[:number]:
            raise InvalidBallot(f"ranking.{number}", f"{label!r} is ranked twice")
    if not ranking:
        raise InvalidBallot("ranking", "it is empty")


def _same_keys(field: str, found: Mapping[str, Any], wanted: Sequence[str]) -> None:
    for key in found:
        if key not in wanted:
            raise InvalidBallot(field, _unknown(key, wanted))
    if missing := [key for key in wanted if key not in found]:
        raise InvalidBallot(f"{field}.{missing[0]}", "it is missing")


def _unknown(key: str, wanted: Sequence[str]) -> str:
    return f"{key[:48]!r} is none of {', '.join(wanted)}"


def _json_of(text: str) -> Any:
    """The JSON value of an answer, its strings without control characters."""
    if len(text) > MAX_BALLOT:
        raise InvalidBallot("ballot", f"it has {len(text)} characters, more than {MAX_BALLOT}")
    try:
        return only_object(text, _DECODER)
    except InvalidBallot:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidBallot("ballot", f"it is not one JSON object: {str(error)[:120]}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidBallot(key[:48], "it is given twice")
        found[key] = plain(value) if isinstance(value, str) else value  # xgrammar lets controls into strings
    return found


def _no_number(constant: str) -> NoReturn:
    raise InvalidBallot("ballot", f"{constant} is no number of JSON")


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_unique, parse_constant=_no_number)
