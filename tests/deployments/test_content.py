"""Content is data for Prefect, and what it could not read back never gets in."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.deployments.warm_worker import TASK, Worker

SECRET = "from-a-variable"
VARIABLE = "a_secret"


@pytest.fixture
def sent() -> dict[str, Any]:
    """What somebody sends who knows Prefect."""
    return {
        "variable": {"__prefect_kind": "workspace_variable", "variable_name": VARIABLE},
        "template": {"__prefect_kind": "jinja", "template": "{{ 7*7 }}"},
        "gone": {"__prefect_kind": "json"},
        "parsed": [{"__prefect_kind": "json", "value": '{"a": 1}'}],
    }


async def test_a_request_is_not_evaluated_by_prefect(
    worker: Worker, make_council: Any, recorded: Any, new_id: str, sent: dict[str, Any]
) -> None:
    """On the record, in the prompt's context and in Prefect it is what was sent; the run shows under its deployment."""
    from prefect.client.orchestration import get_client
    from prefect.variables import Variable

    await Variable.aset(VARIABLE, SECRET, overwrite=True)
    asked = {"task": TASK, "council": await make_council(1), "context": sent, "metadata": sent}
    assert await worker.ask(new_id, parameters=asked, door="planning")
    assert (await worker.finished(new_id))["status"] == "COMPLETED"
    (planned,) = (await recorded.events(f"deliberations.{new_id}.plan"))[f"deliberations.{new_id}.plan"]
    async with get_client() as client:
        run = await client.read_flow_run((await worker.record.statuses.read(new_id))["run"])
        deployment = await client.read_deployment_by_name("deliberate/deliberate")
    assert planned["plan"]["agenda"][0]["context"] == planned["plan"]["metadata"] == sent
    assert SECRET not in str(planned)
    assert run.parameters == {**asked, "deliberation_id": new_id}
    assert (run.deployment_id, run.flow_id) == (deployment.id, deployment.flow_id)
    assert (run.work_pool_name, run.work_queue_name) == ("conclave", "default")
    assert set(deployment.tags) <= set(run.tags)


async def test_what_the_operator_sets_in_prefect_is_evaluated(
    worker: Worker, make_council: Any, new_id: str, sent: dict[str, Any]
) -> None:
    """A Variable among the deployment's own parameters, and the JSON field of the form, work as everywhere."""
    from prefect.client.orchestration import get_client
    from prefect.states import Pending

    from deployments.worker import flow_runs

    council = await make_council(1)
    async with get_client() as client:
        deployment = await client.read_deployment_by_name("deliberate/deliberate")
        form = {"__prefect_kind": "json", "value": '{"a": [1]}'}
        run = await client.create_flow_run_from_deployment(
            deployment.id, parameters={"task": TASK, "context": form}, state=Pending()
        )
        assert run.parameters["context"] == {"a": [1]}
        await client.delete_flow_run(run.id)
        rubric = {"__prefect_kind": "workspace_variable", "variable_name": "shared_rubric"}
        await client.create_variable(_variable("shared_rubric", "Clean"))
        edited = deployment.model_copy(update={"parameters": {**deployment.parameters, "rubric": rubric}})
        found = await flow_runs._defaults(client, edited, {"council": council, "context": sent})
    assert found == {"rubric": "Clean"}


def _variable(name: str, value: Any) -> Any:
    from prefect.client.schemas.actions import VariableCreate

    return VariableCreate(name=name, value=value)


def nested(depth: int) -> dict[str, Any]:
    """An object with so many levels."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return dict(value)


@pytest.mark.parametrize("depth", [100, 250, 300, 400])
@pytest.mark.parametrize(
    ("field", "wrap"),
    [
        ("context", lambda deep: deep),
        ("metadata", lambda deep: deep),
        ("answer_format", lambda deep: deep),
        ("items", lambda deep: [{"task": "t", "context": deep}]),
        ("unknown", lambda deep: deep),
    ],
)
@pytest.mark.parametrize("enforced", [None, False])
async def test_what_is_nested_too_deep_is_refused_and_nothing_is_stored(
    connected: Any, field: str, wrap: Any, depth: int, enforced: bool | None
) -> None:
    """With the deployment's schema and with it switched off in the call; lists of runs are as they were."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    name = f"deep-{uuid.uuid4().hex[:8]}"
    body: dict[str, Any] = {"name": name, "parameters": {"task": "t", field: wrap(nested(depth))}}
    if enforced is not None:
        body["enforce_parameter_schema"] = enforced
    if field == "items":
        del body["parameters"]["task"]
    async with get_client() as client:
        deployment = await client.read_deployment_by_name("deliberate/deliberate")
        with pytest.raises(PrefectHTTPStatusError) as refused:
            await client.request("POST", f"/deployments/{deployment.id}/create_flow_run", json=body)
        assert refused.value.response.status_code in (409, 422)
        found = await client.request("POST", "/flow_runs/filter", json={"flow_runs": {"name": {"any_": [name]}}})
    assert found.json() == []


@pytest.mark.parametrize(("depth", "taken"), [(32, True), (33, False), (60, False)])
async def test_the_schema_alone_refuses_what_the_request_would(connected: Any, depth: int, taken: bool) -> None:
    """Prefect's validator, as a shared Prefect runs it: the same limit as the request's, by the field."""
    from prefect.client.orchestration import get_client
    from prefect.utilities.schema_tools.validation import ValidationError, validate

    async with get_client() as client:
        deployment = await client.read_deployment_by_name("deliberate/deliberate")
    schema = deployment.parameter_openapi_schema
    try:
        validate({"task": "t", "context": nested(depth)}, schema, raise_on_error=True)
    except ValidationError as error:
        assert not taken
        assert "field 'context.a" in str(error)
    else:
        assert taken
    with pytest.raises(ValidationError, match="'unknown' was unexpected"):
        validate({"task": "t", "unknown": 1}, schema, raise_on_error=True)
