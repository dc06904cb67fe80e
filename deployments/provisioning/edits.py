"""What somebody edited in Prefect's UI, kept while the file is deployed anew.

What each deployment was right after it was deployed is the base of a three-way merge: a value that differs from it now
was edited, and stays; every other one is the file's. The tag that says whose a deployment is takes no part: it is
put there with each deployment, and never edited.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from blocks.names import is_tag, stored

V = TypeVar("V")
Standing = dict[str, dict[str, Any]]
"""`fields`, `parameters` and `schedules` of a deployment, each by key."""

FIELDS = ("description", "paused", "tags", "job_variables", "concurrency_options", "enforce_parameter_schema")
OF_SCHEDULE = ("schedule", "active", "max_scheduled_runs", "parameters", "slug")


async def standing(names: Iterable[str]) -> dict[str, Standing]:
    """The deployments as they are now, those that exist."""
    async with get_client() as client:
        return {name: _standing(one) for name in names if (one := await _read(client, name)) is not None}


async def tagged(names: Iterable[str], tag: str) -> set[str]:
    """Those of the deployments that carry a tag."""
    async with get_client() as client:
        return {name for name in names if (one := await _read(client, name)) is not None and tag in one.tags}


def with_edits(
    base: dict[str, Standing], edited: dict[str, Standing], found: dict[str, Standing]
) -> dict[str, Standing]:
    """Deployments as they were found, with what was edited between `base` and `edited`."""
    known = base.keys() & edited.keys() & found.keys()
    return {**found, **{name: _merged(base[name], edited[name], found[name]) for name in known}}


async def keep_edits(base: dict[str, Standing], edited: dict[str, Standing]) -> list[str]:
    """Put back what was edited between `base` and `edited`; names of the deployments where something was."""
    kept = []
    async with get_client() as client:
        for name in base.keys() & edited.keys():
            if base[name] != edited[name] and (deployment := await _read(client, name)) is not None:
                await _put_back(client, deployment, base[name], edited[name])
                kept.append(name)
    return sorted(kept)


def merged(base: dict[str, V], edited: dict[str, V], deployed: dict[str, V]) -> dict[str, V]:
    """What is deployed, but for the keys that were added, changed or removed between `base` and `edited`."""
    wanted = dict(deployed)
    for key in base.keys() | edited.keys():
        if key not in edited:
            wanted.pop(key, None)
        elif key not in base or base[key] != edited[key]:
            wanted[key] = edited[key]
    return wanted


async def _put_back(client: PrefectClient, deployment: DeploymentResponse, base: Standing, edited: Standing) -> None:
    deployed = _standing(deployment)
    wanted = _merged(base, edited, deployed)
    changed = _changed_fields(deployment, deployed, wanted)
    if changed:
        await client.update_deployment(deployment.id, DeploymentUpdate(**changed))
    await _put_back_schedules(client, deployment, deployed["schedules"], wanted["schedules"])


def _changed_fields(deployment: DeploymentResponse, deployed: Standing, wanted: Standing) -> dict[str, Any]:
    """What an update of the deployment has to set, its parameters included."""
    changed = {name: value for name, value in wanted["fields"].items() if value != deployed["fields"][name]}
    if "tags" in changed:
        changed["tags"] = [*changed["tags"], *(tag for tag in deployment.tags if is_tag(tag))]
    if wanted["parameters"] != deployed["parameters"]:
        changed["parameters"] = wanted["parameters"]
    return changed


async def _put_back_schedules(
    client: PrefectClient, deployment: DeploymentResponse, deployed: dict[str, Any], wanted: dict[str, Any]
) -> None:
    """Replace the schedules that differ from what is wanted."""
    for schedule in deployment.schedules:
        key = _key(schedule)
        if wanted.get(key) != deployed[key]:
            await client.delete_deployment_schedule(deployment.id, schedule.id)
    for key, content in wanted.items():
        if deployed.get(key) != content:
            await client.create_deployment_schedules(deployment.id, [DeploymentScheduleCreate(**content)])


def _merged(base: Standing, edited: Standing, deployed: Standing) -> Standing:
    return {part: merged(base[part], edited[part], deployed[part]) for part in deployed}


async def _read(client: PrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return await client.read_deployment_by_name(f"{name}/{stored(name)}")
    except ObjectNotFound:
        return None


def _standing(deployment: DeploymentResponse) -> Standing:
    limit = deployment.global_concurrency_limit
    return {
        "fields": {
            **deployment.model_dump(mode="json", include=set(FIELDS)),
            "tags": [tag for tag in deployment.tags if not is_tag(tag)],
            "concurrency_limit": limit.limit if limit else None,
        },
        "parameters": deployment.model_dump(mode="json", include={"parameters"})["parameters"],
        "schedules": {_key(one): one.model_dump(mode="json", include=set(OF_SCHEDULE)) for one in deployment.schedules},
    }


def _key(schedule: DeploymentSchedule) -> str:
    """Its slug; one that was added without is known by its id."""
    return schedule.slug or str(schedule.id)
