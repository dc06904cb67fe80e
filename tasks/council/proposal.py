"""A proposal, what it cost, and how the checks ranked it."""

from __future__ import annotations

from pydantic import Field

from tasks.council.base import Frozen, Name


class Usage(Frozen):
    """Tokens of one or more model calls; `cached_tokens` are prompt tokens served from the prefix cache."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )


class Proposal(Frozen):
    """One member's text, with the thinking that its model showed kept apart."""

    author_id: Name
    author_role: str
    content: str
    model: str
    tokens: int
    finish_reason: str
    reasoning: str | None = None
    revisions: tuple[str, ...] = ()


class Check(Frozen):
    """One deterministic check of a proposal: `score` is 0 to 1, `evidence` says what was seen."""

    name: str
    passed: bool
    score: float = Field(ge=0, le=1)
    weight: float = Field(gt=0)
    evidence: str


class RankedProposal(Frozen):
    """A proposal with its rank (1 is best): `score` is the checks' weighted mean, `votes` the tally's, both 0 to 1."""

    proposal: Proposal
    score: float
    votes: float | None = None
    rank: int
    checks: tuple[Check, ...]
