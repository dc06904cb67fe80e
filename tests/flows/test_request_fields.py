"""What a request has is written in `DeliberationRequest`; the doors that spell it out for people leave nothing out."""

from __future__ import annotations

import inspect

import pytest

from deployments.cli import deliberations
from tasks.council.models import DeliberationRequest

pytestmark = pytest.mark.usefixtures("importable_prefect")

ONLY_AS_DATA = {"items", "context", "metadata", "budget"}
"""Fields that nobody types on a command line."""


def test_the_form_has_every_field_of_a_request() -> None:
    """And the id to deliberate under."""
    from flows.deliberate import deliberate

    parameters = inspect.signature(deliberate.fn).parameters
    assert set(parameters) == {*DeliberationRequest.model_fields, "deliberation_id"}


def test_the_command_line_has_every_field_that_can_be_typed() -> None:
    """And what says how it is run."""
    parameters = set(inspect.signature(deliberations.deliberate).parameters)
    assert parameters == {*DeliberationRequest.model_fields, *deliberations.NOT_ASKED} - ONLY_AS_DATA
