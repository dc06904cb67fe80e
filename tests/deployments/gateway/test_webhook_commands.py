"""`conclave webhooks`: which there are, and one delivery to try, against a gateway that takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blocks.record import subjects
from tests.deployments.commands import conclave

pytestmark = pytest.mark.servers

FILE = """
webhooks:
  - name: plans
    signature: standard
    secrets: [{env: TEST_PLANS_SECRET}]
    when: "title != 'skip'"
    request: {task: title}
    sample: {title: Choose a queue}
  - name: issues
    signature: github
    secrets: [{env: TEST_ISSUES_SECRET}, {file: no-such-file}]
    request: {task: title}
    sample: {title: Choose a queue}
"""
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of webhooks, one of which has a secret that cannot be had."""
    path = tmp_path / "webhooks.yaml"
    path.write_text(FILE)
    monkeypatch.setenv("CONCLAVE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CONCLAVE_WEBHOOKS", str(path))
    monkeypatch.setenv("TEST_PLANS_SECRET", SECRET)
    monkeypatch.setenv("TEST_ISSUES_SECRET", "a secret of its own")
    return path


@pytest.fixture
async def gateway(file: Path, serve: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A gateway with the first of them."""
    from deployments.webhooks.configuration import read_webhooks

    async with serve() as found:
        found.service.webhooks["plans"] = read_webhooks(file)["plans"]
        monkeypatch.setenv("CONCLAVE_URL", found.url)
        yield found


async def test_they_are_listed_with_what_is_wrong_and_no_secret(file: Path) -> None:
    ended = await conclave("webhooks", "list")
    assert ended.code == 0, ended.err
    plans, issues = ended.out.splitlines()
    assert plans.split() == ["plans", "standard", "/v1/webhooks/plans", "1", "secret"]
    assert f"file {file.parent / 'no-such-file'}: No such file or directory" in issues
    told = json.loads((await conclave("webhooks", "list", "--json")).out)
    assert [one["name"] for one in told] == ["plans", "issues"]
    assert told[0]["secrets"] == ["variable TEST_PLANS_SECRET"]
    assert SECRET not in ended.out


async def test_a_sample_is_delivered_and_what_became_of_it_is_told(gateway: Any) -> None:
    ended = await conclave("webhooks", "test", "plans", "--id", "msg_1")
    assert ended.code == 0, ended.err
    one = ended.out.split()[0]
    assert await gateway.queued() == [subjects.request(one)]
    again = await conclave("webhooks", "test", "plans", "--id", "msg_1", "--json")
    assert json.loads(again.out)["answer"]["id"] == one
    other = await conclave("webhooks", "test", "plans")
    assert other.out.split()[0] != one


async def test_what_is_passed_over_is_told(gateway: Any, tmp_path: Path) -> None:
    payload = tmp_path / "payload.json"
    payload.write_text('{"title": "skip"}')
    ended = await conclave("webhooks", "test", "plans", "--payload", str(payload))
    assert (ended.code, ended.out.startswith("passed over: when")) == (0, True)


async def test_what_is_refused_is_told_with_its_field(gateway: Any, tmp_path: Path) -> None:
    payload = tmp_path / "payload.json"
    payload.write_text('{"title": ""}')
    ended = await conclave("webhooks", "test", "plans", "--payload", str(payload))
    assert ended.code == 2
    assert ended.out.startswith("422 invalid-field: task")
    assert "refused" in ended.err


async def test_another_secret_than_the_gateways_is_told(gateway: Any) -> None:
    ended = await conclave("webhooks", "test", "plans", TEST_PLANS_SECRET="whsec_" + "A" * 32)
    assert (ended.code, ended.out.split()[0]) == (6, "401")


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (("list",), {"CONCLAVE_WEBHOOKS": ""}, "CONCLAVE_WEBHOOKS: names no file"),
        (("list",), {"CONCLAVE_WEBHOOKS": "/no/such/file"}, "/no/such/file: No such file"),
        (("test", "nope"), {}, "name: there is no webhook 'nope'; there are plans, issues"),
        (("test", "issues"), {"TEST_ISSUES_SECRET": "short"}, "TEST_ISSUES_SECRET has fewer than 16 characters"),
        (("test", "plans"), {"TEST_PLANS_SECRET": ""}, "variable TEST_PLANS_SECRET is not set"),
        (("test", "plans", "--payload", "/no/such/file"), {}, "--payload: /no/such/file: No such file"),
        (("test", "plans", "--payload", "/dev/zero"), {}, "--payload: /dev/zero: it is a device"),
        (("test", "plans", "--url", "nonsense"), {}, "--url or CONCLAVE_URL: 'nonsense' is no URL"),
    ],
)
async def test_wrong_use_is_one_line_that_names_what_is_wrong(
    file: Path, arguments: tuple[str, ...], environment: dict[str, str], told: str
) -> None:
    ended = await conclave("webhooks", *arguments, **environment)
    assert ended.code == 2
    assert told in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_a_stack_does_not_come_up_with_a_webhook_that_has_no_secret(file: Path) -> None:
    """Nothing is started."""
    ended = await conclave("up", "--detach", "--simulate", TEST_PLANS_SECRET="")
    assert (ended.code, ended.out) == (2, "")
    assert "webhook 'plans': secrets: variable TEST_PLANS_SECRET is not set" in ended.err
    assert not (file.parent / "home" / "supervisord.pid").exists()


async def test_a_gateway_that_is_not_there_is_told(file: Path) -> None:
    ended = await conclave("webhooks", "test", "plans", "--url", "http://127.0.0.1:9")
    assert (ended.code, "does not answer" in ended.err) == (6, True)
