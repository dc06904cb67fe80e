"""A model server's key on its way through a whole deliberation: it opens the server and shows up nowhere."""

from __future__ import annotations

import asyncio
import base64
import os
import uuid
from collections.abc import Iterator
from typing import Any

import aiohttp
import nats
import pytest_asyncio

SECRET = "sk-very-secret"
RIGHT, WRONG = f"{SECRET}-{uuid.uuid4().hex}", f"{SECRET}-wrong-{uuid.uuid4().hex}"
NEEDLE = f"needle_{uuid.uuid4().hex}"
"""Stands in the task, and so in the places where a key would be found if it got there."""
BUCKETS = ("KV_conclave-deliberations", "OBJ_conclave-bodies")


@pytest_asyncio.fixture
async def deliberated(connected: Any, deliberate: Any, new_id: str) -> Any:
    """A deliberation of three: two members with the right key, one of whom fails once, and one with a wrong key."""
    from blocks.council import Council
    from blocks.vllm_server import VLLM
    from infra.simulator import FaultRule, SimulatorSettings, simulator

    names = {"right": f"right-{uuid.uuid4().hex[:8]}", "wrong": f"wrong-{uuid.uuid4().hex[:8]}"}
    fault = FaultRule(kind="500", match="m1$", times=1)
    async with simulator(SimulatorSettings(latency_s=0.05, api_key=RIGHT, faults=(fault,))) as server:
        for name, key in (("right", RIGHT), ("wrong", WRONG)):
            await VLLM(base_url=server.url, api_key=key).save(names[name])
        servers = {"m1": "right", "m2": "right", "m3": "wrong"}
        members = [{"agent_id": member, "role": "DEV", "server": names[name]} for member, name in servers.items()]
        await Council(members=members).save(council := f"c-{uuid.uuid4().hex[:8]}")
        state, result = await deliberate(task=f"Write a function named {NEEDLE}", council=council)
        key = {"Authorization": f"Bearer {RIGHT}"}
        async with aiohttp.ClientSession(headers=key) as session, session.get(f"{server.url}/sim/calls") as answer:
            requests = [call for call in (await answer.json())["requests"] if call["request_id"].startswith(new_id)]
    return str(state.state_details.flow_run_id), result, requests


async def test_a_key_opens_the_server_and_shows_up_nowhere(deliberated: Any, stack: Any, new_id: str) -> None:
    """Not in what Prefect gives out, not in its database, not in NATS, and not in a log."""
    run, result, requests = deliberated
    assert [member["status"] for member in result["members"]] == ["ok", "ok", "failed"]
    statuses = sorted((call["request_id"].rpartition(":")[2], call["status"]) for call in requests)
    assert statuses == [("m1", 200), ("m1", 500), ("m2", 200)]

    told = {
        **await told_by_prefect(stack.prefect, run),
        **await kept_by_nats(os.environ["NATS_URL"], new_id),
        **dict(written_to_files(stack.home)),
    }
    shown = {place.rpartition("/")[2].removesuffix("-wal") for place, text in told.items() if NEEDLE in text}
    assert {"flow run", "artifacts", "CONCLAVE_ANSWERS", "CONCLAVE_DECISIONS", BUCKETS[0], "prefect.db"} <= shown
    assert '"********"' in told["blocks"]
    assert [place for place, text in told.items() if SECRET in text] == []


async def told_by_prefect(api: str, run: str) -> dict[str, str]:
    """What the API says of the blocks and of everything around the run."""
    of_the_run = {"flow_run_id": {"any_": [run]}}
    asked: dict[str, tuple[str, Any]] = {
        "blocks": ("/block_types/slug/vllm/block_documents?include_secrets=false", None),
        "flow run": (f"/flow_runs/{run}", None),
        "graph of the run": (f"/flow_runs/{run}/graph-v2", None),
        "task runs": ("/task_runs/filter", {"task_runs": of_the_run}),
        "artifacts": ("/artifacts/filter", {"artifacts": of_the_run}),
        "logs": ("/logs/filter", {"logs": of_the_run}),
        "all logs": ("/logs/filter", {}),
    }
    told = {}
    key = base64.b64encode(os.environ["PREFECT_API_AUTH_STRING"].encode()).decode()
    async with aiohttp.ClientSession(headers={"Authorization": f"Basic {key}"}) as session, asyncio.timeout(60):
        for place, (path, body) in asked.items():
            told[place] = "[]"
            while told[place] == "[]":  # logs come in batches
                async with session.request("GET" if body is None else "POST", f"{api}{path}", json=body) as answer:
                    told[place] = await answer.text()
                    assert answer.status == 200, told[place]
                await asyncio.sleep(0.1)
    return told


async def kept_by_nats(url: str, deliberation_id: str) -> dict[str, str]:
    """Every message of every stream, with its headers."""
    from blocks.record.server import STREAMS

    client, kept = await nats.connect(url), {}
    jetstream = client.jetstream()
    for stream in (*STREAMS, *BUCKETS):
        state = (await jetstream.stream_info(stream)).state
        messages = [f"{stream} holds {state.messages}"]
        for sequence in range(state.first_seq or 1, state.last_seq + 1):
            try:
                message = await jetstream.get_msg(stream, seq=sequence)
            except nats.js.errors.NotFoundError:
                continue
            messages.append(f"{message.subject} {message.headers} {(message.data or b'').decode(errors='replace')}")
        kept[stream] = "\n".join(messages)
    await client.close()
    assert all(deliberation_id in kept[stream] for stream in ("CONCLAVE_ANSWERS", "CONCLAVE_DECISIONS", BUCKETS[0]))
    assert f"attempts.{deliberation_id}.task.propose-0.m1" in kept["CONCLAVE_ANSWERS"]
    return kept


def written_to_files(home: str) -> Iterator[tuple[str, str]]:
    """Logs of the stack's parts and of Ray's session, and Prefect's database as it lies on the disk."""
    from deployments.stack.paths import StackPaths

    paths = StackPaths.of(home)
    logs, sessions = list((paths.home / "logs").glob("*")), list(paths.ray_sessions.glob("session_2*/logs/**/*"))
    database = list(paths.prefect_home.glob("prefect.db*"))
    assert logs and sessions and database
    for path in (*logs, *sessions, *database):
        if path.is_file() and path.stat().st_size:
            yield str(path), path.read_bytes().decode(errors="replace")
