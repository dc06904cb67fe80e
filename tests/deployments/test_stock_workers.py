"""Flow runs on Prefect's own workers: in a process of their own, and as a Job on Kubernetes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.deployments.kubernetes_api import kubernetes

TASK = "Write a function to merge sorted arrays"
ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "infra" / "kubernetes" / "base-job-template.json"
IMAGE = "registry.example/conclave:1"


async def _run_in(pool: str, kind: str, council: str, template: dict[str, Any] | None = None) -> Any:
    """A run of `deliberate`, deployed with Prefect's own command into a pool of that type."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    async with get_client() as client:
        created = WorkPoolCreate(name=pool, type=kind, **({"base_job_template": template} if template else {}))
        await client.create_work_pool(created)
        command = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "flows.deliberate.deliberate")
        process = await asyncio.create_subprocess_exec(
            *command, "--name", pool, "--pool", pool, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0
        deployment = await client.read_deployment_by_name(f"deliberate/{pool}")
        return await client.create_flow_run_from_deployment(
            deployment.id, parameters={"task": TASK, "council": council}
        )


async def _final(run: Any) -> Any:
    from prefect.client.orchestration import get_client

    async with get_client() as client:

        async def ended() -> Any:
            found = await client.read_flow_run(run.id)
            return found if found.state.is_final() else None

        return await until(ended, 120)  # a process imports for some seconds


async def test_on_the_process_worker(
    connected: Any, make_council: Any, recorded: Any, shown: Any, simulator: Any
) -> None:
    """Prefect's own worker starts a process for the run: decided under its id, with its task runs beneath it."""
    pool = f"process-{uuid.uuid4().hex[:8]}"
    run = await _run_in(pool, "process", await make_council(3))
    command = (sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process", "--run-once")
    environ = {**os.environ, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    process = await asyncio.create_subprocess_exec(
        *command, env=environ, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        found = await _final(run)
    finally:
        await asyncio.wait_for(process.wait(), 60)
    finished = await recorded.events(f"deliberations.{run.id}.finished")
    assert (found.state.name, found.run_count) == ("Completed", 1)
    assert [body["status"] for bodies in finished.values() for body in bodies] == ["COMPLETED"]
    tasks = await shown.found("task_runs", flow_runs={"id": {"any_": [str(run.id)]}})
    assert {task["name"].partition("-")[0] for task in tasks} >= {"propose", "collect", "record"}
    assert set((await simulator.calls(str(run.id))).values()) == {1}


async def test_on_the_kubernetes_worker(
    connected: Any, make_council: Any, recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """prefect-kubernetes' own worker posts a Job: what is in it, and that a pod which runs it decides."""
    from prefect.client.orchestration import get_client
    from prefect_kubernetes.credentials import KubernetesClusterConfig
    from prefect_kubernetes.worker import KubernetesWorker

    monkeypatch.setenv("PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_ENABLED", "false")  # it watches a whole cluster
    pool, template = f"kubernetes-{uuid.uuid4().hex[:8]}", json.loads(TEMPLATE.read_text())
    pod_sees = {name: os.environ[name] for name in ("PREFECT_HOME", "RAY_ADDRESS") if name in os.environ}
    pod_sees |= {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    async with kubernetes({**pod_sees, "PYTHONPATH": str(ROOT)}, tmp_path) as cluster:
        block = KubernetesClusterConfig(config=cluster.config, context_name="here")
        document = await block.save(pool)
        properties = template["variables"]["properties"]
        properties["cluster_config"]["default"] = {"$ref": {"block_document_id": str(document)}}
        properties["image"]["default"] = IMAGE
        run = await _run_in(pool, "kubernetes", await make_council(3), template)
        async with KubernetesWorker(work_pool_name=pool) as worker:
            await worker.sync_with_backend()
            await worker.get_and_submit_flow_runs()
            await until(lambda: _some(cluster.jobs))
        job = cluster.jobs[0]
        found, code = await _final(run), await cluster.ended(job)
    async with get_client() as client:
        noted = await client.read_flow_run(run.id)
    spec, metadata = job["spec"], job["metadata"]
    pod, container = spec["template"]["spec"], spec["template"]["spec"]["containers"][0]
    given = {one["name"]: one.get("value") for one in container["env"]}
    assert (job["apiVersion"], job["kind"], metadata["namespace"]) == ("batch/v1", "Job", "default")
    assert metadata["labels"]["prefect.io/flow-run-id"] == str(run.id)
    assert metadata["labels"]["app.kubernetes.io/part-of"] == "conclave"
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (0, 3600)  # a retry has another owner
    assert (spec["completions"], spec["parallelism"], pod["restartPolicy"]) == (1, 1, "Never")
    assert (container["image"], container["args"]) == (IMAGE, ["prefect", "flow-run", "execute"])
    assert given["PREFECT__FLOW_RUN_ID"] == str(run.id)
    assert given["PREFECT_API_URL"] == os.environ["PREFECT_API_URL"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["requests"] == {"cpu": "250m", "memory": "512Mi"}
    assert TASK not in json.dumps(job)
    assert noted.infrastructure_pid == f"default:{metadata['name']}"
    assert (found.state.name, code) == ("Completed", 0)
    finished = await recorded.events(f"deliberations.{run.id}.finished")
    assert [body["status"] for bodies in finished.values() for body in bodies] == ["COMPLETED"]


async def _some(jobs: list[Any]) -> bool:
    return bool(jobs)
