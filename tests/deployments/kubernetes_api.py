"""A stand-in for the Kubernetes API: it keeps Jobs, and runs the container of each as a process, as a pod would.

It answers what prefect-kubernetes asks: its worker posts Jobs and Secrets, its observer lists and watches Jobs. Pods
as such are not shown: PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_REPLICATE_POD_EVENTS=false keeps the observer from them.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web

VERBS = ["get", "list", "watch"]
JOBS = {"name": "jobs", "singularName": "job", "kind": "Job", "namespaced": True, "verbs": VERBS}
NAMESPACES = {
    "name": "namespaces",
    "singularName": "namespace",
    "kind": "Namespace",
    "namespaced": False,
    "verbs": VERBS,
}
BATCH = {"name": "batch", "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}}
MOST_CHANGES = 100


class Kubernetes:
    """The Jobs that were posted, and what became of their pods."""

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self.url = ""
        self.jobs: list[dict[str, Any]] = []
        self.exit_codes: dict[str, int] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self._environ, self._folder = environ, folder
        self._pods: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._watchers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._version = 0

    @property
    def config(self) -> dict[str, Any]:
        """A kubeconfig for it."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "worker"}}],
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "worker", "user": {"token": "t"}}],
        }

    def of(self, run: str) -> list[dict[str, Any]]:
        """The Jobs of a flow run, the first first."""
        return [job for job in self.jobs if job["metadata"]["labels"]["prefect.io/flow-run-id"] == run]

    async def ended(self, job: dict[str, Any]) -> int:
        """Exit code of the Job's pod."""
        await self._pods[job["metadata"]["name"]]
        return self.exit_codes[job["metadata"]["name"]]

    def evict(self, job: dict[str, Any]) -> None:
        """Tell the Job's pod to end, as a node does that is drained: its first process hears SIGTERM."""
        self._processes[job["metadata"]["name"]].send_signal(signal.SIGTERM)

    def kill(self, job: dict[str, Any]) -> None:
        """End all that runs in the Job's pod at once, as when its memory is over."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._processes[job["metadata"]["name"]].pid)
            for process in (*first.children(recursive=True), first):
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    async def close(self) -> None:
        """End whatever pods still run."""
        for job in self.jobs:
            if job["metadata"]["name"] in self._processes:
                self.kill(job)
        await asyncio.gather(*self._pods.values())

    # --- the API ----------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        jobs = "/apis/batch/v1/namespaces/{namespace}/jobs"
        return [
            web.get("/api", self._says({"versions": ["v1"]})),
            web.get("/apis", self._says({"groups": [BATCH]})),
            web.get("/api/v1", self._says({"resources": [NAMESPACES]})),
            web.get("/apis/batch/v1", self._says({"resources": [JOBS]})),
            web.get("/apis/batch/v1/jobs", self._list),
            web.get(jobs, self._list),
            web.post(jobs, self._create),
            web.post("/api/v1/namespaces/{namespace}/secrets", self._keep_secret),
            web.patch("/api/v1/namespaces/{namespace}/secrets/{name}", self._says({})),  # its owner: the Job
        ]

    @staticmethod
    def _says(body: dict[str, Any]) -> Any:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response(body)

        return answer

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await self._watch(request)
        label, _, value = request.query.get("labelSelector", "").partition("=")
        found = [job for job in self.jobs if not value or job["metadata"]["labels"].get(label) == value]
        body = {"kind": "JobList", "apiVersion": "batch/v1", "metadata": {"resourceVersion": str(self._version)}}
        return web.json_response({**body, "items": found})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        changes: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MOST_CHANGES)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        self._watchers.add(changes)
        try:
            while True:
                await answer.write(json.dumps(await changes.get()).encode() + b"\n")
        except ConnectionResetError:
            return answer
        finally:
            self._watchers.discard(changes)

    async def _create(self, request: web.Request) -> web.Response:
        """POST a Job: it gets a name, and its pod starts."""
        job = await request.json()
        metadata = job["metadata"]
        metadata |= {
            "name": metadata.get("name") or f"{metadata['generateName']}{uuid.uuid4().hex[:5]}",
            "namespace": request.match_info["namespace"],
            "uid": str(uuid.uuid4()),
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self.jobs.append(job)
        self._changed(job, "ADDED", {"active": 1})
        self._pods[metadata["name"]] = asyncio.create_task(self._pod(job))
        return web.json_response(job, status=201)

    async def _keep_secret(self, request: web.Request) -> web.Response:
        secret = await request.json()
        given = {name: base64.b64decode(value).decode() for name, value in secret.get("data", {}).items()}
        self.secrets[secret["metadata"]["name"]] = given | secret.get("stringData", {})
        return web.json_response(secret, status=201)

    def _environment(self, container: dict[str, Any]) -> dict[str, str]:
        """What a container is given: its Secrets, where they are there, under its own variables."""
        given: dict[str, str] = {}
        for source in container.get("envFrom", []):
            given |= self.secrets.get(source["secretRef"]["name"], {})
        return given | {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}

    def _changed(self, job: dict[str, Any], kind: str, status: dict[str, Any]) -> None:
        self._version += 1
        job["metadata"]["resourceVersion"] = str(self._version)
        job["status"] = status
        for changes in self._watchers:
            changes.put_nowait({"type": kind, "object": json.loads(json.dumps(job))})

    async def _pod(self, job: dict[str, Any]) -> None:
        container, name = job["spec"]["template"]["spec"]["containers"][0], job["metadata"]["name"]
        process = await asyncio.create_subprocess_exec(
            *container["args"],
            cwd=self._folder,
            env={**self._environ, **self._environment(container)},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self._processes[name] = process
        self.exit_codes[name] = await process.wait()
        self._changed(job, "MODIFIED", {"failed": 1} if self.exit_codes[name] else {"succeeded": 1})


@asynccontextmanager
async def kubernetes(environ: dict[str, str], folder: Path) -> AsyncGenerator[Kubernetes, None]:
    """The API on loopback; pods have this environment and the Job's, and run in this folder."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # an image has its `prefect` on it
    cluster = Kubernetes({**environ, "PATH": path}, folder)
    app = web.Application()
    app.add_routes(cluster.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    cluster.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield cluster
    finally:
        await cluster.close()
        await runner.cleanup()
