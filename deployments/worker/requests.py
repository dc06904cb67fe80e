"""Flow runs as requests, and back: what the queue says is to be run, and the Prefect flow that does it."""

from __future__ import annotations

import importlib
import re
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun

from blocks.record.subjects import Lane
from tasks.council.exceptions import WrongUse
from tasks.council.plain import SHOWN_INPUT, shortened
from tasks.deliberations.submit import DELIBERATE, Request, id_of

BATCH = "batch"
"""Work queue of the pool whose runs wait behind people's, and name of that lane."""
FLOWS = re.compile(r"flows\.[a-z_]+\.[a-z_]+")


class UnknownFlow(WrongUse):
    """A deployment or request names a flow that this worker does not run; the text says what would be right."""


def request_for(flow_run: FlowRun, entrypoint: str | None) -> Request:
    """The request to run a flow run. Raises UnknownFlow."""
    flow = known(entrypoint)
    lane: Lane = "batch" if flow_run.work_queue_name == BATCH else "interactive"
    run = str(flow_run.id)
    return Request(
        id=id_of(flow_run.parameters, run) if flow == DELIBERATE else run,
        flow=flow,
        parameters=flow_run.parameters,
        run=run,
        door="prefect",
        lane=lane,
    )


def known(entrypoint: str | None, field: str = "entrypoint") -> str:
    """The entrypoint, if this worker may run it. Raises UnknownFlow, which names the field that it stands in."""
    if entrypoint is None or FLOWS.fullmatch(entrypoint) is None:
        shown = shortened(repr(entrypoint), SHOWN_INPUT)
        raise UnknownFlow(
            f"{field}: {shown} is none that the warm worker runs; one is dotted and in the package flows, "
            f"such as {DELIBERATE}. Other flows run on a pool of Prefect's own types"
        )
    return entrypoint


def load(entrypoint: str) -> Flow[Any, Any]:
    """The flow of a request's entrypoint. Raises UnknownFlow."""
    module, _, name = known(entrypoint, "flow").rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise UnknownFlow(f"flow: {entrypoint!r} cannot be imported: {shortened(str(error))}") from error
    if not isinstance(found, Flow):
        raise UnknownFlow(f"flow: {entrypoint!r} is no flow")
    return found
