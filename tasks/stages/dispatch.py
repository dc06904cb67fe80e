"""The items of an agenda as its driver lets them begin: the first ones at once, further ones as it tells.

It tells how many of the agenda may have begun, and again every second, so that nothing is lost for long; one more than
there are says that it is over, and that what has not begun never will.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from blocks.background import background
from blocks.exceptions import Orphaned
from blocks.record import subjects
from blocks.record.events import Record
from tasks.council.models import Deliberation, Item
from tasks.stages.stage_gate import ORPHANED_S


async def dispatched(record: Record, plan: Deliberation, epoch: int, first: int) -> AsyncGenerator[Item, None]:
    """Each item, in the order of the agenda, once it may begin, until all have or it is over.

    Raises RecordError, and Orphaned where nobody tells.
    """
    upto, over, told = first, False, asyncio.Event()

    def heard(subject: str) -> None:
        nonlocal upto, over
        count = int(subject.rpartition(".")[2])
        if count > len(plan.agenda):
            over = True
        else:
            upto = max(upto, count)
        told.set()

    async def look_after() -> None:
        try:
            await record.leases.abandoned(plan.id, ORPHANED_S)
        finally:
            told.set()

    subscription = await record.listen(subjects.dispatch(plan.id, epoch, "*"), heard)
    try:
        async with background(look_after()) as (abandoned,):
            for place, item in enumerate(plan.agenda):
                while place >= upto:
                    if over:
                        return
                    told.clear()
                    await told.wait()
                    if abandoned.done():
                        abandoned.result()
                        raise Orphaned(f"nobody runs deliberation {plan.id} any more")
                yield item
    finally:
        await subscription.unsubscribe()
