"""The set-up's installer: uv with the indexes that pip has, and pip where uv cannot."""

from __future__ import annotations

import hashlib
import os
import subprocess
import uuid
import venv
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from infra.uv import as_uv, pip_settings

pytestmark = pytest.mark.servers  # programs of its own

ROOT = Path(__file__).parents[2]
STUB = """#!/bin/sh
printf '%s\\n' "$@" > "$TOLD/arguments"
env > "$TOLD/environment"
echo "words of uv" >&2
exit $CODE
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_settings_of_pip_install_go_by_section_and_those_of_other_commands_do_not_count() -> None:
    told = """\
:env:.index-url='https://env/simple'
download.index-url='https://download/simple'
global.find-links='\\n/one\\n/two'
global.index-url='https://global/simple'
install.find-links='/three'
install.index-url='https://install/simple'
"""
    assert pip_settings(told) == {"index-url": "https://env/simple", "find-links": "/three"}
    assert pip_settings("global.find-links='\\n/one\\n/two'") == {"find-links": "\n/one\n/two"}


@pytest.mark.parametrize(
    ("name", "value", "variable", "expected"),
    [
        ("index-url", "https://me:secret@mirror/simple", "UV_INDEX_URL", "https://me:secret@mirror/simple"),
        ("extra-index-url", "\nfile:///a\nhttps://b", "UV_EXTRA_INDEX_URL", "file:///a https://b"),
        ("find-links", "/wheels /more", "UV_FIND_LINKS", "/wheels,/more"),
        ("trusted-host", "mirror other:8080", "UV_INSECURE_HOST", "mirror other:8080"),
        ("cert", "/etc/ca.crt", "SSL_CERT_FILE", "/etc/ca.crt"),
        ("proxy", "http://proxy:3128", "ALL_PROXY", "http://proxy:3128"),
        ("default-timeout", "180", "UV_HTTP_TIMEOUT", "180"),
    ],
)
def test_uv_is_told_what_pip_is_told(name: str, value: str, variable: str, expected: str) -> None:
    assert as_uv({name: value, "constraint": "/some"}) == {
        variable: expected,
        "UV_INDEX_STRATEGY": "unsafe-best-match",  # pip's: the best of all indexes
    }


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with pip and nothing else."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=True)
    return folder


@pytest.fixture
def thing() -> str:
    """The name of a package that no other test has."""
    return f"thing{uuid.uuid4().hex[:8]}"


@pytest.fixture
def lock(tmp_path: Path, thing: str) -> Path:
    """A lock of one package, whose wheel lies beside it."""
    wheel, info = tmp_path / "wheels" / f"{thing}-1.0-py3-none-any.whl", f"{thing}-1.0.dist-info"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{thing}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {thing}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    found = tmp_path / "things.lock"
    found.write_text(f"{thing}==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    return found


@pytest.fixture
def install(environment: Path, lock: Path, tmp_path: Path) -> Run:
    """Install the lock where pip may look nowhere but beside it: no index has uv."""

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(lock.parent / "wheels")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        return subprocess.run(
            [environment / "bin" / "python", "-m", "infra.install", str(lock)],
            env={**kept, **pip, "TOLD": str(tmp_path), **variables},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def uv(environment: Path) -> Generator[Path, None, None]:
    """A uv that only writes down what it is told, and ends with $CODE."""
    program = environment / "uv" / "bin" / "uv"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(STUB)
    program.chmod(0o755)
    yield program
    program.unlink()


def is_installed(environment: Path, name: str) -> bool:
    """Whether the environment can import it."""
    return subprocess.run([environment / "bin" / "python", "-c", f"import {name}"], check=False).returncode == 0


def test_without_uv_pip_installs_and_one_line_says_why(environment: Path, install: Run, thing: str) -> None:
    done = install()
    assert done.returncode == 0, done.stderr
    assert is_installed(environment, thing)
    assert len(done.stderr.splitlines()) == 1
    for part in ("uv cannot install", "so pip does", "No matching distribution found for uv=="):
        assert part in done.stderr


def test_where_uv_fails_pip_installs_and_its_words_are_shown(
    environment: Path, uv: Path, install: Run, thing: str
) -> None:
    done = install(CODE="2")
    assert done.returncode == 0, done.stderr
    assert is_installed(environment, thing)
    assert done.stderr.startswith("words of uv\n")
    assert "so pip does" in done.stderr


def test_what_neither_can_install_is_an_error(environment: Path, install: Run, lock: Path, thing: str) -> None:
    lock.write_text(f"{thing}==1.0 --hash=sha256:{'0' * 64}\n")
    done = install()
    assert done.returncode != 0
    assert "HASH" in done.stderr
    assert not is_installed(environment, thing)


def test_uv_gets_this_python_the_whole_lock_and_pips_indexes(
    environment: Path, uv: Path, install: Run, lock: Path, tmp_path: Path
) -> None:
    asked = {"PIP_EXTRA_INDEX_URL": "file:///a file:///b", "UV_HTTP_TIMEOUT": "7", "PIP_TIMEOUT": "9"}
    done = install(CODE="0", UV_OVERRIDE="other.txt", **asked)
    assert (done.returncode, done.stderr) == (0, "words of uv\n")
    arguments = (tmp_path / "arguments").read_text().splitlines()
    told = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
    assert arguments[:3] == ["--no-config", "pip", "install"]  # no uv.toml of a folder above
    assert {"--require-hashes", "--no-deps", "--compile-bytecode", "--no-index", str(lock)} <= set(arguments)
    assert arguments[arguments.index("--python") + 1] == str(environment / "bin" / "python")
    assert (told["UV_EXTRA_INDEX_URL"], told["UV_FIND_LINKS"]) == ("file:///a file:///b", str(lock.parent / "wheels"))
    assert "UV_OVERRIDE" not in told  # it would change what the lock says
    assert told["UV_HTTP_TIMEOUT"] == "7"  # what is said to uv itself
