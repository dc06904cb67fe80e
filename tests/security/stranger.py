"""What another user of this machine tries at every door: reads the addresses, and prints what came of it.

It becomes that user itself, once all that it needs is imported: an interpreter may lie where others cannot read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

WRONG = {"Authorization": "Basic Y29uY2xhdmU6d3Jvbmc="}  # conclave:wrong


def http(method: str, url: str, body: Any = None, **headers: str) -> int:
    """The status of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def read(path: str) -> str:
    """What comes of reading a file."""
    try:
        with Path(path).open("rb") as file:
            return f"read {len(file.read())} bytes"
    except OSError as error:
        return type(error).__name__


def enter(path: str) -> str:
    """What comes of connecting to a socket."""
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(path)
        except OSError as error:
            return type(error).__name__
    return "connected"


async def nats(url: str) -> str:
    """What comes of connecting to NATS."""
    import nats as client
    from nats.errors import Error

    async def ignore(_error: Exception) -> None:
        """Told by the exception."""

    try:
        async with asyncio.timeout(5):
            connection = await client.connect(url, allow_reconnect=False, max_reconnect_attempts=0, error_cb=ignore)
    except (Error, OSError) as error:
        return str(error) or type(error).__name__
    await connection.close()
    return "connected"


def ray(address: str) -> str:
    """What comes of asking Ray without its token."""
    from deployments.stack.exceptions import NoAnswerError
    from deployments.stack.probes import ask_ray

    try:
        ask_ray(address, None)
    except NoAnswerError as error:
        return str(error)
    return "answered"


def events(url: str) -> str:
    """What comes of listening to Prefect's events, which is a websocket."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    with contextlib.suppress(WebSocketException, OSError), connect(url, subprotocols=["prefect"], proxy=None) as one:  # type: ignore[list-item]
        one.send(json.dumps({"type": "auth", "token": "conclave:wrong"}))
        return str(json.loads(one.recv(timeout=30)).get("type"))
    return "closed"


def main(at: dict[str, Any]) -> dict[str, Any]:
    """Every door."""
    api, llm, flow_run = at["prefect"], at["llm"], {"parameters": {"questions": "/tmp/q.jsonl"}}
    calls = {
        "create a run": ("POST", f"{api}/deployments/{at['deployment']}/create_flow_run", flow_run),
        "pause a deployment": ("POST", f"{api}/deployments/{at['deployment']}/pause_deployment", None),
        "read secrets": ("POST", f"{api}/block_documents/filter", {"include_secrets": True}),
        "read settings": ("GET", f"{api}/admin/settings", None),
        "read runs": ("POST", f"{api}/flow_runs/filter", {}),
        "make a variable": ("POST", f"{api}/variables/", {"name": "mine", "value": "1"}),
        "list models": ("GET", f"{llm}/v1/models", None),
        "ask a model": ("POST", f"{llm}/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        "order a fault": ("POST", f"{llm}/sim/faults", {"kind": "500"}),
        "read calls": ("GET", f"{llm}/sim/calls", None),
    }
    return {
        "uid": os.getuid(),
        "open": {"health": http("GET", f"{api}/health"), "model": http("GET", f"{llm}/health")},
        "without a key": {name: http(*what) for name, what in calls.items()},
        "with a wrong key": {name: http(*what, **WRONG) for name, what in calls.items()},
        "files": {path: read(path) for path in at["files"]},
        "sockets": {path: enter(path) for path in at["sockets"]},
        "environments": {pid: read(f"/proc/{pid}/environ") for pid in at["pids"]},
        "nats": [asyncio.run(nats(url)) for url in at["nats"]],
        "ray": ray(at["ray"]),
        "events": events(f"{api.replace('http', 'ws', 1)}/events/out"),
    }


def become(uid: int, gid: int) -> None:
    """Another user, for good; libraries have been used once before, so that nothing is left to be imported."""
    nowhere = "127.0.0.1:1"
    with contextlib.suppress(OSError):
        http("GET", f"http://{nowhere}/")
    asyncio.run(nats(f"nats://{nowhere}"))
    ray(nowhere)
    events(f"ws://{nowhere}/")
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]))
    json.dump(main(json.load(sys.stdin)), sys.stdout)
