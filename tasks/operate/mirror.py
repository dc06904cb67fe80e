"""The mirror of Prefect's councils on the record, from which the gateway knows them."""

from __future__ import annotations

from blocks.documents import all_councils
from blocks.record.events import Record
from tasks.deliberations.councils import write_mirror


async def mirror_councils(record: Record) -> None:
    """Let the record show the councils as Prefect holds them now.

    Raises RecordError, PrefectUnavailable and PrefectRefused.
    """
    councils = await all_councils()
    await write_mirror(record, {name: council.spec(name) for name, council in councils.items()})
