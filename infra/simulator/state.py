"""What the routes of one simulator share."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from aiohttp import web

from infra.simulator.calls import Calls
from infra.simulator.engine import Pace, Slots
from infra.simulator.faults import Faults
from infra.simulator.metrics import Metrics
from infra.simulator.prefix_cache import PrefixCache
from infra.simulator.settings import SimulatorSettings


class State:
    """Everything that a simulator remembers; `die` ends it at once, as a crash would."""

    def __init__(self, settings: SimulatorSettings, die: Callable[[], None]) -> None:
        """Everything as new."""
        self.settings = settings
        self.die = die
        self.slots = Slots(settings.slots, settings.max_queue)
        self.pace = Pace(settings)
        self.prefixes = PrefixCache()
        self.faults = Faults(settings.faults)
        self.players = settings.players
        self.calls = Calls()
        self.metrics = Metrics(settings.model)


STATE = web.AppKey("state", State)
REQUEST_ID = "X-Request-Id"


def id_of(request: web.Request) -> str:
    """The X-Request-Id of a request, a fresh one where it has none."""
    return request.headers.get(REQUEST_ID) or uuid.uuid4().hex
