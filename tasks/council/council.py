"""Who decides, and by which rules: a council and its members.

What a council is made of stands here once, in `CouncilRules`. The block in Prefect, a file of councils and the council
that a deliberation carries are made from it. Times are seconds.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from tasks.council.base import MAX_TEXT, CallbackUrl, Frozen, Name, digest
from tasks.council.exceptions import InvalidRequest
from tasks.council.prompt_texts import ROLES, Prompts
from tasks.council.stages import MAX_ROUNDS, Strategy
from tasks.council.tally_names import DEFAULT_TALLY, SCORES, TallyName

MAX_MEMBERS = 128

Rounds = Annotated[int, Field(ge=0, le=MAX_ROUNDS)]
Members = Annotated[int, Field(ge=1, le=MAX_MEMBERS)]
Grace = Annotated[float, Field(ge=0, le=86_400)]
Deadline = Annotated[float, Field(gt=0, le=86_400)]


class Member(Frozen):
    """One agent of a council. Its model server is named, never embedded, so no secret travels with it."""

    agent_id: Name = Field(description="Name of the member, unique in its council.")
    role: Name = Field(description="What it speaks as, such as DEV, QA, ARCHITECT, DEVOPS or DATA.")
    server: str = Field("default", min_length=1, description="Name of the VLLM block that it asks.")
    model: str | None = Field(None, description="Model on that server; the server's own where left out.")
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature before diversity.")
    max_tokens: int = Field(2048, ge=1, le=131_072, description="Longest answer, in tokens.")
    diversity: bool = Field(False, description="Ask for a different approach, at temperature x 1.3.")
    instructions: str | None = Field(None, max_length=MAX_TEXT, description="In place of the role's sentence.")


def check_quorum(quorum: int | None, members: int) -> None:
    """Raise InvalidRequest where so many answers cannot come."""
    if quorum is not None and quorum > members:
        raise InvalidRequest("quorum", f"{quorum} is above the number of members, {members}")


def check_prompts(prompts: Prompts | None, members: tuple[Member, ...]) -> None:
    """Raise ValueError where texts of a council's own have no name of theirs, or tell a role that nobody has."""
    if prompts is None:
        return
    if "version" not in prompts.model_fields_set:
        raise ValueError("prompts.version: it is missing; texts of one's own need a name, such as acme-1")
    if not prompts.own:
        raise ValueError(f"prompts.version: {prompts.version} is of Conclave's kind; give your texts a name")
    known = {*ROLES, *(member.role.upper() for member in members)}
    if unknown := sorted(set(prompts.roles) - known):
        raise ValueError(f"prompts.roles.{unknown[0]}: no member has this role")


class CouncilRules(BaseModel):
    """What a council is made of: who sits in it, and how it decides."""

    members: tuple[Member, ...] = Field(
        min_length=1, max_length=MAX_MEMBERS, description="Who sits in the council, with a role and a server each."
    )
    strategy: Strategy = Field(
        "rank",
        description="How it decides; propose: deterministic checks; rank: blind ballots; synthesize: a chairman; "
        "escalate: one member, and more of them only where the answers differ.",
    )
    rounds: Rounds = Field(0, description="How often each author revises its proposal from the others' critiques.")
    tally: TallyName = Field(
        DEFAULT_TALLY,
        description=f"How ballots are tallied; {'; '.join(f'{name}: {score}' for name, score in SCORES.items())}.",
    )
    chairman: Member | None = Field(
        None,
        title="Chairman",
        description="Who writes a synthesis, with a role and a server; the first member where left out.",
    )
    quorum: int | None = Field(None, ge=1, description="Answers that decide; floor(n/2) + 1 where left out.")
    grace_s: Grace | None = Field(
        None, description="Seconds to wait after the quorum; until the deadline where left out."
    )
    prompts: Prompts | None = Field(
        None, title="Prompts", description="Texts of its own, with a version; Conclave's where left out."
    )
    deadline_s: Deadline = Field(300.0, description="Seconds for one item from its start.")
    callback_url: CallbackUrl | None = Field(
        None, description="Where the end of each of its deliberations is told to; nobody where left out."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [member.agent_id for member in self.members]
        if repeated := sorted({agent_id for agent_id in ids if ids.count(agent_id) > 1}):
            raise ValueError(f"members: agent_id {', '.join(repeated)} appears more than once")
        if self.chairman and self.chairman.agent_id in ids:
            raise ValueError(f"chairman: {self.chairman.agent_id} is a member's agent_id; it needs one of its own")
        check_quorum(self.quorum, len(self.members))
        check_prompts(self.prompts, self.members)
        return self


class CouncilSpec(CouncilRules, Frozen):
    """A council under its name, as a deliberation carries it."""

    name: Name

    @property
    def everyone(self) -> tuple[Member, ...]:
        """The members, and the chairman where it is none of them."""
        return (*self.members, self.chairman) if self.chairman else self.members

    @property
    def chair(self) -> Member:
        """Who writes the synthesis: the chairman, or the first member, which then speaks without diversity."""
        return self.chairman or self.members[0].model_copy(update={"diversity": False})

    @property
    def decides_at(self) -> int:
        """How many answers decide: the quorum, more than half of the members where none is set."""
        return self.quorum or len(self.members) // 2 + 1

    @property
    def digest(self) -> str:
        """Identity of the content, for the record of a deliberation.

        What a council could not choose at first is left out where it is the default, so that its identity stays what it
        was: a new field belongs to these.
        """
        content = self.model_dump(mode="json", exclude={"callback_url"})  # it decides nothing
        for name in ("tally", "prompts"):
            if getattr(self, name) == type(self).model_fields[name].default:
                del content[name]
        return digest(content)

    def sized(self, count: int) -> CouncilSpec:
        """The council with `count` members: its first ones, then further ones in the same roles, numbered.

        A quorum that was set for another size is dropped, so that the default rule applies.
        """
        if count == len(self.members):
            return self
        taken = {member.agent_id for member in self.members}
        members = list(self.members[:count])
        for index in range(len(members), count):
            like = self.members[index % len(self.members)]
            stem = like.agent_id.rstrip("0123456789").rstrip("-_")[:58]
            number = index + 1
            while (agent_id := f"{stem}-{number:03d}") in taken:
                number += 1
            taken.add(agent_id)
            members.append(Member.model_validate({**like.model_dump(), "agent_id": agent_id, "diversity": True}))
        return CouncilSpec.model_validate({**self.model_dump(), "members": members, "quorum": None})
