"""prefect-kubernetes' own worker: the Job that it posts, and, with its observer, pods that are evicted and killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import until
from tests.deployments.kubernetes_api import Kubernetes, kubernetes
from tests.deployments.stock_workers import ROOT, TASK, answered, ask, check_cancel, deployed, ended, stock_worker

TEMPLATE = ROOT / "infra" / "kubernetes" / "base-job-template.json"
IMAGE = "registry.example/conclave:1"

pytestmark = pytest.mark.stack


@dataclass
class Place:
    """A cluster, and the deployment whose runs become Jobs there."""

    cluster: Kubernetes
    deployment: Any


@pytest_asyncio.fixture(scope="module")
async def place(connected: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Place, None]:
    """One worker for these tests. Its pods find Prefect and Ray as the tests do, and the flows in this folder."""
    pool, folder, template = f"kubernetes-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("k"), TEMPLATE.read_text()
    job = json.loads(template)
    job["variables"]["properties"]["image"]["default"] = IMAGE
    pod_sees = {name: value for name, value in os.environ.items() if name.startswith("RAY_") or name == "PREFECT_HOME"}
    async with kubernetes({**pod_sees, "PYTHONPATH": str(ROOT)}, folder) as cluster:
        config = folder / "kubeconfig"
        config.write_text(json.dumps(cluster.config))
        environ = {
            "KUBECONFIG": str(config),
            "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_REPLICATE_POD_EVENTS": "false",
            "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_STORE_ENV_AS_SECRET": "true",
        }
        deployment = await deployed(pool, "kubernetes", job)
        async with stock_worker(pool, "kubernetes", environ):
            yield Place(cluster, deployment)


async def _some(jobs: list[Any]) -> bool:
    return bool(jobs)


async def _typed(pool: str, council: str, template: dict[str, Any]) -> Any:
    """A run of `deliberate`, deployed as a user types it into a pool of that template."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name=pool, type="kubernetes", base_job_template=template))
        command = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "flows.deliberate.deliberate")
        process = await asyncio.create_subprocess_exec(
            *command, "--name", pool, "--pool", pool, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0
        deployment = await client.read_deployment_by_name(f"deliberate/{pool}")
        parameters = {"task": TASK, "council": council}
        return await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)


async def test_the_worker_posts_a_job(
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
        run = await _typed(pool, await make_council(3), template)
        async with KubernetesWorker(work_pool_name=pool) as worker:
            await worker.sync_with_backend()
            await worker.get_and_submit_flow_runs()
            await until(lambda: _some(cluster.jobs))
        job = cluster.jobs[0]
        found, code = await ended(str(run.id)), await cluster.ended(job)
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


async def test_an_evicted_pod_is_followed_by_another(
    place: Place, make_council: Any, recorded: Any, simulator: Any
) -> None:
    """Its run is scheduled again and decides in a second pod, without asking twice whoever has answered."""
    await simulator.fault("hang", match=":propose-0:m3")
    run = await ask(place.deployment, await make_council(3))
    await answered(recorded, run, 2)
    await simulator.heal()
    place.cluster.evict(place.cluster.of(run)[0])
    found = await ended(run)
    calls = await simulator.calls(run)
    assert (found.state.name, found.run_count, len(place.cluster.of(run))) == ("Completed", 2, 2)
    assert [calls[f"{run}:task:propose-0:{member}"] for member in ("m1", "m2")] == [1, 1]


async def test_a_killed_pod_is_crashed_and_its_deliberation_open(
    place: Place, make_council: Any, deliberate: Any, recorded: Any, simulator: Any
) -> None:
    """The observer tells Prefect; the same id again goes on from what stands on the record."""
    council = await make_council(3)
    await simulator.fault("hang", match=":propose-0:m3")
    run = await ask(place.deployment, council)
    await answered(recorded, run, 2)
    job = place.cluster.of(run)[0]
    place.cluster.kill(job)
    found = await ended(run)
    await check_job(job, place.cluster)
    assert (found.state.name, place.cluster.of(run)) == ("Crashed", [job])
    assert await recorded.events(f"deliberations.{run}.finished") == {}
    await simulator.heal()
    state, result = await deliberate(task=TASK, council=council, deliberation_id=run)
    calls = await simulator.calls(run)
    assert (state.name, result["status"], result["received_count"]) == ("Completed", "COMPLETED", 3)
    assert [calls[f"{run}:task:propose-0:{member}"] for member in ("m1", "m2")] == [1, 1]


async def test_a_run_that_is_cancelled_in_its_pod(
    place: Place, make_council: Any, recorded: Any, simulator: Any
) -> None:
    """By what runs it there."""
    await check_cancel(place.deployment, await make_council(3), recorded, simulator)


async def check_job(job: dict[str, Any], cluster: Kubernetes) -> None:
    """A misspelt field would be missing from Kubernetes' own model; what the worker logs in with is in a Secret."""
    from kubernetes_asyncio.client import ApiClient

    async with ApiClient() as client:
        known = client.deserialize(SimpleNamespace(data=json.dumps(job)), "V1Job")
        assert client.sanitize_for_serialization(known)["spec"] == job["spec"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    own, theirs = (source["secretRef"] for source in container["envFrom"])
    assert (own, container["env"]) == ({"name": "conclave", "optional": True}, [])
    key = os.environ["PREFECT_API_AUTH_STRING"]
    assert key not in json.dumps(job)
    assert cluster.secrets[theirs["name"]]["PREFECT_API_AUTH_STRING"] == key
