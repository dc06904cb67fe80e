"""The deployments of prefect.yaml: dotted entrypoints, bounded parameters, and what `conclave up` makes of them."""

from __future__ import annotations

import importlib
import inspect
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

CONTENT = yaml.safe_load(Path("prefect.yaml").read_text())
DEPLOYMENTS = {one["name"]: one for one in CONTENT["deployments"]}


def test_every_entrypoint_is_dotted_and_names_its_flow(stack: object) -> None:
    """Deployment, flow, module and function share one name (`_` for `-` in Python); the warm worker may run it."""
    from deployments.worker.requests import load

    for name, deployment in DEPLOYMENTS.items():
        module, _, function = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), function)
        assert flow.name == name
        assert (module.rpartition(".")[2], function) == (name.replace("-", "_"), name.replace("-", "_"))
        assert load(deployment["entrypoint"]) is flow
        assert set(deployment.get("parameters", {})) <= set(inspect.signature(flow.fn).parameters)
        assert deployment["description"]


def test_schedules_are_examples_but_for_housekeeping(stack: object) -> None:
    """What costs tokens is off until somebody switches it on."""
    active = {name for name, one in DEPLOYMENTS.items() for schedule in one.get("schedules", []) if schedule["active"]}
    assert active == {"housekeeping"}
    assert sum(len(one.get("schedules", [])) for one in DEPLOYMENTS.values()) >= 3


def test_the_flow_takes_the_fields_of_a_request(stack: object) -> None:
    """Whatever a request may say is a parameter of the flow, and each is described for the UI's form."""
    from flows.deliberate import deliberate
    from tasks.council.models import DeliberationRequest

    parameters = set(inspect.signature(deliberate.fn).parameters)
    assert parameters == {*DeliberationRequest.model_fields, "deliberation_id"}
    properties = deliberate.parameters.model_dump()["properties"]
    assert [name for name in parameters if not properties[name].get("description")] == []


def test_the_form_has_the_bounds_of_a_request(stack: object) -> None:
    """The schema that Prefect's form is made from has the same bounds as the request that the flow reads."""
    from flows.deliberate import deliberate
    from tasks.council.models import DeliberationRequest

    form, request = (
        deliberate.parameters.model_dump()["properties"],
        DeliberationRequest.model_json_schema()["properties"],
    )
    for name in ("task", "rubric", "council", "strategy", "rounds", "members", "quorum", "grace_s", "deadline_s"):
        assert _bounds(form[name]) == _bounds(request[name]), name
    assert _bounds(form["rounds"]) == {"minimum": 0, "maximum": 3}
    assert _bounds(form["council"])["pattern"]


async def test_what_is_deployed_has_the_form_and_refuses_by_the_field(connected: Any) -> None:
    """Descriptions and bounds reach Prefect, which refuses a run that a council cannot be asked."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    async with get_client() as client:
        for name, deployment in DEPLOYMENTS.items():
            found = await client.read_deployment_by_name(f"{name}/{name}")
            assert (found.entrypoint, found.work_pool_name) == (deployment["entrypoint"], "conclave")
            assert (found.work_queue_name, found.enforce_parameter_schema) == (
                deployment["work_pool"]["work_queue_name"],
                True,
            )
            assert {one.active for one in found.schedules} == {one["active"] for one in deployment.get("schedules", [])}
        deliberate = await client.read_deployment_by_name("deliberate/deliberate")
        assert deliberate.parameter_openapi_schema["properties"]["quorum"]["description"]
        for wrong, said in (
            ({"members": 0}, "members"),
            ({"rounds": 4}, "rounds"),
            ({"council": "a.b"}, "council"),
            ({"strategy": "guess"}, "strategy"),
        ):
            with pytest.raises(PrefectHTTPStatusError) as refused:
                await client.create_flow_run_from_deployment(deliberate.id, parameters={"task": "t", **wrong})
            assert f"field '{said}'" in refused.value.response.text


async def test_a_schedule_fires_with_its_parameters(connected: Any, until: Any) -> None:
    """Prefect's scheduler makes runs of a schedule that is on, with what the schedule asks (no run without them)."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.filters import DeploymentFilter
    from prefect.client.schemas.schedules import IntervalSchedule

    from flows.deliberate import deliberate

    schedule = DeploymentScheduleCreate(
        schedule=IntervalSchedule(interval=timedelta(hours=1)), active=True, parameters={"task": "Weekly"}
    )
    async with get_client() as client:
        deployment = await client.create_deployment(
            flow_id=await client.create_flow(deliberate),
            name=f"scheduled-{uuid.uuid4().hex[:8]}",
            schedules=[schedule],
            enforce_parameter_schema=False,
        )
        wanted = DeploymentFilter.model_validate({"id": {"any_": [deployment]}})

        async def made() -> Any:
            return await client.read_flow_runs(deployment_filter=wanted, limit=1)

        (run,) = await until(made, 120)
        await client.delete_deployment(deployment)
    assert (run.auto_scheduled, run.parameters) == (True, {"task": "Weekly"})


@pytest.mark.stack
async def test_what_was_edited_stays(record: Any, stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a second `up`, a file that changed, one that is cut short; a deployment that was deleted comes back."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
    from prefect.client.schemas.schedules import CronSchedule

    from deployments.provisioning import deploying
    from deployments.provisioning.deploying import FILE, deploy

    run_deploy = deploying._run_deploy

    async def cut_short(file: Path) -> None:
        await run_deploy(file)
        raise KeyboardInterrupt

    lines: list[str] = []
    home = Path(stack.home)
    noon = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 12 * * *"), active=True, parameters={"task": "Noon"})
    changed = FILE.with_name("prefect-changed.yaml")
    changed.write_text(FILE.read_text().replace("Costs a few tokens.", "Costs tokens."))
    async with get_client() as client:

        async def found(name: str) -> Any:
            return await client.read_deployment_by_name(f"{name}/{name}")

        async def asked(name: str) -> dict[str | None, tuple[bool, dict[str, Any]]]:
            return {one.slug: (one.active, one.parameters) for one in (await found(name)).schedules}

        before = {name: await asked(name) for name in DEPLOYMENTS}
        diagnostics, deliberate = await found("diagnostics"), await found("deliberate")
        await client.update_deployment_schedule(diagnostics.id, diagnostics.schedules[0].id, active=True)
        edits = {"parameters": {"council": "qa"}, "concurrency_limit": 3, "job_variables": {"env": {"A": "b"}}}
        await client.update_deployment(deliberate.id, DeploymentUpdate(**edits))
        await client.update_deployment(diagnostics.id, DeploymentUpdate(concurrency_limit=None))
        await client.create_deployment_schedules(deliberate.id, [noon])
        housekeeping = await found("housekeeping")
        await client.delete_deployment_schedule(housekeeping.id, housekeeping.schedules[0].id)
        try:
            assert not await deploy(home, lines.append, record.installation)
            await client.delete_deployment((await found("evaluate")).id)
            monkeypatch.setattr(deploying, "_run_deploy", cut_short)
            with pytest.raises(KeyboardInterrupt):
                await deploy(home, lines.append, record.installation, changed)
            monkeypatch.undo()
            assert (await found("deliberate")).parameters == deliberate.parameters
            assert await deploy(home, lines.append, record.installation, changed)
            assert (await found("diagnostics")).description.endswith("Costs tokens.")
            assert await asked("diagnostics") == {"hourly": (True, {})}
            kept, unlimited = await found("deliberate"), await found("diagnostics")
            assert (kept.parameters, kept.job_variables) == ({"council": "qa"}, {"env": {"A": "b"}})
            assert (kept.global_concurrency_limit.limit, unlimited.global_concurrency_limit) == (3, None)
            assert await asked("deliberate") == {**before["deliberate"], None: (True, {"task": "Noon"})}
            assert await asked("housekeeping") == {}
            assert (await found("evaluate")).work_queue_name == "batch"
        finally:
            changed.unlink()
            for name in DEPLOYMENTS:
                await client.delete_deployment((await found(name)).id)
            (home / "deployed.json").unlink()
            assert await deploy(home, lines.append, record.installation)
        assert {name: await asked(name) for name in DEPLOYMENTS} == before
    said = [line.partition(":")[0] for line in lines]
    assert said == ["deployments ready", "what was edited in Prefect stays", "deployments ready"]
    assert "deliberate, diagnostics, housekeeping" in lines[1]


async def test_a_file_that_cannot_be_deployed_says_why(connected: Any, tmp_path: Path) -> None:
    """With Prefect's own words."""
    from deployments.provisioning.deploying import DeployFailed, deploy

    file = tmp_path / "prefect.yaml"
    one = {"name": "nothing", "entrypoint": "flows.nothing.nothing", "work_pool": {"name": "conclave"}}
    file.write_text(yaml.safe_dump({"name": "x", "pull": [], "deployments": [one]}))
    with pytest.raises(DeployFailed, match=r"`prefect deploy --all` failed: .*nothing"):
        await deploy(tmp_path, print, "none", file)


def _bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """What bounds a value, wherever the schema says it."""
    found: dict[str, Any] = {}
    for part in (schema, *schema.get("anyOf", [])):
        names = ("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "pattern", "enum")
        found |= {name: part[name] for name in names if name in part}
    return found
