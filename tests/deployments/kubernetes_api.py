"""A stand-in for the Kubernetes API: it keeps Jobs, and runs the container of each as a process, as a pod would."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web


class Kubernetes:
    """The Jobs that were posted, and what became of their pods."""

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self.url = ""
        self.jobs: list[dict[str, Any]] = []
        self.exit_codes: dict[str, int] = {}
        self._environ, self._folder = environ, folder
        self._pods: dict[str, asyncio.Task[None]] = {}

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

    async def ended(self, job: dict[str, Any]) -> int:
        """Exit code of the Job's pod."""
        await self._pods[job["metadata"]["name"]]
        return self.exit_codes[job["metadata"]["name"]]

    async def create(self, request: web.Request) -> web.Response:
        """POST a Job: it gets a name, and its pod starts."""
        job = await request.json()
        metadata = job["metadata"]
        metadata |= {
            "name": metadata.get("name") or f"{metadata['generateName']}{uuid.uuid4().hex[:5]}",
            "namespace": request.match_info["namespace"],
            "uid": str(uuid.uuid4()),
        }
        self.jobs.append(job)
        self._pods[metadata["name"]] = asyncio.create_task(self._pod(job))
        return web.json_response(job, status=201)

    async def _pod(self, job: dict[str, Any]) -> None:
        container = job["spec"]["template"]["spec"]["containers"][0]
        given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        process = await asyncio.create_subprocess_exec(
            *container["args"],
            cwd=self._folder,
            env={**self._environ, **given},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self.exit_codes[job["metadata"]["name"]] = await process.wait()


@asynccontextmanager
async def kubernetes(environ: dict[str, str], folder: Path) -> AsyncGenerator[Kubernetes, None]:
    """The API on loopback; pods have this environment and the Job's, and run in this folder."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # an image has its `prefect` on it
    cluster = Kubernetes({**environ, "PATH": path}, folder)
    app = web.Application()
    app.add_routes([web.post("/apis/batch/v1/namespaces/{namespace}/jobs", cluster.create)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    cluster.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield cluster
    finally:
        await runner.cleanup()
