"""The deployments of `prefect.yaml` into Prefect, by Prefect's own command.

`prefect deploy --all` is what a user types, so `conclave up` does the same: one source, one way. It takes some seconds,
so it runs only where a deployment is missing, or where the file or the flows' parameters have changed since this home
deployed them. It sets all to what the file says; what somebody has edited in Prefect's UI is put back then. It is given
the file with the prefix in its names, and with the installation's tag.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from pydantic import BaseModel, ValidationError

from blocks.exceptions import ConclaveError
from blocks.names import stored, tag_of
from blocks.prefect_api import prefect_named
from deployments.provisioning.edits import Standing, keep_edits, standing, tagged, with_edits
from deployments.worker import ConclaveWorker

ROOT = Path(__file__).parents[2]
FILE = ROOT / "prefect.yaml"
POOL = ConclaveWorker.type
DEPLOY_S = 120.0
LAST_WORDS = "An exception occurred."
"""What Prefect's command says last, after what went wrong."""

Report = Callable[[str], None]


class DeployFailed(ConclaveError):
    """Prefect's own command did not deploy; the text is what it said."""


async def deploy(home: Path, report: Report, installation: str, file: Path = FILE) -> bool:
    """Deploy what the file says, unless this home has and nothing is missing; whether it was deployed.

    Runs of the deployments are the installation's, by its tag. What somebody edited is noted first, so that it is put
    back by the next `up` where this one is cut short. Raises DeployFailed and PrefectUnavailable.
    """
    deployments, content = deployments_of(file), _as_ours(file, installation)
    with prefect_named():
        await ensure_pool()
        found, ours = await standing(deployments), await tagged(deployments, tag_of(installation))
    digest, noted = _digest(content), home / "deployed.json"
    note = _Note.read(noted)
    if deployments.keys() == found.keys() == ours and note.digest == digest:
        return False
    edited = with_edits(note.deployments, note.edited, found)
    _Note(deployments=note.deployments, edited=edited).write(noted)
    given = home / "prefect.yaml"
    given.write_text(content)
    await _run_deploy(given)
    with prefect_named():
        await _refuse_unknown_parameters(deployments)
        deployed = await standing(deployments)
        kept = await keep_edits(note.deployments, edited)
    _Note(digest=digest, deployments=deployed).write(noted)
    report(f"deployments ready: {', '.join(map(stored, deployments))}")
    if kept:
        report(f"what was edited in Prefect stays: {', '.join(kept)} (`prefect deploy --all` sets it to the file)")
    return True


class _Note(BaseModel):
    """What a home notes: of its last deployment, and, while the next one runs, what was `edited` since."""

    digest: str = ""
    deployments: dict[str, Standing] = {}
    edited: dict[str, Standing] = {}

    @classmethod
    def read(cls, file: Path) -> Self:
        """The note; an empty one where there is none that can be read."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return cls()

    def write(self, file: Path) -> None:
        """Replace the note."""
        new = file.with_suffix(".new")
        new.write_text(self.model_dump_json(indent=1))
        new.replace(file)


def deployments_of(file: Path) -> dict[str, str]:
    """The deployments of a file: name -> entrypoint."""
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    return {one["name"]: one["entrypoint"] for one in content["deployments"]}


async def ensure_pool(name: str | None = None) -> None:
    """Make the warm worker's pool where it is missing."""
    template, pool = ConclaveWorker.get_default_base_job_template(), name or stored(POOL)
    async with get_client() as client:
        try:
            await client.create_work_pool(WorkPoolCreate(name=pool, type=POOL, base_job_template=template))
        except ObjectAlreadyExists:
            return


async def _refuse_unknown_parameters(names: Iterable[str]) -> None:
    """Let Prefect refuse what no flow takes: it would be stored unseen, however deep it is."""
    async with get_client() as client:
        for name in names:
            deployment = await client.read_deployment_by_name(f"{name}/{stored(name)}")
            closed = {**(deployment.parameter_openapi_schema or {}), "additionalProperties": False}
            await client.update_deployment(deployment.id, DeploymentUpdate(parameter_openapi_schema=closed))


def _as_ours(file: Path, installation: str) -> str:
    """The file with our names in Prefect as they are there, and with the tag of the installation."""
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    content.pop("definitions", None)  # anchors are resolved
    for one in content["deployments"]:
        one["name"] = stored(one["name"])
        one["tags"] = [*one.get("tags", []), tag_of(installation)]
        one["work_pool"] = {**one["work_pool"], "name": stored(one["work_pool"]["name"])}
    return yaml.safe_dump(content, sort_keys=False)


def _digest(content: str) -> str:
    """Of all that a deployment is made from: the file, and the source of the flows and of their parameters' types."""
    sources = [*sorted((ROOT / "flows").glob("*.py")), *sorted((ROOT / "tasks" / "council").glob("*.py"))]
    digest = hashlib.sha256(content.encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


async def _run_deploy(file: Path) -> None:
    command = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(DEPLOY_S):
            said, _ = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise DeployFailed(f"`prefect deploy --all` did not end within {DEPLOY_S:g} s") from error
    if process.returncode != 0:
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip() not in ("", LAST_WORDS)]
        raise DeployFailed(f"`prefect deploy --all` failed: {lines[-1].strip() if lines else 'it said nothing'}")
