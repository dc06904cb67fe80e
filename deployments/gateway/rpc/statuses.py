"""What is answered over gRPC where HTTP answers with a problem, or with a deliberation that came to nothing.

One table says which status stands for which. A key or id that stands for another request is ALREADY_EXISTS: what it
stands for is there, and no change of state, which FAILED_PRECONDITION would ask for, lets it be used again.
"""

from __future__ import annotations

import grpc

from blocks.record.envelope import Body
from deployments.gateway.problems import Problem, fault, told_of
from deployments.orchestrator.messages import in_their_words, reason_of
from tasks.council.exceptions import ConclaveError, InvalidRequest
from tasks.council.models import Status
from tasks.council.plain import plain
from tasks.deliberations.councils import UnknownCouncil

Metadata = tuple[tuple[str, str], ...]
Code = grpc.StatusCode

OF_HTTP = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ALREADY_EXISTS,
    413: Code.RESOURCE_EXHAUSTED,
    422: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    503: Code.UNAVAILABLE,
}
OF_TYPES = {"idempotency-key-reused": Code.ALREADY_EXISTS, "id-reused": Code.ALREADY_EXISTS}
"""Problems by type whose status says less than there is to say."""
OF_ENDS = {
    Status.FAILED: Code.ABORTED,
    Status.TIMEOUT: Code.DEADLINE_EXCEEDED,
    Status.CANCELLED: Code.CANCELLED,
}
"""Ends without a decision, for whoever waited for one."""
ID, TYPE, FIELD, ACCEPTED = "conclave-id", "conclave-type", "conclave-field", "conclave-accepted"
"""Names in the metadata of what is told beside a status."""
MAX_TEXT = 1_300
"""Bytes of a status's text: in HTTP/2 it may be three times as long, and clients take 8 KiB of all metadata."""
MAX_VALUE = 200


class Refused(ConclaveError):
    """An answer over gRPC that is an error; `trailing` is the metadata behind it."""

    def __init__(self, code: grpc.StatusCode, text: str, trailing: Metadata = ()) -> None:
        super().__init__(text)
        self.code, self.text, self.trailing = code, _bounded(text), trailing


def refused(what: str, error: Exception) -> Refused:
    """What is answered where this call ends with an error."""
    if isinstance(error, Refused):
        return error
    problem = _problem(what, error)
    code = OF_TYPES.get(problem.type) or OF_HTTP.get(problem.status, Code.UNKNOWN)
    told = {TYPE: problem.type, FIELD: problem.more.get("field"), ID: problem.more.get("id")}
    told[ACCEPTED] = problem.more.get("accepted")
    beside = [(name, _value(value)) for name, value in told.items() if value is not None]
    return Refused(code, problem.detail, (*as_metadata(problem.headers), *beside))


def without_decision(deliberation_id: str, result: Body) -> Refused:
    """What is answered to whoever waited for a decision that did not come."""
    status = Status(result["status"])
    return Refused(OF_ENDS[status], reason_of(result) or status.value.lower(), ((ID, deliberation_id),))


def as_metadata(headers: dict[str, str]) -> Metadata:
    """Header fields of an HTTP answer, as metadata."""
    return tuple((name.lower(), value) for name, value in headers.items())


def _problem(what: str, error: Exception) -> Problem:
    if isinstance(error, InvalidRequest):
        error = in_their_words(error)
    if isinstance(error, UnknownCouncil):
        return Problem(404, "unknown-council", str(error), field=error.field)
    return told_of(what, error) if isinstance(error, ConclaveError) else fault(what, error)


def _bounded(text: str) -> str:
    return plain(text).encode(errors="replace")[:MAX_TEXT].decode(errors="ignore")


def _value(value: object) -> str:
    """A value of metadata, which is printable ASCII."""
    return ascii(str(value))[1:-1][:MAX_VALUE]
