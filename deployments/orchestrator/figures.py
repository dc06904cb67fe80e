"""Figures of deliberations and councils as messages of `orchestrator.v1`. Pure; what nobody counts stays 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import fmean, quantiles
from typing import Any, Protocol

from deployments.orchestrator.generated import orchestrator_pb2 as pb
from deployments.orchestrator.messages import state
from tasks.council.council import CouncilSpec
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Status

KINDS = ("performance", "agents", "councils")


class Tallied(Protocol):
    """How many deliberations of a council have a status."""

    @property
    def council(self) -> str: ...  # noqa: D102
    @property
    def status(self) -> Status: ...  # noqa: D102
    @property
    def many(self) -> int: ...  # noqa: D102


def health(workers: int) -> str:
    """How the service is, where so many workers take what is asked for."""
    return "healthy" if workers else "degraded"


def kinds_of(metric_type: str) -> tuple[str, ...]:
    """The kinds of figures that are asked for. Raises InvalidRequest."""
    if metric_type in ("", "all"):
        return KINDS
    if metric_type not in KINDS:
        raise InvalidRequest("metric_type", f"must be one of {', '.join(KINDS)}, all, or empty")
    return (metric_type,)


def busy(tallies: Iterable[Tallied]) -> set[str]:
    """The councils of which something is open."""
    return {tally.council for tally in tallies if not tally.status.final}


def stats(tallies: Sequence[Tallied], durations: Sequence[float]) -> pb.OrchestratorStats:
    """What a status has beside it."""
    counts: Counter[str] = Counter()
    for tally in tallies:
        counts[tally.council] += tally.many
    return pb.OrchestratorStats(
        total_deliberations=counts.total(),
        avg_deliberation_time_ms=fmean(durations) if durations else 0.0,
        active_councils=len(busy(tallies)),
        role_counts=counts,
    )


def performance(durations: Sequence[float]) -> pb.PerformanceMetrics:
    """How long deliberations take, by those that took so long."""
    if not durations:
        return pb.PerformanceMetrics()
    percent = quantiles(durations, n=100, method="inclusive") if len(durations) > 1 else [durations[0]] * 99
    return pb.PerformanceMetrics(
        avg_deliberation_ms=fmean(durations),
        p50_latency_ms=percent[49],
        p95_latency_ms=percent[94],
        p99_latency_ms=percent[98],
    )


def agents(specs: Iterable[CouncilSpec]) -> pb.AgentMetrics:
    """The members of councils."""
    roles: Counter[str] = Counter()
    for spec in specs:
        roles.update(member.role for member in spec.members)
    return pb.AgentMetrics(total_agents=roles.total(), agents_per_role=roles)


def councils(specs: Sequence[CouncilSpec], tallies: Sequence[Tallied]) -> pb.CouncilMetrics:
    """The councils, and how what they were asked has ended."""
    at_work, rates = busy(tallies), _success_rates(tallies)
    health_of = {
        spec.name: pb.CouncilHealth(status=state(spec.name in at_work), success_rate=rates.get(spec.name, 0.0))
        for spec in specs
    }
    active = sum(name in at_work for name in health_of)
    return pb.CouncilMetrics(total_councils=len(specs), active_councils=active, health_per_council=health_of)


def _success_rates(tallies: Iterable[Tallied]) -> dict[str, float]:
    ended: Counter[str] = Counter()
    completed: Counter[str] = Counter()
    for tally in tallies:
        if tally.status.final:
            ended[tally.council] += tally.many
        if tally.status is Status.COMPLETED:
            completed[tally.council] += tally.many
    return {council: completed[council] / count for council, count in ended.items()}


def durations_ms(listed: Iterable[Mapping[str, Any]], since: datetime | None) -> list[float]:
    """How long those took that were asked for since then, of those whose start and end are known."""
    found = []
    for one in listed:
        begun, ended = one.get("started_at"), one.get("completed_at")
        if begun and ended and (since is None or datetime.fromisoformat(one["created_at"]) >= since):
            took = datetime.fromisoformat(ended) - datetime.fromisoformat(begun)
            found.append(took.total_seconds() * 1000)
    return found
