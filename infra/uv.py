"""uv: fetched by pip, by version and hash, and run with the package indexes that pip is configured with."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

LOCK = Path(__file__).with_name("uv.lock.txt")
FOLDER = Path(sys.prefix) / "uv"
"""In the environment, but none of its packages."""
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
SECTIONS = ("global", "install", ":env:")
"""Of pip's configuration, as far as they are about `pip install`; later ones go first."""
VARIABLES = {
    "index-url": "UV_INDEX_URL",
    "extra-index-url": "UV_EXTRA_INDEX_URL",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "retries": "UV_HTTP_RETRIES",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}
"""What uv calls what pip's configuration has."""
YES = ("1", "true", "yes", "on", "y", "t")
"""What pip takes for a yes."""
SEPARATORS = {"UV_FIND_LINKS": ","}
"""Between the values of a variable that may have several; a space, if not here."""
PIPS_CHOICE = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
"""pip looks into all indexes for a version; uv by itself takes the first index that has the package at all."""


KEPT = ("UV_CACHE_DIR", "UV_HTTP_TIMEOUT", "UV_OFFLINE")
"""Variables of uv's own that it gets from whoever calls: they change nothing of what is installed."""


class UvMissing(Exception):
    """There is no uv for this machine, or no index that we may ask has it; the text is pip's."""


def uv(*arguments: str) -> int:
    """The exit status of uv, which is fetched if it is not there yet. Raises UvMissing."""
    settings = pip_settings(_asked("config", "list"))
    no_index = ["--no-index"] if settings.get("no-index", "").lower() in YES else []
    # What else uv reads may change what a lock stands for: uv.toml of any folder above, UV_OVERRIDE, and more.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("UV_") or name in KEPT}
    command: list[str] = [str(_program()), "--no-config", *arguments, *no_index]
    return subprocess.run(command, env=as_uv(settings) | environ, check=False).returncode


def pip_settings(told: str) -> dict[str, str]:
    """The settings of `pip install`, from what `pip config list` tells."""
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in told.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in found:
            found[section][name] = str(ast.literal_eval(value))
    return found["global"] | found["install"] | found[":env:"]


def as_uv(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that tell uv the same."""
    variables = dict(PIPS_CHOICE)
    for name, variable in VARIABLES.items():
        if name in settings:
            variables[variable] = SEPARATORS.get(variable, " ").join(settings[name].split())
    return variables


def _program() -> Path:
    program = FOLDER / "bin" / "uv"
    if not program.exists():
        wheel = ("--require-hashes", "--no-deps", "--only-binary", ":all:")
        _asked("install", "-qq", *wheel, "--target", str(FOLDER), "-r", str(LOCK))
    return program


def _asked(*arguments: str) -> str:
    """What pip says. Raises UvMissing where it fails."""
    done = subprocess.run([*PIP, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise UvMissing(told[-1].removeprefix("ERROR: ") if told else f"pip ended with {done.returncode}")
    return done.stdout
