"""The gateway over gRPC: each call, each status, and clients of which some know nothing but the address."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from blocks.exceptions import RecordUnavailable
from blocks.record import arrivals
from deployments.gateway import authentication
from deployments.gateway.problems import Problem, later
from deployments.gateway.rpc import calls, health, server, servicer, statuses
from deployments.gateway.rpc.server import listening
from deployments.gateway.settings import gateway_settings
from deployments.orchestrator.generated import orchestrator_pb2 as pb
from deployments.orchestrator.generated.orchestrator_pb2_grpc import OrchestratorServiceStub
from deployments.settings import SettingsError
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Status
from tasks.deliberations.councils import UnknownCouncil, write_mirror
from tests.deployments.gateway.parts import MEMBERS, TASK, Gateway, Run, council

pytestmark = pytest.mark.servers

OPTIONS = [("grpc.enable_http_proxy", 0)]
NAME = "orchestrator.v1.OrchestratorService"
Code = grpc.StatusCode
LONG_S = 20.0


class Door:
    """A gateway that listens for gRPC, too, and a client of it with a token of the scope admin."""

    def __init__(self, gateway: Gateway, address: str, channel: Any) -> None:
        self.gateway, self.address, self.channel = gateway, address, channel
        self.stub = OrchestratorServiceStub(channel)
        self.record = gateway.record

    def bearer(self, token: str = "", **more: str) -> list[tuple[str, str]]:
        """The metadata of a call; `key` is an idempotency key."""
        named = [("idempotency-key" if name == "key" else name, value) for name, value in more.items()]
        return [("authorization", f"Bearer {token or self.gateway.text}"), *named]

    def deliberate(self, metadata: Any = None, timeout: float = LONG_S, **fields: Any) -> Any:
        request = pb.DeliberateRequest(**{"task_description": TASK, **fields})
        return self.stub.Deliberate(request, metadata=self.bearer() if metadata is None else metadata, timeout=timeout)

    async def result(self, one: str, token: str = "") -> pb.GetDeliberationResultResponse:
        request = pb.GetDeliberationResultRequest(task_id=one)
        return await self.stub.GetDeliberationResult(request, metadata=self.bearer(token), timeout=LONG_S)

    async def queued(self) -> list[str]:
        return [subject.split(".")[1] for subject in await self.gateway.queued()]

    async def asked(self) -> str:
        """The id of the only request that waits."""
        async with asyncio.timeout(LONG_S):
            while not (ids := await self.queued()):
                await asyncio.sleep(0.01)
        (one,) = ids
        return one

    async def decide(self, **decision: Any) -> Run:
        """Let a run decide what is asked for next."""
        run = Run(self.record, await self.asked())
        await run.begin()
        for member in MEMBERS:
            await run.answer(member)
        await run.close()
        await run.decide(**(DECIDED | decision))
        await run.finish(status=decision.get("status", "COMPLETED"))
        return run


def ranked(author: str, rank: int, score: float) -> dict[str, Any]:
    text = {"author_id": author, "author_role": "DEV", "content": f"by {author}", "revisions": ["once"]}
    checks = [
        {"name": "length", "passed": True, "score": 1.0, "weight": 1.0, "evidence": "long enough"},
        {"name": "keywords", "passed": rank == 1, "score": score, "weight": 2.0, "evidence": "some"},
    ]
    return {"proposal": text, "score": score, "votes": 0.5, "rank": rank, "checks": checks}


DECIDED: dict[str, Any] = {
    "results": [ranked("m2", 2, 0.5), ranked("m1", 1, 0.9)],
    "members": [{"agent_id": one, "role": "DEV"} for one in MEMBERS],
    "decided_by": "ballots",
    "strategy": "rank",
    "decision": "by m1",
}


@asynccontextmanager
async def door_of(gateway: Gateway) -> AsyncGenerator[Door, None]:
    async with listening(gateway.service, "127.0.0.1:0") as port:
        address = f"127.0.0.1:{port}"
        async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
            yield Door(gateway, address, channel)


@pytest_asyncio.fixture
async def door(gateway: Gateway) -> AsyncGenerator[Door, None]:
    await write_mirror(gateway.record, {"dev": council(), "Team": council("Team")})
    async with door_of(gateway) as found:
        yield found


async def refusal(call: Any) -> Any:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


def trailing(error: Any) -> dict[str, str]:
    return dict(error.trailing_metadata() or ())


async def initial(call: Any) -> dict[str, str]:
    return dict(await call.initial_metadata())


# --- calls ----------------------------------------------------------------------------------------


async def test_deliberate_answers_with_the_results_by_rank(door: Door) -> None:
    constraints = pb.TaskConstraints(
        rubric="short", requirements=["a", "b"], metadata={"order": "17"}, max_iterations=9, timeout_seconds=60
    )
    call = door.deliberate(role="DEV", constraints=constraints, rounds=1, num_agents=3)
    run = await door.decide()
    told = await call
    assert [(one.proposal.author_id, one.rank, one.score) for one in told.results] == [("m1", 1, 0.9), ("m2", 2, 0.5)]
    best = told.results[0]
    assert (best.proposal.content, best.proposal.author_role, list(best.proposal.revisions)) == (
        "by m1",
        "DEV",
        ["once"],
    )
    assert [(one.check_type, one.passed) for one in best.checks.additional_checks] == [
        ("length", True),
        ("keywords", True),
    ]
    assert (best.checks.all_passed, told.results[1].checks.all_passed) == (True, False)
    assert not any(best.checks.HasField(name) for name in ("policy", "lint", "dryrun"))
    assert (told.winner_id, told.duration_ms) == ("m1", 5)
    assert (told.metadata.execution_id, told.metadata.tags["decided_by"]) == (run.id, "ballots")
    assert told.metadata.tags["degraded"] == "false"
    assert (await initial(call))["conclave-id"] == run.id
    key = await door.record.statuses.read(run.id) or {}
    assert key["request"] == {
        "task": TASK,
        "council": "dev",
        "rubric": "short",
        "requirements": ["a", "b"],
        "metadata": {"order": "17"},
        "rounds": 1,
        "members": 3,
        "deadline_s": 60.0,
    }
    assert (key["door"], key["owner"]) == ("gateway", "tester")


@pytest.mark.parametrize(("role", "name"), [("", "dev"), ("Dev", "dev"), ("TEAM", "Team"), (" team ", "Team")])
async def test_a_role_names_its_council_in_any_case(door: Door, role: str, name: str) -> None:
    call = door.deliberate(role=role)
    one = await door.asked()
    assert (await door.record.statuses.read(one) or {})["council"] == name
    call.cancel()


async def test_a_result_is_told_as_far_as_it_is(door: Door) -> None:
    call = door.deliberate()
    one = await door.asked()
    assert (await door.result(one)).status == pb.DELIBERATION_STATUS_PENDING
    await door.decide()
    await call
    told = await door.result(one)
    assert (told.task_id, told.status, told.winner_id) == (one, pb.DELIBERATION_STATUS_COMPLETED, "m1")
    assert (len(told.results), told.duration_ms, told.error_message) == (2, 5, "")


async def test_what_was_cancelled_has_failed_and_says_so(door: Door) -> None:
    one = (await door.gateway.post()).body["id"]
    await door.gateway.ask("DELETE", f"/v1/deliberations/{one}")
    told = await door.result(one)
    assert told.status == pb.DELIBERATION_STATUS_FAILED
    assert told.error_message == "cancelled before it began"


SYNTHESIS = {
    "decided_by": "synthesis",
    "synthesis": {"chairman_id": "m3", "status": "ok", "content": "of both"},
    "winner_id": None,
}


@pytest.mark.parametrize(
    ("more", "winner", "candidates"),
    [(SYNTHESIS, ("m3", "of both", 0), ["m1", "m2"]), ({}, ("m1", "by m1", 1), ["m2"])],
)
async def test_orchestrate_has_the_synthesis_or_else_the_best(
    door: Door, more: dict[str, Any], winner: tuple[str, str, int], candidates: list[str]
) -> None:
    request = pb.OrchestrateRequest(
        task_id="t1", task_description=TASK, role="DEV", options={"deliberation_rounds": 1}, story_id="s1"
    )
    call = door.stub.Orchestrate(request, metadata=door.bearer(), timeout=LONG_S)
    run = await door.decide(**more)
    told = await call
    assert (told.winner.proposal.author_id, told.winner.proposal.content, told.winner.rank) == winner
    assert told.winner.proposal.author_role == "DEV"
    assert [one.proposal.author_id for one in told.candidates] == candidates
    assert told.execution_id == run.id
    asked = (await door.record.statuses.read(run.id) or {})["request"]
    assert (asked["strategy"], asked["rounds"]) == ("synthesize", 1)
    assert asked["metadata"] == {"task_id": "t1", "story_id": "s1"}


async def test_a_stream_tells_how_it_comes_along(door: Door) -> None:
    call = door.stub.StreamDeliberation(pb.DeliberateRequest(task_description=TASK), metadata=door.bearer())
    deciding = asyncio.create_task(door.decide())
    told = [update async for update in call]
    run = await deciding
    assert (await initial(call))["conclave-id"] == run.id
    assert [one.status for one in told] == ["generating"] * 4 + ["scoring", "complete"]
    assert [one.current_step for one in told] == ["started", *["propose-0"] * 3, "decision", "finished"]
    assert [one.current_agent for one in told[1:4]] == list(MEMBERS)
    percents = [one.progress_percent for one in told]
    assert percents == sorted(percents)
    assert percents[-1] == 100 > percents[-2]
    assert told[-1].partial_result.proposal.content == "by m1"


async def test_councils_are_listed_that_the_token_may_ask(door: Door) -> None:
    everything = pb.ListCouncilsRequest(include_agents=True)
    told = await door.stub.ListCouncils(everything, metadata=door.bearer())
    assert [(one.council_id, one.role, one.num_agents, one.status) for one in told.councils] == [
        ("Team", "TEAM", 3, "idle"),
        ("dev", "DEV", 3, "idle"),
    ]
    assert [(one.agent_id, one.role, one.status) for one in told.councils[1].agents][:1] == [("m1", "DEV", "offline")]
    token = await door.gateway.new_token(councils=("dev",))
    told = await door.stub.ListCouncils(pb.ListCouncilsRequest(), metadata=door.bearer(token))
    assert [one.council_id for one in told.councils] == ["dev"]
    assert not told.councils[0].agents
    await door.gateway.post()
    told = await door.stub.ListCouncils(pb.ListCouncilsRequest(role_filter="DEV"), metadata=door.bearer())
    assert [(one.council_id, one.status) for one in told.councils] == [("dev", "busy")]


async def test_status_and_metrics_say_what_is_known(door: Door) -> None:
    await Run(door.record, "done").whole()
    await door.gateway.post(council="Team")
    told = await door.stub.GetStatus(pb.GetStatusRequest(include_stats=True), metadata=door.bearer())
    assert (told.status, told.stats.total_deliberations) == ("degraded", 2)
    assert dict(told.stats.role_counts) == {"dev": 1, "Team": 1}
    assert (told.stats.active_councils, told.stats.total_orchestrations) == (1, 0)
    plain = await door.stub.GetStatus(pb.GetStatusRequest(), metadata=door.bearer())
    assert not plain.HasField("stats")
    figures = await door.stub.GetMetrics(pb.GetMetricsRequest(), metadata=door.bearer())
    assert figures.performance.avg_deliberation_ms == figures.performance.p99_latency_ms > 0
    assert (figures.agents.total_agents, dict(figures.agents.agents_per_role)) == (6, {"DEV": 6})
    health = figures.councils.health_per_council
    assert (health["dev"].success_rate, health["dev"].status) == (1.0, "idle")
    assert (health["Team"].success_rate, health["Team"].status) == (0.0, "busy")
    one = await door.stub.GetMetrics(pb.GetMetricsRequest(metric_type="agents"), metadata=door.bearer())
    assert (one.HasField("agents"), one.HasField("councils"), one.HasField("performance")) == (True, False, False)
    error = await refusal(door.stub.GetMetrics(pb.GetMetricsRequest(metric_type="x"), metadata=door.bearer()))
    assert error.code() is Code.INVALID_ARGUMENT
    counts = {"OK": 2, "INVALID_ARGUMENT": 1}
    lines = {f'conclave_grpc_requests_total{{method="GetMetrics",code="{code}"}} {n}' for code, n in counts.items()}
    async with asyncio.timeout(LONG_S):  # a call is counted once it has been answered
        while not lines <= set((await door.gateway.get("/metrics")).text.splitlines()):
            await asyncio.sleep(0.02)


async def test_figures_are_of_what_the_token_sees(door: Door) -> None:
    await door.gateway.post()
    token = await door.gateway.new_token(owner="a")
    told = await door.stub.GetStatus(pb.GetStatusRequest(include_stats=True), metadata=door.bearer(token))
    assert told.stats.total_deliberations == 0
    error = await refusal(door.stub.GetMetrics(pb.GetMetricsRequest(), metadata=door.bearer(token)))
    assert (error.code(), "read" in error.details()) == (Code.PERMISSION_DENIED, True)


NOT_HERE = {
    "RegisterAgent": (pb.RegisterAgentRequest, "conclave councils apply"),
    "CreateCouncil": (pb.CreateCouncilRequest, "conclave councils apply"),
    "UnregisterAgent": (pb.UnregisterAgentRequest, "conclave councils apply"),
    "ProcessPlanningEvent": (pb.PlanningEventRequest, "listeners"),
    "DeriveSubtasks": (pb.DeriveSubtasksRequest, "another service"),
    "GetTaskContext": (pb.GetTaskContextRequest, "another service"),
}


@pytest.mark.parametrize("name", NOT_HERE)
async def test_what_is_not_done_here_says_why(door: Door, name: str) -> None:
    request, reason = NOT_HERE[name]
    error = await refusal(getattr(door.stub, name)(request()))
    assert (error.code(), reason in error.details()) == (Code.UNIMPLEMENTED, True)


# --- who asks -------------------------------------------------------------------------------------


async def test_who_has_no_token_that_is_known_is_let_into_nothing(door: Door) -> None:
    unknown = "Bearer cnc_aaaaaaaaaaaa_" + "A" * 43
    for value in ("", "Bearer", "Basic dXNlcjpwYXNz", "Bearer cnc_x", unknown):
        error = await refusal(door.deliberate([("authorization", value)]))
        assert (error.code(), trailing(error)["conclave-type"]) == (Code.UNAUTHENTICATED, "unauthorized")
    assert (await refusal(door.deliberate([]))).code() is Code.UNAUTHENTICATED
    assert (await refusal(door.deliberate([*door.bearer(), *door.bearer()]))).code() is Code.INVALID_ARGUMENT
    assert await door.queued() == []


async def test_a_token_that_has_expired_lets_nobody_in(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await door.gateway.new_token(days=1)

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=2)

    monkeypatch.setattr(authentication, "datetime", Later)
    error = await refusal(door.deliberate(door.bearer(token)))
    assert (error.code(), "expired" in error.details()) == (Code.UNAUTHENTICATED, True)


async def test_scopes_councils_and_owners_count_as_over_http(door: Door) -> None:
    reader = await door.gateway.new_token("read")
    assert (await refusal(door.deliberate(door.bearer(reader)))).code() is Code.PERMISSION_DENIED
    bound = await door.gateway.new_token(councils=("dev",))
    error = await refusal(door.deliberate(door.bearer(bound), role="Team"))
    assert (error.code(), trailing(error)["conclave-type"]) == (Code.PERMISSION_DENIED, "forbidden")
    theirs = (await door.gateway.post()).body["id"]
    error = await refusal(door.result(theirs, bound))
    assert error.code() is Code.NOT_FOUND
    assert (await door.result(theirs, reader)).task_id == theirs


async def test_quotas_count_as_over_http(door: Door) -> None:
    token = await door.gateway.new_token(at_once=1)
    first = door.deliberate(door.bearer(token))
    await door.asked()
    error = await refusal(door.deliberate(door.bearer(token)))
    assert (error.code(), trailing(error)["conclave-type"]) == (Code.RESOURCE_EXHAUSTED, "too-many-open")
    assert int(trailing(error)["retry-after"]) > 0
    first.cancel()


async def test_who_asks_too_often_is_told_when_to_ask_again(serve: Callable[..., Any]) -> None:
    async with serve(rate="2/hour") as gateway, door_of(gateway) as door:
        asked = pb.GetStatusRequest()
        call = door.stub.GetStatus(asked, metadata=door.bearer())
        await call
        assert "r=1" in dict(await call.trailing_metadata())["ratelimit"]
        await door.stub.GetStatus(asked, metadata=door.bearer())
        error = await refusal(door.stub.GetStatus(asked, metadata=door.bearer()))
        assert error.code() is Code.RESOURCE_EXHAUSTED
        assert 0 < int(trailing(error)["retry-after"]) <= 120  # less where the hour is about to end
        assert "r=0" in trailing(error)["ratelimit"]


async def test_open_to_everybody_nobody_is_asked(
    serve: Callable[..., AbstractAsyncContextManager[Gateway]],
) -> None:
    async with serve(open=True) as gateway, door_of(gateway) as door:
        assert (await door.stub.GetStatus(pb.GetStatusRequest())).status == "degraded"
        error = await refusal(door.deliberate([("authorization", "Bearer cnc_x")]))
        assert error.code() is Code.UNAUTHENTICATED


async def test_each_submission_leaves_a_line(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "conclave.audit"):
        call = door.deliberate()
        one = await door.asked()
        call.cancel()
        assert f"submit {one} new=True" in caplog.text


@pytest.mark.parametrize("listen", ["0.0.0.0:50055", "[::]:50055", "gateway.example:50055"])
def test_open_is_refused_where_others_reach_it(listen: str) -> None:
    with pytest.raises(SettingsError, match="CONCLAVE_OPEN"):
        gateway_settings({"CONCLAVE_OPEN": "1", "CONCLAVE_GRPC": listen})
    assert gateway_settings({"CONCLAVE_GRPC": listen}).grpc_listen == listen
    assert gateway_settings({"CONCLAVE_OPEN": "1", "CONCLAVE_GRPC": "off"}).grpc_listen is None
    assert gateway_settings({}).grpc_listen is None


# --- once and only once, and what is wrong --------------------------------------------------------


async def test_the_same_key_twenty_times_at_once_is_one_deliberation(door: Door) -> None:
    calls = [door.deliberate(door.bearer(key="k")) for _ in range(20)]
    one = await door.asked()
    await door.decide()
    assert {(await call).winner_id for call in calls} == {"m1"}
    told = [await initial(call) for call in calls]
    assert {entries["conclave-id"] for entries in told} == {one}
    assert sum("idempotency-replayed" in entries for entries in told) == 19
    assert (await door.gateway.post("k", council="dev", metadata={})).body["id"] == one  # one key over both doors
    error = await refusal(door.deliberate(door.bearer(key="k"), task_description="Choose another"))
    assert (error.code(), trailing(error)["conclave-type"]) == (Code.ALREADY_EXISTS, "idempotency-key-reused")
    assert trailing(error)["conclave-id"] == one


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"task_description": ""}, "task_description"),
        ({"num_agents": -1}, "num_agents"),
        ({"num_agents": 1000}, "num_agents"),
        ({"rounds": 9}, "rounds"),
        ({"constraints": {"timeout_seconds": -5}}, "constraints.timeout_seconds"),
        ({"constraints": {"requirements": [""]}}, "constraints.requirements.0"),
    ],
)
async def test_what_cannot_be_asked_names_the_field_as_the_message_does(
    door: Door, fields: dict[str, Any], field: str
) -> None:
    error = await refusal(door.deliberate(**fields))
    assert (error.code(), trailing(error)["conclave-field"]) == (Code.INVALID_ARGUMENT, field)
    assert error.details().startswith(field)
    assert await door.queued() == []


async def test_a_role_without_a_council_is_not_found_and_the_known_are_told(door: Door) -> None:
    error = await refusal(door.deliberate(role="NOBODY"))
    assert error.code() is Code.NOT_FOUND
    assert trailing(error)["conclave-field"] == "role"
    assert error.details() == "role: 'nobody' is unknown; known are Team, dev"


HOSTILE = ["a" * 300, "x" * 9_000, "", '""']


@pytest.mark.parametrize("key", HOSTILE)
async def test_a_key_that_is_none_is_refused(door: Door, key: str) -> None:
    error = await refusal(door.deliberate(door.bearer(key=key)))
    assert (error.code(), trailing(error)["conclave-field"]) == (Code.INVALID_ARGUMENT, "Idempotency-Key")
    assert await door.queued() == []
    assert (await door.stub.GetStatus(pb.GetStatusRequest(), metadata=door.bearer())).uptime_seconds >= 0


async def test_hostile_metadata_and_bodies_bring_nothing_down(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    binary = [*door.bearer(), ("idempotency-key-bin", b"\xff\x00"), ("authorization-bin", b"\x00")]
    call = door.deliberate(binary, constraints={"metadata": {"é\n": "\x1b[31m"}})
    one = await door.asked()
    assert (await door.record.statuses.read(one) or {})["request"]["metadata"] == {"é\n": "\x1b[31m"}
    call.cancel()
    twice = [*door.bearer(), ("idempotency-key", "a"), ("idempotency-key", "b")]
    error = await refusal(door.deliberate(twice))
    assert trailing(error)["conclave-field"] == "Idempotency-Key"
    many = [*door.bearer(), *((f"x-{number}", "y" * 900) for number in range(100))]
    assert (await refusal(door.deliberate(many))).code() is Code.RESOURCE_EXHAUSTED
    long = await refusal(door.deliberate(role="漢" * 100_000))
    assert (long.code(), len(long.details().encode()) < 1_400) == (Code.INVALID_ARGUMENT, True)
    large = await refusal(door.deliberate(task_description="x" * (5 << 20)))
    assert large.code() is Code.RESOURCE_EXHAUSTED
    raw = door.channel.unary_unary(f"/{NAME}/Deliberate")
    for body in (b"\xff\xff\xff", text(1, "x")[:-1], b"\x0a\x02\xff\xff"):  # no message, cut off, no UTF-8
        error = await refusal(raw(body, metadata=door.bearer()))
        assert (error.code(), trailing(error)["conclave-type"]) == (Code.INVALID_ARGUMENT, "bad-request")
    check = door.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert await check(b"\xff\xff\xff")  # as an empty message
    stream = door.channel.unary_stream(f"/{NAME}/StreamDeliberation")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        _ = [each async for each in stream(b"\xff\xff\xff", metadata=door.bearer())]
    assert refused.value.code() is Code.INVALID_ARGUMENT
    assert "Traceback" not in caplog.text
    unheard = door.channel.unary_unary(f"/{NAME}/Unheard")
    assert (await refusal(unheard(b"", metadata=door.bearer()))).code() is Code.UNIMPLEMENTED
    assert len(await door.queued()) == 1


# --- waiting --------------------------------------------------------------------------------------


async def test_at_the_callers_deadline_it_goes_on_and_its_id_is_known(door: Door) -> None:
    call = door.deliberate(timeout=0.3)
    one = (await initial(call))["conclave-id"]
    assert (await refusal(call)).code() is Code.DEADLINE_EXCEEDED
    assert (await door.result(one)).status == pb.DELIBERATION_STATUS_PENDING
    assert "cancel_requested" not in (await door.record.statuses.read(one) or {})
    await door.decide()
    assert (await door.result(one)).winner_id == "m1"


async def test_where_the_caller_says_nothing_the_request_does(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicer, "GRACE_S", -0.9)
    request = pb.DeliberateRequest(task_description=TASK, constraints={"timeout_seconds": 1})
    error = await refusal(door.stub.Deliberate(request, metadata=door.bearer()))
    assert (error.code(), "GetDeliberationResult" in error.details()) == (Code.DEADLINE_EXCEEDED, True)
    assert trailing(error)["conclave-id"] == await door.asked()


@pytest.mark.parametrize(
    ("status", "code"),
    [("FAILED", Code.ABORTED), ("TIMEOUT", Code.DEADLINE_EXCEEDED), ("CANCELLED", Code.CANCELLED)],
)
async def test_what_comes_to_nothing_is_no_result_to_who_waits(door: Door, status: str, code: Any) -> None:
    bad: dict[str, Any] = {
        "status": status,
        "winner_id": None,
        "decision": None,
        "results": [],
        "error_message": "no quorum",
    }
    call = door.deliberate(door.bearer(key="k"))
    stream = door.stub.StreamDeliberation(pb.DeliberateRequest(task_description=TASK), metadata=door.bearer(key="k"))
    run = await door.decide(**bad)
    error = await refusal(call)
    assert (error.code(), trailing(error)["conclave-id"]) == (code, run.id)
    assert "no quorum" in error.details()

    async def read() -> list[str]:
        return [update.status async for update in stream]

    assert (await refusal(read())).code() is code
    told = await door.result(run.id)
    assert told.error_message.endswith("no quorum")


def at_work() -> Counter[str]:
    """The tasks of this loop by what they do, but for those in which the server waits for calls."""
    names = Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
    return Counter({name: count for name, count in names.items() if "_request_" not in name})


async def test_a_client_that_leaves_cancels_nothing_and_leaves_no_task(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "LINGER_S", 0.1)
    await door.stub.GetStatus(pb.GetStatusRequest(), metadata=door.bearer())
    before = at_work()
    stream = door.stub.StreamDeliberation(pb.DeliberateRequest(task_description=TASK), metadata=door.bearer())
    run = Run(door.record, await door.asked())
    await run.begin()
    assert (await stream.read()).current_step == "started"
    call = door.deliberate(door.bearer(key="another"))
    async with asyncio.timeout(LONG_S):
        while len(await door.queued()) < 2:
            await asyncio.sleep(0.01)
    assert door.gateway.service.counts.listeners == 1
    stream.cancel()
    call.cancel()
    del stream, call
    async with asyncio.timeout(LONG_S):
        while door.gateway.service.counts.listeners or at_work() - before:
            await asyncio.sleep(0.02)
    assert "cancel_requested" not in (await door.record.statuses.read(run.id) or {})
    assert (await door.result(run.id)).status == pb.DELIBERATION_STATUS_IN_PROGRESS


async def test_a_client_that_does_not_read_is_followed_no_longer(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicer, "SEND_S", 0.2)
    monkeypatch.setattr(arrivals, "LINGER_S", 0.1)
    large = pb.DeliberationUpdate(current_step="x" * (3 << 20))
    monkeypatch.setattr(servicer.Updates, "of", lambda *_: large)
    await door.stub.GetStatus(pb.GetStatusRequest(), metadata=door.bearer())
    before = at_work()
    stream = door.stub.StreamDeliberation(pb.DeliberateRequest(task_description=TASK), metadata=door.bearer())
    run = Run(door.record, await door.asked())
    await run.begin()
    for member in MEMBERS:
        await run.answer(member)
    counts = door.gateway.service.counts
    async with asyncio.timeout(LONG_S):
        while not counts.listeners:
            await asyncio.sleep(0.02)
        while counts.listeners:
            await asyncio.sleep(0.02)
    stream.cancel()
    del stream
    async with asyncio.timeout(LONG_S):
        while at_work() - before:
            await asyncio.sleep(0.02)
    assert (await door.result(run.id)).status == pb.DELIBERATION_STATUS_IN_PROGRESS


@pytest.mark.parametrize("waits", [True, False])
async def test_who_waits_or_listens_is_told_where_the_token_counts_no_more(
    door: Door, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    monkeypatch.setattr(servicer, "STILL_S", 0.02)
    monkeypatch.setattr(authentication, "KEPT_S", 0.01)
    token, request = await door.gateway.new_token(), pb.DeliberateRequest(task_description=TASK)
    call = (door.stub.Deliberate if waits else door.stub.StreamDeliberation)(request, metadata=door.bearer(token))
    await door.asked()
    await door.record.access.delete(f"token.{token.split('_')[1]}")

    async def read() -> list[Any]:
        return [await call] if waits else [update async for update in call]

    assert (await refusal(read())).code() is Code.UNAUTHENTICATED


async def test_the_server_ends_with_the_gateway_though_somebody_waits(gateway: Gateway) -> None:
    await write_mirror(gateway.record, {"dev": council()})
    began = asyncio.get_running_loop().time()
    async with door_of(gateway) as door:
        call = door.deliberate()
        await door.asked()
    assert asyncio.get_running_loop().time() - began < 5
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call


async def test_what_is_too_much_at_once_is_refused(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CALLS", 2)
    await write_mirror(gateway.record, {"dev": council()})
    async with door_of(gateway) as door:
        waiting = [door.deliberate(door.bearer(key=key)) for key in ("a", "b")]
        async with asyncio.timeout(LONG_S):
            while len(await door.queued()) < 2:
                await asyncio.sleep(0.01)
        error = await refusal(door.stub.GetStatus(pb.GetStatusRequest(), metadata=door.bearer()))
        assert error.code() is Code.RESOURCE_EXHAUSTED
        for call in waiting:
            call.cancel()


async def test_a_port_in_use_is_told(door: Door) -> None:
    with pytest.raises(OSError, match="cannot listen"):
        async with listening(door.gateway.service, door.address):
            pass


# --- the table ------------------------------------------------------------------------------------


def test_the_table_says_which_status_stands_for_which(caplog: pytest.LogCaptureFixture) -> None:
    expected = {
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
    for status, code in expected.items():
        assert statuses.refused("Call", Problem(status, "x", "y")).code is code
    for kind in ("idempotency-key-reused", "id-reused"):
        assert statuses.refused("Call", Problem(422, kind, "y")).code is Code.ALREADY_EXISTS
    assert statuses.refused("Call", UnknownCouncil("council", "x")).code is Code.NOT_FOUND
    away = statuses.refused("Call", RecordUnavailable("nats://secret@host"))
    assert (away.code, dict(away.trailing)["retry-after"], "secret" in away.text) == (Code.UNAVAILABLE, "5", False)
    fault = statuses.refused("Call", ZeroDivisionError("inside"))
    assert (fault.code, "inside" in fault.text, "inside" in caplog.text) == (Code.INTERNAL, False, True)
    unknown = statuses.refused("Call", later(503, "x", "y", id="one", accepted="unknown"))
    assert dict(unknown.trailing)["conclave-accepted"] == "unknown"
    hostile = dict(statuses.refused("Call", InvalidRequest("metadata.é\n", "bad")).trailing)
    assert hostile["conclave-field"] == "constraints.metadata.\\xe9\\n"


def test_each_status_has_its_own_there() -> None:
    from deployments.orchestrator.messages import STATUSES

    assert set(STATUSES) == set(Status)
    assert set(statuses.OF_ENDS) == {one for one in Status if one.final} - {Status.COMPLETED}


async def test_where_the_record_is_away_calls_can_be_made_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_arguments: Any, **_options: Any) -> Any:
        raise RecordUnavailable("no answer")

    monkeypatch.setattr(door.record.statuses, "read", away)
    error = await refusal(door.result("one"))
    assert (error.code(), trailing(error)["retry-after"]) == (Code.UNAVAILABLE, "5")


# --- those who know nothing of us -----------------------------------------------------------------


async def test_health_is_told_to_everybody(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = health_pb2_grpc.HealthStub(door.channel)
    for name in ("", NAME):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status == 1
    assert (await refusal(stub.Check(health_pb2.HealthCheckRequest(service="x")))).code() is Code.NOT_FOUND
    watching = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == 1
    watching.cancel()

    async def away() -> int:
        raise RecordUnavailable("no answer")

    monkeypatch.setattr(door.gateway.service.workers, "get", away)
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == 2


async def test_a_client_that_knows_no_proto_asks_by_reflection(door: Door) -> None:
    def ask() -> Any:
        with grpc.insecure_channel(door.address, OPTIONS) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            assert NAME in database.get_services()
            pool = descriptor_pool.DescriptorPool(database)
            method = pool.FindServiceByName(NAME).methods_by_name["Deliberate"]
            request = message_factory.GetMessageClass(method.input_type)
            response = message_factory.GetMessageClass(method.output_type)
            call = channel.unary_unary(
                f"/{NAME}/{method.name}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            return call(request(task_description=TASK, role="DEV"), metadata=door.bearer(), timeout=LONG_S)

    asking = asyncio.create_task(asyncio.to_thread(ask))
    await door.decide()
    told = await asking
    assert (told.winner_id, told.results[0].proposal.author_role) == ("m1", "DEV")


FIELDS = {
    "TaskConstraints": "rubric requirements* metadata* max_iterations timeout_seconds",
    "DeliberateRequest": "task_description role constraints rounds num_agents",
    "DeliberateResponse": "results* winner_id duration_ms metadata",
    "GetDeliberationResultRequest": "task_id",
    "GetDeliberationResultResponse": "task_id status results* winner_id duration_ms error_message metadata",
    "OrchestrateRequest": "task_id task_description role constraints options case_id story_id plan_id context_options",
    "OrchestrateResponse": "winner candidates* execution_id duration_ms metadata",
    "OrchestratorOptions": "enable_peer_review deliberation_rounds enable_architect_selection custom_params*",
    "DeliberationResult": "proposal checks score rank",
    "Proposal": "author_id author_role content created_at_ms revisions*",
    "CheckSuite": "policy lint dryrun additional_checks* all_passed",
    "PolicyResult": "passed violations* message",
    "LintResult": "passed error_count warning_count errors*",
    "DryRunResult": "passed output exit_code message",
    "CheckResult": "check_type passed score message details*",
    "OrchestratorMetadata": "orchestrator_version timestamp_ms execution_id tags*",
    "OrchestratorStats": "total_deliberations total_orchestrations avg_deliberation_time_ms active_councils "
    "role_counts*",
    "DeliberationUpdate": "status progress_percent current_step current_agent partial_result",
    "GetStatusRequest": "include_stats",
    "GetStatusResponse": "status uptime_seconds stats",
    "GetMetricsRequest": "metric_type time_range_ms",
    "GetMetricsResponse": "performance agents councils",
    "PerformanceMetrics": "avg_deliberation_ms avg_orchestration_ms p50_latency_ms p95_latency_ms p99_latency_ms",
    "AgentMetrics": "total_agents active_agents agents_per_role* avg_agent_response_time_ms",
    "CouncilMetrics": "total_councils active_councils health_per_council*",
    "CouncilHealth": "status available_agents busy_agents success_rate",
    "ListCouncilsRequest": "role_filter include_agents",
    "ListCouncilsResponse": "councils*",
    "CouncilInfo": "council_id role num_agents agents* status model",
    "AgentInfo": "agent_id role status capabilities",
    "RegisterAgentRequest": "agent_id role capabilities endpoint metadata*",
    "RegisterAgentResponse": "success message council_id",
    "AgentCapabilities": "supported_tasks* model_profile max_concurrent_tasks languages*",
    "CreateCouncilRequest": "role num_agents config",
    "CreateCouncilResponse": "council_id agents_created agent_ids*",
    "CouncilConfig": "deliberation_rounds enable_peer_review model_profile custom_params* agent_type",
    "UnregisterAgentRequest": "agent_id role",
    "UnregisterAgentResponse": "success message",
    "PlanningEventRequest": "event_type case_id plan_id from_state to_state timestamp_ms metadata*",
    "PlanningEventResponse": "processed message derived_task_ids*",
    "ContextOptions": "include_timeline include_decisions include_summaries max_events scopes*",
}
"""The fields of the messages that clients have, in the order of their numbers; `*` may come more than once."""


@pytest.mark.parametrize("name", FIELDS)
def test_the_messages_are_those_that_clients_have(name: str) -> None:
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    (message,) = [one for one in file.message_type if one.name == name]
    repeated = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    found = [f"{field.name}{'*' * (field.label == repeated)}" for field in message.field]
    assert found == FIELDS[name].split()
    assert [field.number for field in message.field] == list(range(1, len(found) + 1))


def varint(number: int, value: int) -> bytes:
    return bytes([number << 3, value])


def text(number: int, value: str) -> bytes:
    data = value.encode()
    return bytes([number << 3 | 2, len(data)]) + data


async def test_a_client_with_a_proto_of_its_own_is_answered(door: Door) -> None:
    """The bytes of such a client, written by hand: the council of three that its acceptance tests ask."""
    constraints = text(1, "clean") + text(2, "Use type hints") + text(2, "Add docstring")
    sent = text(1, TASK) + text(2, "DEV") + bytes([3 << 3 | 2, len(constraints)]) + constraints + varint(4, 1)
    call = door.channel.unary_unary(f"/{NAME}/Deliberate")(sent + varint(5, 3), metadata=door.bearer(), timeout=LONG_S)
    await door.decide(results=[ranked(one, place, 1.0) for place, one in enumerate(MEMBERS, 1)])
    told = pb.DeliberateResponse.FromString(await call)
    assert len({one.proposal.author_id for one in told.results}) == 3
    assert {one.proposal.author_role for one in told.results} == {"DEV"}
    asked = (await door.record.statuses.read(told.metadata.execution_id) or {})["request"]
    assert (asked["requirements"], asked["rounds"], asked["members"]) == (["Use type hints", "Add docstring"], 1, 3)
    assert told.metadata.timestamp_ms / 1000 == pytest.approx(datetime.now(UTC).timestamp(), abs=60)


async def test_a_message_is_read_once_its_sender_was_let_in(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody answers for costs nothing; large ones are read beside the loop."""
    read: list[int] = []

    async def counted(message: calls.Unread) -> Any:
        read.append(len(message.data))
        return await unread(message)

    unread = calls.Unread.read
    monkeypatch.setattr(calls.Unread, "read", counted)
    large = pb.DeliberateRequest(task_description="x", constraints=pb.TaskConstraints(requirements=[""] * 500_000))
    raw = door.channel.unary_unary(f"/{NAME}/Deliberate", request_serializer=pb.DeliberateRequest.SerializeToString)
    assert (await refusal(raw(large))).code() is Code.UNAUTHENTICATED
    assert read == []
    error = await refusal(raw(large, metadata=door.bearer()))
    assert (error.code(), trailing(error)["conclave-field"]) == (Code.INVALID_ARGUMENT, "constraints.requirements.0")
    assert read == [large.ByteSize()]


async def test_so_many_may_watch_whether_it_is_well_and_no_more(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MOST_WATCHING", 2)
    watch = door.channel.unary_stream("/grpc.health.v1.Health/Watch")
    watching = [watch(b""), watch(b"")]
    for one in watching:
        await one.read()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await watch(b"").read()
    assert refused.value.code() is Code.RESOURCE_EXHAUSTED
    watching[0].cancel()
    async with asyncio.timeout(10):
        while True:
            with suppress(grpc.aio.AioRpcError):
                if await watch(b"").read():
                    break
            await asyncio.sleep(0.05)
    for one in watching:
        one.cancel()
