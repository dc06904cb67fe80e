"""One whole deliberation on the server, from the flow's start to its decision."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.contract.servers import Client

pytestmark = pytest.mark.servers


@pytest.mark.own_server
async def test_a_deliberation_counts_what_the_server_counted(
    client: Client, connected: Any, make_council: Callable[..., Awaitable[str]], deliberate: Any
) -> None:
    """Three members, the model that /v1/models lists, and every token of the server's own counters."""
    from blocks.vllm_server import VLLM

    listed = (await client.send("GET", "/v1/models")).body["data"][0]["id"]
    server = client.server
    block = VLLM(base_url=server.url, api_key=server.key, extra_body={"min_tokens": 20})
    await block.save("contract", overwrite=True)
    council = await make_council(3, server="contract")
    names = ("generation_tokens_total", "prompt_tokens_total")
    before = [await client.metric(name) for name in names]
    state, result = await deliberate(task="Name the service", council=council)
    after = [await client.metric(name) for name in names]

    usage, answers = result["usage"], result["results"]
    grown = [int(new - old) for new, old in zip(after, before, strict=True)]
    assert [usage["completion_tokens"], usage["prompt_tokens"]] == grown
    assert usage["completion_tokens"] > 0
    assert (state.is_completed(), result["status"], result["engine"]) == (True, "COMPLETED", server.engine)
    assert [member["status"] for member in result["members"]] == ["ok"] * 3
    assert {answer["proposal"]["model"] for answer in answers} == {listed}
    assert {answer["proposal"]["finish_reason"] for answer in answers} == {"stop"}
