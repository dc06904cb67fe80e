"""Tells others of the ends of deliberations: what is due is taken from its queue, tried, and put off where it fails.

Every gateway takes from the one queue; what one that was killed had taken comes to the next. A delivery may come twice
where a gateway dies between its arrival and its being written down; its id is the same then.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from datetime import UTC, datetime
from urllib.parse import urlsplit

from blocks.background import cancel_and_wait
from blocks.exceptions import RecordError
from blocks.public_http import public_session
from blocks.record.callback_queue import CallbackQueue, Due
from blocks.record.events import Record
from deployments.gateway.sending import Answered, CallbackSettings, Sender
from deployments.webhooks.github_events import Access
from tasks.callbacks import deliveries
from tasks.callbacks.deliveries import Delivery, failed
from tasks.callbacks.targets import UrlTarget

AT_ONCE = 64
PER_HOST, PER_OWNER = 8, 16
"""Tries at the same host, and of the same owner, at a time, so that what hangs holds up no others."""
BUSY_S = (2.0, 6.0)
"""When something is tried again whose host or owner has so many under way."""
TRY_S = 15.0
TAKE_S = 5.0
FAULT_S = 60.0
"""When something is tried again that a fault of ours ended."""

_log = logging.getLogger("conclave.gateway")


class Callbacks:
    """Makes what is due."""

    def __init__(self, record: Record, settings: CallbackSettings, github: dict[str, Access]) -> None:
        self._record, self._settings, self._github = record, settings, github
        self.networks = settings.networks
        self._under_way: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        """By their verdict."""

    async def run(self) -> None:
        """Make deliveries until cancelled. Raises RecordError; then run again."""
        queue, slots = CallbackQueue(self._record), asyncio.Semaphore(AT_ONCE)
        making: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            making.discard(task)
            slots.release()

        async with public_session(self._settings.networks, AT_ONCE) as session:
            sender = Sender(self._record, self._settings, self._github, session)
            try:
                while True:
                    await slots.acquire()
                    due = await queue.take(TAKE_S)
                    if due is None:
                        slots.release()
                        continue
                    making.add(task := asyncio.create_task(self._make(sender, due)))
                    task.add_done_callback(ended)
            finally:
                await cancel_and_wait(set(making))
                await queue.close()

    async def _make(self, sender: Sender, due: Due) -> None:
        """One that is due. Whatever goes wrong is told, and it comes again."""
        try:
            delivery = await self._found(due)
            if delivery is None:
                return
            early_s = delivery.early_s(datetime.now(UTC))
            await (due.again(early_s) if early_s > 0 else self._in_its_turn(sender, due, delivery))
        except RecordError as error:  # it is not acknowledged, and so comes again
            _log.warning("callback %s.%s waits: %s", due.deliberation, due.number, error)
        except Exception:  # noqa: BLE001  # the others go on
            _log.exception("callback %s.%s failed", due.deliberation, due.number)
            await due.again(FAULT_S)

    async def _found(self, due: Due) -> Delivery | None:
        """The delivery that is due; None where there is nothing to do for this gateway. Raises RecordError."""
        delivery = await deliveries.read(self._record, due.deliberation, due.number)
        if delivery is not None and delivery.state == "pending":
            return delivery
        if delivery is None and await deliveries.is_later(self._record, due.deliberation, due.number):
            await due.again(FAULT_S)  # for the gateways of a later version
        else:
            await due.done()
        return None

    async def _in_its_turn(self, sender: Sender, due: Due, delivery: Delivery) -> None:
        """Try it, unless its host or its owner has enough of them under way."""
        host, owner = _host(delivery), _owner(delivery)
        if self._under_way[host] >= PER_HOST or self._under_way[owner] >= PER_OWNER:
            await due.again(random.uniform(*BUSY_S))
            return
        self._under_way.update((host, owner))
        try:
            made, asked_s = await _tried(sender, delivery)
        finally:
            self._under_way.subtract((host, owner))
            self._under_way += Counter()  # without those that have none
        self.tries[made.verdict] += 1
        after = await deliveries.keep(self._record, delivery, made, asked_s)
        _log.info("callback %s, %s: %s %s", delivery.id, delivery.target.kind, made.verdict, made.detail or made.status)
        if after is None or after.next_at is None:
            await due.done()
        else:
            await due.again(max(0.0, after.early_s(datetime.now(UTC))))

    def lines(self) -> list[str]:
        """In Prometheus' text format."""
        counted = (
            f'conclave_callbacks_total{{verdict="{name}"}} {count}' for name, count in sorted(self.tries.items())
        )
        return ["# TYPE conclave_callbacks_total counter", *counted]


async def _tried(sender: Sender, delivery: Delivery) -> Answered:
    """One try, which takes a bounded time whatever its target does."""
    began, now = time.monotonic(), datetime.now(UTC)
    try:
        async with asyncio.timeout(TRY_S):
            made, asked_s = await sender.send(delivery)
    except TimeoutError:
        made, asked_s = failed(now, f"no answer within {TRY_S:g} s"), None
    return made.model_copy(update={"duration_ms": round((time.monotonic() - began) * 1000)}), asked_s


def _host(delivery: Delivery) -> str:
    """The name of the machine that a target is at, however its URL writes that, and whatever its port is."""
    target = delivery.target
    if not isinstance(target, UrlTarget):
        return f"host github of {target.webhook}"
    return f"host {(urlsplit(target.url).hostname or '').rstrip('.')}"


def _owner(delivery: Delivery) -> str:
    """Who asked for it; a council by its own URL, since all councils have one secret."""
    target = delivery.target
    if not isinstance(target, UrlTarget):
        return f"webhook {target.webhook}"
    return f"owner {target.secrets_of}" if target.by == "request" else f"council {target.url}"
