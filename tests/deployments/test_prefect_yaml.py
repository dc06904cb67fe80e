"""The deployments of prefect.yaml load, by dotted names."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import yaml

DEPLOYMENTS = yaml.safe_load(Path("prefect.yaml").read_text())["deployments"]


def test_every_entrypoint_is_dotted_and_names_its_flow(stack: object) -> None:
    """Deployment, module, function and flow share one name, and the entrypoint is no path."""
    for deployment in DEPLOYMENTS:
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert (deployment["name"], flow.name, module.rpartition(".")[2]) == (name, name, name)


def test_the_flow_takes_the_fields_of_a_request(stack: object) -> None:
    """Whatever a request may say is a parameter of the flow, and each is described for the UI's form."""
    from flows.deliberate import deliberate
    from tasks.council.models import DeliberationRequest

    parameters = set(inspect.signature(deliberate.fn).parameters)
    assert parameters == {*DeliberationRequest.model_fields, "deliberation_id"}
    described = deliberate.parameters.model_dump() if hasattr(deliberate.parameters, "model_dump") else {}
    properties = described.get("properties", {})
    assert [name for name in parameters if not properties[name].get("description")] == []
