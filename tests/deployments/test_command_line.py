"""The command `conclave` as a user runs it: what it prints where, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deployments.stack import environment
from deployments.stack.paths import StackPaths, write_private
from tasks.council.voting.rules.registry import DEFAULT, RULES
from tests.deployments.commands import CONCLAVE, OF_THE_STACK, conclave, end, start

TASK = "Write a function to merge sorted arrays"
ANSWERED = {
    *("id", "status", "degraded", "council", "engine", "total_agents", "received_count", "failed_count", "counts"),
    *("results", "members", "winner_id", "decision", "error_message", "duration_ms", "usage", "links"),
}


@pytest_asyncio.fixture
async def council(connected: Any, stack: Any) -> str:
    """Three members m1 to m3 who give up at the first refusal."""
    from blocks.council import Council
    from blocks.vllm_server import VLLM

    await VLLM(base_url=stack.llm, api_key=os.environ["CONCLAVE_LLM_API_KEY"], model=stack.model, attempts=1).save(
        "one-try", overwrite=True
    )
    members = [{"agent_id": f"m{number}", "role": "DEV", "server": "one-try"} for number in (1, 2, 3)]
    await Council(members=members).save("command-line", overwrite=True)
    return "command-line"


async def test_a_decision_is_printed_and_can_be_read_again(council: str, simulator: Any, new_id: str) -> None:
    """Exit code 0, the decision on standard output, the way there on standard error; once more costs no call."""
    asked = ("deliberate", "--local", TASK, "--council", council, "--id", new_id)
    first = await conclave(*asked)
    again, as_json, repeated, other = await asyncio.gather(
        conclave("result", new_id),
        conclave("result", new_id, "--json"),
        conclave(*asked, "--json"),
        conclave("deliberate", "--local", "Another task", "--council", council, "--id", new_id),
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


async def test_json_is_one_document_and_nothing_else(council: str, recorded: Any, new_id: str) -> None:
    """The whole of standard output is the answer of the HTTP API; a task from standard input is recorded whole."""
    printed = await end(
        await start("deliberate", "--local", "-", "--council", council, "--id", new_id, "--json", stdin=TASK)
    )
    result = json.loads(printed.out)
    ((plan,),) = (await recorded.events(f"deliberations.{new_id}.plan")).values()
    assert printed.code == 0
    assert plan["request"]["task"] == TASK
    assert set(result) >= ANSWERED
    assert (result["id"], result["status"], result["engine"]) == (new_id, "COMPLETED", "simulator")
    assert result["counts"] == {"items": 1, "decided": 1, "COMPLETED": 1, "degraded": 0}
    assert set(result["results"][0]) >= {"proposal", "score", "rank", "checks"}
    assert set(result["members"][0]) >= {"agent_id", "status", "reason", "duration_ms", "usage"}
    assert "/flow-run/" in result["links"]["prefect_run"]


@pytest.mark.parametrize(
    ("kind", "whom", "deadline_s", "code", "shown"),
    [
        ("404_model", "m3", 6, 3, "(2 of 3: degraded)"),
        ("hang", "m[23]", 3, 4, "No decision: out of time"),
        ("404_model", "m[12]", 6, 1, "No decision: failed"),
    ],
    ids=["degraded", "timeout", "failed"],
)
async def test_the_exit_code_says_what_became_of_it(
    council: str, simulator: Any, new_id: str, kind: str, whom: str, deadline_s: int, code: int, shown: str
) -> None:
    """3 degraded, 4 timeout, 1 failed, with the reason on standard output."""
    await simulator.fault(kind, match=f"{new_id}:task:propose-0:{whom}")
    ended = await conclave(
        "deliberate", "--local", TASK, "--council", council, "--id", new_id, "--deadline", f"{deadline_s}"
    )
    assert ended.code == code
    assert shown in ended.out
    assert "Traceback" not in ended.err


async def test_ctrl_c_cancels_the_council(
    council: str, simulator: Any, record: Any, new_id: str, until: Callable[..., Awaitable[Any]]
) -> None:
    """One SIGINT: exit code 5, CANCELLED on the record, and every call closed."""
    await simulator.fault("hang", match=f"{new_id}:")
    process = await start("deliberate", "--local", TASK, "--council", council, "--id", new_id, "--deadline", "120")

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
    assert (await record.statuses.read(new_id))["status"] == "CANCELLED"
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
        "task: ": ["deliberate", "--local", ""],
        "council: 'nowhere' is unknown; known are ": ["deliberate", "--local", TASK, "--council", "nowhere"],
        "members: ": ["deliberate", "--local", TASK, "--council", council, "--members", "0"],
        "quorum: 4 is above the number of members, 3": [
            "deliberate",
            "--local",
            TASK,
            "--council",
            council,
            "--quorum",
            "4",
        ],
        "strategy: ": ["deliberate", "--local", TASK, "--council", council, "--strategy", "guess"],
        "id: 'a.b' is no id": ["deliberate", "--local", TASK, "--council", council, "--id", "a.b"],
        "council.unreachable.members.server: 'closed' does not answer": [
            "deliberate",
            "--local",
            TASK,
            "--council",
            unreachable,
        ],
        f"id: no deliberation '{new_id}' is on the record": ["result", new_id],
        f"rule: 'guess' is unknown; the rules are {', '.join(RULES)}": ["retally", new_id, "--rule", "guess"],
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
    verbs = (["deliberate", "--local", TASK], ["result", "some-id"], ["status"])
    for ended in await asyncio.gather(*(conclave(*verb, **elsewhere) for verb in verbs)):
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


@contextmanager
def instead(file: Path, text: str) -> Generator[None, None, None]:
    """Another content of a file, for a while."""
    before = file.read_text()
    write_private(file, text)
    try:
        yield
    finally:
        write_private(file, before)


VERBS = (
    ["deliberate", "--local", TASK],
    ["retally", "some-id", "--rule", "borda"],
    ["councils", "apply"],
    ["evaluate", "docs/examples/questions.jsonl"],
)


def of_an_older_version(stack: Any) -> AbstractContextManager[None]:
    """The stack's record without what tells that a key is another one than the parts began with."""
    record = StackPaths.of(stack.home).record
    kept = {name: value for name, value in json.loads(record.read_text()).items() if name != "keys"}
    return instead(record, json.dumps(kept))


@pytest.mark.parametrize("name", ["prefect_auth", "ray_token"])
async def test_a_key_file_that_was_changed_is_named_by_every_verb(connected: Any, stack: Any, name: str) -> None:
    """Before anybody is asked with it; the doctor asks all the same."""
    with instead(StackPaths.of(stack.home).home / name, ""):
        status, doctor = await asyncio.gather(conclave("status"), conclave("doctor", "--council", "dev"))
        ended = await asyncio.gather(*(conclave(*arguments) for arguments in (*VERBS, ("env",))))
    said = f"{name} in {stack.home} is not what the stack was started with"
    for code, out, err in ended:
        assert (code, out, err.count("\n")) == (6, "", 1), err
        assert said in err
    assert (status.code, doctor.code) == (6, 6)
    assert said in status.err
    assert said in doctor.out
    assert "record" in doctor.out if name == "ray_token" else "mend prefect first" in doctor.out


async def test_a_wrong_key_of_prefect_is_one_line_from_every_verb(connected: Any, stack: Any) -> None:
    """Code 6, with the name of the variable, and nothing is written; `status` and `doctor` say it, too."""
    with of_an_older_version(stack), instead(StackPaths.of(stack.home).prefect_auth, "conclave:wrong"):
        given = {"PREFECT_API_AUTH_STRING": ""}
        status, doctor = await asyncio.gather(conclave("status", **given), conclave("doctor", **given))
        ended = await asyncio.gather(*(conclave(*arguments, **given) for arguments in VERBS))
    for arguments, (code, out, err) in zip(VERBS, ended, strict=True):
        assert (code, out) == (6, ""), (arguments, err)
        assert "refuses our key (PREFECT_API_AUTH_STRING)" in err, arguments
        assert err.count("\n") == 1, err
    for told in (status, doctor):
        assert told.code == 6
        assert "it refuses our key (401 Unauthorized)" in told.out
    assert "Traceback" not in status.err + doctor.err


async def test_a_wrong_token_of_ray_is_one_line(connected: Any, stack: Any) -> None:
    """Where agents are needed."""
    with of_an_older_version(stack), instead(StackPaths.of(stack.home).ray_token, "wrong"):
        ended, status = await asyncio.gather(conclave("deliberate", "--local", TASK), conclave("status"))
    assert (ended.code, ended.out, status.code) == (6, "", 6)
    assert "it refuses our token (RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH)" in ended.err
    said = ended.err.splitlines()
    assert [line.partition(" ")[0] for line in said] == ["council", "deliberation", "conclave:"], said


async def test_a_wrong_password_of_nats_is_one_line(connected: Any, stack: Any) -> None:
    """The record is read by the block, and `status` by the home."""
    from blocks.documents import fresh
    from blocks.jetstream import JetStream

    block = await fresh(JetStream)
    kept = block.model_copy(deep=True)
    block.password = "wrong"
    await block.save("default", overwrite=True)
    try:
        ended = await asyncio.gather(
            conclave("deliberate", "--local", TASK), conclave("retally", "x", "--rule", "borda")
        )
    finally:
        await kept.save("default", overwrite=True)
    for one in ended:
        assert (one.code, one.out) == (6, ""), one.err
        assert "refuses our credentials" in one.err
        assert one.err.count("\n") == 1, one.err


async def test_a_shell_gets_addresses_and_keys(connected: Any, stack: Any) -> None:
    """By lines for `eval`; nothing but this verb says any of the keys."""
    paths = StackPaths.of(stack.home)
    line = f'eval "$({CONCLAVE} env)" && {sys.executable} -c "import json, os; print(json.dumps(dict(os.environ)))"'
    bare = {name: os.environ[name] for name in ("PATH", "HOME")} | {"CONCLAVE_HOME": stack.home}
    shell = await asyncio.create_subprocess_shell(line, env=bare, stdout=asyncio.subprocess.PIPE)
    out, _ = await shell.communicate()
    told, wanted = json.loads(out), environment(stack)
    assert {name: told.get(name) for name in wanted} == wanted
    assert set(wanted) >= {"NATS_URL", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "RAY_ADDRESS", "CONCLAVE_HOME"}

    guest = await conclave("env", "--events")
    assert f"export NATS_URL=nats://events:{paths.events_password.read_text()}@" in guest.out
    assert paths.nats_password.read_text() not in guest.out

    keys = [
        file.read_text()
        for file in (
            paths.prefect_auth,
            paths.nats_password,
            paths.events_password,
            paths.llm_key,
            paths.ray_token,
            paths.token,
        )
    ]
    verbs = (
        ["status"],
        ["status", "--json"],
        ["doctor", "--council", "dev"],
        ["doctor", "--council", "dev", "--json"],
        ["councils", "list"],
        ["logs", "-n", "999"],
    )
    for verb, ended in zip(verbs, await asyncio.gather(*(conclave(*verb) for verb in verbs)), strict=True):
        assert ended.code == 0, ended.err
        assert [key for key in keys if key in ended.out + ended.err] == [], verb


async def test_help_comes_at_once(tmp_path: Path) -> None:
    """It imports nothing that a verb needs; the verbs teach by example."""
    heavy = ("pydantic", "prefect", "ray", "aiohttp")
    probe = f"import sys, deployments.cli; print(*(name for name in {heavy} if name in sys.modules))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", probe, stdout=asyncio.subprocess.PIPE)
    imported, _ = await process.communicate()
    top, verb = await asyncio.gather(conclave("--help"), conclave("deliberate", "--help"))
    assert imported.split() == []
    assert (top.code, verb.code) == (0, 0)
    assert all(name in top.out for name in ("up", "doctor", "logs", "deliberate", "watch", "cancel", "councils"))
    assert 'conclave deliberate "Design a rate limiter"' in verb.out


async def test_the_tally_rules_are_told_by_help_and_completion() -> None:
    """As the registry lists them, and without the packages that a tally needs."""
    named = {"_CONCLAVE_COMPLETE": "complete_bash", "COMP_CWORD": "4"}
    told, offered = await asyncio.gather(
        conclave("retally", "--help"), conclave(**named, COMP_WORDS="conclave retally some-id --rule ")
    )
    words = " ".join(told.out.replace("│", " ").split())
    for rule in RULES.values():
        assert f"{rule.name}: {rule.words}" in words
    assert f"[default: {DEFAULT}]" in words
    assert offered.out.split() == list(RULES)
    probe = "import sys, tasks.council.voting.rules.registry; print('pydantic' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", probe, stdout=asyncio.subprocess.PIPE)
    assert await process.communicate() == (b"False\n", None)


async def test_the_shell_completes_councils_and_parts(connected: Any) -> None:
    """Asked of the stack that is up; nothing and no error where there is none."""
    asked = {"_CONCLAVE_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    named, none = await asyncio.gather(
        conclave(**asked, COMP_WORDS="conclave deliberate --council de"),
        conclave(**asked, COMP_WORDS="conclave deliberate --council de", CONCLAVE_HOME="/nonexistent", CONCLAVE_URL=""),
    )
    parts = await conclave(_CONCLAVE_COMPLETE="complete_bash", COMP_CWORD="2", COMP_WORDS="conclave logs pre")
    assert {"dev", "devops"} <= set(named.out.split())
    assert (none.code, none.out.split()) == (0, [])
    assert parts.out.split() == ["prefect"]


async def test_a_deliberation_is_watched_from_elsewhere_and_cancelled(
    council: str, simulator: Any, new_id: str, until: Callable[..., Awaitable[Any]]
) -> None:
    """Whoever watches sees the members and the end; the cancel waits for it; a second one is content."""
    await simulator.fault("hang", match=f"{new_id}:task:propose-0:m[23]")
    running = await start("deliberate", "--local", TASK, "--council", council, "--id", new_id, "--deadline", "120")

    async def all_wait() -> bool:
        return len(await simulator.calls(new_id)) == 3

    await until(all_wait)
    watching = await start("watch", new_id, "--json")
    assert watching.stderr is not None
    async with asyncio.timeout(60):
        while b"m1  DEV  ok" not in await watching.stderr.readline():
            pass
    cancelled = await conclave("cancel", new_id)
    ended, watched, again = await asyncio.gather(end(running), end(watching), conclave("cancel", new_id))
    assert (cancelled.code, cancelled.err) == (0, f"{new_id} is cancelled\n")
    assert (ended.code, watched.code, again.code) == (5, 5, 0)
    assert json.loads(watched.out)["status"] == "CANCELLED"


async def test_what_has_ended_is_watched_at_once_and_not_cancelled(council: str, deliberate: Any, new_id: str) -> None:
    """The result comes; a cancel says that it is too late."""
    await deliberate(task=TASK, council=council)
    watched, late, unknown = await asyncio.gather(
        conclave("watch", new_id, "--json"), conclave("cancel", new_id), conclave("cancel", f"{new_id}-b")
    )
    assert (watched.code, json.loads(watched.out)["status"]) == (0, "COMPLETED")
    assert (late.code, late.err) == (1, f"conclave: {new_id} had already ended: COMPLETED\n")
    assert (unknown.code, unknown.err) == (2, f"conclave: id: no deliberation '{new_id}-b' is on the record\n")


async def test_councils_are_listed_shown_and_applied_again(council: str, record: Any, tmp_path: Path) -> None:
    """What `show` prints is what `apply` takes."""
    from tasks.operate.mirror import mirror_councils

    await mirror_councils(record)  # as a worker does every few seconds
    listed, shown, unknown = await asyncio.gather(
        conclave("councils", "list"), conclave("councils", "show", council), conclave("councils", "show", "nowhere")
    )
    file = tmp_path / "council.yaml"
    file.write_text(shown.out)
    same = await conclave("councils", "apply", str(file))
    file.write_text(shown.out.replace("role: DEV", "role: QA", 1))
    other = await conclave("councils", "apply", str(file))
    assert council in listed.out
    assert (unknown.code, unknown.out) == (2, "")
    assert (same.code, same.err) == (0, f"{council}: unchanged\n")
    assert (other.code, other.err) == (0, f"{council}: updated\n")


async def test_logs_are_shown_for_a_part(stack: Any) -> None:
    """Their ends, with the file they are in; an unknown part is named with the known ones."""
    shown, unknown = await asyncio.gather(conclave("logs", "nats", "-n", "5"), conclave("logs", "gpu"))
    assert (shown.code, len(shown.out.splitlines())) == (0, 5)
    assert "logs/nats.log" in shown.err
    assert unknown.code == 2
    assert "there is no log of 'gpu'; there are nats, gateway, llm, prefect, ray, supervisord" in unknown.err
