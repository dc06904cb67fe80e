"""A council as a Prefect block, editable in the UI, and the file that councils are applied from."""

from __future__ import annotations

from typing import Any, Self

from prefect.blocks.core import Block
from pydantic import Field, model_validator

from tasks.council.models import MAX_MEMBERS, CouncilSpec, Member
from tasks.council.stages import MAX_ROUNDS, Strategy


class Council(Block):
    """A named set of members that decide together. Members name their model server; no secret is stored here.

    Example:
        ```python
        from blocks.council import Council

        council = Council.load("BLOCK_NAME")
        print(council.spec("BLOCK_NAME"))
        ```
    """

    _block_type_name = "Council"
    _block_type_slug = "council"
    _description = "A set of LLM agents, each with a role and a model server, and the rules they decide by."
    _documentation_url = "https://github.com/karpathy/llm-council"  # type: ignore[assignment]  # Prefect declares HttpUrl and validates a str

    members: list[Member] = Field(
        min_length=1, max_length=MAX_MEMBERS, description="Who sits in the council, with a role and a server each."
    )
    strategy: Strategy = Field(
        "rank",
        description="How it decides; propose: deterministic checks; rank: blind ballots; synthesize: a chairman.",
    )
    rounds: int = Field(
        0, ge=0, le=MAX_ROUNDS, description="How often each author revises its proposal from the others' critiques."
    )
    chairman: Member | None = Field(
        None,
        title="Chairman",
        description="Who writes a synthesis, with a role and a server; the first member where left out.",
    )
    quorum: int | None = Field(None, ge=1, description="Answers that decide; floor(n/2) + 1 where left out.")
    grace_s: float | None = Field(
        None, ge=0, le=86_400, description="Seconds to wait after the quorum; until the deadline where left out."
    )
    deadline_s: float = Field(300.0, gt=0, le=86_400, description="Seconds for one item from its start.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.spec("council")
        return self

    def spec(self, name: str) -> CouncilSpec:
        """The council as plain frozen data, under its name."""
        fields: dict[str, Any] = {
            "name": name,
            "members": [member.model_dump() for member in self.members],
            "quorum": self.quorum,
            "grace_s": self.grace_s,
            "deadline_s": self.deadline_s,
            "strategy": self.strategy,
            "rounds": self.rounds,
            "chairman": self.chairman.model_dump() if self.chairman else None,
        }
        return CouncilSpec.model_validate(fields)
