"""The spec is true: valid, complete, and what generated requests get is what it says."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
import schemathesis

from deployments.gateway.openapi import spec
from deployments.gateway.table import ROUTES
from tests.deployments.gateway.parts import Gateway

EXAMPLES = 3
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "422", "429"]
"""
"""422: rules over several fields, and what a cursor is, are more than a schema can say."""


def test_every_route_is_in_it_and_it_is_valid() -> None:
    document = spec(ROUTES)
    there = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert there == {(route.method, route.path) for route in ROUTES}
    names = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document).validate()


@pytest.mark.servers
async def test_it_is_served(gateway: Gateway) -> None:
    assert (await gateway.get("/openapi.json")).body == spec(ROUTES)


@pytest.mark.servers
async def test_what_generated_requests_get_is_what_it_says(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All checks of schemathesis; streams that have no end are left out, and nobody waits for a result."""

    async def at_once(_one: str) -> None:
        """As if the time were over."""

    monkeypatch.setattr(gateway.service.feed, "end_of", at_once)
    program = Path(sys.executable).parent / "schemathesis"
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    options: list[Any] = [
        *("run", f"{gateway.url}/openapi.json", "--header", f"Authorization: Bearer {gateway.text}"),
        *("--exclude-checks", "use_after_free"),  # a DELETE stops a deliberation, which is read all the same
        *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--mode", "all"),
        *("--max-examples", EXAMPLES, "--generation-deterministic", "--seed", 1),
        *("--exclude-path-regex", "/events$", "--request-timeout", 20, "--no-color", "--continue-on-failure"),
    ]
    running = await asyncio.create_subprocess_exec(
        program, *map(str, options), cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await running.communicate()
    assert running.returncode == 0, told.decode()
