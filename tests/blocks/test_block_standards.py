"""Prefect's own standards for blocks, and what its UI needs to draw a form for each."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

BLOCKS = {"VLLM": "vllm_server", "JetStream": "jetstream", "RayAgents": "ray_agents", "Council": "council"}
STANDARDS = (
    "test_has_a_description",
    "test_has_a_documentation_url",
    "test_all_fields_have_a_description",
    "test_has_a_valid_code_example",
)
LEFT_OUT = {"test_has_a_valid_image": "it fetches the logo from the internet, and our blocks have none"}


@pytest.fixture(params=BLOCKS)
def block(request: pytest.FixtureRequest) -> Any:
    """The class of one block."""
    return getattr(importlib.import_module(f"blocks.{BLOCKS[request.param]}"), request.param)


def suite() -> Any:
    """Prefect's suite, which can only be imported once its settings are there."""
    from prefect.testing.standard_test_suites import BlockStandardTestSuite

    return BlockStandardTestSuite


@pytest.mark.parametrize("standard", STANDARDS)
def test_a_block_meets_prefects_standard(block: Any, standard: str) -> None:
    """One check of `BlockStandardTestSuite` on one block."""
    concrete = type("Suite", (suite(),), {"block": None})
    getattr(concrete(), standard)(block)


def test_no_standard_is_left_out_without_a_reason() -> None:
    """A check that a later Prefect adds is missed here."""
    offered = {name for name in dir(suite()) if name.startswith("test_")}
    assert offered == {*STANDARDS, *LEFT_OUT}


def test_every_field_of_a_form_has_a_title_and_a_description(block: Any) -> None:
    """Also the fields of what a block holds, such as the members of a council."""
    fields = dict(_fields(block.model_json_schema()))
    assert set(block.model_fields) <= {name.rpartition(".")[2] for name in fields}
    assert [name for name, field in fields.items() if not field.get("title")] == []
    assert [name for name, field in fields.items() if not field.get("description")] == []


def test_a_secret_is_drawn_as_one(block: Any) -> None:
    """The form hides it, and the API gives it back masked."""
    schema = block.model_json_schema()
    secrets = {name for name, field in block.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert set(schema["secret_fields"]) == secrets


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from schema["properties"].items()
    for name, definition in schema.get("definitions", schema.get("$defs", {})).items():
        for field, shape in definition.get("properties", {}).items():
            yield f"{name}.{field}", shape
