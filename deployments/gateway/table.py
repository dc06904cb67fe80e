"""All routes of the API."""

from __future__ import annotations

from itertools import chain

from deployments.gateway import forms
from deployments.gateway.handlers import batches, councils, deliberations, deliveries, events, health, webhooks
from deployments.gateway.routes import Answer, Parameter, Route
from deployments.webhooks.signatures import SCHEMES
from tasks.access.tokens import Scope
from tasks.batch.asked import AgendaBody, BatchRequest
from tasks.council.council import CouncilSpec
from tasks.council.models import Status

ASK: tuple[Scope, ...] = ("submit",)
SEE: tuple[Scope, ...] = ("submit", "read")
ALL: tuple[Scope, ...] = ("read",)

KEY = Parameter(
    "Idempotency-Key",
    "header",
    "1 to 255 printable characters. The same key and request get the same deliberation.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
)
PREFER = Parameter("Prefer", "header", "`wait=30` answers with the result where it comes within 30 s.")
AFTER = Parameter("starting_after", "query", "The id of an event: later ones follow. `latest`: only new ones.")
LAST = Parameter("Last-Event-ID", "header", "As `starting_after`, which it comes before.")
TIMEOUT = Parameter(
    "timeout_s", "query", "Seconds to wait, to 60.", {"type": "number", "minimum": 0, "maximum": 60, "default": 30}
)
STATUS = Parameter(
    "status",
    "query",
    "Only these, apart by commas.",
    {"type": "array", "minItems": 1, "items": {"type": "string", "enum": [*Status]}},
    explode=False,
)
COUNCIL = Parameter("council", "query", "Only those of this council.")
METADATA = Parameter(
    "metadata",
    "query",
    "`metadata.NAME=VALUE`: only those with this entry in their metadata; a value that is no text as JSON writes it.",
    {
        "type": "object",
        "patternProperties": {r"^metadata\.": {"type": "string"}},
        "additionalProperties": False,
        "maxProperties": 20,
    },
)
LIMIT = Parameter(
    "limit", "query", "How many on a page.", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
)
CURSOR = Parameter("cursor", "query", "That of the page before.")
PLACE = Parameter("after", "query", "The `after` of a line: what follows it.")
STREAM = Answer("Events, as they come.", content="text/event-stream")
RESULT = Answer("It has ended.", forms.Result)
SO_FAR = Answer("It has not ended; what is known so far.", forms.Result)


def _signed(name: str) -> Parameter:
    return Parameter(name, "header", "By the form of the webhook's signature.")


ROUTES = (
    Route(
        "POST",
        "/v1/deliberations",
        deliberations.submit,
        ASK,
        "Ask for a deliberation",
        {200: RESULT, 202: Answer("It is accepted, and will run.", forms.Receipt, headers=("Location",))},
        (KEY, PREFER),
        forms.SubmissionForm,
    ),
    Route(
        "GET",
        "/v1/deliberations",
        deliberations.listed,
        SEE,
        "List deliberations, the newest first",
        {200: Answer("A page.", forms.PageForm)},
        (STATUS, COUNCIL, METADATA, LIMIT, CURSOR),
    ),
    Route(
        "DELETE",
        "/v1/deliberations",
        deliberations.cancel_many,
        ASK,
        "Ask all to stop that match, at most 1 000",
        {202: Answer("So many are asked to stop.", forms.CancelledForm)},
        (STATUS, COUNCIL, METADATA),
    ),
    Route(
        "GET",
        "/v1/deliberations/{id}",
        deliberations.read,
        SEE,
        "Read a deliberation so far",
        {200: Answer("So far.", forms.Result)},
    ),
    Route(
        "DELETE",
        "/v1/deliberations/{id}",
        deliberations.cancel,
        ASK,
        "Ask a deliberation to stop",
        {200: Answer("It has ended.", forms.CancelForm), 202: Answer("It is asked to stop.", forms.CancelForm)},
    ),
    Route(
        "GET",
        "/v1/deliberations/{id}/wait",
        deliberations.wait,
        SEE,
        "Wait for the result",
        {200: RESULT, 202: SO_FAR},
        (TIMEOUT,),
    ),
    Route(
        "GET",
        "/v1/deliberations/{id}/items/{item}",
        deliberations.item,
        SEE,
        "Read one item of an agenda",
        {200: Answer("So far.")},
    ),
    Route(
        "GET",
        "/v1/deliberations/{id}/events",
        events.of_one,
        SEE,
        "Follow a deliberation",
        {200: STREAM, 204: Answer("It has ended, and nothing follows this cursor.")},
        (AFTER, LAST),
    ),
    Route(
        "GET",
        "/v1/deliberations/{id}/deliveries",
        deliveries.listed,
        SEE,
        "List who is told of its end, and what became of that",
        {200: Answer("In the order of their numbers.", forms.DeliveriesForm)},
    ),
    Route(
        "POST",
        "/v1/deliberations/{id}/deliveries/{number}",
        deliveries.again,
        ASK,
        "Tell it again, now",
        {202: Answer("It will be.", forms.DeliveryForm)},
    ),
    Route(
        "GET",
        "/v1/events",
        events.of_many,
        SEE,
        "Follow all deliberations that match",
        {200: STREAM},
        (AFTER, LAST, STATUS, COUNCIL, METADATA),
    ),
    Route(
        "PUT",
        "/v1/batches/{id}/agendas/{number}",
        batches.put_rows,
        ASK,
        "Send rows of a batch, 1 000 at most, before it is started",
        {204: Answer("They are stored.")},
        body=AgendaBody,
    ),
    Route(
        "PUT",
        "/v1/batches/{id}",
        batches.start,
        ASK,
        "Start a batch whose rows were sent",
        {202: Answer("It is accepted, and will run.", forms.BatchForm, headers=("Location",))},
        body=BatchRequest,
    ),
    Route(
        "GET",
        "/v1/batches/{id}",
        batches.read,
        SEE,
        "Read a batch so far",
        {200: Answer("So far.", forms.BatchForm)},
    ),
    Route(
        "GET",
        "/v1/batches/{id}/results",
        batches.results,
        SEE,
        "Follow the rows of a batch as they are decided, to its end",
        {200: Answer("A line of JSON for each decided row.", content="application/x-ndjson")},
        (PLACE,),
    ),
    Route(
        "DELETE",
        "/v1/batches/{id}",
        batches.cancel,
        ASK,
        "Ask a batch to stop",
        {200: Answer("It has ended.", forms.BatchForm), 202: Answer("It is asked to stop.", forms.BatchForm)},
    ),
    Route(
        "GET",
        "/v1/councils",
        councils.listed,
        SEE,
        "List the councils",
        {200: Answer("By name.", forms.CouncilsForm)},
    ),
    Route(
        "GET",
        "/v1/councils/{name}",
        councils.show,
        SEE,
        "Read a council",
        {200: Answer("Its members and rules.", CouncilSpec)},
    ),
    Route(
        "POST",
        "/v1/webhooks/{name}",
        webhooks.deliver,
        (),
        "Deliver a webhook, signed in the form that its file says",
        {
            200: Answer("It asks for nothing: the webhook's condition does not hold.", forms.PassedOverForm),
            202: Answer("What it asks for is accepted, and will run.", forms.Receipt, headers=("Location",)),
        },
        tuple(map(_signed, chain.from_iterable(scheme.headers for scheme in SCHEMES.values()))),
        forms.PayloadForm,
    ),
    Route("GET", "/healthz", health.live, (), "Whether it lives", {200: Answer("It does.", forms.LiveForm)}),
    Route(
        "GET",
        "/readyz",
        health.ready,
        (),
        "Whether requests are taken, and each part by name",
        {200: Answer("They are.", forms.ReadyForm), 503: Answer("They are not.", forms.ReadyForm)},
    ),
    Route(
        "GET",
        "/metrics",
        health.metrics,
        ALL,
        "Figures for Prometheus",
        {200: Answer("In its text format.", content="text/plain")},
    ),
    Route("GET", "/openapi.json", health.openapi, SEE, "This document", {200: Answer("OpenAPI 3.1.")}),
)
