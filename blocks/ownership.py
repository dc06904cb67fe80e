"""Whose the names in a Prefect are: a mark there, compared with the id that the record's JetStream keeps.

Two installations may share a Prefect. The first one's mark, a Variable, is created atomically; whoever finds another id
there touches nothing. Runs and deployments carry their installation's tag.
"""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.exceptions import ObjectAlreadyExists

from blocks import names
from blocks.exceptions import OtherInstallation
from blocks.prefect_api import prefect_named
from blocks.record.events import Record
from blocks.record.installation import read_again

SHOWN = 64
MAX_VARIABLES = 200


async def marked() -> str | None:
    """Whose this process's names in Prefect are; None where nobody has said so. Raises PrefectUnavailable."""
    with prefect_named():
        async with get_client() as client:
            variable = await client.read_variable_by_name(names.mark())
    return None if variable is None else str(variable.value)[:SHOWN]


async def check(record: Record) -> None:
    """Raise OtherInstallation where the names in Prefect are another installation's than the record."""
    owner = await marked()
    if owner is not None and not await _is(record, owner):
        raise not_ours(record.installation, owner)


async def claim(record: Record, take_over: bool = False) -> None:
    """Mark the names in Prefect as those of the record's installation, unless they are.

    Raises OtherInstallation where they are another's and are not to be taken over.
    """
    variable = names.mark()
    await _told_apart()
    with prefect_named():
        async with get_client() as client:
            try:
                await client.create_variable(VariableCreate(name=variable, value=record.installation))
            except ObjectAlreadyExists:
                if take_over:
                    await client.update_variable(VariableUpdate(name=variable, value=record.installation))
    await check(record)


async def check_same(record: Record, installation: str) -> None:
    """Raise OtherInstallation where what is at work belongs to another installation than the record."""
    if not await _is(record, installation):
        raise OtherInstallation(
            f"the block conclave-jetstream/{names.stored('default')} points to the record of installation"
            f" {record.installation}, and what is at work belongs to installation {installation}"
        )


async def other_prefixes() -> list[str]:
    """Prefixes of the other installations that have marked names in this Prefect. Raises PrefectUnavailable."""
    with prefect_named():
        async with get_client() as client:
            found = [names.prefix_of(one.name) for one in await client.read_variables(limit=MAX_VARIABLES)]
    return [one for one in found if one and one != names.prefix()]


def not_ours(ours: str, owner: str) -> OtherInstallation:
    """The error of an installation that meets another one's names."""
    which = f"the names with the prefix {names.prefix()!r}" if names.prefix() else "the names"
    return OtherInstallation(
        f"{which} in this Prefect belong to installation {owner}, and this is installation {ours}: another prefix"
        f" ({names.VARIABLE}) keeps the two apart; `conclave up --take-over` moves the names here"
    )


async def _told_apart() -> None:
    """Raise OtherInstallation for a prefix that begins another one, or the other way round: names would be the same."""
    begin = names.carrying(names.prefix(), "")
    for other in await other_prefixes() if begin else ():
        theirs = names.carrying(other, "")
        if begin.startswith(theirs) or theirs.startswith(begin):
            raise OtherInstallation(
                f"{names.VARIABLE}={names.prefix()} cannot be told from {other!r}, another installation's prefix here:"
                " one is the beginning of the other"
            )


async def _is(record: Record, installation: str) -> bool:
    return installation == record.installation or installation == await read_again(record)
