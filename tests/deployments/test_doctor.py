"""The doctor asks every part, and says what is wrong and what to do."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.deployments.commands import conclave


@pytest.fixture
def examined(connected: Any, stack: Any) -> Callable[..., Any]:
    """`findings = await examined(*councils)`: what the doctor finds, by subject."""

    async def examine_(*councils: str, **changes: Any) -> dict[str, Any]:
        from deployments.doctor import examine
        from deployments.settings import load_settings
        from deployments.stack import status

        found = status(load_settings()).model_copy(update=changes)
        return {finding.subject: finding async for finding in examine(found, load_settings(), councils)}

    return examine_


async def test_a_stack_in_health_answers_every_question(examined: Any) -> None:
    """Each part, a message stored and read back, the agent hosts, the councils, and tokens from the model."""
    found = await examined("dev", "qa")
    assert set(found) == {
        *("disk", "nats", "gateway", "llm", "prefect", "ray", "record", "installation", "dead letters"),
        *("agents", "councils", "model default"),
    }
    assert {name: finding.state for name, finding in found.items() if finding.state == "failed"} == {}
    assert "SIMULATOR" in found["model default"].text
    assert "6 members ask it" in found["model default"].text


async def test_a_model_that_fails_is_named_with_its_server(examined: Any, stack: Any) -> None:
    """A council whose server has a closed port; the others are asked all the same."""
    from blocks.council import Council
    from blocks.vllm_server import VLLM

    await VLLM(base_url=stack.llm, api_key=os.environ["CONCLAVE_LLM_API_KEY"], model="no-such-model", attempts=1).save(
        "misnamed", overwrite=True
    )
    members = [{"agent_id": "m1", "role": "DEV", "server": "misnamed"}, {"agent_id": "m2", "role": "DEV"}]
    await Council(members=members).save("half-broken", overwrite=True)
    try:
        found = await examined("half-broken")
    finally:
        await Council.adelete("half-broken")
        await VLLM.adelete("misnamed")
    assert (found["model misnamed"].state, found["model default"].state) == ("failed", "ok")
    assert "no-such-model" in found["model misnamed"].text
    assert "misnamed" in found["model misnamed"].advice


async def test_parts_that_do_not_answer_are_told_with_what_to_do(examined: Any, stack: Any) -> None:
    """A dead part, one that was started again, and one from outside."""
    parts = dict(stack.parts)
    parts["llm"] = parts["llm"].model_copy(update={"state": "failed", "answers": None, "reason": "exited"})
    parts["ray"] = parts["ray"].model_copy(update={"state": "external", "answers": False, "reason": "no answer"})
    parts["nats"] = parts["nats"].model_copy(update={"answers": True, "restarts": 2})
    found = await examined(parts=parts | {"prefect": parts["prefect"].model_copy(update={"answers": True})})
    assert (found["llm"].state, found["ray"].state, found["nats"].state) == ("failed", "failed", "warning")
    assert "conclave up --detach starts it again" in found["llm"].advice
    assert "given from outside" in found["ray"].advice
    assert "agents" not in found


async def test_an_unknown_council_is_named(examined: Any) -> None:
    """With the known ones."""
    found = await examined("nowhere")
    assert found["councils"].state == "failed"
    assert "'nowhere' is unknown; known are" in found["councils"].text


async def test_the_verb_tells_line_by_line_or_as_json(connected: Any) -> None:
    """Exit code 0 in health, 6 without; with --json one document."""
    whole, unknown = await asyncio.gather(
        conclave("doctor", "--council", "dev", "--json"), conclave("doctor", "--council", "nowhere")
    )
    document = json.loads(whole.out)
    assert (whole.code, document["healthy"]) == (0, True)
    assert {finding["subject"] for finding in document["findings"]} >= {"record", "agents", "councils"}
    assert unknown.code == 6
    assert "FAILED councils" in unknown.out
    assert "1 of 11 failed: councils" in unknown.out


@pytest.fixture
def guarded(connected: Any) -> Callable[..., Any]:
    """`async with guarded(key) as url`: a model server that asks for a key, and has no name yet."""
    from pydantic import SecretStr

    from infra.simulator import SimulatorSettings, simulator

    @asynccontextmanager
    async def serve(key: str) -> AsyncIterator[str]:
        async with simulator(SimulatorSettings(latency_s=0, api_key=SecretStr(key))) as server:
            yield server.url

    return serve


async def test_a_members_own_server_is_asked_with_the_key_of_its_block(examined: Any, guarded: Any) -> None:
    """And with no other: the stack's is for another server."""
    from blocks.council import Council
    from blocks.vllm_server import VLLM

    async with guarded("its-own") as url:
        members = [{"agent_id": "m1", "role": "DEV", "server": "guarded"}]
        await Council(members=members).save("with-a-key", overwrite=True)
        await VLLM(base_url=url, api_key="its-own").save("guarded", overwrite=True)
        try:
            found = await examined("with-a-key")
            await VLLM(base_url=url).save("guarded", overwrite=True)
            without = await examined("with-a-key")
        finally:
            await Council.adelete("with-a-key")
            await VLLM.adelete("guarded")
    assert (found["model guarded"].state, without["model guarded"].state) == ("ok", "failed")
    assert "401" in without["model guarded"].text


async def test_a_server_from_outside_is_asked_with_the_key_of_its_block(
    examined: Any, guarded: Any, stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever key the home and the shell have: members ask with that one. Where it is refused, too, that is said."""
    from blocks.vllm_server import VLLM
    from deployments import doctor

    async def block(_kind: Any) -> Any:
        return server

    monkeypatch.setattr(doctor, "fresh", block)
    async with guarded("its-own") as url:
        refused = stack.parts["llm"].model_copy(
            update={"state": "external", "url": url, "answers": False, "reason": "no answer: it refuses our key (401)"}
        )
        prefect = stack.parts["prefect"].model_copy(update={"answers": True})
        parts, found = {"llm": refused, "prefect": prefect}, []
        for key, place in (("its-own", url), ("another", url), (None, url), ("its-own", "http://elsewhere")):
            server = VLLM(base_url=place, api_key=key)
            found.append((await examined("dev", parts=parts))["llm"])
    assert [finding.state for finding in found] == ["ok", "failed", "failed", "failed"]
    assert "takes the key of its block" in found[0].text
    assert "with the key of its block, too: it refuses our key (HTTP 401" in found[1].text
    assert all("CONCLAVE_LLM_API_KEY" in finding.advice for finding in found[1:])
