"""The doors of a stack as another user of the machine finds them, and as a page in the user's browser does.

Both get what says that a server lives, and static pages; what the user's own page gets is the proof that the others
could have got it.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

from deployments.settings import Settings
from deployments.stack import authorization, environment, status
from deployments.stack.exceptions import NoAnswerError
from deployments.stack.models import NEEDED, PartRecord, StackRecord
from deployments.stack.parts import GATEWAY, ask_part, recall
from deployments.stack.paths import StackPaths, write_private
from deployments.stack.processes import family
from tests.security.browser import CHROMIUM, DRIVER, Browser, chromium

ROOT = Path(__file__).parents[2]
NO_BROWSER = "there is no Chromium with its driver: apt-get install chromium chromium-driver"
UNAUTHORIZED = 401
pytestmark = pytest.mark.timeout(600)


@pytest_asyncio.fixture
async def api(connected: Any, stack: Any) -> AsyncGenerator[aiohttp.ClientSession, None]:
    """Prefect's API, with the key."""
    async with aiohttp.ClientSession(headers=authorization(stack, "prefect")) as session:
        yield session


async def deployment(api: aiohttp.ClientSession, stack: Any) -> dict[str, Any]:
    """The deployment that others would like to run."""
    async with api.get(f"{stack.prefect}/deployments/name/evaluate/evaluate") as answer:
        found: dict[str, Any] = await answer.json()
    return found


# --- another user of the machine ------------------------------------------------------------------


async def as_nobody(at: dict[str, Any]) -> dict[str, Any]:
    """What the stranger gets, in a process of another user."""
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    nobody = pwd.getpwnam("nobody")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("stranger.py")), str(nobody.pw_uid), str(nobody.pw_gid)]
    done = await asyncio.to_thread(
        subprocess.run, command, input=json.dumps(at), capture_output=True, text=True, env=environ, cwd="/", timeout=300
    )
    assert done.returncode == 0, done.stderr
    got: dict[str, Any] = json.loads(done.stdout)
    assert got["uid"] == nobody.pw_uid
    return got


async def test_another_user_gets_nothing_but_liveness(api: aiohttp.ClientSession, stack: Any) -> None:
    """No run, no block, no pause, no NATS, no model, no key, no environment of a process, no supervisor."""
    paths, port = StackPaths.of(stack.home), urlsplit(stack.nats).port
    paths.home.parent.chmod(0o711)  # so that the home has to hold by itself
    files = [*map(str, paths.home.rglob("*")), *(f"{paths.ray_sessions}/{name}" for name in ("", "session_latest"))]
    at = {
        "prefect": stack.prefect,
        "llm": stack.llm,
        "ray": stack.ray,
        "nats": [stack.nats, *(f"nats://{user}@127.0.0.1:{port}" for user in ("conclave:x", "events:x", "events"))],
        "deployment": (await deployment(api, stack))["id"],
        "files": files,
        "sockets": [str(paths.socket)],
        "pids": [process.pid for process in family(paths.home).everyone],
    }
    got = await as_nobody(at)

    assert set(got["open"].values()) == {200}
    for how in ("without a key", "with a wrong key"):
        assert got[how] == dict.fromkeys(got[how], UNAUTHORIZED)
    assert got["files"] == dict.fromkeys(files, "PermissionError")
    assert got["sockets"] == dict.fromkeys(at["sockets"], "PermissionError")
    assert set(got["environments"].values()) <= {"PermissionError", "FileNotFoundError"}
    assert [told for told in got["nats"] if "uthorization" not in told] == []
    assert "InvalidAuthToken" in got["ray"]
    assert got["events"] in ("auth_failure", "closed")
    assert (await deployment(api, stack))["paused"] is False


LISTEN = """
import os, socket, sys
os.setgroups([])
os.setuid(int(sys.argv[1]))
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    server.accept()
    print("asked", flush=True)
"""


def test_another_user_who_took_the_port_of_a_killed_part_is_not_asked(tmp_path: Path) -> None:
    """Nobody connects to it: no probe of `up`, and no command, which get no address and no key to go there with."""
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    command = [sys.executable, "-c", LISTEN, str(pwd.getpwnam("nobody").pw_uid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdout is not None
        settings = Settings(home=tmp_path)
        paths = StackPaths.of(tmp_path)
        paths.create()
        url = f"http://127.0.0.1:{int(stranger.stdout.readline())}/api"
        record = StackRecord(parts={name: PartRecord(url=url) for name in (*NEEDED, GATEWAY)})
        write_private(paths.record, record.model_dump_json())
        for name, part in record.parts.items():
            with pytest.raises(NoAnswerError, match="another user"):
                ask_part(recall(name, part), settings)
        with pytest.raises(NoAnswerError, match="another user"):
            environment(status(settings, ask=False))
        environ = {**os.environ, "CONCLAVE_HOME": str(tmp_path)}
        for name in ("PREFECT_API_URL", "NATS_URL", "RAY_ADDRESS", "VLLM_URL", "CONCLAVE_URL", "CONCLAVE_TOKEN"):
            environ.pop(name, None)
        of_a_shell = {"CONCLAVE_URL": url.removesuffix("/api"), "CONCLAVE_TOKEN": paths.token.read_text()}
        command = [str(Path(sys.executable).with_name("conclave")), "result", "x"]
        ended = [
            subprocess.run(command, env=environ | more, capture_output=True, text=True, cwd=ROOT, timeout=60)
            for more in ({}, of_a_shell)  # what `conclave env` said may be older than the stranger
        ]
        stranger.terminate()
        assert stranger.stdout.read() == ""
        for told in ended:
            assert (told.returncode, told.stdout) == (6, "")
            assert "another user" in told.stderr


# --- a page in the user's browser -----------------------------------------------------------------

TRY = """
const [api, key, deployment] = arguments;
const tries = {
  health: [`${api}/health`, {}],
  secrets: [`${api}/block_documents/filter`, {method: 'POST', body: '{"include_secrets": true}',
            headers: {'Content-Type': 'application/json'}}],
  plain: [`${api}/block_documents/filter`, {method: 'POST', body: '{"include_secrets": true}'}],
  pause: [`${api}/deployments/${deployment}/pause_deployment`, {method: 'POST', mode: 'no-cors'}],
  key: [`${api}/block_documents/filter`, {method: 'POST', body: '{"include_secrets": true}',
        headers: {'Content-Type': 'application/json', Authorization: key}}],
};
const got = Object.entries(tries).map(async ([name, [url, options]]) => {
  try {
    const answer = await fetch(url, {credentials: 'include', ...options});
    return [name, answer.type === 'opaque' ? 'opaque' : answer.status];
  } catch (error) {
    return [name, 'refused'];
  }
});
return Promise.all(got).then(Object.fromEntries);
"""
"""What a page tries: as it can, and as if it knew the key."""


@pytest.fixture(scope="module")
def browser() -> Generator[Browser, None, None]:
    """One browser for all of these."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(NO_BROWSER)
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page() -> Generator[int, None, None]:
    """The port of a server with a page of somebody else's."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>theirs</title><p>theirs")

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def log_in(browser: Browser, stack: Any) -> None:
    """As a user does, once, at the name that is not the interface's own."""
    port = urlsplit(stack.prefect).port
    browser.open(f"http://localhost:{port}/")
    browser.until(lambda: "Login" in browser.text or "Runs" in browser.text)
    if "/login" in browser.url:
        browser.fill("input", environment(stack)["PREFECT_API_AUTH_STRING"])
    browser.until(lambda: "Flow Runs" in browser.text)


@pytest.mark.parametrize("page_of", ["", "runs", "v2/runs", "v2/dashboard", "deployments"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_after_one_login_both_interfaces_work(
    api: aiohttp.ClientSession, browser: Browser, stack: Any, host: str, page_of: str, tmp_path: Path
) -> None:
    """At both names; no call is refused, and the pages show what the API holds."""
    await asyncio.to_thread(log_in, browser, stack)
    port = urlsplit(stack.prefect).port

    def shown() -> str:
        browser.open(f"http://{host}:{port}/{page_of}")
        browser.until(lambda: "Work Pools" in browser.text and "/login" not in browser.url)
        if page_of == "deployments":
            browser.until(lambda: "housekeeping" in browser.text)
        browser.shoot(tmp_path / "page.png")
        return browser.text

    text = await asyncio.to_thread(shown)
    assert "Unauthorized" not in text
    assert "went wrong" not in text


async def test_a_page_of_another_origin_gets_nothing(
    api: aiohttp.ClientSession, browser: Browser, stack: Any, page: int
) -> None:
    """In a browser that is logged in: neither by what it may send unseen, nor if it knew the key."""
    await asyncio.to_thread(log_in, browser, stack)
    port = urlsplit(stack.prefect).port
    key, target = authorization(stack, "prefect")["Authorization"], (await deployment(api, stack))["id"]

    def tried(url: str) -> dict[str, Any]:
        browser.open(url)
        found: dict[str, Any] = browser.run(TRY, stack.prefect, key, target)
        return found

    own = await asyncio.to_thread(tried, f"http://127.0.0.1:{port}/docs")
    assert own == {"health": 200, "secrets": 401, "plain": 401, "pause": 401, "key": 200}
    for url in (f"http://127.0.0.1:{page}/", f"http://localhost:{page}/", f"http://evil.example:{page}/"):
        got = await asyncio.to_thread(tried, url)
        assert got.pop("pause") in ("opaque", "refused")
        assert got == dict.fromkeys(got, "refused"), url
    assert (await deployment(api, stack))["paused"] is False


async def test_a_name_that_is_pointed_at_this_machine_gets_nothing(browser: Browser, stack: Any) -> None:
    """Its page would be of the same origin as what it asks."""
    port = urlsplit(stack.prefect).port

    def said(path: str) -> str:
        browser.open(f"http://evil.example:{port}/{path}")
        return browser.text

    for path in ("", "v2/runs", "api/health", "api/admin/settings", "ui-settings", "docs"):
        assert await asyncio.to_thread(said, path) == "Invalid host header", path
