"""What an agent task is given: who answers which stage of which deliberation."""

from __future__ import annotations

from pydantic import Field

from tasks.council.base import Frozen
from tasks.council.council import Member
from tasks.deliberations.plan import Server


class Assignment(Frozen):
    """The one input of an agent task. It has names only, so that Prefect keeps no prompt and no secret.

    The plan is read from the record, and the server from its block, in the version that the driver found.

    Attributes:
        deliberation_id: The deliberation.
        agent_id: The member.
        stage: The stage, such as `review-0`.
        epoch: Of the run that the task belongs to.
        installation: The driver's, whose record must be this host's.
        server_version: Version of the block of the member's model server; None where nobody keeps it.
        engine: What that server was found to be; an answer says so where there is one.
        first: How many items may begin at once, the others as the driver tells; None where the member begins them by
            itself.
        may_wait: Whether its calls come behind others where a server serves by priority: a batch's do.
        dialects: What it was found to take otherwise, by model: fields, and what is asked for in their place.
    """

    deliberation_id: str
    agent_id: str
    stage: str
    epoch: int
    installation: str
    server_version: str | None
    engine: str
    first: int | None = None
    may_wait: bool = False
    dialects: dict[str, dict[str, str | None]] = Field(default={})


def assign(
    deliberation_id: str,
    member: Member,
    stage: str,
    server: Server,
    epoch: int,
    installation: str,
    first: int | None = None,
    may_wait: bool = False,
) -> Assignment:
    """What a member's agent task for a stage is given, with what the driver found of its model server."""
    return Assignment(
        deliberation_id=deliberation_id,
        agent_id=member.agent_id,
        stage=stage,
        epoch=epoch,
        installation=installation,
        server_version=server.version,
        engine=server.engine,
        first=first,
        may_wait=may_wait,
        dialects={model: dialect.differences for model, dialect in server.dialects.items()},
    )
