"""What tests of the gateway are made of: a gateway on a port of its own, and a deliberation written as a run writes it.

Nothing here knows Prefect, as the gateway does not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp import web

from blocks.record import subjects
from blocks.record.events import Record
from deployments.client.answers import EventLines
from deployments.gateway.app import application
from deployments.gateway.service import Service, serving
from deployments.gateway.settings import GatewaySettings
from tasks.access import tokens
from tasks.council.answer import Answer
from tasks.council.council import CouncilSpec, Member
from tasks.council.models import Deliberation, DeliberationRequest, MemberStatus
from tasks.council.stages import PROPOSE

TASK = "Choose a queue"
MEMBERS = ("m1", "m2", "m3")
PATH = "/v1/deliberations"


def council(name: str = "dev") -> CouncilSpec:
    return CouncilSpec(name=name, members=tuple(Member(agent_id=one, role="DEV") for one in MEMBERS))


# --- the gateway ----------------------------------------------------------------------------------


@dataclass
class Told:
    """An answer that was read whole."""

    status: int
    headers: Any
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def problem(self) -> dict[str, Any]:
        """The document of an error, by RFC 9457."""
        assert self.headers["Content-Type"].startswith("application/problem+json"), self.text
        document: dict[str, Any] = self.body
        assert document["status"] == self.status
        assert document["title"]
        return document


class Gateway:
    """A gateway that listens, and how it is asked; `text` is a token of the scope admin."""

    def __init__(self, service: Service, port: int, session: aiohttp.ClientSession, text: str) -> None:
        self.service, self.port, self.session, self.text = service, port, session, text
        self.url = f"http://127.0.0.1:{port}"

    @property
    def record(self) -> Record:
        return self.service.record

    async def ask(self, method: str, path: str, token: str | None = "", **options: Any) -> Told:
        """Ask with the token, None: without one."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers.setdefault("Authorization", f"Bearer {token or self.text}")
        async with self.session.request(method, self.url + path, headers=headers, **options) as answer:
            return Told(answer.status, answer.headers, await answer.text())

    async def post(self, key: str | None = None, token: str | None = "", **more: Any) -> Told:
        """Ask for a deliberation; `headers` are further ones, the others fields of the body."""
        headers = {**({} if key is None else {"Idempotency-Key": key}), **more.pop("headers", {})}
        body = {"task": TASK, **more}
        return await self.ask("POST", PATH, token, json=body, headers=headers)

    async def get(self, path: str, token: str | None = "", **options: Any) -> Told:
        return await self.ask("GET", path, token, **options)

    async def new_token(self, *scopes: Any, owner: str | None = None, **fields: Any) -> str:
        token, text = tokens.make("test", scopes or ("submit",), owner, **fields)
        await tokens.keep(self.record, token)
        return text

    @asynccontextmanager
    async def events(self, path: str, token: str = "", after: str | None = None) -> AsyncIterator[Events]:
        """The stream of events at a path."""
        headers = {"Authorization": f"Bearer {token or self.text}"}
        if after is not None:
            headers["Last-Event-ID"] = after
        async with self.session.get(self.url + path, headers=headers) as answer:
            yield Events(answer)

    async def queued(self) -> list[str]:
        """Subjects of the requests that wait."""
        found, after = [], 0
        for pattern in ("requests.*", "requests.*.batch"):
            after = 0
            while (event := await self.record.next(pattern, after, direct=False)) is not None:
                found.append(event.subject)
                after = event.sequence
        return found


class Events:
    """A stream of server-sent events, one after another."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer, self.status = answer, answer.status
        self._lines = EventLines()

    async def next(self) -> Any:
        """The next event; None at the end."""
        async with asyncio.timeout(20):
            while line := await self.answer.content.readline():
                for event in self._lines.take(line):
                    return event
        return None

    async def all(self) -> list[Any]:
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found


@asynccontextmanager
async def listening(service: Service, text: str = "") -> AsyncGenerator[Gateway, None]:
    """The application of these parts on a port of its own."""
    runner = web.AppRunner(application(service), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port: int = runner.addresses[0][1]
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Gateway(service, port, session, text)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def gateway_at(url: str, **settings: Any) -> AsyncGenerator[Gateway, None]:
    """A gateway of the record at a NATS."""
    async with serving(GatewaySettings(nats_url=url, **settings)) as service:
        token, text = tokens.make("test", ("admin",), "tester")
        await tokens.keep(service.record, token)
        async with listening(service, text) as gateway:
            yield gateway


# --- a deliberation -------------------------------------------------------------------------------


KINDS = ["plan", "started", *["answer"] * len(MEMBERS), "stage", "decision", "finished"]
"""What `Run.whole` writes, in the order of its writing."""


def heard_whole(events: list[Any]) -> bool:
    """Whether these are all that it writes, each once and in its order."""
    return [event.kind for event in events] == KINDS and len({event.id for event in events}) == len(events)


class Run:
    """Writes a deliberation onto the record, event by event, as a run does."""

    def __init__(self, record: Record, one: str, task: str = TASK, owner: str | None = "tester", **asked: Any) -> None:
        self.record, self.id, self.owner = record, one, owner
        self.request = DeliberationRequest.read({"task": task, **asked})
        self.plan = Deliberation.plan(one, self.request, council(self.request.council))

    async def begin(self) -> None:
        """Its plan, its status and its start."""
        body = {
            "plan": self.plan.model_dump(mode="json"),
            "request": self.request.model_dump(mode="json"),
            "owner": self.owner,
        }
        await self._final(subjects.plan(self.id), "plan", body)
        told = {
            "status": "IN_PROGRESS",
            "engine": "vllm",
            "council": self.plan.council.name,
            "counts": {"items": len(self.plan.agenda), "decided": 0},
            "started_at": datetime.now(UTC).isoformat(),
        }
        await self.record.statuses.merge(
            self.id, {"id": self.id, "request_digest": self.plan.request_digest, "owner": self.owner, **told}
        )
        await self._final(subjects.started(self.id), "started", {"task_id": self.id, "total_agents": 3, **told})

    async def answer(self, member: str, item: str = "task") -> None:
        answer = Answer(
            task_id=self.id,
            item=item,
            stage=PROPOSE,
            agent_id=member,
            role="DEV",
            status=MemberStatus.FAILED,
            error="none",
            num_agents=3,
            timestamp=datetime.now(UTC),
        )
        await self._final(subjects.answer(self.id, item, PROPOSE, member), member, answer.model_dump(mode="json"))

    async def close(self, stage: str = PROPOSE, item: str = "task") -> None:
        await self._final(subjects.closed(self.id, item, stage), f"closed:{item}:{stage}", {"stage": stage})

    async def decide(self, item: str = "task", **more: Any) -> None:
        body = {"item": item, "status": "COMPLETED", "degraded": False, "winner_id": "m1", "duration_ms": 5}
        await self._final(subjects.decision(self.id, item), f"decision:{item}", body | more)

    async def progress(self, decided: int) -> None:
        body = {"counts": {"items": len(self.plan.agenda), "decided": decided}}
        await self.record.publish(subjects.progress(self.id), f"{self.id}:progress", "progress", body)

    async def finish(self, status: str = "COMPLETED", tokens: int = 0) -> None:
        body = {
            "task_id": self.id,
            "status": status,
            "engine": "vllm",
            "counts": {"items": len(self.plan.agenda), "decided": len(self.plan.agenda)},
            "usage": {"prompt_tokens": tokens, "completion_tokens": 0},
            "winner_id": "m1",
            "completed_at": datetime.now(UTC).isoformat(),
        }
        await self._final(subjects.finished(self.id), "finished", body)
        await self.record.statuses.merge(self.id, {"status": status, "completed_at": body["completed_at"]})

    async def whole(self, **end: Any) -> None:
        """All of it."""
        await self.begin()
        for member in MEMBERS:
            await self.answer(member)
        await self.close()
        await self.decide(decision="RabbitMQ", results=[], members=[])
        await self.finish(**end)

    async def _final(self, subject: str, name: str, body: dict[str, Any]) -> None:
        await self.record.publish_final(subject, f"{self.id}:{name}", name, body)
