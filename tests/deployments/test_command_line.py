"""The command `conclave` as a user runs it: what it prints where, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

TASK = "Write a function to merge sorted arrays"
CONCLAVE = str(Path(sys.executable).with_name("conclave"))
ANSWERED = {
    *("id", "status", "degraded", "council", "engine", "total_agents", "received_count", "failed_count", "counts"),
    *("results", "members", "winner_id", "decision", "error_message", "duration_ms", "usage", "links"),
}
OF_THE_STACK = ("NATS_URL", "PREFECT_API_URL", "RAY_ADDRESS", "VLLM_URL", "VLLM_MODEL")


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


Started = asyncio.subprocess.Process


async def start(*arguments: str, **environment: str) -> Started:
    """Begin a command; a variable that is empty counts as unset."""
    return await asyncio.create_subprocess_exec(
        CONCLAVE,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


async def end(process: Started) -> Ended:
    """Wait for a command to end by itself."""
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def conclave(*arguments: str, **environment: str) -> Ended:
    """Run a command to its end."""
    return await end(await start(*arguments, **environment))


@pytest_asyncio.fixture
async def council(connected: Any, stack: Any) -> str:
    """Three members m1 to m3 who give up at the first refusal."""
    from blocks.council import Council
    from blocks.vllm_server import VLLM

    await VLLM(base_url=stack.llm, model=stack.model, attempts=1).save("one-try", overwrite=True)
    members = [{"agent_id": f"m{number}", "role": "DEV", "server": "one-try"} for number in (1, 2, 3)]
    await Council(members=members).save("command-line", overwrite=True)
    return "command-line"


async def test_a_decision_is_printed_and_can_be_read_again(council: str, simulator: Any, new_id: str) -> None:
    """Exit code 0, the decision on standard output, the way there on standard error; once more costs no call."""
    asked = ("deliberate", TASK, "--council", council, "--id", new_id)
    first = await conclave(*asked)
    again, as_json, repeated, other = await asyncio.gather(
        conclave("result", new_id),
        conclave("result", new_id, "--json"),
        conclave(*asked, "--json"),
        conclave("deliberate", "Another task", "--council", council, "--id", new_id),
    )
    result = json.loads(as_json.out)
    assert (first.code, again.code, as_json.code, repeated.code, other.code) == (0, 0, 0, 0, 2)
    assert first.out.startswith("SIMULATED: ")
    assert f"Decision of council {council}: {result['winner_id']} (3 of 3)" in first.out
    assert result["decision"].splitlines()[0][:60] in first.out
    assert f"deliberation {new_id}" in first.err
    assert again.out == first.out
    assert repeated.out == as_json.out
    assert other.err == f"conclave: deliberation_id: '{new_id}' was already asked with another request\n"
    assert set((await simulator.calls(new_id)).values()) == {1}


async def test_json_is_one_document_and_nothing_else(council: str, new_id: str) -> None:
    """The whole of standard output is the answer of the HTTP API."""
    printed = await conclave("deliberate", TASK, "--council", council, "--id", new_id, "--json")
    result = json.loads(printed.out)
    assert printed.code == 0
    assert set(result) >= ANSWERED
    assert (result["id"], result["status"], result["engine"]) == (new_id, "COMPLETED", "simulator")
    assert result["counts"] == {"items": 1, "decided": 1, "COMPLETED": 1, "degraded": 0}
    assert set(result["results"][0]) >= {"proposal", "score", "rank", "checks"}
    assert set(result["members"][0]) >= {"agent_id", "status", "reason", "duration_ms", "usage"}
    assert "/flow-run/" in result["links"]["prefect_run"]


@pytest.mark.parametrize(
    ("kind", "whom", "code", "shown"),
    [
        ("404_model", "m3", 3, "(2 of 3: degraded)"),
        ("hang", "m[23]", 4, "No decision: out of time"),
        ("404_model", "m[12]", 1, "No decision: failed"),
    ],
    ids=["degraded", "timeout", "failed"],
)
async def test_the_exit_code_says_what_became_of_it(
    council: str, simulator: Any, new_id: str, kind: str, whom: str, code: int, shown: str
) -> None:
    """3 degraded, 4 timeout, 1 failed, with the reason on standard output."""
    await simulator.fault(kind, match=f"{new_id}:task:propose-0:{whom}")
    ended = await conclave("deliberate", TASK, "--council", council, "--id", new_id, "--deadline", "3")
    assert ended.code == code
    assert shown in ended.out
    assert "Traceback" not in ended.err


async def test_ctrl_c_cancels_the_council(
    council: str, simulator: Any, record: Any, new_id: str, until: Callable[..., Awaitable[Any]]
) -> None:
    """One SIGINT: exit code 5, CANCELLED on the record, and every call closed."""
    await simulator.fault("hang", match=f"{new_id}:")
    process = await start("deliberate", TASK, "--council", council, "--id", new_id, "--deadline", "120")

    async def all_wait() -> bool:
        return len(await simulator.calls(new_id)) == 3

    async def all_closed() -> bool:
        return sum(call["aborted"] for call in await simulator.requests(new_id)) == 3

    await until(all_wait)
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert ended.code == 5
    assert "No decision: cancelled" in ended.out
    assert "Traceback" not in ended.err
    assert (await record.read_status(new_id))["status"] == "CANCELLED"
    assert await until(all_closed)


@pytest.fixture(name="until")
def until_() -> Callable[..., Awaitable[Any]]:
    """`await until(found)`: wait for an async function to give a true value."""

    async def until(found: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(60):
            while not (value := await found()):
                await asyncio.sleep(0.05)
            return value

    return until


@pytest_asyncio.fixture
async def unreachable(connected: Any) -> AsyncGenerator[str, None]:
    """A council whose model server's port is closed."""
    from blocks.council import Council
    from blocks.vllm_server import VLLM
    from deployments.stack.ports import free_port

    await VLLM(base_url=f"http://127.0.0.1:{free_port(20_000)}", model="m").save("closed", overwrite=True)
    await Council(members=[{"agent_id": "m1", "role": "DEV", "server": "closed"}]).save("unreachable", overwrite=True)
    yield "unreachable"
    await Council.adelete("unreachable")
    await VLLM.adelete("closed")


async def test_wrong_use_is_one_line_that_names_the_field(
    council: str, unreachable: str, record: Any, new_id: str
) -> None:
    """Exit code 2, nothing on standard output, no traceback, and nothing on the record."""
    wrong = {
        "task: ": ["deliberate", ""],
        "council: 'nowhere' is unknown; known are ": ["deliberate", TASK, "--council", "nowhere"],
        "members: ": ["deliberate", TASK, "--council", council, "--members", "0"],
        "quorum: 4 is above the number of members, 3": ["deliberate", TASK, "--council", council, "--quorum", "4"],
        "strategy: ": ["deliberate", TASK, "--council", council, "--strategy", "guess"],
        "id: 'a.b' is no id": ["deliberate", TASK, "--council", council, "--id", "a.b"],
        "council.unreachable.members.server: 'closed' does not answer": ["deliberate", TASK, "--council", unreachable],
        f"id: no deliberation '{new_id}' is on the record": ["result", new_id],
    }
    before = await record.last("deliberations.*.plan")
    ended = await asyncio.gather(*(conclave(*arguments) for arguments in wrong.values()))
    for refusal, (code, out, err) in zip(wrong, ended, strict=True):
        assert (code, out) == (2, "")
        assert err.startswith(f"conclave: {refusal}")
        assert err.count("\n") == 1
    assert await record.last("deliberations.*.plan") == before


async def test_without_a_stack_the_way_to_one_is_told(tmp_path: Path) -> None:
    """Exit code 6 from every verb that needs one."""
    elsewhere = {"CONCLAVE_HOME": str(tmp_path / "home"), **dict.fromkeys(OF_THE_STACK, "")}
    for arguments in (["deliberate", TASK], ["result", "some-id"], ["status"]):
        ended = await conclave(*arguments, **elsewhere)
        assert (ended.code, ended.out) == (6, "")
        assert "is not up: `conclave up" in ended.err
        assert "Traceback" not in ended.err


async def test_status_tells_where_everything_is(connected: Any, stack: Any) -> None:
    """One JSON document with the addresses and the state of every part."""
    ended = await conclave("status", "--json")
    status = json.loads(ended.out)
    assert ended.code == 0
    assert set(status) >= {"gateway", "prefect", "nats", "llm", "ray", "home", "parts"}
    assert (status["prefect"], status["nats"], status["llm"]) == (stack.prefect, stack.nats, stack.llm)
    assert set(status["parts"]) >= {"nats", "prefect", "ray", "llm"}
    assert {part["state"] for part in status["parts"].values()} == {"running"}
    assert all(part["pid"] > 0 for part in status["parts"].values())
