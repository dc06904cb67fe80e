"""The model servers that the contract is held against: started as processes, or given by URL, and a client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

ROOT = Path(__file__).resolve().parents[2]
MODEL, CONTEXT, SLOTS, BLOCK = "tiny", 2_048, 64, 32
KEY = "sk-contract"
START_S = 400.0
HELLO = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Server:
    """A server that answers; `kind` is simulator, vllm, or foreign for one given by URL."""

    kind: str
    url: str
    model: str
    key: str | None
    group: int = 0  # process group, of a server that was started here

    @property
    def engine(self) -> str:
        """What the product must take it for; nothing is known of a foreign one."""
        return {"simulator": "simulator", "vllm": "vllm"}.get(self.kind, "")

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Its living processes whose command line begins with `name`."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                same = os.getpgid(process.pid) == self.group and process.status() != psutil.STATUS_ZOMBIE
                if same and " ".join(process.cmdline()).startswith(name):
                    found.append(process)
        return found


def commands(kind: str, port: int) -> list[str]:
    """How a server of this kind is started, with the same settings for both."""
    if kind == "simulator":
        options = ["--port", str(port), "--model", MODEL, "--slots", str(SLOTS), "--max-model-len", str(CONTEXT)]
        return [
            sys.executable,
            "-m",
            "infra.simulator",
            *options,
            "--api-key",
            KEY,
            "--ttft",
            "0.01",
            "--tpot",
            "0.004",
        ]
    options = ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--max-num-seqs", str(SLOTS)]
    options += ["--block-size", str(BLOCK), "--max-model-len", str(CONTEXT), "--enable-request-id-headers"]
    return [str(ROOT / "infra/vllm/cpu.sh"), "serve", str(ROOT / ".venv-vllm/tiny"), *options]


@contextlib.contextmanager
def started(kind: str) -> Iterator[Server]:
    """A server in a session of its own; at the end nothing of it is left."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="contract-"))
    environ = {**os.environ, "VLLM_API_KEY": KEY, "VLLM_RPC_BASE_PATH": str(folder), "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            commands(kind, port), cwd=ROOT, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    server = Server(kind, f"http://127.0.0.1:{port}", MODEL, KEY, process.pid)
    try:
        _wait_until_up(server, process, folder / "log")
        yield server
    finally:
        _end(server, process)
        shutil.rmtree(folder, ignore_errors=True)


def foreign(url: str) -> Server:
    """A server that runs elsewhere, with the model asked for or the first that it lists."""
    root, key = url.rstrip("/").removesuffix("/v1"), os.environ.get("CONCLAVE_LLM_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with urllib.request.urlopen(urllib.request.Request(f"{root}/v1/models", headers=headers), timeout=20) as answer:
        listed = [model["id"] for model in json.load(answer)["data"]]
    model = os.environ.get("CONTRACT_MODEL") or listed[0]
    assert model in listed, f"{url} serves {listed}"
    return Server("foreign", root, model, key)


def _wait_until_up(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=5):
            return
        tail = log.read_text(errors="replace")[-3000:]
        assert process.poll() is None, f"{server.kind} ended while it was starting:\n{tail}"
        assert time.monotonic() < deadline, f"{server.kind} did not answer in {START_S:g} s:\n{tail}"
        time.sleep(0.2)


def _end(server: Server, process: subprocess.Popen[bytes]) -> None:
    for number, patience_s in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 20.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.group, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            process.poll()
            if not server.processes():
                return
            time.sleep(0.1)
    raise AssertionError(f"{server.kind} left processes behind: {server.processes()}")


@dataclass
class Reply:
    """One HTTP answer: its body as JSON where it is JSON."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def error(self) -> dict[str, Any]:
        """The error object, whose shape is always the same."""
        assert set(self.body) == {"error"}, self.body
        assert set(self.body["error"]) == {"message", "type", "param", "code"}, self.body
        return dict(self.body["error"])


class Client:
    """What the tests ask of a server, over plain HTTP."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    async def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """A request; a body that is not bytes goes as JSON. An empty value in `headers` leaves that one out."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **(headers or {})}
        if self.server.key:
            given.setdefault("Authorization", f"Bearer {self.server.key}")
        sent = {name: value for name, value in given.items() if value}
        async with self.session.request(method, f"{self.server.url}{path}", data=data, headers=sent) as response:
            text = (await response.read()).decode()
        with contextlib.suppress(ValueError):
            return Reply(response.status, json.loads(text), response.headers.copy())
        return Reply(response.status, text, response.headers.copy())

    async def chat(self, request_id: str = "", **fields: Any) -> Reply:
        """A completion as the fields ask for; short, unless they say otherwise."""
        body = {"model": self.server.model, "messages": HELLO, "seed": 1, "max_tokens": 8, **fields}
        return await self.send("POST", "/v1/chat/completions", body, {"X-Request-Id": request_id})

    async def completion(self, **fields: Any) -> Any:
        """The body of a completion that must succeed."""
        reply = await self.chat(**fields)
        assert reply.status == 200, reply
        return reply.body

    async def text(self, **fields: Any) -> str:
        """The text of a completion that must succeed."""
        text: str = (await self.completion(**fields))["choices"][0]["message"]["content"]
        return text

    async def stream(self, request_id: str = "", **fields: Any) -> list[Any]:
        """The events of a stream, `[DONE]` as that text."""
        reply = await self.chat(request_id, stream=True, **fields)
        assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8", reply
        events = [line.removeprefix("data: ") for line in str(reply.body).split("\n\n") if line]
        return [event if event == "[DONE]" else json.loads(event) for event in events]

    @asynccontextmanager
    async def busy(self, count: int = 1, **fields: Any) -> AsyncIterator[list[asyncio.Task[Reply]]]:
        """So many long requests under way; those that are left are closed at the end."""
        seen = asyncio.Event()

        async def long() -> Reply:
            """The request under way once all were seen; a quick server may have ended earlier ones by then."""
            while True:
                reply = await self.long(**fields)
                if seen.is_set():
                    return reply

        tasks = [asyncio.create_task(long()) for _ in range(count)]
        try:
            await self.until("num_requests_running", lambda running: running >= count)
            seen.set()
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def long(self, **fields: Any) -> Reply:
        """A request for nearly all tokens that there are."""
        return await self.chat(**{"max_tokens": 1_900, "ignore_eos": True, **fields})

    async def samples(self) -> dict[str, float]:
        """All samples of /metrics, by name and labels as they stand there."""
        page = (await self.send("GET", "/metrics")).body
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in page.splitlines())
            if name[:1] != "#"
        }

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a family's samples that carry these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = [
            value
            for sample, value in (await self.samples()).items()
            if re.match(rf"vllm:{name}[{{ ]|vllm:{name}$", sample) and all(label in sample for label in wanted)
        ]
        assert found, f"no metric {name} {labels}"
        return sum(found)

    async def until(self, name: str, right: Callable[[float], bool]) -> None:
        """Wait until a metric is right."""
        async with asyncio.timeout(90):
            while not right(await self.metric(name)):
                await asyncio.sleep(0.05)


class Asking:
    """One call after another through the product's block; `failed` are the errors of their attempts."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.failed: list[Exception] = []

    async def __call__(self, *, deadline_s: float = 120, call: dict[str, Any] | None = None, **block: Any) -> Any:
        from blocks.chat import ChatCall
        from blocks.connections import connections
        from blocks.vllm_server import VLLM

        async def failed(attempt: int, error: Exception, duration_ms: int) -> None:
            self.failed.append(error)

        given = {"base_url": self.server.url, "model": self.server.model, "api_key": self.server.key, "backoff_s": 0.05}
        wanted = {"messages": HELLO, "request_id": "contract", "seed": 1, "temperature": 0.7, "max_tokens": 8}
        async with connections():
            deadline = asyncio.get_running_loop().time() + deadline_s
            chat = ChatCall(**{**wanted, **(call or {})})
            return await VLLM(**{**given, **block}).complete(chat, deadline, failed)
