"""What the gateway works with, opened once, and what goes on beside its requests."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from blocks.background import background
from blocks.connections import connections
from blocks.exceptions import ConclaveError, NewerVersion, RecordError, RecordUnavailable, RecordUnreadable
from blocks.record.arrivals import Arrivals
from blocks.record.ends import ends
from blocks.record.envelope import Event
from blocks.record.events import Record
from blocks.record.leases import Leases
from blocks.record.queue import workers
from blocks.record.server import JetStreamServer
from blocks.refreshed import Refreshed
from deployments.gateway.authentication import Authentication
from deployments.gateway.callbacks import Callbacks
from deployments.gateway.counts import Counts
from deployments.gateway.projection import Projection
from deployments.gateway.quotas import Quotas
from deployments.gateway.settings import GatewaySettings
from deployments.webhooks.configuration import Webhook, problems_of, read_webhooks
from tasks.access import tokens
from tasks.access.usage import add_end
from tasks.callbacks.deliveries import begin
from tasks.callbacks.targets import Target, UrlTarget
from tasks.council.council import CouncilSpec
from tasks.deliberations.councils import Councils
from tasks.deliberations.feed import Feed
from tasks.deliberations.read import requested_at_in, status_of

AGAIN_S = 1.0
CONNECT_AGAIN_S = 0.1
WORKERS_KEPT_S = 1.0
ENDS_CONSUMER = "gateway-ends"

_log = logging.getLogger("conclave.gateway")


@dataclass(frozen=True)
class Service:
    """The parts that handlers use."""

    record: Record
    leases: Leases
    feed: Feed
    councils: Councils
    projection: Projection
    authentication: Authentication
    quotas: Quotas
    workers: Refreshed[int]
    """How many take from the queue, of the last second: anybody may ask whether the gateway is ready."""
    counts: Counts
    webhooks: dict[str, Webhook]
    callbacks: Callbacks


@asynccontextmanager
async def serving(settings: GatewaySettings) -> AsyncGenerator[Service, None]:
    """The parts, connected and at work while the block runs.

    Raises RecordError where NATS does not answer, and EventFileError for a file of webhooks that cannot be used.
    """
    webhooks = _webhooks(settings.webhooks)
    server = JetStreamServer(servers=settings.nats_url.split(","), patience_s=settings.patience_s)
    async with connections():
        record = await _connected(server)
        await _admit_home(record, settings.token_file)
        leases = Leases(server.record)
        await leases.open()
        arrivals, projection, councils = Arrivals(record), Projection(record, settings.database), Councils(record)
        github = {name: webhook.github for name, webhook in webhooks.items() if webhook.github is not None}
        callbacks = Callbacks(record, settings.callbacks, github)
        service = Service(
            record,
            leases,
            Feed(record, arrivals),
            councils,
            projection,
            Authentication(record, settings.rate, settings.hosts, settings.open),
            Quotas(record, settings.queue),
            Refreshed(lambda: workers(record), WORKERS_KEPT_S),
            Counts(),
            webhooks,
            callbacks,
        )
        try:
            async with background(
                _kept("the feed of events", arrivals.run),
                _kept("the list", projection.run),
                _kept("what follows an end", lambda: _follow_ends(record, councils)),
                _kept("callbacks", callbacks.run),
            ):
                yield service
        finally:
            await projection.close()
            await leases.close()


def _webhooks(path: Path | None) -> dict[str, Webhook]:
    """Those of the file. A secret that cannot be had closes its webhook's door alone."""
    found = {} if path is None else read_webhooks(path.expanduser())
    for problem in problems_of(found):
        _log.error("%s", problem)
    return found


async def _connected(server: JetStreamServer) -> Record:
    """The record, as soon as NATS answers. Raises RecordRefused and RecordMisconfigured."""
    told = ""
    while True:
        try:
            return await server.record()
        except RecordUnavailable as error:
            if str(error) != told:
                _log.warning("waiting: %s", error)
            told = str(error)
        await asyncio.sleep(CONNECT_AGAIN_S)


async def _follow_ends(record: Record, councils: Councils) -> None:
    """Count what each deliberation used, and let those be told of its end who asked for it, or its council.

    One that cannot be read, or that something of ours stumbles over, is told in the log and holds up no others.
    """
    async for end in ends(record, ENDS_CONSUMER):
        try:
            await _follow_end(record, councils, end)
        except (RecordUnreadable, NewerVersion) as error:
            _log.error("what follows %s is left: %s", end.subject, error)
        except RecordError:
            raise
        except Exception:  # noqa: BLE001
            _log.exception("what follows %s failed", end.subject)


async def _follow_end(record: Record, councils: Councils, end: Event) -> None:
    one = end.subject.split(".")[1]
    status = await status_of(record, one) or {}
    await add_end(record, status.get("owner"), end.body, end.sequence)
    council = (await councils.mirror()).councils.get(str(status.get("council")))
    told = [] if "batch" in status else _told_by(council)  # of a batch's thousand rows a part is nobody's news
    await begin(record, one, told, requested_at_in(status))


def _told_by(council: CouncilSpec | None) -> list[Target]:
    """The target that a council has of its own; what it is sent is signed by the home's secret."""
    if council is None or council.callback_url is None:
        return []
    return [UrlTarget(url=council.callback_url, by="council", secrets_of=tokens.HOME)]


async def _admit_home(record: Record, file: Path | None) -> None:
    """Let the token of the home in, which `conclave up` made."""
    if file is None:
        return
    name = f"{tokens.HOME} {file.parent}"
    token = tokens.known(file.read_text().strip(), name, tokens.HOME, ("admin",))
    for other in await tokens.listed(record):
        if other.name == name and other.id != token.id:  # the home has made another one since
            await tokens.revoke(record, other.id)
    if await tokens.read(record, token.id) is None:
        await tokens.keep(record, token)


async def _kept(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Let work go on: what ends it is told, and it begins again."""
    while True:
        try:
            await work()
        except (ConclaveError, sqlite3.Error, OSError) as error:
            _log.warning("%s begins again: %s", what, error)
        except Exception:  # noqa: BLE001  # a fault of ours in one of these ends no request
            _log.exception("%s failed, and begins again", what)
        await asyncio.sleep(AGAIN_S)
