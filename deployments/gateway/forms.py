"""The bodies that are sent and answered, for the spec; what is accepted is read by the use cases' own models."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tasks.council.council import CouncilSpec
from tasks.council.models import DeliberationRequest, Status
from tasks.council.proposal import Usage
from tasks.deliberations.submission import Terms


class _Open(BaseModel):
    """What is answered may get further fields."""

    model_config = ConfigDict(extra="allow")


def _either(one: str, other: str) -> dict[str, Any]:
    """One of two fields; what is null counts as left out."""
    return {"required": [one], "properties": {one: {"not": {"type": "null"}}, other: {"type": "null"}}}


class SubmissionForm(DeliberationRequest, Terms):
    """A deliberation to ask for: one task or a list of items, and how it is decided."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_either("task", "items"), _either("items", "task")]})


class BatchForm(_Open):
    """A batch so far."""

    id: str
    status: Status
    rows: int
    agendas: int
    counts: dict[str, int] = {}
    usage: Usage = Usage()
    engine: str | None = None
    started_at: datetime | None = None
    last_decision_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None


class Links(_Open):
    """Where to go on."""

    self: str | None = None
    events: str | None = None
    wait: str | None = None
    prefect_run: str | None = Field(None, description="Its run in Prefect's UI.")


class Receipt(_Open):
    """What was accepted."""

    id: str
    status: Status
    links: Links


class Decided(_Open):
    """An item of an agenda that has ended."""

    item: str
    status: Status
    degraded: bool
    winner_id: str | None
    duration_ms: int


class Result(_Open):
    """A deliberation so far. Of one item its own fields (`results`, `members`, `decision`), else `items`."""

    id: str
    status: Status
    degraded: bool
    engine: str
    counts: dict[str, int]
    links: Links
    council: str | None = None
    results: list[dict[str, Any]] | None = None
    members: list[dict[str, Any]] | None = None
    winner_id: str | None = None
    decision: str | None = None
    items: list[Decided] | None = None
    usage: Usage | None = None
    error_message: str | None = None
    duration_ms: int | None = None


class Line(_Open):
    """A deliberation in the list."""

    id: str
    status: Status
    council: str | None
    created_at: str
    metadata: dict[str, Any]


class PageForm(BaseModel):
    """A part of the list, the newest first."""

    deliberations: list[Line]
    cursor: str | None = Field(description="Of the next page; null at the end.")


class CancelledForm(BaseModel):
    """How many are asked to stop."""

    cancelled: int
    more: bool = Field(description="Whether more than 1 000 matched: call it again.")


class CancelForm(BaseModel):
    """A deliberation that is asked to stop, or had ended."""

    id: str
    status: Status


class PayloadForm(_Open):
    """What a webhook delivers, in whatever form its sender has; the operator's file says what is read of it."""


class PassedOverForm(BaseModel):
    """A delivery that asks for nothing."""

    status: str
    reason: str


class TryForm(_Open):
    """One try of a delivery."""

    at: datetime
    verdict: str = Field(description="delivered, failed, or gone: its target wants no more.")
    status: int | None = Field(None, description="HTTP status of the answer.")
    detail: str | None = None
    duration_ms: int


class DeliveryForm(_Open):
    """What one target is sent of the end, and what became of it."""

    id: str = Field(description="What its receiver knows it by (`webhook-id`), the same at each try.")
    number: int
    kind: str
    target: str
    state: str = Field(description="pending, delivered or failed.")
    created_at: datetime
    next_at: datetime | None = Field(description="When it is tried next.")
    tries: list[TryForm]


class DeliveriesForm(BaseModel):
    """The deliveries of a deliberation."""

    deliveries: list[DeliveryForm]


class CouncilsForm(BaseModel):
    """The councils, by name."""

    councils: dict[str, CouncilSpec]
    mirrored_at: datetime | None = Field(description="When they were read from Prefect.")


class ProblemForm(_Open):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = Field(None, description="What is wrong.")
    id: str | None = None
    accepted: str | None = Field(None, description="`unknown`: it may run; the same key or id attaches.")


class Dependency(BaseModel):
    """A part that the gateway needs."""

    ok: bool
    detail: str | None = None


class ReadyForm(BaseModel):
    """Whether requests are taken, and why not."""

    ready: bool
    dependencies: dict[str, Dependency]
    councils_age_s: float | None


class LiveForm(BaseModel):
    """The process answers."""

    status: str
