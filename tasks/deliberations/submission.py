"""What somebody sends who asks for a deliberation from outside: a request, its id and times, who hears of its end."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import Field, ValidationError

from tasks.council.base import CallbackUrl, Frozen, Name
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import DeliberationRequest
from tasks.council.problems import first_problem
from tasks.deliberations.submit import Door, Request

MAX_DELAY_S = 7 * 86_400
MAX_EXPIRY_S = 30 * 86_400
MAX_KEY = 255
"""Characters of an idempotency key."""
_IDS = uuid.UUID("6f0d3b0e-5d0c-5a53-9a0c-8f7a3c1e2b44")
"""Namespace of the ids that are made of an owner and a key (RFC 9562, version 5)."""


class Terms(Frozen):
    """When a deliberation is run, under which id, and who is told of its end."""

    id: Name | None = Field(None, description="Its id; made where it is left out.")
    delay_s: float = Field(0, ge=0, le=MAX_DELAY_S, allow_inf_nan=False, description="Seconds that it waits at least.")
    expires_s: float | None = Field(
        None, gt=0, le=MAX_EXPIRY_S, allow_inf_nan=False, description="Not begun by then, it ends CANCELLED."
    )
    priority: Literal["interactive", "batch"] = Field("interactive", description="Batches wait behind people.")
    callback_url: CallbackUrl | None = Field(None, description="Its end is told to this URL, signed.")

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Terms:
        """The terms from their fields; those that are None are left to their defaults. Raises InvalidRequest."""
        try:
            terms = cls.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            problem = first_problem(error)
            raise InvalidRequest(problem.field, problem.text) from error
        if terms.expires_s is not None and terms.expires_s <= terms.delay_s:
            raise InvalidRequest("expires_s", f"must be more than delay_s, which is {terms.delay_s:g}")
        return terms


def read_submission(body: Mapping[str, Any]) -> tuple[Terms, DeliberationRequest]:
    """The two parts of what was sent. Raises InvalidRequest that names the field."""
    own = {name: body[name] for name in Terms.model_fields if name in body}
    asked = {name: value for name, value in body.items() if name not in own}
    terms = Terms.of(own)
    return terms, DeliberationRequest.read(asked, beside=tuple(Terms.model_fields))


def request_of(
    terms: Terms, asked: DeliberationRequest, deliberation_id: str, door: Door, now: datetime, owner: str | None = None
) -> Request:
    """The request that goes into the queue."""
    return Request(
        id=deliberation_id,
        parameters=asked.given,
        door=door,
        lane=terms.priority,
        owner=owner,
        not_before=now + timedelta(seconds=terms.delay_s) if terms.delay_s else None,
        expires_at=now + timedelta(seconds=terms.expires_s) if terms.expires_s else None,
    )


def id_for(installation: str, owner: str, key: str) -> str:
    """The id that an owner's idempotency key stands for, whenever it comes.

    Who does not know the installation's own id, which no door tells, cannot guess those of others and take them first.
    """
    return str(uuid.uuid5(_IDS, f"{installation}:{owner}:{key}"))


def key_in(header: str) -> str:
    """The idempotency key of a header, bare or quoted (an sf-string of RFC 9651). Raises InvalidRequest."""
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not 1 <= len(key) <= MAX_KEY or not all(" " <= sign <= "~" for sign in key):
        raise InvalidRequest("Idempotency-Key", f"must be 1 to {MAX_KEY} printable ASCII characters")
    return key
