"""What the command line and the stack import, which start fast. import-linter cannot tell: it counts lazy imports."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = frozenset({"prefect", "prefect_ray", "ray", "pandas"})
CLIENTS = frozenset({"aiohttp", "grpc", "nats"})


MODULES = {
    "deployments.cli": HEAVY | CLIENTS,
    "deployments.client": HEAVY | {"grpc", "nats"},
    "deployments.gateway": HEAVY | {"grpc"},
    "deployments.gateway.app": HEAVY | {"grpc"},
    "deployments.gateway.handlers": HEAVY | {"grpc"},
    "deployments.settings": HEAVY | CLIENTS,
    "deployments.stack": HEAVY | CLIENTS,
}
"""What they may not import, neither a module nor, of a package, any module in it."""
ONCE_IT_RUNS = frozenset({"deployments.cli.batch_run"})
"""Modules in them that are imported when their verb is at work, and not before: pandas sums up what a batch wrote."""
COMMANDS = {
    "help": (["--help"], ""),
    "a verb's help": (["deliberate", "--help"], ""),
    "help of what reads files": (["batch", "--help"], ""),
    "verbs": ([], "conclave de"),
    "councils": ([], "conclave deliberate --council d"),
    "parts": ([], "conclave logs p"),
}
"""Arguments, or a line that the shell completes."""


def imported(code: str, **variables: str) -> set[str]:
    """The top-level modules that a fresh process has loaded at the end of this code."""
    told = "import atexit, json, sys; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))"
    done = subprocess.run(
        [sys.executable, "-c", f"{told}\n{code}"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


def and_inside(module: str) -> list[str]:
    """A module and, if it is a package, the modules in it."""
    folder = ROOT.joinpath(*module.split("."))
    inside = {f"{module}.{one.name}" for one in pkgutil.iter_modules([str(folder)])}
    return [module, *sorted(inside - ONCE_IT_RUNS)]


@pytest.mark.parametrize("module", MODULES)
def test_importing_a_module_imports_nothing_heavy(module: str) -> None:
    assert imported(f"import {', '.join(and_inside(module))}") & MODULES[module] == set()


def test_the_client_for_code_that_waits_needs_the_standard_library() -> None:
    found = imported("from deployments.client import Client, GatewayError\nClient('http://127.0.0.1:1')")
    assert found & (HEAVY | CLIENTS | {"requests", "httpx"}) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_completion_import_nothing_heavy(command: str, tmp_path: Path) -> None:
    arguments, line = COMMANDS[command]
    completing = {
        "_CONCLAVE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    code = f"sys.argv = {['conclave', *arguments]!r}\nfrom deployments.cli import main\nmain()"
    found = imported(code, CONCLAVE_HOME=str(tmp_path), **(completing if line else {}))
    assert "typer" in found
    assert found & (HEAVY | CLIENTS) == set()
