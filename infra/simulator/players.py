"""Players: members that are right, judge and are biased with given probabilities, where the right answer is known.

A player is put to `/sim/players` or given in `--players`, with a key of right answers. It shows in calls whose
X-Request-Id is `...:stage:member`, with `:again` behind it or not, and whose task is in the key; every other call is
answered as if there were none. What a player draws is decided by that id (without `:again`) and by nothing else: the
same call draws the same whatever came before it, and two calls draw independently of each other.

| stage | what a player does |
|---|---|
| propose-n, bare-n | the right answer with probability `accuracy`, else one of the other options, each as likely |
| review-n | sees whether a proposal's answer is right, and of each mistakes it with probability 1 - `judgement` |
| | ranks what it takes for right before the rest; equals in the order shown with probability `position_bias` |
| | (one draw for a ballot), else in an order that is drawn; gives scores of 8 to 10 and of 1 to 4 |
| revise-n | keeps a right answer; makes a wrong one right with probability `revision_gain`, or else keeps it |
| synthesize | the answer of the first proposal with probability `judgement`, else one of its own as in propose-n |
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo, field_validator

from infra.simulator.chat import Prompt
from infra.simulator.rules import json_object, refusal
from infra.simulator.text import task_of

Probability = Annotated[float, Field(ge=0, le=1)]
AnswerText = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\r\n]+$", max_length=1_000)]

RIGHT_SCORES, WRONG_SCORES = (8, 9, 10), (1, 2, 3, 4)
EXAMPLE = (
    '{"players": [{"match": ":m1$", "accuracy": 0.7, "judgement": 0.8}], '
    '"key": [{"match": "Question 17:", "answer": "B", "options": ["A", "B"]}]}'
)

_CALL = re.compile(r"(.*:(propose|bare|review|revise|synthesize)(?:-\d+)?:[^:]+)")
_ANSWER = re.compile(r"^[ \t>#*_`-]*answer[*_`]*[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)
_SHOWN = re.compile(r'<proposal-([0-9a-f]{16}) label="([A-Z]+)">\n(.*?)\n</proposal-\1>', re.DOTALL)


class Player(BaseModel):
    """How the members of some calls play."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: re.Pattern[str] = Field(description="Regular expression searched in X-Request-Id, without its `:again`.")
    accuracy: Probability = Field(description="Chance that its own answer is right.")
    judgement: Probability = Field(description="Chance that it sees rightly whether a proposal is right.")
    position_bias: Probability = Field(0.0, description="Chance that a ballot has equals in the order shown.")
    revision_gain: Probability = Field(0.0, description="Chance that a revision makes a wrong answer right.")


class KeyEntry(BaseModel):
    """The right answer to the tasks that contain a text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str = Field(min_length=1, description="Text that the task contains.")
    answer: AnswerText = Field(description="The right one of the options.")
    options: tuple[AnswerText, ...] = Field(min_length=2, description="All answers that are given.")

    @field_validator("options")
    @classmethod
    def _distinct_with_the_answer(cls, options: tuple[str, ...], known: ValidationInfo) -> tuple[str, ...]:
        plain = [_plain(option) for option in options]
        if len(set(plain)) < len(plain):
            raise ValueError("must differ in more than case, quotes and a final full stop")
        if "answer" in known.data and _plain(known.data["answer"]) not in plain:
            raise ValueError(f"must contain the answer, {known.data['answer']!r}")
        return options

    def is_right(self, answer: str | None) -> bool:
        """Whether this is the right answer; no answer is a wrong one."""
        return answer is not None and _plain(answer) == _plain(self.answer)

    @property
    def wrong(self) -> tuple[str, ...]:
        """The other options."""
        return tuple(option for option in self.options if not self.is_right(option))


class Players(BaseModel):
    """All players and the key; of each the first that matches counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    players: tuple[Player, ...] = ()
    key: tuple[KeyEntry, ...] = ()

    def part(self, request_id: str, prompt: Prompt) -> Part | None:
        """What a call is to play; None where no player, no entry of the key or no stage is known."""
        call = _CALL.fullmatch(request_id) or _CALL.fullmatch(request_id.removesuffix(":again"))
        if call is None or not self.players:
            return None
        player, entry = self._player(call[1]), self._entry(task_of(prompt.system, prompt.user))
        return Part(player, entry, call[1], call[2], prompt) if player and entry else None

    def _player(self, call: str) -> Player | None:
        return next((player for player in self.players if player.match.search(call)), None)

    def _entry(self, task: str) -> KeyEntry | None:
        return next((entry for entry in self.key if entry.match in task), None)


@dataclass(frozen=True)
class Part:
    """What one player does in one call; the n choices of a call are drawn independently."""

    player: Player
    entry: KeyEntry
    call: str
    kind: str
    prompt: Prompt

    def closed(self, text: str, choice: int = 0) -> str:
        """The text with the player's answer in its last line; a review in plain text stays as it is."""
        return text if self.kind == "review" else f"{text}\n\nANSWER: {self.answer(choice)}"

    def answer(self, choice: int = 0) -> str:
        """What a proposal, a revision or a synthesis answers."""
        if self.kind == "revise":
            return self._revised(choice)
        if self.kind == "synthesize" and self._happens(self.player.judgement, choice, "takes over"):
            first = next(iter(self._shown().values()), None)
            return first or self._own(choice)
        return self._own(choice)

    def structured(self, text: str, choice: int = 0) -> str:
        """JSON with the player's answer or ballot in it; JSON of another form stays as it is."""
        return self._judged(text, choice) if self.kind == "review" else self._answered(text, choice)

    def _answered(self, text: str, choice: int) -> str:
        try:
            found = json.loads(text)
        except ValueError:
            return text
        if not isinstance(found, dict) or "answer" not in found:
            return text
        return json.dumps({**found, "answer": self.answer(choice)}, ensure_ascii=False)

    def _judged(self, text: str, choice: int) -> str:
        """The ballot with the player's scores and ranking."""
        try:
            ballot = _Ballot.model_validate_json(text)
        except ValidationError:
            return text
        shown = self._shown()
        if set(ballot.opinions or ballot.ranking) != set(shown):
            return text
        taken = {label: self._takes_for_right(label, answer, choice) for label, answer in shown.items()}
        for label, opinion in ballot.opinions.items():
            scores = RIGHT_SCORES if taken[label] else WRONG_SCORES
            for key, one in opinion.scores.items():
                one.score = scores[int(self._draw(choice, "score", label, key) * len(scores))]
        ballot.ranking = self._ranked(taken, choice)
        return json.dumps(ballot.model_dump(exclude_unset=True), ensure_ascii=False)

    def _own(self, choice: int) -> str:
        if self._happens(self.player.accuracy, choice, "right"):
            return self.entry.answer
        return self._wrong(choice)

    def _wrong(self, choice: int) -> str:
        wrong = self.entry.wrong
        return wrong[int(self._draw(choice, "wrong") * len(wrong))]

    def _revised(self, choice: int) -> str:
        said = _answer_in(self.prompt.assistant)
        if self.entry.is_right(said) or self._happens(self.player.revision_gain, choice, "gains"):
            return self.entry.answer
        return said or self._wrong(choice)

    def _shown(self) -> dict[str, str | None]:
        """The answers of the proposals in the prompt, by label, in the order shown."""
        return {label: _answer_in(text) for _, label, text in _SHOWN.findall(self.prompt.user)}

    def _takes_for_right(self, label: str, answer: str | None, choice: int) -> bool:
        return self.entry.is_right(answer) == self._happens(self.player.judgement, choice, "sees", label)

    def _ranked(self, taken: dict[str, bool], choice: int) -> list[str]:
        """The labels, those taken for right first; `taken` is in the order shown."""
        if self._happens(self.player.position_bias, choice, "as shown"):
            return sorted(taken, key=lambda label: not taken[label])
        return sorted(taken, key=lambda label: (not taken[label], self._draw(choice, "place", label)))

    def _happens(self, probability: float, *what: str | int) -> bool:
        return self._draw(*what) < probability

    def _draw(self, *what: str | int) -> float:
        return draw(self.call, *what)


def draw(*parts: str | int) -> float:
    """A number from 0 up to but not including 1: 53 bits of the SHA-256 of its parts, uniform over what they name."""
    named = hashlib.sha256(json.dumps(parts).encode()).digest()
    return (int.from_bytes(named[:8]) >> 11) / 2**53


def parse_players(text: str | bytes) -> Players:
    """Players and key from JSON; raises ApiError (400) that names the field and what would be right."""
    given = json_object(text, "the players", EXAMPLE)
    try:
        return Players.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        inside: dict[int | str, type[BaseModel]] = {"players": Player, "key": KeyEntry}
        beside = inside[first["loc"][0]] if len(first["loc"]) > 1 else Players
        raise refusal(first, beside.model_fields) from error


class _Kept(BaseModel):
    """Further fields are kept."""

    model_config = ConfigDict(extra="allow")


class _Score(_Kept):
    score: int


class _Opinion(_Kept):
    scores: dict[str, _Score]


class _Ballot(_Kept):
    opinions: dict[str, _Opinion] = {}
    ranking: list[str]


def _answer_in(text: str) -> str | None:
    """What stands on the last line `ANSWER: ...` of a text, None without one or with an empty one."""
    lines = _ANSWER.findall(text)
    return lines[-1].strip() or None if lines else None


def _plain(answer: str) -> str:
    """The answer in the form in which answers are compared."""
    return " ".join(answer.strip("\"'*_` \t").split()).removesuffix(".").casefold()
