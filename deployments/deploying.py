"""The deployments of `prefect.yaml` into Prefect, by Prefect's own command.

`prefect deploy --all` is what a user types, so `conclave up` does the same: one source, one way. It takes some seconds,
so it runs only where a deployment is missing, or where the file or the flows' parameters have changed since this home
deployed them. It sets all to what the file says; what somebody has edited in Prefect's UI is put back then.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from pydantic import BaseModel, ValidationError

from blocks.connections import prefect_named
from blocks.exceptions import ConclaveError
from deployments.edits import Standing, keep_edits, standing, with_edits
from deployments.worker import ConclaveWorker

ROOT = Path(__file__).parent.parent
FILE = ROOT / "prefect.yaml"
POOL = ConclaveWorker.type
DEPLOY_S = 120.0
LAST_WORDS = "An exception occurred."
"""What Prefect's command says last, after what went wrong."""

Report = Callable[[str], None]


class DeployFailed(ConclaveError):
    """Prefect's own command did not deploy; the text is what it said."""


async def deploy(home: Path, report: Report, file: Path = FILE) -> bool:
    """Deploy what the file says, unless this home has and nothing is missing; whether it was deployed.

    What somebody edited is noted first, so that it is put back by the next `up` where this one is cut short. Raises
    DeployFailed and PrefectUnavailable.
    """
    names = deployments_of(file)
    with prefect_named():
        await ensure_pool()
        found = await standing(names)
    digest, noted = _digest(file), home / "deployed.json"
    note = _Note.read(noted)
    if names.keys() == found.keys() and note.digest == digest:
        return False
    edited = with_edits(note.deployments, note.edited, found)
    _Note(deployments=note.deployments, edited=edited).write(noted)
    await _run_deploy(file)
    with prefect_named():
        deployed = await standing(names)
        kept = await keep_edits(note.deployments, edited)
    _Note(digest=digest, deployments=deployed).write(noted)
    report(f"deployments ready: {', '.join(names)}")
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


async def ensure_pool(name: str = POOL) -> None:
    """Make the warm worker's pool where it is missing."""
    template = ConclaveWorker.get_default_base_job_template()
    async with get_client() as client:
        try:
            await client.create_work_pool(WorkPoolCreate(name=name, type=POOL, base_job_template=template))
        except ObjectAlreadyExists:
            return


def _digest(file: Path) -> str:
    """Of all that a deployment is made from: the file, and the source of the flows and of their parameters' types."""
    sources = [file, *sorted((ROOT / "flows").glob("*.py")), *sorted((ROOT / "tasks" / "council").glob("*.py"))]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


async def _run_deploy(file: Path) -> None:
    command = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=file.parent, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=asyncio.subprocess.STDOUT
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
