"""Councils from a file: the seed's five, idempotent, and what is wrong with a file in words."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.deployments.test_ownership import nats_in

SEEDS = {"dev": "DEV", "qa": "QA", "architect": "ARCHITECT", "devops": "DEVOPS", "data": "DATA"}
MEMBER = "{ agent_id: a, role: DEV }"


async def updated(name: str) -> Any:
    """When a council's block was last saved."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        return (await client.read_block_document_by_name(name, "council")).updated


@pytest_asyncio.fixture
async def defaults(connected: Any) -> AsyncGenerator[dict[str, Any], None]:
    """The councils of the package, applied before and after."""
    from deployments.provisioning.councils import DEFAULTS, apply_councils, read_councils

    await apply_councils(read_councils(DEFAULTS), overwrite=True)
    yield read_councils(DEFAULTS)
    await apply_councils(read_councils(DEFAULTS), overwrite=True)


@pytest_asyncio.fixture
async def pointed_back(connected: Any, stack: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[None, None]:
    """The default blocks point at the session's stack again afterwards; its deployments stay as they are all along.

    Each change of hands would deploy them anew, which takes seconds; test_ownership looks at that.
    """
    from deployments.provisioning import blocks
    from deployments.settings import load_settings

    async def deployed(*_arguments: Any) -> bool:
        return False

    monkeypatch.setattr(blocks, "deploy", deployed)
    yield
    await blocks.provision(stack, load_settings(), print, take_over=True)


# --- applying -------------------------------------------------------------------------------------


async def test_the_seeds_five_councils_have_three_members_each(stack: Any) -> None:
    """In its roles and with its agents' names; the first of each is not asked to differ."""
    from deployments.provisioning.councils import DEFAULTS, read_councils

    councils = read_councils(DEFAULTS)

    assert {name: [member.role for member in council.members] for name, council in councils.items()} == {
        name: [role] * 3 for name, role in SEEDS.items()
    }
    assert {name: [member.agent_id for member in council.members] for name, council in councils.items()} == {
        name: [f"agent-{name}-{number:03d}" for number in (1, 2, 3)] for name in SEEDS
    }
    assert [[member.diversity for member in council.members] for council in councils.values()] == [
        [False, True, True]
    ] * 5


async def test_applying_twice_changes_nothing(defaults: dict[str, Any]) -> None:
    """The blocks are not even saved again."""
    from deployments.provisioning.councils import apply_councils

    before = [await updated(name) for name in SEEDS]
    done = [await apply_councils(defaults, overwrite=overwrite) for overwrite in (True, False)]
    after = [await updated(name) for name in SEEDS]

    assert done == [dict.fromkeys(SEEDS, "unchanged")] * 2
    assert after == before


async def test_a_council_that_is_missing_is_made(connected: Any, tmp_path: Path, new_id: str) -> None:
    """And found again as it stands in the file."""
    from blocks.council import Council
    from blocks.documents import fresh
    from deployments.provisioning.councils import apply_councils, read_councils

    file = tmp_path / "councils.yaml"
    file.write_text(f"councils:\n  {new_id}:\n    members: [{MEMBER}]\n    quorum: 1\n    deadline_s: 7\n")
    done = await apply_councils(read_councils(file), overwrite=False)

    assert done == {new_id: "created"}
    spec = (await fresh(Council, new_id)).spec(new_id)
    assert ([member.agent_id for member in spec.members], spec.quorum, spec.deadline_s) == (["a"], 1, 7)


async def test_an_edited_council_is_kept_by_furnish_and_overwritten_by_apply(
    defaults: dict[str, Any], stack: Any
) -> None:
    """`conclave up` respects what a user set; `conclave councils apply` is told to overwrite."""
    from blocks.council import Council
    from blocks.documents import fresh
    from deployments.provisioning.blocks import provision
    from deployments.provisioning.councils import apply_councils
    from deployments.settings import load_settings

    edited = await fresh(Council, "data")
    edited.deadline_s = 12
    await edited.save("data", overwrite=True)
    await provision(stack, load_settings(), print)
    kept = (await fresh(Council, "data")).deadline_s
    done = await apply_councils(defaults, overwrite=True)

    assert kept == 12
    assert done == {**dict.fromkeys(SEEDS, "unchanged"), "data": "updated"}
    assert (await fresh(Council, "data")).deadline_s == 300


async def test_a_council_that_cannot_be_used_stops_neither_up_nor_apply(defaults: dict[str, Any], stack: Any) -> None:
    """Prefect's UI saves what no council can be; then the others go on, and the file's takes its place."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import BlockDocumentUpdate

    from blocks.council import Council
    from blocks.documents import fresh
    from blocks.exceptions import BlockUnusable
    from deployments.provisioning.blocks import provision
    from deployments.provisioning.councils import apply_councils
    from deployments.settings import load_settings

    async with get_client() as client:
        document = await client.read_block_document_by_name("data", "council")
        await client.update_block_document(
            document.id, BlockDocumentUpdate(data={"callback_url": "not-a-url"}, merge_existing_data=True)
        )
    with pytest.raises(BlockUnusable):
        await fresh(Council, "data")
    told: list[str] = []
    await provision(stack, load_settings(), told.append)
    assert "council data: unusable: block council/data: callback_url: must be an http or https URL" in " ".join(told)
    assert (await apply_councils(defaults, overwrite=True))["data"] == "updated"
    assert (await fresh(Council, "data")).callback_url is None


@contextmanager
def recorded_as(stack: Any, part: str, url: str) -> Generator[Any, None, None]:
    """The stack, as if that part of it had been given from outside."""
    from deployments.settings import load_settings
    from deployments.stack import status
    from deployments.stack.paths import StackPaths, write_private

    file = StackPaths.of(stack.home).record
    before = file.read_text()
    record = json.loads(before)
    record["parts"][part] = {"url": url, "external": True}
    write_private(file, json.dumps(record))
    try:
        yield status(load_settings({"CONCLAVE_HOME": stack.home}), ask=False)
    finally:
        write_private(file, before)


async def test_the_key_of_a_server_of_ours_is_in_its_block(pointed_back: None, stack: Any, tmp_path: Path) -> None:
    """Whatever stood there, since it asks for that one; our password for NATS goes to no other server."""
    from blocks.documents import fresh
    from blocks.jetstream import JetStream
    from blocks.vllm_server import VLLM
    from deployments.provisioning.blocks import provision
    from deployments.settings import load_settings
    from deployments.stack import environment

    settings = load_settings({"CONCLAVE_HOME": stack.home})
    with nats_in(tmp_path) as elsewhere, recorded_as(stack, "nats", elsewhere) as told:
        await provision(told, settings, print, take_over=True)
    abroad = await fresh(JetStream, "default")
    server = await fresh(VLLM, "default")
    server.api_key = "another"
    await server.save("default", overwrite=True)
    await provision(stack, settings, print, take_over=True)
    block, at_home = await fresh(VLLM, "default"), await fresh(JetStream, "default")

    assert (abroad.servers, abroad.user, abroad.password) == ([elsewhere], None, None)
    assert block.api_key.get_secret_value() == environment(stack)["CONCLAVE_LLM_API_KEY"]
    assert f"{at_home.user}:{at_home.password.get_secret_value()}@" in environment(stack)["NATS_URL"]


async def test_furnishing_leaves_what_a_user_set_beside_the_address(
    pointed_back: None, stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key for the same address stays, is replaced where the environment has one, and never goes to another."""
    from blocks.documents import fresh
    from blocks.vllm_server import VLLM
    from deployments.provisioning.blocks import provision
    from deployments.settings import load_settings

    server = await fresh(VLLM, "default")
    server.api_key, server.attempts = "users-own", 7  # as the UI would save it
    await server.save("default", overwrite=True)
    found = []
    for environ, llm in (
        ({}, stack.llm),
        ({"CONCLAVE_LLM_API_KEY": "environments"}, stack.llm),
        ({}, "http://127.0.0.1:9"),
    ):
        settings = load_settings({"CONCLAVE_HOME": stack.home, **environ})
        with recorded_as(stack, "llm", llm) as told:
            await provision(told, settings, print)
        block = await fresh(VLLM, "default")
        key = block.api_key and block.api_key.get_secret_value()
        found.append((block.base_url, key, block.attempts))

    assert found == [
        (stack.llm, "users-own", 7),
        (stack.llm, "environments", 7),
        ("http://127.0.0.1:9", None, 7),
    ]


async def test_a_model_server_of_a_users_stays_where_it_is(
    pointed_back: None, stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that a default council names and a user made, and the default one that a user pointed elsewhere.

    Those that `up` made follow it to another port.
    """
    from blocks.documents import fresh
    from blocks.vllm_server import VLLM
    from deployments.provisioning import blocks, councils
    from deployments.settings import load_settings

    made = councils.read_councils(councils.DEFAULTS)
    for council, name in zip(made.values(), ("default", "users-own", "made-by-up"), strict=False):
        first, *others = council.members
        council.members = (first.model_copy(update={"server": name}), *others)
    monkeypatch.setattr(blocks, "read_councils", lambda _file: made)
    settings, said = load_settings({"CONCLAVE_HOME": stack.home}), list[str]()
    await VLLM(base_url="http://127.0.0.1:7", model="mine").save("users-own", overwrite=True)
    await blocks.provision(stack, settings, print)
    with recorded_as(stack, "llm", "http://127.0.0.1:9") as told:
        await blocks.provision(told, settings, said.append)
    found = {name: (await fresh(VLLM, name)).base_url for name in ("default", "users-own", "made-by-up")}
    assert found == {**dict.fromkeys(found, "http://127.0.0.1:9"), "users-own": "http://127.0.0.1:7"}
    assert any("users-own stays at http://127.0.0.1:7" in line for line in said)

    await VLLM(base_url="http://127.0.0.1:8").save("default", overwrite=True)  # as in Prefect's UI
    await blocks.provision(stack, settings, print)
    assert (await fresh(VLLM, "default")).base_url == "http://127.0.0.1:8"
    assert (await fresh(VLLM, "made-by-up")).base_url == stack.llm


async def test_furnishing_keeps_the_password_of_a_nats_url_secret(
    pointed_back: None, stack: Any, tmp_path: Path
) -> None:
    """It goes to the field that Prefect keeps secret, not into the address."""
    from blocks.documents import fresh
    from blocks.jetstream import JetStream
    from deployments.provisioning.blocks import provision
    from deployments.settings import load_settings

    with nats_in(tmp_path, "--user", "joe", "--pass", "hush") as address:
        url = address.replace("nats://", "nats://joe:hush@")
        with recorded_as(stack, "nats", url) as told:
            await provision(told, load_settings({"CONCLAVE_HOME": stack.home}), print, take_over=True)
    block = await fresh(JetStream, "default")
    assert (block.servers, block.user) == ([address], "joe")
    assert block.password.get_secret_value() == "hush"


# --- what is wrong with a file --------------------------------------------------------------------

HEAD = "councils:\n  dev:\n    members: "
PROMPTS = f"{HEAD}[{MEMBER}]\n    prompts: "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("extra: 1\n" + HEAD + f"[{MEMBER}]", "extra: unknown key; the keys are councils"),
        (HEAD + f"[{MEMBER}]\n    quorom: 2", "councils.dev.quorom: unknown key; the keys are members, strategy"),
        (HEAD + "[{ agent_id: a, role: DEV, modle: m }]", "dev.members.0.modle: unknown key; the keys are agent_id"),
        (PROMPTS + "{ version: v-1, proposal: x }", "dev.prompts.proposal: unknown key; the keys are version, propose"),
        (PROMPTS + "{ propose: x }", "prompts.version: it is missing; texts of one's own need a name"),
        (PROMPTS + "{ version: '2', propose: x }", "prompts.version: 2 is of Conclave's kind"),
        (PROMPTS + "{ version: v-1, roles: { POET: x } }", "prompts.roles.POET: no member has this role"),
        (PROMPTS + "{ version: v-1, roles: POET }", "dev.prompts.roles: must be keys with values: {version: ..."),
        (HEAD + f"[{MEMBER}]\n    quorum: 2", "councils.dev: quorum: 2 is above the number of members, 1"),
        (HEAD + f"[{MEMBER}]\n    quorum: 0", "councils.dev.quorum: Input should be greater than or equal to 1"),
        (HEAD + f"[{MEMBER}]\n    strategy: vote", "dev.strategy: Input should be 'propose', 'rank'"),
        (HEAD + f"[{MEMBER}, {MEMBER}]", "councils.dev: members: agent_id a appears more than once"),
        (HEAD + "[{ agent_id: a.b, role: DEV }]", "dev.members.0.agent_id: 'a.b' is no name; one is 1 to 64 of"),
        (HEAD + "[{ role: DEV }]", "councils.dev.members.0.agent_id: Field required"),
        (HEAD + "[{ agent_id: a }]", "councils.dev.members.0.role: Field required"),
        (HEAD + "[{ agent_id: a, role: DEV, temperature: 9 }]", "members.0.temperature: Input should be less than"),
        (HEAD + "[a]", "councils.dev.members.0: must be keys with values: {agent_id: ..., role: ...}"),
        (HEAD + "[]", "councils.dev.members: must have at least 1 item"),
        ("councils:\n  dev: 5", "councils.dev: must be keys with values"),
        ("councils:\n  Dev.1:\n    members: " + f"[{MEMBER}]", "councils.Dev.1: a council is named with 1 to 64"),
        ("councils: {}", "councils: must have at least 1 item"),
        ("councils: [dev]", "councils: must be keys with values: {name: {members: [...]}}"),
        ("", "the file: must be keys with values: councils: {name: {members: [...]}}"),
        ("councils: [", "is not YAML: while parsing"),
        ("\x00", "is not YAML: "),
        (b"\xff\xfe\xfa", "is not YAML: "),
    ],
)  # fmt: skip
async def test_a_wrong_file_is_refused_with_its_name_the_key_and_what_would_be_right(
    stack: Any, tmp_path: Path, text: str | bytes, words: str
) -> None:
    """So that a user can mend it without reading our code."""
    from deployments.provisioning.councils import CouncilFileError, read_councils

    file = tmp_path / "mine.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CouncilFileError) as caught:
        read_councils(file)

    assert str(caught.value).startswith(str(file))
    assert words in str(caught.value)


async def test_a_file_that_is_not_there_is_named(stack: Any, tmp_path: Path) -> None:
    """As is one that cannot be read."""
    from deployments.provisioning.councils import CouncilFileError, read_councils

    with pytest.raises(CouncilFileError, match=r"missing\.yaml: No such file or directory"):
        read_councils(tmp_path / "missing.yaml")
    with pytest.raises(CouncilFileError, match=f"{tmp_path}: Is a directory"):
        read_councils(tmp_path)
