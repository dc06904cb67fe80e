"""The majority of closed answers: which answer most proposals give.

Proposals that give the same answer need no review: voting explains most of what debate gains on such tasks
(Wang et al., arXiv 2203.11171; Choi et al., arXiv 2508.17536).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from tasks.council.base import Frozen, Name
from tasks.council.closed_answers import AnswerFormat, answer_of


class Majority(Frozen):
    """The vote: `votes` are authors by answer, most first; `winner_id` wrote the best proposal with that answer.

    `unanimous`: every proposal gives this answer. `tied`: another answer has as many votes, and the order of
    the checks decided, or that of ballots (`by`). `silent` are the authors without a readable answer.
    """

    answer: str
    winner_id: Name
    votes: dict[str, tuple[Name, ...]]
    silent: tuple[Name, ...]
    unanimous: bool
    tied: bool
    by: Literal["checks", "ballots"] = Field(
        "checks", description="By whose order equal votes were told apart, and the best proposal of an answer found."
    )

    @property
    def read(self) -> int:
        """Answers that could be read."""
        return sum(map(len, self.votes.values()))


def majority(standing: Sequence[str], proposals: Mapping[str, str], form: AnswerFormat) -> Majority | None:
    """The answer that most proposals give, None where none gives a readable one.

    `standing` are the authors in the order of the checks, best first; it breaks ties: of the answers with the
    most votes the one with the first author wins. `proposals` are the texts by author.
    """
    return majority_of(standing, {author: answer_of(proposals[author], form) for author in standing})


def majority_of(standing: Sequence[str], answers: Mapping[str, str | None]) -> Majority | None:
    """The same of answers that were read already, by author; None for one that cannot be read."""
    votes: dict[str, list[str]] = {}
    silent = []
    for author in standing:
        answer = answers[author]
        if answer is None:
            silent.append(author)
        else:
            votes.setdefault(answer, []).append(author)
    if not votes:
        return None
    ordered = sorted(votes, key=lambda answer: -len(votes[answer]))
    best = ordered[0]
    return Majority(
        answer=best,
        winner_id=votes[best][0],
        votes={answer: tuple(votes[answer]) for answer in ordered},
        silent=tuple(silent),
        unanimous=len(votes[best]) == len(standing),
        tied=len(ordered) > 1 and len(votes[ordered[1]]) == len(votes[best]),
    )
