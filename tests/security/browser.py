"""Headless Chromium, driven over the WebDriver protocol by the standard library alone."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployments.stack.ports import free_port

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE_S = 90.0
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,800",
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
)
"""With a name that somebody has pointed at this machine."""


class Browser:
    """One browser with a profile of its own."""

    def __init__(self, driver: str, session: str) -> None:
        self._root = f"{driver}/session/{session}"

    def open(self, url: str) -> None:
        """Go to a page."""
        self._call("POST", "/url", url=url)

    @property
    def url(self) -> str:
        """Where it is now."""
        return str(self._call("GET", "/url"))

    @property
    def text(self) -> str:
        """What the page says."""
        return str(self.run("return document.body ? document.body.innerText : ''"))

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns; of a promise what it comes to."""
        return self._call("POST", "/execute/sync", script=script, args=list(arguments))

    def fill(self, selector: str, text: str) -> None:
        """Type into a field, and Enter."""
        found = self._call("POST", "/element", using="css selector", value=selector)
        self._call("POST", f"/element/{found[_ELEMENT]}/value", text=f"{text}\ue007")

    def shoot(self, file: Path) -> None:
        """A picture of the page."""
        file.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def until(self, found: Callable[[], bool]) -> None:
        """Wait until it is so; fails with what the page says then."""
        deadline = time.monotonic() + PATIENCE_S
        while not found():
            assert time.monotonic() < deadline, f"{self.url}: {self.text}"
            time.sleep(0.2)

    def _call(self, method: str, path: str, **body: Any) -> Any:
        return call(method, f"{self._root}{path}", body if method == "POST" else None)


def call(method: str, url: str, body: Any = None) -> Any:
    """One command to the driver."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, method=method, data=data, headers={"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=PATIENCE_S) as answer:
            return json.loads(answer.read())["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error


@contextmanager
def chromium() -> Generator[Browser, None, None]:
    """A browser, ended with its driver."""
    port = free_port(9515)
    root = f"http://127.0.0.1:{port}"
    quiet = subprocess.DEVNULL
    driver = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=quiet, stderr=quiet)
    with tempfile.TemporaryDirectory(prefix="conclave-browser-", ignore_cleanup_errors=True) as profile:
        try:
            options = {"binary": CHROMIUM, "args": [*_OPTIONS, f"--user-data-dir={profile}"]}
            wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
            session = _first_answer(lambda: call("POST", f"{root}/session", wanted))["sessionId"]
            try:
                yield Browser(root, session)
            finally:
                call("DELETE", f"{root}/session/{session}")
        finally:
            driver.terminate()
            driver.wait(30)


def _first_answer(ask: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
