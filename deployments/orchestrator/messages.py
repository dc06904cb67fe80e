"""What is asked in messages of `orchestrator.v1`, as fields of a request, and results as messages. Pure.

What a result does not say stays unset in its message; the comments of the proto say what that is.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterable, Mapping
from typing import Any

from deployments.orchestrator.generated import orchestrator_pb2 as pb
from tasks.council.council import CouncilSpec, Member
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import DeliberationRequest, Status

Body = Mapping[str, Any]
VERSION = importlib.metadata.version("conclave")
DEFAULT_COUNCIL: str = DeliberationRequest.model_fields["council"].default
OWN_IDS = ("task_id", "case_id", "story_id", "plan_id")
"""Ids that a caller of Orchestrate has for what it asks, carried along as metadata."""
STATUSES = {
    Status.PENDING: pb.DELIBERATION_STATUS_PENDING,
    Status.IN_PROGRESS: pb.DELIBERATION_STATUS_IN_PROGRESS,
    Status.COMPLETED: pb.DELIBERATION_STATUS_COMPLETED,
    Status.FAILED: pb.DELIBERATION_STATUS_FAILED,
    Status.TIMEOUT: pb.DELIBERATION_STATUS_TIMEOUT,
    Status.CANCELLED: pb.DELIBERATION_STATUS_FAILED,
}
CANCELLED = "cancelled"
"""How the reason of one begins that was cancelled, which has no status of its own there."""
TAGS = ("council", "strategy", "decided_by", "engine", "degraded")
THEIR_NAMES = {
    "task": "task_description",
    "council": "role",
    "members": "num_agents",
    "rubric": "constraints.rubric",
    "requirements": "constraints.requirements",
    "metadata": "constraints.metadata",
    "deadline_s": "constraints.timeout_seconds",
}
"""What the fields of a request are called in their messages; others have the same name."""


# --- asked ----------------------------------------------------------------------------------------


def deliberate_fields(request: pb.DeliberateRequest, council: str) -> dict[str, Any]:
    """What Deliberate and StreamDeliberation ask, as fields of a request."""
    asked = _fields(request.task_description, council, request.constraints, request.rounds)
    return {**asked, "members": request.num_agents or None}


def orchestrate_fields(request: pb.OrchestrateRequest, council: str) -> dict[str, Any]:
    """What Orchestrate asks, as fields of a request."""
    rounds = request.options.deliberation_rounds
    asked = _fields(request.task_description, council, request.constraints, rounds)
    own = {name: value for name in OWN_IDS if (value := getattr(request, name))}
    return {**asked, "strategy": "synthesize", "metadata": {**asked["metadata"], **own}}


def _fields(task: str, council: str, constraints: pb.TaskConstraints, rounds: int) -> dict[str, Any]:
    """What is empty or 0 is left to its default; an empty task is said to be."""
    return {
        "task": task,
        "council": council,
        "rubric": constraints.rubric or None,
        "requirements": list(constraints.requirements) or None,
        "metadata": dict(constraints.metadata),
        "rounds": rounds or None,
        "deadline_s": constraints.timeout_seconds or None,
    }


def council_of(role: str, known: Iterable[str]) -> str:
    """The council that a role names, in any case; a name that is not known as it may be meant."""
    name = role.strip() or DEFAULT_COUNCIL
    return next((one for one in known if one.casefold() == name.casefold()), name.lower())


def in_their_words(error: InvalidRequest) -> InvalidRequest:
    """The error, with the field named as in the message."""
    first, _, rest = error.field.partition(".")
    name = THEIR_NAMES.get(first, first)
    return type(error)(f"{name}.{rest}" if rest else name, error.problem)


# --- results --------------------------------------------------------------------------------------


def deliberate_response(result: Body) -> pb.DeliberateResponse:
    """The answer of Deliberate."""
    return pb.DeliberateResponse(
        results=_ranked(result),
        winner_id=result.get("winner_id") or "",
        duration_ms=result.get("duration_ms") or 0,
        metadata=metadata(result),
    )


def orchestrate_response(result: Body) -> pb.OrchestrateResponse:
    """The answer of Orchestrate: the synthesis, or else the best proposal, and the others."""
    winner, candidates = decided(result), _ranked(result)
    if synthesis_of(result) is None:
        candidates = [one for one in candidates if one != winner]
    return pb.OrchestrateResponse(
        winner=winner,
        candidates=candidates,
        execution_id=result["id"],
        duration_ms=result.get("duration_ms") or 0,
        metadata=metadata(result),
    )


def result_response(result: Body) -> pb.GetDeliberationResultResponse:
    """The answer of GetDeliberationResult."""
    return pb.GetDeliberationResultResponse(
        task_id=result["id"],
        status=STATUSES[Status(result["status"])],
        results=_ranked(result),
        winner_id=result.get("winner_id") or "",
        duration_ms=result.get("duration_ms") or 0,
        error_message=reason_of(result),
        metadata=metadata(result),
    )


def decided(result: Body) -> pb.DeliberationResult | None:
    """What was decided: the synthesis, else the proposal of the winner; None where nothing was."""
    written = synthesis_of(result)
    if written is not None:
        return written
    return next((one for one in _ranked(result) if one.proposal.author_id == result.get("winner_id")), None)


def synthesis_of(result: Body) -> pb.DeliberationResult | None:
    """What the chairman wrote, where that was decided on. No check was made of it, so it has no score and no rank."""
    synthesis = result.get("synthesis") or {}
    if result.get("decided_by") != "synthesis" or not synthesis.get("content"):
        return None
    author = synthesis["chairman_id"]
    role = next((one["role"] for one in result.get("members") or () if one["agent_id"] == author), "")
    return pb.DeliberationResult(proposal=pb.Proposal(author_id=author, author_role=role, content=synthesis["content"]))


def reason_of(result: Body) -> str:
    """Why a deliberation came to nothing; empty where it did not."""
    text = result.get("error_message") or ""
    if result["status"] != Status.CANCELLED:
        return text
    return text if text.startswith(CANCELLED) else f"{CANCELLED}: {text or 'it was asked to stop'}"


def metadata(result: Body) -> pb.OrchestratorMetadata:
    """What is told beside a result."""
    tags = {name: _text(result[name]) for name in TAGS if result.get(name) is not None}
    return pb.OrchestratorMetadata(
        orchestrator_version=VERSION, timestamp_ms=int(time.time() * 1000), execution_id=result["id"], tags=tags
    )


def proposal(body: Body) -> pb.Proposal:
    """A member's text."""
    return pb.Proposal(
        author_id=body["author_id"],
        author_role=body["author_role"],
        content=body["content"],
        revisions=body.get("revisions") or (),
    )


def _ranked(result: Body) -> list[pb.DeliberationResult]:
    """The proposals, the best first."""
    found = [_result(one) for one in result.get("results") or ()]
    return sorted(found, key=lambda one: one.rank)


def _result(ranked: Body) -> pb.DeliberationResult:
    checks = ranked.get("checks")
    return pb.DeliberationResult(
        proposal=proposal(ranked["proposal"]),
        checks=_suite(checks) if checks else None,
        score=ranked["score"],
        rank=ranked["rank"],
    )


def _suite(checks: Iterable[Body]) -> pb.CheckSuite:
    found = [
        pb.CheckResult(
            check_type=check["name"],
            passed=check["passed"],
            score=check["score"],
            message=check["evidence"],
            details={"weight": f"{check['weight']:g}"},
        )
        for check in checks
    ]
    return pb.CheckSuite(additional_checks=found, all_passed=all(check.passed for check in found))


def _text(value: object) -> str:
    """A value as JSON would write it, a text as it is."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- councils -------------------------------------------------------------------------------------


def council_info(spec: CouncilSpec, busy: bool, ready: bool, include_agents: bool) -> pb.CouncilInfo:
    """A council: `busy` where something it was asked is open, its members `ready` where somebody would run it."""
    models = {member.model for member in spec.members}
    model = models.pop() if len(models) == 1 else None
    return pb.CouncilInfo(
        council_id=spec.name,
        role=spec.name.upper(),
        num_agents=len(spec.members),
        agents=[_agent(member, ready) for member in spec.members] if include_agents else (),
        status=state(busy),
        model=model or "",
    )


def state(busy: bool) -> str:
    """What a council is said to be."""
    return "busy" if busy else "idle"


def _agent(member: Member, ready: bool) -> pb.AgentInfo:
    return pb.AgentInfo(
        agent_id=member.agent_id,
        role=member.role,
        status="ready" if ready else "offline",
        capabilities=pb.AgentCapabilities(model_profile=member.model or ""),
    )
