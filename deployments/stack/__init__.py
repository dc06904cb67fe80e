"""The local stack: NATS, Prefect, Ray and a model server on loopback, one set per CONCLAVE_HOME."""

from deployments.stack.exceptions import StackError
from deployments.stack.lifecycle import down, up
from deployments.stack.models import PartStatus, StackStatus, UpOptions
from deployments.stack.observation import authorization, check_keys, environment, events_url, status

__all__ = [
    "authorization",
    "check_keys",
    "PartStatus",
    "StackError",
    "StackStatus",
    "UpOptions",
    "down",
    "environment",
    "events_url",
    "status",
    "up",
]
