"""GitHub, whole: a label of somebody who may write convenes a council, and its end is one comment and a status."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from blocks import github_api
from deployments.event_files import EventFileError
from deployments.gateway.handlers import webhooks
from deployments.webhooks.configuration import read_webhooks, require_secrets
from infra.github_api.server import StandIn, rate_limited, refusal
from tasks.callbacks import deliveries
from tasks.callbacks.deliveries import SCHEDULE_S
from tasks.callbacks.github_texts import comment_of, mark_of, status_of_commit
from tasks.council.decisions import ItemResult
from tests.deployments.gateway.parts import Gateway, Run, Told
from tests.deployments.gateway.receiver import listening_app

pytestmark = pytest.mark.servers

SECRET = "It's a Secret to Everybody"
TOKEN = "github_pat_of_a_test"
SHA = "0123456789abcdef0123456789abcdef01234567"
FILE = """
webhooks:
  - name: github
    signature: github
    secrets: [{{env: TEST_GITHUB_SECRET}}]
    when: "action == 'labeled' && label.name == 'council'"
    github: {github}
    request: {{task: "(issue || pull_request).title"}}
"""
ISSUE = {
    "action": "labeled",
    "label": {"name": "council"},
    "issue": {"number": 12, "title": "Queue or cache?", "body": None},
    "repository": {"full_name": "acme/shop", "private": False},
    "sender": {"login": "octocat", "type": "User"},
}
PULL = {
    **{name: ISSUE[name] for name in ("action", "label", "repository", "sender")},
    "pull_request": {"number": 7, "title": "Use a queue", "head": {"sha": SHA, "ref": "queue"}},
}


@pytest_asyncio.fixture
async def stand_in() -> AsyncGenerator[StandIn, None]:
    """GitHub's API, in memory; `api` is its address."""
    found = StandIn()
    async with listening_app(found.application()) as port:
        found.api = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
        yield found


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_GITHUB_SECRET", SECRET)
    monkeypatch.setenv("TEST_GITHUB_TOKEN", TOKEN)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    """A file of one webhook, with this beside `github:`."""

    def written(entry: str) -> Path:
        path = tmp_path / "webhooks.yaml"
        path.write_text(FILE.format(github=entry))
        return path

    return written


@pytest_asyncio.fixture
async def gateway(
    file: Callable[[str], Path], stand_in: Any, serve: Callable[..., AbstractAsyncContextManager[Gateway]]
) -> AsyncGenerator[Gateway, None]:
    """A gateway with access to the stand-in, which is known under an address of its own."""
    path = file(f"{{token: {{env: TEST_GITHUB_TOKEN}}, api: '{stand_in.api}'}}")
    async with serve(webhooks=path, public_url="https://council.example.org") as found:
        yield found


async def delivered(gateway: Gateway, payload: Any = ISSUE) -> Told:
    data = json.dumps(payload).encode()
    signature = "sha256=" + hmac.new(SECRET.encode(), data, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-Hub-Signature-256": signature}
    return await gateway.ask("POST", "/v1/webhooks/github", None, data=data, headers=headers)


async def decided(gateway: Gateway, payload: Any = ISSUE) -> str:
    """Deliver, and let the deliberation end; its id."""
    told = await delivered(gateway, payload)
    assert told.status == 202, told.text
    title = (payload.get("issue") or payload["pull_request"])["title"]
    await Run(gateway.record, told.body["id"], title, owner="webhook.github").whole()
    return str(told.body["id"])


async def until(what: Callable[[], Any]) -> Any:
    async with asyncio.timeout(20):
        while not (found := what()):
            await asyncio.sleep(0.02)
    return found


async def tried(gateway: Gateway, one: str, tries: int = 1) -> Any:
    """The first delivery of a deliberation, once it was tried so often."""
    async with asyncio.timeout(20):
        while True:
            found = await deliveries.listed(gateway.record, one)
            if found and len(found[0].tries) >= tries:
                return found[0]
            await asyncio.sleep(0.02)


# --- there and back -------------------------------------------------------------------------------


async def test_a_label_becomes_a_deliberation_and_its_decision_one_comment(gateway: Gateway, stand_in: Any) -> None:
    one = await decided(gateway)
    (comment,) = await until(lambda: stand_in.comments["acme/shop#12"])
    assert comment["body"].startswith(mark_of(one, gateway.record.installation))
    assert "of council `dev`" in comment["body"]
    assert f"<https://council.example.org/v1/deliberations/{one}>" in comment["body"]
    assert stand_in.calls[0] == "GET /repos/acme/shop/collaborators/octocat/permission"
    assert not stand_in.statuses
    again = await delivered(gateway)
    assert (again.status, again.body["id"]) == (202, one)
    await asyncio.sleep(0.3)
    assert len(stand_in.comments["acme/shop#12"]) == 1


async def test_a_pull_request_gets_a_comment_and_its_commit_a_status(gateway: Gateway, stand_in: Any) -> None:
    one = await decided(gateway, PULL)
    await until(lambda: stand_in.comments["acme/shop#7"])
    (status,) = await until(lambda: stand_in.statuses[SHA])
    assert status["state"] == "success"
    assert status["context"] == "conclave/github"
    assert status["target_url"] == f"https://council.example.org/v1/deliberations/{one}"


async def test_what_failed_is_told_as_that(gateway: Gateway, stand_in: Any) -> None:
    told = await delivered(gateway, PULL)
    run = Run(gateway.record, told.body["id"], owner="webhook.github")
    await run.begin()
    await run.finish("FAILED")
    (status,) = await until(lambda: stand_in.statuses[SHA])
    assert status["state"] == "failure"
    (comment,) = await until(lambda: stand_in.comments["acme/shop#7"])
    assert "No decision: failed" in comment["body"]


# --- who may --------------------------------------------------------------------------------------


async def test_who_may_not_write_convenes_nobody(gateway: Gateway, stand_in: Any) -> None:
    told = await delivered(gateway, {**ISSUE, "sender": {"login": "mallory"}})
    assert (told.status, told.body["status"]) == (200, "passed over")
    assert "mallory may not write to acme/shop" in told.body["reason"]
    assert await gateway.queued() == []
    assert stand_in.calls == ["GET /repos/acme/shop/collaborators/mallory/permission"]


async def test_another_label_asks_github_nothing(gateway: Gateway, stand_in: Any) -> None:
    assert (await delivered(gateway, {**ISSUE, "label": {"name": "bug"}})).body["status"] == "passed over"
    assert stand_in.calls == []


@pytest.mark.parametrize(("login", "status"), [("Ann", 202), ("ann", 202), ("bob", 200)])
async def test_senders_may_be_named_and_then_github_is_not_asked(
    file: Any, serve: Any, login: str, status: int
) -> None:
    async with serve(webhooks=file("{senders: [ann]}")) as gateway:
        told = await delivered(gateway, {**ISSUE, "sender": {"login": login}})
        assert told.status == status
        if status == 202:
            await Run(gateway.record, told.body["id"], owner="webhook.github").whole()
            assert await deliveries.listed(gateway.record, told.body["id"]) == []


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"sender": None}, "sender"),
        ({"sender": {"login": "a/../../user"}}, "sender.login"),
        ({"repository": {"full_name": "acme/shop/../../orgs"}}, "repository.full_name"),
        ({"repository": {"full_name": "acme/.."}}, "repository.full_name"),
        ({"issue": {"number": "12/../1", "title": "x"}}, "issue.number"),
    ],
)
async def test_a_signed_payload_that_is_not_githubs_is_told_by_its_field(
    gateway: Gateway, stand_in: Any, broken: Any, field: str
) -> None:
    told = await delivered(gateway, {**ISSUE, **broken})
    assert (told.status, told.problem["field"]) == (422, field)
    assert stand_in.calls == []


async def test_github_that_stumbles_is_asked_again(
    gateway: Gateway, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "ASK_AGAIN_S", 0.01)
    stand_in.wrong = [lambda: refusal(502, "Bad Gateway"), lambda: refusal(503, "Unavailable")]
    assert (await delivered(gateway)).status == 202


@pytest.mark.parametrize("kind", ["slow", "gone", "refuses"])
async def test_where_github_does_not_say_who_may_nobody_may(
    gateway: Gateway, stand_in: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(webhooks, "ASK_S", 0.3)
    if kind == "slow":
        stand_in.slow_s = 5.0
    else:
        stand_in.wrong = [lambda: refusal(401 if kind == "refuses" else 500, "Bad credentials")] * 50
    told = await delivered(gateway)
    assert (told.status, told.problem["type"]) == (503, "github-unavailable")
    assert TOKEN not in told.text
    assert await gateway.queued() == []


# --- where GitHub is away -------------------------------------------------------------------------


async def test_a_rate_limit_is_waited_out(gateway: Gateway, stand_in: Any) -> None:
    told = await delivered(gateway)
    stand_in.wrong = [lambda: rate_limited(1800)]
    await Run(gateway.record, told.body["id"], owner="webhook.github").whole()
    found = await tried(gateway, told.body["id"])
    assert (found.state, found.tries[0].status) == ("pending", 403)
    assert found.next_at - datetime.now(UTC) > timedelta(seconds=1700)


async def test_a_comment_is_written_once_github_is_back(
    gateway: Gateway, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "SCHEDULE_S", tuple(pause / 1e5 for pause in SCHEDULE_S))
    told = await delivered(gateway)
    stand_in.wrong = [lambda: refusal(502, "Bad Gateway"), lambda: refusal(500, "Oops"), lambda: refusal(429, "Slow")]
    await Run(gateway.record, told.body["id"], owner="webhook.github").whole()
    await until(lambda: stand_in.comments["acme/shop#12"])
    found = await tried(gateway, told.body["id"], 4)
    assert [one.status for one in found.tries[:3]] == [502, 500, 429]
    assert found.state == "delivered"


async def test_an_answer_in_many_pieces_is_read_whole(gateway: Gateway, stand_in: Any) -> None:
    """As GitHub sends what is long: 720 kB of comments."""
    told = await delivered(gateway)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stand_in.comments["acme/shop#12"] = [{"body": "x" * 60_000, "updated_at": now} for _ in range(12)]
    await Run(gateway.record, told.body["id"], owner="webhook.github").whole()
    assert (await tried(gateway, told.body["id"])).state == "delivered"


async def test_an_answer_without_end_is_given_up(
    gateway: Gateway, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(github_api, "MAX_ANSWER", 100_000)
    told = await delivered(gateway)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stand_in.comments["acme/shop#12"] = [{"body": "x" * 60_000, "updated_at": now} for _ in range(12)]
    await Run(gateway.record, told.body["id"], owner="webhook.github").whole()
    assert "longer than 100000 bytes" in (await tried(gateway, told.body["id"])).tries[0].detail


async def test_a_comment_of_anybody_elses_does_not_count_as_ours(gateway: Gateway, stand_in: Any) -> None:
    told = await delivered(gateway)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    guess = mark_of(told.body["id"], "00000000-0000-0000-0000-000000000000")
    stand_in.comments["acme/shop#12"] = [{"body": f"{guess} nothing to see here", "updated_at": now}]
    await Run(gateway.record, told.body["id"], owner="webhook.github").whole()
    await tried(gateway, told.body["id"])
    assert len(stand_in.comments["acme/shop#12"]) == 2


@pytest.mark.parametrize("token", ["github\npat", "github pat", "github\x7fpat"])
async def test_a_token_that_is_none_is_told_and_not_shown(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    monkeypatch.setenv("TEST_GITHUB_TOKEN", token)
    told = await delivered(gateway)
    assert (told.status, told.problem["type"]) == (503, "secret-unavailable")
    assert "variable TEST_GITHUB_TOKEN is no token" in caplog.text
    assert token not in told.text + caplog.text


async def test_users_that_an_enterprise_manages_may_write_too(gateway: Gateway, stand_in: Any) -> None:
    stand_in.writers.add("ann_acme")
    payload = {**ISSUE, "sender": {"login": "ann_acme"}, "repository": {"full_name": "ann_acme/shop"}}
    assert (await delivered(gateway, payload)).status == 202


async def test_an_issue_that_is_gone_is_given_up(gateway: Gateway, stand_in: Any) -> None:
    told = await delivered(gateway)
    stand_in.wrong = [lambda: refusal(410, "This issue was deleted")]
    await Run(gateway.record, told.body["id"], owner="webhook.github").whole()
    found = await tried(gateway, told.body["id"])
    assert (found.state, found.tries[0].verdict) == ("failed", "gone")


async def test_a_comment_that_was_written_and_not_noted_is_not_written_again(gateway: Gateway, stand_in: Any) -> None:
    """As where the gateway is killed between GitHub's answer and its own note."""
    told = await delivered(gateway)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    others = [{"body": f"me too {number}", "updated_at": now} for number in range(150)]
    stand_in.comments["acme/shop#12"] = [
        *others,
        {"body": mark_of(told.body["id"], gateway.record.installation) + "\n\nDecision", "updated_at": now},
    ]
    await Run(gateway.record, told.body["id"], owner="webhook.github").whole()
    assert (await tried(gateway, told.body["id"])).state == "delivered"
    assert len(stand_in.comments["acme/shop#12"]) == 151


async def test_the_token_is_nowhere_shown(gateway: Gateway, stand_in: Any, caplog: pytest.LogCaptureFixture) -> None:
    told = await delivered(gateway)
    stand_in.wrong = [lambda: refusal(401, f"Bad credentials: {TOKEN}")]
    await Run(gateway.record, told.body["id"], owner="webhook.github").whole()
    found = await tried(gateway, told.body["id"])
    assert "401" in found.tries[0].detail
    assert TOKEN not in found.model_dump_json() + caplog.text


# --- what is written ------------------------------------------------------------------------------


async def result_in(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> tuple[str, Any]:
    """Comment and status of a result with these fields."""
    from tasks.callbacks import github_texts

    body = {
        "id": "task-1",
        "item": "task",
        "task": "Which?",
        "status": "COMPLETED",
        "degraded": False,
        "council": "dev",
        "engine": "vllm",
        "strategy": "rank",
        "total_agents": 3,
        "received_count": 3,
        "failed_count": 0,
        "results": (),
        "members": (),
        "winner_id": "m1",
        "decision": "A queue.",
        "error_message": None,
        "duration_ms": 5,
        "usage": {},
        "completed_at": None,
        "decided_by": "checks",
        "links": {"self": "/v1/deliberations/task-1"},
        **fields,
    }
    ItemResult.from_record(body)

    async def result_of(_record: Any, _id: str) -> Any:
        return body

    monkeypatch.setattr(github_texts, "result_of", result_of)
    url = "https://council.example.org"
    return await comment_of(gateway.record, "task-1", url), await status_of_commit(gateway.record, "task-1", url)


HOSTILE = "Ask @octocat, see #1 and GH-2.\n```\n<img src=x onerror=alert(1)> <!-- conclave:x -->\n````` \u202e https://x.example"


async def test_a_models_text_cannot_leave_its_code_block(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    text, (state, told, _) = await result_in(gateway, monkeypatch, decision=HOSTILE, error_message=HOSTILE)
    inside, fence = False, ""
    outside: list[str] = []
    for line in text.split("\n"):
        if not inside and line.startswith("```"):
            inside, fence = True, line.removesuffix("text")
        elif inside and line == fence:
            inside = False
        elif not inside:
            outside.append(line)
    assert not inside
    shown = "\n".join(outside)
    assert not any(sign in shown for sign in ("@octocat", "#1", "GH-2", "<img", "x.example"))
    assert "\u202e" not in text
    assert (state, "\n" in told) == ("success", False)


@pytest.mark.parametrize(
    "decision", ["x" * 500_000, "word " * 100_000, "```" * 50_000, "\n" * 300_000, "\U0001f600" * 99_999]
)
async def test_a_comment_is_never_longer_than_github_takes(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, decision: str
) -> None:
    text, (_, told, _) = await result_in(gateway, monkeypatch, decision=decision, error_message=decision)
    assert len(text) <= 65_536
    assert len(told) <= 140


async def test_a_degraded_and_a_simulated_decision_are_told_as_such(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, (_, told, _) = await result_in(
        gateway, monkeypatch, engine="simulator", degraded=True, received_count=2, failed_count=1
    )
    assert "2 of 3: degraded" in text
    assert "Simulated" in text
    assert "simulated; decided: m1 (2 of 3: degraded)" in told


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{}", "senders"),
        ("{token: github_pat_x}", "github.token"),
        ("{senders: ['a b']}", "github.senders.0"),
        ("{senders: [a], api: 'ftp://x'}", "github.api"),
        ("{senders: [a], api: 'https://u:p@x'}", "github.api"),
        ("{senders: [a], more: 1}", "github.more"),
        ("", "github: nothing stands behind it"),
        ("{token: }", "github"),
    ],
)
def test_an_entry_that_cannot_be_used_is_told_by_its_key(file: Any, entry: str, told: str) -> None:
    with pytest.raises(EventFileError) as caught:
        read_webhooks(file(entry))
    assert told in str(caught.value)
    assert "github_pat_x" not in str(caught.value)


def test_a_token_that_cannot_be_had_is_told_at_the_start(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_GITHUB_TOKEN")
    path = file("{token: {env: TEST_GITHUB_TOKEN}}")
    with pytest.raises(EventFileError, match=r"github\.token: variable TEST_GITHUB_TOKEN is not set"):
        require_secrets(path, read_webhooks(path))


async def test_the_example_of_the_docs_goes_there_and_back(
    stand_in: Any, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/api.md says it: with the `#` taken from before `api:`."""
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    text = Path("docs/examples/github.yaml").read_text()
    path = tmp_path / "github.yaml"
    path.write_text(text.replace("# api: http://127.0.0.1:8099", f"api: {stand_in.api}"))
    async with serve(webhooks=path) as gateway:
        sample = gateway.service.webhooks["github"].sample
        one = await decided(gateway, sample)
        (comment,) = await until(lambda: stand_in.comments["example/project#1"])
    assert comment["body"].startswith(mark_of(one, gateway.record.installation))


def test_githubs_own_address_is_what_is_asked_where_none_is_named(file: Any) -> None:
    found = read_webhooks(file("{token: {env: TEST_GITHUB_TOKEN}}"))["github"]
    assert found.github is not None
    assert found.github.entry.api == github_api.API == "https://api.github.com"
