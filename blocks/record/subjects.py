"""The subjects and streams of the record; docs/architecture.md says what they carry.

A deliberation's, item's, stage's or member's name may be `*`, where a pattern is wanted.
"""

from __future__ import annotations

from typing import Literal

Lane = Literal["interactive", "batch"]

REQUESTS = "CONCLAVE_REQUESTS"
ANSWERS = "CONCLAVE_ANSWERS"
DECISIONS = "CONCLAVE_DECISIONS"
DEAD = "CONCLAVE_DEAD"
CALLBACKS = "CONCLAVE_CALLBACKS"
"""The streams."""
STATUS_BUCKET = "conclave-deliberations"
ACCESS_BUCKET = "conclave-access"
"""Tokens of the gateway, and what was used by them."""
COUNCILS_BUCKET = "conclave-councils"
"""Prefect's councils, mirrored for whoever does without Prefect."""
BATCHES_BUCKET = "conclave-batches"
"""Batches, and the agendas that their rows were put into."""
CALLBACKS_BUCKET = "conclave-callbacks"
"""Who is to be told of an end, and what became of each telling."""


def plan(deliberation: str) -> str:
    """The plan of a deliberation: what was asked, of whom, by which rules."""
    return f"deliberations.{deliberation}.plan"


def started(deliberation: str) -> str:
    """Its first run has begun."""
    return f"deliberations.{deliberation}.started"


def epoch(deliberation: str) -> str:
    """A run has begun under its lease; final writes of an earlier one are refused."""
    return f"deliberations.{deliberation}.epoch"


def progress(deliberation: str) -> str:
    """How far it is."""
    return f"deliberations.{deliberation}.progress"


def finished(deliberation: str) -> str:
    """Its end, once."""
    return f"deliberations.{deliberation}.finished"


def closed(deliberation: str, item: str, stage: str) -> str:
    """The end of an item's stage, where another one follows; the last one ends with the decision."""
    return f"deliberations.{deliberation}.closed.{item}.{stage}"


def answer(deliberation: str, item: str, stage: str, member: str) -> str:
    """The final answer of a member, once; with the deliberation's prefix also the id of the call."""
    return f"answers.{deliberation}.{item}.{stage}.{member}"


def answers(deliberation: str, item: str | None = None) -> str:
    """The pattern of all answers of a deliberation, or of one item."""
    return f"answers.{deliberation}.>" if item is None else f"answers.{deliberation}.{item}.>"


def attempt(deliberation: str, item: str, stage: str, member: str) -> str:
    """A call that failed and is made again."""
    return f"attempts.{deliberation}.{item}.{stage}.{member}"


def attempts(deliberation: str) -> str:
    """The pattern of all calls of a deliberation that failed and are made again."""
    return f"attempts.{deliberation}.>"


def decision(deliberation: str, item: str) -> str:
    """What was decided for an item, once."""
    return f"decisions.{deliberation}.{item}"


def dispatch(deliberation: str, epoch: int, upto: int | str) -> str:
    """On core NATS: so many items of its agenda may have begun, by the run of this epoch."""
    return f"conclave.dispatch.{deliberation}.{epoch}.{upto}"


def leave(deliberation: str, item: str, stage: str) -> str:
    """On core NATS: nobody waits any more for those who have not answered an item in a stage."""
    return f"conclave.leave.{deliberation}.{item}.{stage}"


def request(deliberation: str, lane: Lane = "interactive") -> str:
    """Where a request waits for a worker."""
    return f"requests.{deliberation}.batch" if lane == "batch" else f"requests.{deliberation}"


def callback(deliberation: str, number: int) -> str:
    """A delivery of its end that is to be made, to the n-th who asked for it."""
    return f"callbacks.{deliberation}.{number}"


def status(deliberation: str) -> str:
    """The key of its status, as a subject of the bucket's stream."""
    return f"$KV.{STATUS_BUCKET}.{deliberation}"
