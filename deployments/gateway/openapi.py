"""The spec of the API, made of the table of routes and the models of its bodies: OpenAPI 3.1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from deployments.gateway.forms import ProblemForm
from deployments.gateway.problems import CONTENT_TYPE
from deployments.gateway.routes import Answer, Parameter, Route

_REF = "#/components/schemas/{model}"
_IN_PATH = re.compile(r"\{(\w+)\}")
_HEADER = {"schema": {"type": "string"}}


def spec(routes: Sequence[Route]) -> dict[str, Any]:
    """The document."""
    schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Conclave",
            "version": version("conclave"),
            "description": "Councils of LLM agents deliberate; what is accepted is run, and every event can be heard.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "cnc_<id>_<secret>"}},
        },
    }


def _models(route: Route) -> list[type[BaseModel]]:
    models = [answer.model for answer in route.answers.values()]
    return [model for model in (route.body, *models) if model is not None]


def _schemas(routes: Sequence[Route]) -> dict[str, Any]:
    models: dict[type[BaseModel], None] = {ProblemForm: None}
    for route in routes:
        models.update(dict.fromkeys(_models(route)))
    _, document = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    return dict(document["$defs"])


def _operation(route: Route) -> dict[str, Any]:
    in_path = [Parameter(name, "path", name, _ID) for name in _IN_PATH.findall(route.path)]
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', route.path)}",
        "summary": route.summary,
        "parameters": [_parameter(one) for one in (*in_path, *route.parameters)],
        "responses": {str(status): _response(answer) for status, answer in route.answers.items()},
    }
    operation["responses"]["default"] = {
        "description": "An error, which names the field.",
        "content": {CONTENT_TYPE: {"schema": _ref(ProblemForm)}},
    }
    if route.scopes:
        operation["security"] = [{"token": []}]
        operation["description"] = f"Needs the scope {' or '.join(f'`{one}`' for one in route.scopes)}."
    if route.body is not None:
        content = {"application/json": {"schema": _ref(route.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


_ID = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    told = {"name": parameter.name, "in": parameter.where, "description": parameter.description}
    style = {"style": "form", "explode": parameter.explode} if parameter.where == "query" else {}
    return {**told, **style, "required": parameter.where == "path", "schema": parameter.schema}


def _response(answer: Answer) -> dict[str, Any]:
    told: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        told["headers"] = dict.fromkeys(answer.headers, _HEADER)
    if answer.model is not None:
        told["content"] = {answer.content: {"schema": _ref(answer.model)}}
    elif answer.content != "application/json":
        told["content"] = {answer.content: {"schema": {"type": "string"}}}
    return told


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
